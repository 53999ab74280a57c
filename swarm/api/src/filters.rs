//! The `filters` query parameter of every list call. Knows no object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::Error;
use crate::go::Labels;

/// Filter terms by key; a key that was not given matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    terms: BTreeMap<String, BTreeSet<String>>,
}

impl Filters {
    /// Parses the map form `{"k":{"v":true}}` or the old list form `{"k":["v"]}`; empty is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut filters = Self::default();
        if text.is_empty() {
            return Ok(filters);
        }
        let bad = || Error::invalid("invalid filter");
        let value: Value = serde_json::from_str(text).map_err(|_| bad())?;
        let Value::Object(keys) = value else {
            return Err(bad());
        };
        for (key, terms) in keys {
            let set = filters.terms.entry(key).or_default();
            match terms {
                Value::Object(map) if map.values().all(Value::is_boolean) => {
                    set.extend(map.into_iter().map(|(term, _)| term));
                }
                Value::Array(list) => {
                    for term in list {
                        let Value::String(term) = term else {
                            return Err(bad());
                        };
                        set.insert(term);
                    }
                }
                _ => return Err(bad()),
            }
        }
        Ok(filters)
    }

    /// Adds one term.
    pub fn add(&mut self, key: &str, value: &str) {
        self.terms
            .entry(key.to_owned())
            .or_default()
            .insert(value.to_owned());
    }

    /// Refuses keys that are not accepted: `invalid filter 'x'`.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), Error> {
        match self
            .terms
            .keys()
            .find(|key| !accepted.contains(&key.as_str()))
        {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// The terms of a key, sorted.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.terms
            .get(key)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// True when the key was given with at least one term.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).next().is_some()
    }

    /// True when there is no term at all.
    pub fn is_empty(&self) -> bool {
        self.terms.values().all(BTreeSet::is_empty)
    }

    /// The key is absent or one of its terms equals `source`.
    pub fn matches_exact(&self, key: &str, source: &str) -> bool {
        !self.contains(key) || self.get(key).any(|term| term == source)
    }

    /// The key is absent or one of its terms is a prefix of `source`.
    pub fn matches_prefix(&self, key: &str, source: &str) -> bool {
        !self.contains(key) || self.get(key).any(|term| source.starts_with(term))
    }

    /// Every term `k` or `k=v` holds for the labels.
    pub fn matches_labels(&self, key: &str, labels: &Labels) -> bool {
        self.get(key).all(|term| match term.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(term),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let map = Filters::parse(r#"{"name":{"web":true,"db":true},"label":{}}"#).unwrap();
        let list = Filters::parse(r#"{"name":["web","db"],"label":[]}"#).unwrap();
        assert_eq!(map, list);
        assert!(!map.contains("label") && !map.is_empty());
        assert_eq!(map.get("name").collect::<Vec<_>>(), ["db", "web"]);
        assert!(Filters::parse("").unwrap().is_empty());
        for text in [
            "x",
            "[]",
            r#"{"name":"web"}"#,
            r#"{"name":{"web":1}}"#,
            r#"{"name":[1]}"#,
        ] {
            assert_eq!(
                Filters::parse(text).unwrap_err().message,
                "invalid filter",
                "{text}"
            );
        }
    }

    #[test]
    fn absent_keys_match_everything() {
        let filters = Filters::parse(r#"{"name":["web"],"label":["a","b=c"]}"#).unwrap();
        assert!(filters.matches_prefix("id", "any") && filters.matches_exact("mode", "any"));
        assert!(filters.matches_prefix("name", "web.1") && !filters.matches_prefix("name", "we"));
        assert!(filters.matches_exact("name", "web") && !filters.matches_exact("name", "web.1"));
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Labels>()
        };
        assert!(filters.matches_labels("label", &labels(&[("a", "1"), ("b", "c")])));
        assert!(!filters.matches_labels("label", &labels(&[("a", "1"), ("b", "d")])));
        assert!(!filters.matches_labels("label", &labels(&[("b", "c")])));
        assert_eq!(filters.validate(&["name", "label"]), Ok(()));
        assert_eq!(
            filters.validate(&["name"]).unwrap_err().message,
            "invalid filter 'label'"
        );
    }
}
