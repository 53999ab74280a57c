//! Reads a request body by Go's rules: struct keys in any case, null is the zero value. No types.

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Number, Value};

use super::fault::Fault;
use super::{syntax, types};
use crate::error::Error;

/// Decodes a request body.
///
/// Errors are dockerd's (from 28 on; 20.10 leaves out the prefix `invalid JSON: `): `invalid JSON: ...`, `invalid JSON: got EOF while reading request body`
/// for an empty body (callers for which an empty body is the zero value check before), and
/// `unexpected content after JSON`. All are of kind `InvalidParameter`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let value = match stream.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => {
            return Err(Error::invalid(format!(
                "invalid JSON: {}",
                syntax::text(&error, bytes)
            )));
        }
        None => {
            return Err(Error::invalid(
                "invalid JSON: got EOF while reading request body",
            ));
        }
    };
    let rest = bytes.get(stream.byte_offset()..).unwrap_or_default();
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid("unexpected content after JSON"));
    }
    decode_value(value)
}

/// Decodes a value that is JSON already, by the same rules.
pub fn decode_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(GoValue(value)).map_err(|error| Error::invalid(format!("invalid JSON: {error}")))
}

/// A JSON value that deserialises as Go's `encoding/json` does.
struct GoValue(Value);

impl GoValue {
    fn wrong(&self, expected: impl Into<String>) -> Fault {
        let found = match &self.0 {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Fault::mismatch(found, expected)
    }
}

impl IntoDeserializer<'_, Fault> for GoValue {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// The fields of one struct, under the struct's own spelling of their keys.
struct Fields {
    owner: &'static str,
    rest: std::vec::IntoIter<(&'static str, Value)>,
    current: Option<(&'static str, Value)>,
}

impl Fields {
    /// Exact keys win over those in another case. Nulls are dropped: they leave a Go field
    /// untouched. Unknown keys are ignored.
    fn new(
        owner: &'static str,
        names: &'static [&'static str],
        mut object: Map<String, Value>,
    ) -> Self {
        let mut fields = Vec::with_capacity(object.len());
        for name in names {
            let exact = object.remove(*name);
            let value = exact.or_else(|| {
                let key = object
                    .keys()
                    .find(|key| key.eq_ignore_ascii_case(name))?
                    .clone();
                object.remove(&key)
            });
            if let Some(value) = value.filter(|value| !value.is_null()) {
                fields.push((*name, value));
            }
        }
        Self {
            owner,
            rest: fields.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.rest.next();
        match &self.current {
            Some((name, _)) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (name, value) = self.current.take().unwrap_or(("", Value::Null));
        seed.deserialize(GoValue(value))
            .map_err(|fault| fault.within(self.owner, name))
    }
}

macro_rules! integer {
    ($($method:ident $visit:ident $get:ident $ty:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match &self.0 {
                Value::Null => visitor.$visit(0),
                Value::Number(n) => match n.$get().and_then(|wide| <$ty>::try_from(wide).ok()) {
                    Some(number) => visitor.$visit(number),
                    None => Err(Fault::mismatch(format!("number {}", literal(n)), $go)),
                },
                _ => Err(self.wrong($go)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for GoValue {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(b),
            Value::Number(n) => visit_number(&n, visitor),
            Value::String(s) => visitor.visit_string(s),
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(GoValue)))
            }
            Value::Object(map) => {
                let entries = map.into_iter().map(|(key, value)| (key, GoValue(value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    integer! {
        deserialize_i8 visit_i8 as_i64 i8, "int8";
        deserialize_i16 visit_i16 as_i64 i16, "int16";
        deserialize_i32 visit_i32 as_i64 i32, "int32";
        deserialize_i64 visit_i64 as_i64 i64, "int64";
        deserialize_u8 visit_u8 as_u64 u8, "uint8";
        deserialize_u16 visit_u16 as_u64 u16, "uint16";
        deserialize_u32 visit_u32 as_u64 u32, "uint32";
        deserialize_u64 visit_u64 as_u64 u64, "uint64";
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0 {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(n) => visitor.visit_f64(n.as_f64().unwrap_or_default()),
            _ => Err(self.wrong("float32")),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(b) => visitor.visit_bool(*b),
            _ => Err(self.wrong("bool")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            Value::String(s) => visitor.visit_string(s),
            _ => Err(self.wrong("string")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => Self(Value::Array(Vec::new())).deserialize_any(visitor),
            Value::Array(_) => self.deserialize_any(visitor),
            // Which list it is says the field, in `types`.
            _ => Err(self.wrong("[]string")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => Self(Value::Object(Map::new())).deserialize_any(visitor),
            Value::Object(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields::new(name, &[], Map::new())),
            Value::Object(object) => visitor.visit_map(Fields::new(name, fields, object)),
            _ => Err(self.wrong(types::structure(name))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

/// A number as it most likely stood in the body: Go quotes the literal.
fn literal(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(number) => number.to_string(),
        None => number.to_string(),
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Fault> {
    if let Some(n) = number.as_u64() {
        visitor.visit_u64(n)
    } else if let Some(n) = number.as_i64() {
        visitor.visit_i64(n)
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or_default())
    }
}
