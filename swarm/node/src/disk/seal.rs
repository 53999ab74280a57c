//! Encryption at rest: seals bytes under a key, bound to what they are. Knows neither what it seals
//! nor where the result is kept, and never prints a key.

use std::fmt;
use std::io;
use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// First byte of every sealed value. No text and no MessagePack map begins with it.
const VERSION: u8 = 1;

/// The data key of a node, which seals everything secret on its disk: ChaCha20-Poly1305 with a
/// random nonce a value. Clones share it.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    bytes: [u8; KEY_LEN],
    cipher: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(<secret>)")
    }
}

impl Keys {
    /// A new data key.
    ///
    /// # Errors
    /// Only if the system has no randomness.
    pub fn generate() -> io::Result<Self> {
        Self::from_bytes(random()?)
    }

    /// The key of these bytes.
    pub(crate) fn from_bytes(bytes: [u8; KEY_LEN]) -> io::Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes)
            .map_err(|_| io::Error::other("a key has the wrong size"))?;
        Ok(Self(Arc::new(Inner {
            bytes,
            cipher: LessSafeKey::new(key),
            random: SystemRandom::new(),
        })))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0.bytes
    }

    /// Seals `plain`; `label` says what it is and where it belongs, and is needed to open it again.
    ///
    /// # Errors
    /// Only if the system has no randomness.
    pub fn seal(&self, label: &[u8], mut plain: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        let filled = self.0.random.fill(&mut nonce);
        filled.map_err(|_| no_randomness())?;
        let unique = Nonce::assume_unique_for_key(nonce);
        let cipher = &self.0.cipher;
        let tag = cipher
            .seal_in_place_separate_tag(unique, Aad::from(label), &mut plain)
            .map_err(|_| io::Error::other("a value is too large to be sealed"))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a sealed value; `None` if it is damaged, belongs elsewhere or has another key.
    pub fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (&VERSION, rest) = sealed.split_first()? else {
            return None;
        };
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .0
            .cipher
            .open_in_place(nonce, Aad::from(label), &mut body);
        let length = opened.ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

/// Whether these bytes are a sealed value, as opposed to what was written before there were any.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION)
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| no_randomness())?;
    Ok(bytes)
}

fn no_randomness() -> io::Error {
    io::Error::other("the system gives no random numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_label_open_a_value() {
        let keys = Keys::generate().unwrap();
        let sealed = keys.seal(b"log 1", b"hello".to_vec()).unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"hello"));
        assert!(is_sealed(&sealed));
        let again = Keys::from_bytes(*keys.bytes()).unwrap();
        let opened = again.open(b"log 1", &sealed);
        assert_eq!(opened.as_deref(), Some(&b"hello"[..]));
        assert_eq!(again.open(b"log 2", &sealed), None);
        let mut torn = sealed.clone();
        torn.truncate(sealed.len() - 1);
        assert_eq!(again.open(b"log 1", &torn), None);
        assert_eq!(again.open(b"log 1", &[]), None);
        let other = Keys::generate().unwrap();
        assert_eq!(other.open(b"log 1", &sealed), None);
        assert_eq!(format!("{other:?}"), "Keys(<secret>)");
    }

    #[test]
    fn what_was_never_sealed_is_told_apart() {
        let map = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("a", 1)])).unwrap();
        for plain in [&b"-----BEGIN PRIVATE KEY-----"[..], b"{}", b"", &map] {
            assert!(!is_sealed(plain), "{plain:?}");
        }
    }
}
