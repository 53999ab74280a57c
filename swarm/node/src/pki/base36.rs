//! Base 36 as swarmkit writes ids and tokens, and random bytes. Knows nothing of what they mean.

use ring::rand::{SecureRandom, SystemRandom};
use skep_core::Id;

use super::PkiError;

/// Big-endian bytes as lower-case base 36, zero-padded on the left to at least `width` digits.
pub(super) fn encode(bytes: &[u8], width: usize) -> String {
    format!("{:0>width$}", skep_core::id::base36(bytes))
}

/// Lower-case base 36 as `N` big-endian bytes; `None` for other characters or a larger number.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for digit in text.bytes() {
        let mut carry = match digit {
            b'0'..=b'9' => u32::from(digit - b'0'),
            b'a'..=b'z' => u32::from(digit - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// Random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0u8; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| PkiError::Crypto("the system gave no random bytes".into()))?;
    Ok(bytes)
}

/// A fresh 25-character id, as swarmkit makes them.
pub fn random_id() -> Result<Id, PkiError> {
    Ok(Id::from_random_bytes(random_bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(encode(&[0, 0], 3), "000");
        assert_eq!(encode(&[35], 1), "z");
        assert_eq!(encode(&[1, 0], 4), "0074");
        assert_eq!(encode(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(decode::<2>("0074"), Some([1, 0]));
        assert_eq!(decode::<1>("74"), None, "256 does not fit one byte");
        assert_eq!(decode::<1>("Z"), None);
    }

    #[test]
    fn round_trips() {
        for _ in 0..200 {
            let bytes = random_bytes::<32>().unwrap();
            let text = encode(&bytes, 50);
            assert_eq!(text.len(), 50);
            assert_eq!(decode::<32>(&text), Some(bytes));
        }
    }

    #[test]
    fn ids_have_25_digits() {
        for _ in 0..200 {
            let id = random_id().unwrap();
            assert_eq!(id.as_str().len(), 25, "{}", id.as_str());
        }
    }
}
