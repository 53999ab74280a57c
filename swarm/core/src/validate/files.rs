//! What the leader refuses of a secret or config by looking at its spec alone. Pure; the data is
//! measured and never shown.
//!
//! Source of the behaviour: swarmkit `manager/controlapi/{common,secret,config}.go`.

use skep_api::Error;
use skep_api::secret::{ConfigSpec, SecretSpec};

use super::{missing, refused};

/// Data of a secret is shorter than this, in bytes.
const SECRET_SIZE: usize = 512_000;
/// Data of a config is shorter than this, in bytes.
const CONFIG_SIZE: usize = 1_024_000;
/// The longest name.
const MAX_NAME: usize = 64;

/// Refuses a secret without a proper name or data.
///
/// # Errors
/// swarmkit's texts, 400; 501 for one whose value a plugin knows.
pub fn check_secret(spec: &SecretSpec) -> Result<(), Error> {
    name(&spec.name)?;
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => Err(refused("secret driver must have a name")),
        Some(_) => Err(missing("a secret of a plugin")),
        None => size("secret", spec.data.len(), SECRET_SIZE),
    }
}

/// Refuses a config without a proper name or data.
///
/// # Errors
/// swarmkit's texts, 400.
pub fn check_config(spec: &ConfigSpec) -> Result<(), Error> {
    name(&spec.name)?;
    size("config", spec.data.len(), CONFIG_SIZE)
}

fn name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(refused("name must be provided"));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let good = name.bytes().all(inner)
        && edge(name.bytes().next())
        && edge(name.bytes().next_back())
        && name.len() <= MAX_NAME;
    if good {
        return Ok(());
    }
    Err(refused(
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character \
         must be [a-zA-Z0-9]",
    ))
}

fn size(kind: &str, size: usize, limit: usize) -> Result<(), Error> {
    if (1..limit).contains(&size) {
        return Ok(());
    }
    Err(refused(format!(
        "{kind} data must be larger than 0 and less than {limit} bytes"
    )))
}
