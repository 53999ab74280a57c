//! How a node whose certificate has expired proves who it was: with the old chain, and a signature
//! of the old key over the request for the new one. Decides nothing about letting it in again.

use rcgen::{KeyPair, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::peer::unix_time;
use super::{Identity, Peer, PkiError, pem, verify};

/// What is signed begins with this, so that no other signature of the key can be taken for it.
const CONTEXT: &[u8] = b"skep: a returning node asks for a certificate\0";

impl Identity {
    /// Signs a certificate request with this identity's key.
    pub fn vouch(&self, csr_pem: &str) -> Result<Vec<u8>, PkiError> {
        let key = KeyPair::from_pem(&self.key_pem)
            .map_err(|_| PkiError::invalid("the node's key cannot be read"))?;
        Ok(key.sign(&signed_text(csr_pem))?)
    }
}

/// Whose request this is. The chain must lead to `roots_pem` as of the end of the leaf's life: that
/// the leaf has expired is why it is shown, and a leaf that has not does no harm.
///
/// # Errors
/// What does not fit: another cluster's chain, another key's signature.
pub fn vouched_for(
    roots_pem: &str,
    cluster_id: &str,
    chain_pem: &str,
    csr_pem: &str,
    signature: &[u8],
) -> Result<Peer, PkiError> {
    let chain = pem::certificates(chain_pem, "old node certificate")?;
    let leaf = chain
        .first()
        .ok_or_else(|| PkiError::invalid("there is no certificate"))?;
    let peer = Peer::from_der(leaf)?;
    verify::check_chain(roots_pem, &chain, unix_time(peer.not_after))?;
    if peer.cluster_id != cluster_id {
        return Err(PkiError::invalid(
            "the old certificate is of another cluster",
        ));
    }
    let cert = pem::x509(leaf, "old node certificate")?;
    let key = &cert.public_key().subject_public_key.data;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(&signed_text(csr_pem), signature)
        .map_err(|_| {
            PkiError::invalid("the request was not signed with the old certificate's key")
        })?;
    Ok(peer)
}

fn signed_text(csr_pem: &str) -> Vec<u8> {
    [CONTEXT, csr_pem.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::pki::{KeyRequest, Leaf, Role, RootCa};

    const HOUR: Duration = Duration::from_secs(3600);

    /// An identity whose certificate expired a day ago.
    fn expired(root: &RootCa) -> Identity {
        let then = SystemTime::now() - HOUR * 48;
        let request = KeyRequest::fresh().unwrap();
        let leaf = Leaf {
            node_id: "node",
            role: Role::Worker,
            cluster_id: "cluster",
        };
        let cert = root.sign(&request.csr_pem, &leaf, HOUR * 24, then).unwrap();
        let identity = Identity::new(&root.cert_pem, &cert, request.key_pem).unwrap();
        assert!(identity.expired(SystemTime::now()));
        identity
    }

    fn root() -> RootCa {
        RootCa::create(SystemTime::now() - HOUR * 1000).unwrap()
    }

    #[test]
    fn an_expired_node_can_say_who_it_was() {
        let root = root();
        let identity = expired(&root);
        let csr = KeyRequest::fresh().unwrap().csr_pem;
        let signature = identity.vouch(&csr).unwrap();
        let of = |roots: &str, cluster: &str, csr: &str, signature: &[u8]| {
            vouched_for(roots, cluster, &identity.cert_pem, csr, signature)
        };
        let peer = of(&root.cert_pem, "cluster", &csr, &signature).unwrap();
        assert_eq!(peer.node_id, "node");
        let next = self::root().cert_pem;
        let bundle = format!("{next}{}", root.cert_pem);
        assert!(of(&bundle, "cluster", &csr, &signature).is_ok());

        let text = |result: Result<Peer, PkiError>| result.unwrap_err().to_string();
        let foreign = text(of(&next, "cluster", &csr, &signature));
        assert!(foreign.contains("not of this cluster"), "{foreign}");
        let other = text(of(&root.cert_pem, "other", &csr, &signature));
        assert_eq!(other, "the old certificate is of another cluster");
        // Somebody who has seen the certificate and the signature still lacks the key.
        let own = KeyRequest::fresh().unwrap().csr_pem;
        let stolen = "the request was not signed with the old certificate's key";
        assert_eq!(
            text(of(&root.cert_pem, "cluster", &own, &signature)),
            stolen
        );
        assert_eq!(text(of(&root.cert_pem, "cluster", &csr, b"")), stolen);
        let theirs = expired(&root).vouch(&csr).unwrap();
        assert_eq!(text(of(&root.cert_pem, "cluster", &csr, &theirs)), stolen);
    }
}
