//! Unlock keys in the original's form, and what is wrapped with them. Never keeps one.

use std::io;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};

use super::seal::{KEY_LEN, Keys, random};

/// What every unlock key begins with.
const PREFIX: &str = "SWMKEY-1-";
/// What the key that is derived is for.
const PURPOSE: &[u8] = b"skep data key 1";
/// Bytes of salt, new with each wrapping.
const SALT_LEN: usize = 16;

/// As Go reads base64 without padding: what the last digit has too much is ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The bytes of an unlock key; `None` if it is none. Their number is not checked, as in the
/// original: a key of another length is merely the wrong one.
pub fn parse(key: &str) -> Option<Vec<u8>> {
    BASE64.decode(key.strip_prefix(PREFIX)?).ok()
}

/// A data key that only an unlock key opens.
#[derive(Clone, Serialize, Deserialize)]
pub struct Wrapped {
    salt: Vec<u8>,
    sealed: Vec<u8>,
}

impl Wrapped {
    /// Wraps a data key with the bytes of an unlock key.
    pub fn new(keys: &Keys, unlock_key: &[u8]) -> io::Result<Self> {
        let salt: [u8; SALT_LEN] = random()?;
        let sealed = derived(&salt, unlock_key)?.seal(PURPOSE, keys.bytes().to_vec())?;
        let salt = salt.to_vec();
        Ok(Self { salt, sealed })
    }

    /// The data key; `None` if this is not its unlock key.
    pub fn open(&self, unlock_key: &[u8]) -> Option<Keys> {
        let bytes = derived(&self.salt, unlock_key)
            .ok()?
            .open(PURPOSE, &self.sealed)?;
        Keys::from_bytes(bytes.try_into().ok()?).ok()
    }
}

/// HKDF rather than the key itself: it is spread evenly whatever was typed, and differs each time.
fn derived(salt: &[u8], unlock_key: &[u8]) -> io::Result<Keys> {
    let mut bytes = [0; KEY_LEN];
    let extracted = Salt::new(HKDF_SHA256, salt).extract(unlock_key);
    let expanded = extracted.expand(&[PURPOSE], HKDF_SHA256);
    expanded
        .and_then(|expanded| expanded.fill(&mut bytes))
        .map_err(|_| io::Error::other("could not derive a key"))?;
    Keys::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_originals_form_is_an_unlock_key() {
        let zeros = format!("SWMKEY-1-{}", "A".repeat(43));
        assert_eq!(parse(&zeros), Some(vec![0; 32]));
        // Go does not look at the two bits that are too many.
        let sloppy = format!("SWMKEY-1-{}B", "A".repeat(42));
        assert_eq!(parse(&sloppy), Some(vec![0; 32]));
        assert_eq!(parse("SWMKEY-1-"), Some(vec![]));
        for bad in ["", "x", "SWMKEY-2-AAAA", "SWMKEY-1-AA=", "SWMKEY-1-A A"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("{zeros}=")), None);
    }

    #[test]
    fn only_the_same_unlock_key_opens_and_no_wrapping_repeats() {
        let keys = Keys::generate().unwrap();
        let wrapped = Wrapped::new(&keys, &[7; 32]).unwrap();
        assert_eq!(wrapped.open(&[7; 32]).unwrap().bytes(), keys.bytes());
        for wrong in [&[8; 32][..], &[7; 31], &[]] {
            assert!(wrapped.open(wrong).is_none());
        }
        let again = Wrapped::new(&keys, &[7; 32]).unwrap();
        assert_ne!(wrapped.sealed, again.sealed);
        assert!(
            !wrapped
                .sealed
                .windows(8)
                .any(|w| keys.bytes().starts_with(w))
        );
    }
}
