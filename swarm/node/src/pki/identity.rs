//! A node's own certificate, key and trusted root, and the three files that hold them.
//! Never asks anybody for a certificate; that is the CA service's client.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::peer::system_time;
use super::{Peer, PkiError, Role, Secret, pem};
use crate::disk;

/// The root bundle, below DATA_DIR/certificates.
const ROOT_FILE: &str = "swarm-root-ca.crt";
/// The leaf and its intermediates.
const CERT_FILE: &str = "swarm-node.crt";
/// PKCS#8 of the leaf's key, mode 0600.
const KEY_FILE: &str = "swarm-node.key";
/// A key whose certificate is being written: the key file changes only after the certificate.
const NEXT_KEY_FILE: &str = "swarm-node.key.next";

/// Who this node is, and the means to prove it.
#[derive(Clone)]
pub struct Identity {
    /// CN of the leaf.
    pub node_id: String,
    /// OU of the leaf.
    pub role: Role,
    /// O of the leaf.
    pub cluster_id: String,
    /// The trusted root bundle, as served and as stored.
    pub root_pem: String,
    /// The leaf followed by its intermediates, as issued.
    pub cert_pem: String,
    /// The leaf's private key, PEM.
    pub key_pem: Secret,
    /// Start of the leaf's life.
    pub not_before: SystemTime,
    /// End of the leaf's life.
    pub not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .field("role", &self.role)
            .field("cluster_id", &self.cluster_id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Puts an identity together and checks that leaf and key belong to each other. Validity in
    /// time is not checked: an expired identity must be loadable, to be renewed.
    pub fn new(root_pem: &str, cert_pem: &str, key_pem: Secret) -> Result<Identity, PkiError> {
        let roots = pem::certificates(root_pem, "root CA certificate")?;
        let chain = pem::certificates(cert_pem, "node certificate")?;
        let leaf = chain
            .first()
            .ok_or_else(|| PkiError::invalid("there is no certificate"))?;
        let peer = Peer::from_der(leaf)?;
        let parsed = pem::x509(leaf, "node certificate")?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|_| PkiError::invalid("the node's key cannot be read"))?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(PkiError::invalid(
                "the node's key does not belong to its certificate",
            ));
        }
        let not_before = system_time(parsed.validity().not_before.timestamp());
        Ok(Identity {
            node_id: peer.node_id,
            role: peer.role,
            cluster_id: peer.cluster_id,
            not_before,
            not_after: peer.not_after,
            root_pem: root_pem.to_owned(),
            cert_pem: cert_pem.to_owned(),
            key_pem,
            chain,
            roots,
        })
    }

    /// The leaf and its intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The certificates of the trusted root bundle.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The leaf's private key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        pem::private_key(&self.key_pem)
    }

    /// Whether the leaf has ended.
    pub fn expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Reads the identity in `dir` (DATA_DIR/certificates); `None` if there is none at all.
    pub fn load(dir: &Path) -> Result<Option<Identity>, PkiError> {
        let Some(cert) = read(&dir.join(CERT_FILE))? else {
            return Ok(None);
        };
        let root = required(&dir.join(ROOT_FILE))?;
        // A crash between the certificate and its key leaves the right key under the other name.
        let next = dir.join(NEXT_KEY_FILE);
        if let Some(key) = read(&next)?
            && let Ok(identity) = Identity::new(&root, &cert, Secret(key))
        {
            disk::rename(&next, &dir.join(KEY_FILE)).map_err(|e| io(&next, e))?;
            return Ok(Some(identity));
        }
        let key = required(&dir.join(KEY_FILE))?;
        let identity = Identity::new(&root, &cert, Secret(key));
        identity
            .map_err(|error| PkiError::invalid(format!("{}: {error}", dir.display())))
            .map(Some)
    }

    /// Writes the identity into `dir`; a crash at any moment leaves the old one or the new one.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        disk::create_private_dir(dir).map_err(|e| io(dir, e))?;
        let write = |name: &str, text: &str, mode| {
            let path = dir.join(name);
            disk::write_atomic(&path, text.as_bytes(), mode).map_err(|e| io(&path, e))
        };
        write(NEXT_KEY_FILE, &self.key_pem, 0o600)?;
        write(ROOT_FILE, &self.root_pem, 0o644)?;
        write(CERT_FILE, &self.cert_pem, 0o644)?;
        let next = dir.join(NEXT_KEY_FILE);
        disk::rename(&next, &dir.join(KEY_FILE)).map_err(|e| io(&next, e))
    }
}

/// A fresh key and the request for its certificate.
pub struct KeyRequest {
    /// PKCS#8 PEM of the new private key, which never leaves the node.
    pub key_pem: Secret,
    /// The request, PEM.
    pub csr_pem: String,
}

impl KeyRequest {
    /// A P-256 key and its CSR with an empty subject: the CA writes the names.
    pub fn fresh() -> Result<KeyRequest, PkiError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr_pem = params.serialize_request(&key)?.pem()?;
        Ok(KeyRequest {
            key_pem: Secret(key.serialize_pem()),
            csr_pem,
        })
    }
}

fn io(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::Io {
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(path, error)),
    }
}

fn required(path: &Path) -> Result<String, PkiError> {
    read(path)?.ok_or_else(|| io(path, std::io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::pki::{Leaf, RootCa};

    fn make(role: Role) -> Identity {
        let now = SystemTime::now();
        let root = RootCa::create(now).unwrap();
        let request = KeyRequest::fresh().unwrap();
        let leaf = Leaf {
            node_id: "node",
            role,
            cluster_id: "cluster",
        };
        let cert = root
            .sign(&request.csr_pem, &leaf, Duration::from_secs(7200), now)
            .unwrap();
        Identity::new(&root.cert_pem, &cert, request.key_pem).unwrap()
    }

    #[test]
    fn saves_and_loads() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("certificates");
        assert!(Identity::load(&dir).unwrap().is_none());
        for role in [Role::Worker, Role::Manager] {
            make(role).save(&dir).unwrap();
            let loaded = Identity::load(&dir).unwrap().unwrap();
            assert_eq!((loaded.role, loaded.node_id.as_str()), (role, "node"));
            assert_eq!(loaded.cluster_id, "cluster");
            assert!(!loaded.expired(SystemTime::now()));
            assert!(loaded.expired(SystemTime::now() + Duration::from_secs(7300)));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("swarm-node.key")), 0o600);
        let mut names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"]
        );
    }

    #[test]
    fn a_crash_between_the_files_loses_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (old, new) = (make(Role::Worker), make(Role::Worker));
        // After the first step of a save: the old pair still rules.
        old.save(temp.path()).unwrap();
        let next = temp.path().join(NEXT_KEY_FILE);
        std::fs::write(&next, &*new.key_pem).unwrap();
        let loaded = Identity::load(temp.path()).unwrap().unwrap();
        assert_eq!(loaded.cert_pem, old.cert_pem);
        // After the certificate, before the last rename: the new pair rules.
        std::fs::write(temp.path().join(CERT_FILE), &new.cert_pem).unwrap();
        let loaded = Identity::load(temp.path()).unwrap().unwrap();
        assert_eq!(loaded.cert_pem, new.cert_pem);
        assert!(!next.exists());
    }

    #[test]
    fn damage_is_reported_with_the_file() {
        let temp = tempfile::tempdir().unwrap();
        make(Role::Worker).save(temp.path()).unwrap();
        std::fs::write(temp.path().join(KEY_FILE), &*make(Role::Worker).key_pem).unwrap();
        let error = Identity::load(temp.path()).unwrap_err().to_string();
        assert!(
            error.contains("does not belong to its certificate"),
            "{error}"
        );
        std::fs::remove_file(temp.path().join(ROOT_FILE)).unwrap();
        let error = Identity::load(temp.path()).unwrap_err().to_string();
        assert!(error.contains("swarm-root-ca.crt"), "{error}");
        let text = format!("{:?}", make(Role::Manager));
        assert!(!text.contains("PRIVATE"), "{text}");
    }
}
