//! Patches of the engine's replies: one header of a head, one key of a JSON object. The rest stays
//! byte for byte. Pure: bytes in, bytes out.

use std::fmt::Write as _;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::swarm::SwarmInfo;

/// Gives the header `name` this one value: in the place of the first that the head has, else as
/// the last. `head` is complete, its blank line included.
pub fn set_header(head: &[u8], name: &str, value: &str) -> Vec<u8> {
    let mut patched = Vec::with_capacity(head.len() + name.len() + value.len() + 4);
    let line = format!("{name}: {value}\r\n");
    let mut written = false;
    for (index, raw) in head.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let blank = matches!(raw, b"\r\n" | b"\n");
        let same = index > 0 && is_header(raw, name);
        if (same || blank) && !written {
            patched.extend_from_slice(line.as_bytes());
            written = true;
        }
        if !same {
            patched.extend_from_slice(raw);
        }
    }
    patched
}

/// A head for a body whose length changed and is known now.
pub fn resized(head: &[u8], length: usize) -> Vec<u8> {
    let unchunked: Vec<u8> = head
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| !is_header(line, "transfer-encoding") && !is_header(line, "trailer"))
        .flatten()
        .copied()
        .collect();
    set_header(&unchunked, "Content-Length", &length.to_string())
}

fn is_header(line: &[u8], name: &str) -> bool {
    let (field, rest) = line.split_at(name.len().min(line.len()));
    field.eq_ignore_ascii_case(name.as_bytes()) && rest.first() == Some(&b':')
}

/// A JSON object as its keys and the exact text of their values, in the order of the sender.
#[derive(Debug)]
pub struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Takes an object apart, one level deep.
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        let mut source = serde_json::Deserializer::from_slice(json);
        let object = source.deserialize_map(Pairs)?;
        source.end()?;
        Ok(Self(object))
    }

    /// The exact text of one value.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|&(_, value)| value)
    }

    /// Its keys with the exact texts of their values, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &'a str)> {
        let pairs = self.0.iter();
        pairs.map(|(key, value)| (key.as_str(), value.get()))
    }

    /// The object without some of its keys.
    pub fn without(mut self, keys: &[&str]) -> Self {
        self.0.retain(|(key, _)| !keys.contains(&key.as_str()));
        self
    }

    /// Writes the object with other values for some keys. Keys that it lacks are added at its end.
    /// `values` are JSON texts.
    pub fn with(&self, values: &[(&str, &str)]) -> String {
        let mut out = String::from("{");
        let replaced = |key: &str| values.iter().find(|(name, _)| *name == key).map(|v| v.1);
        let kept = self
            .0
            .iter()
            .map(|(key, old)| (key.as_str(), replaced(key).unwrap_or_else(|| old.get())));
        let added = values
            .iter()
            .copied()
            .filter(|(key, _)| self.get(key).is_none());
        for (key, value) in kept.chain(added) {
            if out.len() > 1 {
                out.push(',');
            }
            // Writing to a String does not fail.
            let _ = write!(out, "{}:{value}", serde_json::Value::from(key));
        }
        out.push_str("}\n");
        out
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// `/info` with swarm mode's view of the host: `Swarm` replaced, `Warnings` appended to.
pub fn info(body: &[u8], swarm: &SwarmInfo) -> serde_json::Result<Vec<u8>> {
    let object = Object::parse(body)?;
    let mut values = vec![("Swarm", swarm.swarm.get().to_owned())];
    if !swarm.warnings.is_empty() {
        let engine = object.get("Warnings").map_or("null", RawValue::get);
        let mut warnings: Vec<String> =
            serde_json::from_str::<Option<_>>(engine)?.unwrap_or_default();
        warnings.extend_from_slice(&swarm.warnings);
        values.push(("Warnings", serde_json::to_string(&warnings)?));
    }
    let values: Vec<(&str, &str)> = values.iter().map(|(k, v)| (*k, v.as_str())).collect();
    Ok(object.with(&values).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn headers_are_set_in_place() {
        let table = [
            (
                "HTTP/1.1 200 OK\r\nswarm: a\r\nB: c\r\n\r\n",
                "HTTP/1.1 200 OK|Swarm: x|B: c||",
            ),
            (
                "HTTP/1.1 200 OK\r\nSwarm: a\r\nSwarm: b\r\n\r\n",
                "HTTP/1.1 200 OK|Swarm: x||",
            ),
            (
                "HTTP/1.1 200 OK\r\nSwarms: a\r\n\r\n",
                "HTTP/1.1 200 OK|Swarms: a|Swarm: x||",
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK|Swarm: x||"),
        ];
        for (head, expected) in table {
            assert_eq!(text(set_header(head.as_bytes(), "Swarm", "x")), expected);
        }
    }

    #[test]
    fn a_resized_head_has_a_length() {
        let head = b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            text(resized(head, 7)),
            "HTTP/1.1 200 OK|A: b|Content-Length: 7||"
        );
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nA: b\r\n\r\n";
        assert_eq!(
            text(resized(head, 7)),
            "HTTP/1.1 200 OK|Content-Length: 7|A: b||"
        );
    }

    #[test]
    fn info_keeps_everything_else() {
        let body = br#"{"ID":"A","Big":12345678901234567890.10,"Swarm":{"x":1},"Warnings":null,"Z":{ "a" : [1] }}"#;
        let swarm = SwarmInfo::new(&["s"], vec![]).unwrap();
        assert_eq!(
            text(info(body, &swarm).unwrap()).trim_end(),
            r#"{"ID":"A","Big":12345678901234567890.10,"Swarm":["s"],"Warnings":null,"Z":{ "a" : [1] }}"#
        );
        let swarm = SwarmInfo::new(&1, vec!["two \"managers\"".into()]).unwrap();
        let patched = text(info(br#"{"Warnings":["w"],"A\"":0}"#, &swarm).unwrap());
        let expected = r#"{"Warnings":["w","two \"managers\""],"A\"":0,"Swarm":1}"#;
        assert_eq!(patched.trim_end(), expected);
        assert!(info(b"[1]", &swarm).is_err());
        assert!(info(b"{\"a\":1} x", &swarm).is_err());
    }
}
