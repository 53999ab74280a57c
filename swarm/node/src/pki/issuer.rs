//! Who issued a node's certificate, as its chain and its roots tell. Trusts nothing by itself: an
//! issuer counts only if its key has signed the leaf.

use skep_api::cluster::TlsInfo;
use x509_parser::prelude::X509Certificate;

use super::{Identity, PkiError, pem};

impl Identity {
    /// What Docker's API shows as the node's `TLSInfo`: the roots it trusts and the issuer of its
    /// certificate, during a rotation the cross-signed one. An issuer that is unknown is empty.
    pub fn tls_info(&self) -> TlsInfo {
        let (subject, key) = self.issuer().unwrap_or_default();
        TlsInfo {
            trust_root: self.root_pem.clone(),
            cert_issuer_subject: subject.into(),
            cert_issuer_public_key: key.into(),
        }
    }

    /// Whether the root in `root_pem` issued this certificate: by its name and its key, since a
    /// cross-signed certificate has the same ones.
    pub fn issued_by(&self, root_pem: &str) -> bool {
        let Ok(roots) = pem::certificates(root_pem, "root CA certificate") else {
            return false;
        };
        let root = roots.first().and_then(|root| name_and_key(root));
        root.is_some() && root == self.issuer()
    }

    /// The same certificate with other roots to trust: what remains to be done when a rotation ends.
    ///
    /// # Errors
    /// Roots that cannot be read.
    pub fn with_roots(&self, roots_pem: &str) -> Result<Identity, PkiError> {
        Identity::new(roots_pem, &self.cert_pem, self.key_pem.clone())
    }

    /// DER of the issuer's subject and of its public key.
    fn issuer(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (leaf, intermediates) = self.chain().split_first()?;
        let leaf = pem::x509(leaf, "node certificate").ok()?;
        let mut candidates = intermediates.iter().chain(self.roots());
        candidates.find_map(|candidate| {
            let issuer = pem::x509(candidate, "issuer's certificate").ok()?;
            signed(&leaf, &issuer).then(|| raw(&issuer))
        })
    }
}

fn name_and_key(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let cert = pem::x509(der, "certificate").ok()?;
    Some(raw(&cert))
}

fn raw(cert: &X509Certificate<'_>) -> (Vec<u8>, Vec<u8>) {
    (
        cert.subject().as_raw().to_vec(),
        cert.public_key().raw.to_vec(),
    )
}

/// Whether one certificate was signed with the key of another.
pub(super) fn signed(cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    cert.issuer().as_raw() == issuer.subject().as_raw()
        && cert.verify_signature(Some(issuer.public_key())).is_ok()
}
