//! Encryption at rest: seals what raft writes to disk. Knows neither what it seals nor where the
//! result is kept, and never prints a key.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::disk;

/// Seals values before they are written and opens them after they are read.
pub trait Codec: Send + Sync + 'static {
    /// Seals `plain`; `label` says what it is and where it belongs, and is needed to open it again.
    ///
    /// # Errors
    /// Only if the system has no randomness.
    fn seal(&self, label: &[u8], plain: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Opens a sealed value; `None` if it is damaged, belongs elsewhere or has another key.
    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// Bytes of the data key.
const KEY_LEN: usize = 32;
/// First byte of every sealed value.
const VERSION: u8 = 1;

/// ChaCha20-Poly1305 under one data key, with a random nonce a value.
pub struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(<secret>)")
    }
}

impl Sealer {
    /// The sealer of a directory: reads the data key from `key`, or makes one if `fresh` says that
    /// there is nothing yet that another key has sealed.
    ///
    /// # Errors
    /// A key that is missing, has the wrong size or cannot be read or written; names the file.
    pub fn open_or_create(path: &Path, fresh: bool) -> io::Result<Self> {
        let random = SystemRandom::new();
        let key = match fs::read(path) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => {
                let mut key = vec![0; KEY_LEN];
                random.fill(&mut key).map_err(|_| no_randomness())?;
                disk::write_atomic(path, &key, 0o600).map_err(|error| named(path, &error))?;
                key
            }
            Err(error) => return Err(named(path, &error)),
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| {
            let text = format!("{}: not a key of {KEY_LEN} bytes", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(Self {
            key: LessSafeKey::new(key),
            random,
        })
    }
}

impl Codec for Sealer {
    fn seal(&self, label: &[u8], mut plain: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| no_randomness())?;
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(label),
                &mut plain,
            )
            .map_err(|_| io::Error::other("a value is too large to be sealed"))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (&VERSION, rest) = sealed.split_first()? else {
            return None;
        };
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .key
            .open_in_place(nonce, Aad::from(label), &mut body)
            .ok()?
            .len();
        body.truncate(length);
        Some(body)
    }
}

fn no_randomness() -> io::Error {
    io::Error::other("the system gives no random numbers")
}

/// An error that names its file.
pub(super) fn named(path: &Path, error: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_label_open_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let sealer = Sealer::open_or_create(&path, true).unwrap();
        let sealed = sealer.seal(b"log 1", b"hello".to_vec()).unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"hello"));
        let again = Sealer::open_or_create(&path, false).unwrap();
        assert_eq!(
            again.open(b"log 1", &sealed).as_deref(),
            Some(&b"hello"[..])
        );
        assert_eq!(again.open(b"log 2", &sealed), None);
        let mut torn = sealed.clone();
        torn.truncate(sealed.len() - 1);
        assert_eq!(again.open(b"log 1", &torn), None);
        assert_eq!(again.open(b"log 1", &[]), None);
        let other = Sealer::open_or_create(&dir.path().join("other"), true).unwrap();
        assert_eq!(other.open(b"log 1", &sealed), None);
    }

    #[test]
    fn a_lost_key_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let error = Sealer::open_or_create(&path, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("key"), "{error}");
        assert!(!path.exists());
        fs::write(&path, b"short").unwrap();
        assert!(Sealer::open_or_create(&path, false).is_err());
    }
}
