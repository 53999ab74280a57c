//! rustls verifiers: a peer must chain to a trusted root, belong to this cluster and hold a known
//! role. Removal from the cluster is not their business (the QUIC gate's), because it changes.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::peer::unix_time;
use super::{Identity, Peer, PkiError, Role, ou};

/// The one set of algorithms, stated explicitly: no process-wide default is relied upon.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The trusted roots of an identity; several while a rotation is under way.
pub fn root_store(identity: &Identity) -> Result<Arc<RootCertStore>, PkiError> {
    store(identity.roots())
}

fn store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, PkiError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| {
            PkiError::invalid(format!(
                "the root CA certificate cannot be trusted: {error}"
            ))
        })?;
    }
    Ok(Arc::new(store))
}

/// The roots in a PEM text, to verify others than nodes by.
pub fn roots_in(pem: &str) -> Result<Arc<RootCertStore>, PkiError> {
    store(&super::pem::certificates(pem, "root CA certificate")?)
}

/// What the subject of a peer's certificate must say.
#[derive(Debug)]
struct Subject {
    cluster_id: String,
    role: Option<Role>,
}

impl Subject {
    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = Peer::from_der(leaf).map_err(refuse)?;
        if peer.cluster_id != self.cluster_id {
            return Err(refuse(PkiError::invalid(format!(
                "the certificate is of the cluster {}, not of {}",
                peer.cluster_id, self.cluster_id
            ))));
        }
        match self.role {
            Some(role) if role != peer.role => Err(refuse(PkiError::invalid(format!(
                "the certificate of node {} is a {} certificate, not a {} one",
                peer.node_id,
                ou(peer.role),
                ou(role)
            )))),
            _ => Ok(()),
        }
    }
}

fn refuse(error: PkiError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// QUIC has TLS 1.3 only; a TLS 1.2 signature in it is an attack or a bug.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

/// Checks the certificate of a server that we dial as a member of the cluster.
#[derive(Debug)]
pub struct ServerVerifier {
    roots: Arc<RootCertStore>,
    subject: Subject,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// `role`: what the server must be; `None` for any node.
    pub fn new(identity: &Identity, role: Option<Role>) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self {
            roots: root_store(identity)?,
            subject: Subject {
                cluster_id: identity.cluster_id.clone(),
                role,
            },
            algorithms: provider().signature_verification_algorithms,
        }))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        chain(leaf, &self.roots, intermediates, now, &self.algorithms)?;
        self.subject.check(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn chain(
    leaf: &CertificateDer<'_>,
    roots: &RootCertStore,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
}

/// Checks the certificates of clients. A client without any may connect; the gate decides which
/// service is open to it.
#[derive(Debug)]
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    subject: Subject,
}

impl ClientVerifier {
    /// The verifier of a server with this identity.
    pub fn new(identity: &Identity) -> Result<Arc<Self>, PkiError> {
        let chain = WebPkiClientVerifier::builder_with_provider(root_store(identity)?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::invalid(error.to_string()))?;
        let subject = Subject {
            cluster_id: identity.cluster_id.clone(),
            role: None,
        };
        Ok(Arc::new(Self { chain, subject }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    // No hints: a client of ours has one certificate and shall always present it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        self.subject.check(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// For a joiner, which knows nothing but a token: accepts any server that holds the key of the
/// certificate it shows. Worth nothing until [`check_joined`] has been passed, and so nothing may
/// be sent over such a connection before.
#[derive(Debug)]
pub struct UnprovenVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl UnprovenVerifier {
    /// The verifier of a joiner.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            algorithms: provider().signature_verification_algorithms,
        })
    }
}

impl ServerCertVerifier for UnprovenVerifier {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The second half of a joiner's check: the chain that the server showed in the handshake must
/// lead to `root_pem` (whose digest the token vouches for) and name a manager.
pub fn check_joined(
    root_pem: &str,
    shown: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Peer, PkiError> {
    let leaf = shown
        .first()
        .ok_or_else(|| PkiError::invalid("the manager showed no certificate"))?;
    check_chain(root_pem, shown, now)?;
    let peer = Peer::from_der(leaf)?;
    if peer.role != Role::Manager {
        return Err(PkiError::invalid(format!(
            "node {} is not a manager",
            peer.node_id
        )));
    }
    Ok(peer)
}

/// Whether peers that trust the identity's roots accept its certificate at this time.
pub fn check_own(identity: &Identity, now: SystemTime) -> Result<(), PkiError> {
    let (leaf, intermediates) = identity
        .chain()
        .split_first()
        .ok_or_else(|| PkiError::invalid("there is no certificate"))?;
    let now = unix_time(now);
    let algorithms = provider().signature_verification_algorithms;
    let roots = root_store(identity)?;
    chain(leaf, &roots, intermediates, now, &algorithms)
        .map_err(|error| PkiError::invalid(format!("the certificate is not valid: {error}")))
}

/// Whether a chain, leaf first, leads to one of the roots at a time. Says nothing of its subject.
///
/// # Errors
/// That it does not, and why.
pub fn check_chain(
    roots_pem: &str,
    chain: &[CertificateDer<'_>],
    at: UnixTime,
) -> Result<(), PkiError> {
    let roots = roots_in(roots_pem)?;
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or_else(|| PkiError::invalid("there is no certificate"))?;
    let algorithms = provider().signature_verification_algorithms;
    self::chain(leaf, &roots, intermediates, at, &algorithms).map_err(|error| {
        PkiError::invalid(format!("the certificate is not of this cluster: {error}"))
    })
}
