//! Byte strings and secrets: base64 in JSON, raw in binary formats, never readable in Debug.

use std::fmt;
use std::ops::Deref;

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine as _};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Go's `[]byte`: standard base64 in JSON, bytes in MessagePack. Debug shows only the length.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Deref for Base64 {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `any`, because buffered content (untagged enums) forgets whether the format was binary.
        deserializer.deserialize_any(Base64Visitor)
    }
}

struct Base64Visitor;

impl<'de> Visitor<'de> for Base64Visitor {
    type Value = Base64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[]uint8")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
        // Go's decoder skips line breaks; nothing else is forgiven.
        let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        STANDARD.decode(&compact).map(Base64).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => compact.len(),
            };
            E::custom(format_args!("illegal base64 data at input byte {at}"))
        })
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Base64, E> {
        Ok(Base64(bytes.to_vec()))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Base64, E> {
        Ok(Base64(bytes))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Base64, E> {
        Ok(Base64::default())
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Base64, E> {
        Ok(Base64::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Base64, A::Error> {
        let mut bytes = Vec::new();
        while let Some(number) = seq.next_element::<u64>()? {
            bytes.push(u8::try_from(number).map_err(A::Error::custom)?);
        }
        Ok(Base64(bytes))
    }
}

/// A text that must not be logged: join tokens, keys. Debug shows only the length.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Deref for Secret {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_base64_and_messagepack_is_bytes() {
        let bytes = Base64(vec![0, 255, 7]);
        assert_eq!(serde_json::to_string(&bytes).unwrap(), "\"AP8H\"");
        assert_eq!(
            serde_json::from_str::<Base64>("\"AP\\n8H\"").unwrap(),
            bytes
        );
        let packed = rmp_serde::to_vec_named(&bytes).unwrap();
        assert_eq!(packed.len(), 5);
        assert_eq!(rmp_serde::from_slice::<Base64>(&packed).unwrap(), bytes);
        let error = serde_json::from_str::<Base64>("\"!\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("illegal base64 data at input byte 0"),
            "{error}"
        );
    }

    #[test]
    fn debug_shows_no_content() {
        let text = format!(
            "{:?} {:?}",
            Base64(b"hidden".to_vec()),
            Secret::from("hidden")
        );
        assert_eq!(text, "Base64(6 bytes) Secret(6 bytes)");
    }
}
