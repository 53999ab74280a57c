//! TLS for tcp hosts, as dockerd takes it: PEM files, and client certificates where verification
//! is asked for. Knows nothing of the certificates of nodes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// Reads the files and builds what accepts TLS connections.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("--tlscacert", file)? {
                let name = file.display();
                roots
                    .add(authority)
                    .with_context(|| format!("--tlscacert: {name}"))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates("--tlscert", &tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("--tlskey: {} holds no usable key", tls.key.display()))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .context("--tlskey: the key does not belong to --tlscert, or is of an unknown kind")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let name = file.display();
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("{flag}: cannot read certificates from {name}"))?;
    ensure!(
        !certificates.is_empty(),
        "{flag}: {name} holds no certificate"
    );
    Ok(certificates)
}
