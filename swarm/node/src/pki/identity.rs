//! A node's own certificate, key and trusted root, and the three files that hold them.
//! Never asks anybody for a certificate; that is the CA service's client.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::peer::system_time;
use super::{Peer, PkiError, Role, Secret, pem};
use crate::disk::{self, DataDir};

/// The root bundle, below DATA_DIR/certificates.
const ROOT_FILE: &str = "swarm-root-ca.crt";
/// The leaf and its intermediates.
const CERT_FILE: &str = "swarm-node.crt";
/// PKCS#8 of the leaf's key, sealed with the node's data key, mode 0600.
const KEY_FILE: &str = "swarm-node.key";
/// What the sealed key is bound to.
const KEY_LABEL: &[u8] = b"swarm-node.key";
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

    /// Reads the identity in DATA_DIR/certificates; `None` if there is none at all. A key that an
    /// older layout has left legible is sealed.
    ///
    /// # Errors
    /// Files that are missing, damaged or do not belong together; keys that are locked.
    pub fn load(data: &DataDir) -> Result<Option<Identity>, PkiError> {
        let dir = &data.certificates();
        let Some(cert) = text(&dir.join(CERT_FILE))? else {
            return Ok(None);
        };
        let root = text(&dir.join(ROOT_FILE))?.ok_or_else(|| missing(&dir.join(ROOT_FILE)))?;
        // A crash between the certificate and its key leaves the right key under the other name.
        let next = dir.join(NEXT_KEY_FILE);
        // Half of a pair that never came to be may be anything.
        if let Ok(Some((key, _))) = node_key(data, &next)
            && let Ok(identity) = Identity::new(&root, &cert, key)
        {
            disk::rename(&next, &dir.join(KEY_FILE)).map_err(|e| io(&next, e))?;
            return Ok(Some(identity));
        }
        let path = dir.join(KEY_FILE);
        let (key, sealed) = node_key(data, &path)?.ok_or_else(|| missing(&path))?;
        let identity = Identity::new(&root, &cert, key)
            .map_err(|error| PkiError::invalid(format!("{}: {error}", dir.display())))?;
        if !sealed {
            identity.save(data)?;
        }
        Ok(Some(identity))
    }

    /// Writes the identity into DATA_DIR/certificates; a crash at any moment leaves the old one or
    /// the new one.
    ///
    /// # Errors
    /// What the disk refuses; keys that are locked.
    pub fn save(&self, data: &DataDir) -> Result<(), PkiError> {
        let dir = &data.certificates();
        disk::create_private_dir(dir).map_err(|e| io(dir, e))?;
        let write = |name: &str, content: &[u8], mode| {
            let path = dir.join(name);
            disk::write_atomic(&path, content, mode).map_err(|e| io(&path, e))
        };
        let key = self.key_pem.as_bytes().to_vec();
        let key = data.keys()?.seal(KEY_LABEL, key).map_err(|e| io(dir, e))?;
        write(NEXT_KEY_FILE, &key, 0o600)?;
        write(ROOT_FILE, self.root_pem.as_bytes(), 0o644)?;
        write(CERT_FILE, self.cert_pem.as_bytes(), 0o644)?;
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

fn read(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(path, error)),
    }
}

fn text(path: &Path) -> Result<Option<String>, PkiError> {
    let decode = |bytes| String::from_utf8(bytes).map_err(|_| not_pem(path));
    read(path)?.map(decode).transpose()
}

/// The private key in a file, and whether it was sealed.
fn node_key(data: &DataDir, path: &Path) -> Result<Option<(Secret, bool)>, PkiError> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let sealed = disk::is_sealed(&bytes);
    let plain = match sealed {
        true => data.keys()?.open(KEY_LABEL, &bytes).ok_or_else(|| {
            PkiError::invalid(format!(
                "{}: damaged, or sealed with the keys of another node",
                path.display()
            ))
        })?,
        false => bytes,
    };
    let key = String::from_utf8(plain).map_err(|_| not_pem(path))?;
    Ok(Some((Secret(key), sealed)))
}

fn missing(path: &Path) -> PkiError {
    io(path, std::io::ErrorKind::NotFound.into())
}

fn not_pem(path: &Path) -> PkiError {
    PkiError::invalid(format!("{}: not a PEM file", path.display()))
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
        let data = DataDir::open(temp.path()).unwrap();
        let dir = data.certificates();
        assert!(Identity::load(&data).unwrap().is_none());
        for role in [Role::Worker, Role::Manager] {
            make(role).save(&data).unwrap();
            let loaded = Identity::load(&data).unwrap().unwrap();
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
        let data = DataDir::open(temp.path()).unwrap();
        let (old, new) = (make(Role::Worker), make(Role::Worker));
        // After the first step of a save: the old pair still rules.
        old.save(&data).unwrap();
        let next = data.certificates().join(NEXT_KEY_FILE);
        let sealed = data.keys().unwrap();
        let sealed = sealed.seal(KEY_LABEL, new.key_pem.as_bytes().to_vec());
        std::fs::write(&next, sealed.unwrap()).unwrap();
        let loaded = Identity::load(&data).unwrap().unwrap();
        assert_eq!(loaded.cert_pem, old.cert_pem);
        // After the certificate, before the last rename: the new pair rules.
        std::fs::write(data.certificates().join(CERT_FILE), &new.cert_pem).unwrap();
        let loaded = Identity::load(&data).unwrap().unwrap();
        assert_eq!(loaded.cert_pem, new.cert_pem);
        assert!(!next.exists());
    }

    #[test]
    fn damage_is_reported_with_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let dir = data.certificates();
        make(Role::Worker).save(&data).unwrap();
        let sealed = std::fs::read(dir.join(KEY_FILE)).unwrap();
        for (key, expected) in [
            (
                make(Role::Worker).key_pem.as_bytes(),
                "does not belong to its certificate",
            ),
            (&sealed[..sealed.len() - 1], "damaged, or sealed"),
            (&[0xff], "not a PEM file"),
        ] {
            std::fs::write(dir.join(KEY_FILE), key).unwrap();
            let error = Identity::load(&data).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("certificates"), "{error}");
        }
        std::fs::remove_file(dir.join(ROOT_FILE)).unwrap();
        let error = Identity::load(&data).unwrap_err().to_string();
        assert!(error.contains("swarm-root-ca.crt"), "{error}");
        let text = format!("{:?}", make(Role::Manager));
        assert!(!text.contains("PRIVATE"), "{text}");
    }

    #[test]
    fn a_legible_key_is_sealed() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let identity = make(Role::Manager);
        identity.save(&data).unwrap();
        let path = data.certificates().join(KEY_FILE);
        let sealed = || disk::is_sealed(&std::fs::read(&path).unwrap());
        assert!(sealed());
        std::fs::write(&path, &*identity.key_pem).unwrap();
        assert!(!sealed());
        for _ in 0..2 {
            let loaded = Identity::load(&data).unwrap().unwrap();
            assert_eq!(loaded.key_pem, identity.key_pem);
            assert!(sealed());
        }
    }
}
