//! Object ids in swarmkit's form: 25 characters of `[0-9a-z]`. Never invents one: randomness is an
//! input that the caller supplies through [`IdSource`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Number of characters in an id.
pub const LEN: usize = 25;
/// Number of random bytes an id is made of.
pub const RANDOM_BYTES: usize = 17;

/// Identifies a cluster, node, service or task. Cheap to clone.
///
/// Any string may be wrapped, because clients name objects that do not exist; only
/// [`Id::from_random_bytes`] promises the 25-character form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(Arc<str>);

impl Id {
    /// Turns 17 random bytes into an id: the top bit is set so that the base36 number always has
    /// enough digits, the first digit (which would be biased) is dropped, 25 digits are kept.
    pub fn from_random_bytes(mut bytes: [u8; RANDOM_BYTES]) -> Self {
        bytes[0] |= 0x80;
        let digits = base36(&bytes);
        Self(digits.get(1..=LEN).unwrap_or(&digits).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes a big-endian number in lower-case base 36, without leading zeros (an empty string for 0).
/// Tens of thousands of ids are made in a plan: six digits at a time come off, the most that a limb
/// of 32 bits holds.
pub fn base36(big_endian: &[u8]) -> String {
    const DIGITS: usize = 6;
    const SIX: u64 = 36u64.pow(6);
    let limb = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let mut number: Vec<u64> = big_endian.rchunks(4).rev().map(limb).collect();
    let mut out = Vec::with_capacity(2 * big_endian.len());
    while number.iter().any(|limb| *limb != 0) {
        let mut rest = 0;
        for limb in &mut number {
            let value = rest << 32 | *limb;
            (*limb, rest) = (value / SIX, value % SIX);
        }
        for _ in 0..DIGITS {
            out.extend(char::from_digit((rest % 36) as u32, 36));
            rest /= 36;
        }
    }
    let leading = out.iter().rev().take_while(|digit| **digit == '0').count();
    out.iter().rev().skip(leading).collect()
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::ops::Deref for Id {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where new ids come from: the operating system in a daemon, a seed in the simulator.
pub trait IdSource {
    /// Returns 17 fresh random bytes.
    fn random_bytes(&mut self) -> [u8; RANDOM_BYTES];

    /// Returns an id that no object has.
    fn next_id(&mut self) -> Id {
        Id::from_random_bytes(self.random_bytes())
    }
}

/// Counts upwards: distinct, ordered ids for tests and examples.
#[derive(Debug, Default)]
pub struct CountingIds(u64);

impl IdSource for CountingIds {
    fn random_bytes(&mut self) -> [u8; RANDOM_BYTES] {
        self.0 += 1;
        let mut bytes = [0u8; RANDOM_BYTES];
        // Shifted up by one byte, since the lowest digits are the ones that an id drops.
        bytes[6..14].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_25_lower_case_base36_characters() {
        for bytes in [
            [0u8; RANDOM_BYTES],
            [0xff; RANDOM_BYTES],
            [0x5a; RANDOM_BYTES],
        ] {
            let id = Id::from_random_bytes(bytes);
            assert_eq!(id.len(), LEN, "{id}");
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
                "{id}"
            );
        }
    }

    #[test]
    fn counting_ids_are_distinct_and_ordered() {
        let mut ids = CountingIds::default();
        let made: Vec<Id> = (0..1000).map(|_| ids.next_id()).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn base36_agrees_with_known_numbers() {
        assert_eq!(base36(&[0, 35]), "z");
        assert_eq!(base36(&[1, 0]), "74");
        assert_eq!(base36(&[0]), "");
        assert_eq!(base36(&[]), "");
        // 36^6 - 1, 36^6 and 36^7.
        assert_eq!(base36(&2_176_782_335u32.to_be_bytes()), "zzzzzz");
        assert_eq!(base36(&2_176_782_336u64.to_be_bytes()), "1000000");
        assert_eq!(base36(&78_364_164_096u64.to_be_bytes()), "10000000");
    }

    #[test]
    fn base36_is_read_back_by_others() {
        let mut number = 1u128;
        for step in 0..500u128 {
            number = number
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(step)
                >> (step % 100);
            let digits = base36(&number.to_be_bytes());
            let read = u128::from_str_radix(&digits, 36);
            assert_eq!(read.unwrap_or_default(), number, "{digits}");
        }
    }
}
