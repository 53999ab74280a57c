//! What the cluster's certificate authority asks of nodes, and how a rotation of the root begins
//! and comes to its end. Signs nothing and makes no keys: those need randomness.

mod rotation;
mod settle;
#[cfg(test)]
mod tests;

pub use rotation::{Wish, externals, no_external, stored, updated, wish};
pub use settle::Rotations;

use crate::assignment::Trust;
use crate::id::{IdSource, base36};
use crate::object::{RootCa, Secret};

/// Number of random bytes in a token's secret, and of base36 digits that they are written with.
const TOKEN_BYTES: usize = 16;
const TOKEN_DIGITS: usize = 25;

/// Whom nodes are to trust at the moment, and who issues their certificates.
pub fn trust(root: &RootCa) -> Trust {
    match &root.rotation {
        None => Trust {
            roots_pem: root.cert_pem.clone(),
            issuer_pem: root.cert_pem.clone(),
        },
        Some(rotation) => Trust {
            roots_pem: format!("{}{}", root.cert_pem, rotation.cert_pem),
            issuer_pem: rotation.cert_pem.clone(),
        },
    }
}

/// A join token with a new secret. The prefix names the format and the root certificate:
/// `SWMTKN-1-<digest>`.
pub(crate) fn token(prefix: &str, ids: &mut dyn IdSource) -> Secret {
    let random = ids.random_bytes();
    let digits = base36(random.get(..TOKEN_BYTES).unwrap_or_default());
    Secret::from(format!("{prefix}-{digits:0>TOKEN_DIGITS$}"))
}
