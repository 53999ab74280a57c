//! Reads a request body by Go's rules: struct keys in any case, null is the zero value. No types.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Number, Value};

use crate::error::Error;

/// Decodes a request body.
///
/// Errors are dockerd's: `invalid JSON: ...`, `invalid JSON: got EOF while reading request body`
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
        Some(Err(error)) => return Err(Error::invalid(format!("invalid JSON: {error}"))),
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

type Fault = serde_json::Error;

impl GoValue {
    fn wrong(&self, expected: &str) -> Fault {
        let found = match &self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(b) => Unexpected::Bool(*b),
            Value::Number(_) => Unexpected::Other("number"),
            Value::String(s) => Unexpected::Str(s),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Fault::invalid_type(found, &expected)
    }
}

impl IntoDeserializer<'_, Fault> for GoValue {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// Maps each key to the struct's own spelling (exact first, as Go does) and drops nulls, which
/// leave a Go field untouched. Unknown keys are ignored by the struct itself.
fn fold_keys(
    object: Map<String, Value>,
    fields: &'static [&'static str],
) -> Vec<(String, GoValue)> {
    let mut folded: Vec<(String, GoValue)> = Vec::with_capacity(object.len());
    let mut loose = Vec::new();
    for (key, value) in object {
        if value.is_null() {
            continue;
        }
        if fields.contains(&key.as_str()) {
            folded.push((key, GoValue(value)));
        } else if let Some(name) = fields.iter().find(|name| name.eq_ignore_ascii_case(&key)) {
            loose.push(((*name).to_owned(), GoValue(value)));
        }
    }
    for (name, value) in loose {
        if folded.iter().all(|(taken, _)| *taken != name) {
            folded.push((name, value));
        }
    }
    folded
}

macro_rules! number {
    ($($method:ident $visit:ident $get:ident $ty:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match &self.0 {
                Value::Null => visitor.$visit(0 as $ty),
                Value::Number(n) => match n.$get() {
                    Some(number) => visitor.$visit(number),
                    None => Err(Fault::invalid_value(Unexpected::Other(&n.to_string()), &visitor)),
                },
                _ => Err(self.wrong("a number")),
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
            Value::Object(map) => visitor.visit_map(MapDeserializer::new(
                map.into_iter().map(|(k, v)| (k, GoValue(v))),
            )),
        }
    }

    number! {
        deserialize_i8 visit_i64 as_i64 i64,
        deserialize_i16 visit_i64 as_i64 i64,
        deserialize_i32 visit_i64 as_i64 i64,
        deserialize_i64 visit_i64 as_i64 i64,
        deserialize_u8 visit_u64 as_u64 u64,
        deserialize_u16 visit_u64 as_u64 u64,
        deserialize_u32 visit_u64 as_u64 u64,
        deserialize_u64 visit_u64 as_u64 u64,
        deserialize_f32 visit_f64 as_f64 f64,
        deserialize_f64 visit_f64 as_f64 f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(b) => visitor.visit_bool(*b),
            _ => Err(self.wrong("a bool")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            Value::String(s) => visitor.visit_string(s),
            _ => Err(self.wrong("a string")),
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
            Value::Null => GoValue(Value::Array(Vec::new())).deserialize_any(visitor),
            Value::Array(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => GoValue(Value::Object(Map::new())).deserialize_any(visitor),
            Value::Object(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => self.deserialize_map(visitor),
            Value::Object(object) => {
                visitor.visit_map(MapDeserializer::new(fold_keys(object, fields).into_iter()))
            }
            _ => Err(self.wrong("an object")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
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
