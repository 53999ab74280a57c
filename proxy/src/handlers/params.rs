//! Query parameters, bodies and headers of swarm calls, with dockerd's words for the bad ones.
//! Knows nothing of what they are for.

use serde::de::DeserializeOwned;
use skep_api::filters::Filters;
use skep_api::{Error, Secret, decode};

use crate::swarm::{OwnedRequest, Query};

/// The header that carries a registry's credentials.
const REGISTRY_AUTH: &str = "x-registry-auth";

/// The body, by Go's rules; an empty one is the zero value.
pub(super) fn body<T: DeserializeOwned + Default>(request: &OwnedRequest) -> Result<T, Error> {
    if request.body.is_empty() {
        Ok(T::default())
    } else {
        decode(&request.body)
    }
}

/// `version`: mandatory wherever something is updated. `kind` is `service`, `node` or `swarm`.
pub(super) fn version(query: &Query, kind: &str) -> Result<u64, Error> {
    let raw = query.get("version").unwrap_or_default();
    // Rust allows a leading plus, Go does not.
    let number = if raw.starts_with('+') {
        None
    } else {
        raw.parse().ok()
    };
    number.ok_or_else(|| {
        let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
        let why = if digits {
            "value out of range"
        } else {
            "invalid syntax"
        };
        Error::invalid(format!(
            "invalid {kind} version '{raw}': strconv.ParseUint: parsing {raw:?}: {why}"
        ))
    })
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A strict flag of a read; absent and empty are false.
pub(crate) fn flag(query: &Query, name: &str) -> Result<bool, Error> {
    let raw = query.get(name).unwrap_or_default();
    if raw.is_empty() {
        return Ok(false);
    }
    parse_bool(raw).ok_or_else(|| {
        Error::invalid(format!(
            "invalid value for {name}: {raw}: strconv.ParseBool: parsing {raw:?}: invalid syntax"
        ))
    })
}

/// A strict flag of `POST /swarm/update`, whose refusal is shorter.
pub(super) fn rotation(query: &Query, name: &str) -> Result<bool, Error> {
    let raw = query.get(name).unwrap_or_default();
    if raw.is_empty() {
        return Ok(false);
    }
    parse_bool(raw).ok_or_else(|| Error::invalid(format!("invalid value for {name}: {raw}")))
}

/// Refuses a secret or config that is a template where the client's API knows none.
pub(super) fn templating(kind: &str, request: &OwnedRequest) -> Result<(), Error> {
    let version = request.version;
    if version.before(37) {
        let text = "templating is not supported on the specified API version";
        return Err(Error::invalid(format!("{kind} {text}: {version}")));
    }
    Ok(())
}

/// `filters`
pub(super) fn filters(query: &Query) -> Result<Filters, Error> {
    Filters::parse(query.get("filters").unwrap_or_default())
}

/// The credentials that the client sent along, as they are.
pub(super) fn registry_auth(request: &OwnedRequest) -> Option<Secret> {
    let header = request.headers.get(REGISTRY_AUTH)?.to_str().ok()?;
    (!header.is_empty()).then(|| Secret::from(header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let parse = |query: &str| version(&Query::parse(query), "service").map_err(|e| e.message);
        assert_eq!(parse("version=7"), Ok(7));
        for (query, text) in [
            (
                "",
                "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax",
            ),
            (
                "version=-1",
                "invalid service version '-1': strconv.ParseUint: parsing \"-1\": invalid syntax",
            ),
            (
                "version=99999999999999999999",
                "invalid service version '99999999999999999999': strconv.ParseUint: parsing \
                 \"99999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(parse(query), Err(text.to_owned()));
        }
        assert!(parse("version=%2B7").is_err());
    }

    #[test]
    fn flags() {
        let parse = |query: &str| flag(&Query::parse(query), "status").map_err(|e| e.message);
        assert_eq!(parse(""), Ok(false));
        assert_eq!(parse("status="), Ok(false));
        assert_eq!(parse("status=T"), Ok(true));
        assert_eq!(parse("status=0"), Ok(false));
        assert_eq!(
            parse("status=maybe").unwrap_err(),
            "invalid value for status: maybe: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        let error = rotation(&Query::parse("r=x"), "r").unwrap_err();
        assert_eq!(error, Error::invalid("invalid value for r: x"));
    }
}
