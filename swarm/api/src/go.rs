//! Go's JSON rules in one place: zero values, omitempty, null, times, bytes. Knows no wire type.

mod bytes;
mod decode;
mod fault;
mod strconv;
mod syntax;
mod time;
mod types;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use bytes::{Base64, Secret};
pub use decode::{decode, decode_value};
pub use strconv::{bool_value, parse_bool, parse_uint};
pub use time::Timestamp;

/// A span of time in nanoseconds, as Go's `time.Duration`.
pub type Duration = i64;

/// One microsecond.
pub const MICROSECOND: Duration = 1_000;
/// One millisecond.
pub const MILLISECOND: Duration = 1_000_000;
/// One second.
pub const SECOND: Duration = 1_000_000_000;
/// One minute.
pub const MINUTE: Duration = 60 * SECOND;
/// One hour.
pub const HOUR: Duration = 60 * MINUTE;

/// Labels, options and the like; Go writes maps sorted by key, and so does this one.
pub type Labels = BTreeMap<String, String>;

/// Go's omitempty: true when the value is the zero value (`None`, 0, "", empty).
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads null as the zero value; for fields that dockerd writes as null.
pub fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Writes an empty list as null, as Go writes a nil slice.
pub fn null_if_empty<S, T>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    T: Default + PartialEq + Serialize,
{
    if is_default(value) {
        serializer.serialize_none()
    } else {
        value.serialize(serializer)
    }
}

/// Writes a float as Go writes a float32: `0`, `1`, `0.1`.
pub fn float32<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        #[allow(clippy::cast_possible_truncation)]
        return serializer.serialize_i64(*value as i64);
    }
    // Through the shortest decimal text, so that 0.1f32 does not become 0.10000000149 as an f64.
    match value.to_string().parse::<f64>() {
        Ok(wide) => serializer.serialize_f64(wide),
        Err(_) => serializer.serialize_f32(*value),
    }
}

wire! {
    /// The raft index of an object's last write; `{}` when zero.
    #[derive(Copy, Eq, PartialOrd, Ord)]
    pub struct Version {
        index: u64 = "Index" omitempty,
    }

    /// A driver or plugin with its options.
    #[derive(Eq)]
    pub struct Driver {
        name: String = "Name" omitempty,
        options: Labels = "Options" omitempty,
    }
}

impl From<u64> for Version {
    fn from(index: u64) -> Self {
        Self { index }
    }
}
