//! What a body had in the wrong place, worded as Go's decoder words it. Decodes nothing.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::types;

/// Why a JSON value does not fit a type.
#[derive(Debug)]
pub enum Fault {
    /// A value of the wrong type, and the field it stood in (innermost first).
    Mismatch {
        found: String,
        expected: String,
        owner: Option<&'static str>,
        path: Vec<&'static str>,
    },
    /// What a type's own rules refused.
    Other(String),
}

impl Fault {
    pub fn mismatch(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Mismatch {
            found: found.into(),
            expected: expected.into(),
            owner: None,
            path: Vec::new(),
        }
    }

    /// The fault seen from one struct further out.
    pub fn within(mut self, struct_name: &'static str, field: &'static str) -> Self {
        if let Self::Mismatch {
            owner,
            path,
            expected,
            ..
        } = &mut self
        {
            match owner {
                None => {
                    if let Some(name) = types::of_field(struct_name, field, expected) {
                        name.clone_into(expected);
                    }
                    *owner = Some(struct_name);
                }
                Some(inner) if path.len() == 1 => *inner = types::owner(inner, struct_name),
                Some(_) => {}
            }
            path.push(field);
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch {
                found,
                expected,
                owner: Some(owner),
                path,
            } => {
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go struct field {owner}"
                )?;
                for field in path.iter().rev() {
                    write!(f, ".{field}")?;
                }
                write!(f, " of type {expected}")
            }
            Self::Mismatch {
                found, expected, ..
            } => {
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go value of type {expected}"
                )
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "bool",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "number",
            Unexpected::Seq => "array",
            Unexpected::Map => "object",
            Unexpected::Unit | Unexpected::Option => "null",
            _ => "string",
        };
        Self::mismatch(found, expected.to_string())
    }
}
