//! Who is who in a swarm: root CA, join tokens, node certificates and how peers are checked.
//! Never opens a socket and never decides membership; it only proves identities.

mod base36;
mod identity;
mod peer;
mod pem;
mod root;
mod token;
pub mod verify;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use base36::{random_bytes, random_id};
pub use identity::{Identity, KeyRequest};
pub use peer::Peer;
pub use root::{DEFAULT_LEAF_VALIDITY, Leaf, RootCa, TlsInfo};
pub use token::JoinToken;

/// Text that must never reach a log, an error or a `Debug` dump: keys and token secrets.
/// Serialises as the plain text, because it has to travel between managers and to disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; the name is meant to stand out in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The role that a certificate grants (its OU), which is not always the role that is desired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks only.
    Worker,
    /// Holds the replicated state and issues certificates.
    Manager,
}

impl Role {
    /// The organisational unit of a certificate of this role, as in swarmkit.
    pub fn ou(self) -> &'static str {
        match self {
            Role::Worker => "swarm-worker",
            Role::Manager => "swarm-manager",
        }
    }

    /// The role that an organisational unit stands for.
    pub fn from_ou(ou: &str) -> Option<Role> {
        match ou {
            "swarm-worker" => Some(Role::Worker),
            "swarm-manager" => Some(Role::Manager),
            _ => None,
        }
    }
}

impl From<skep_core::object::Role> for Role {
    fn from(role: skep_core::object::Role) -> Self {
        match role {
            skep_core::object::Role::Worker => Role::Worker,
            skep_core::object::Role::Manager => Role::Manager,
        }
    }
}

impl From<Role> for skep_core::object::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Worker => skep_core::object::Role::Worker,
            Role::Manager => skep_core::object::Role::Manager,
        }
    }
}

/// What can be wrong with keys, certificates and tokens. Never contains secret material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A malformed join token; the text is dockerd's.
    #[error("invalid join token")]
    InvalidToken,
    /// A well-formed token of a cluster that demands FIPS; the text is dockerd's.
    #[error("node is not FIPS-enabled but cluster requires FIPS")]
    FipsRequired,
    /// The root certificate that was served is not the one the token names; the text is dockerd's.
    #[error("remote CA does not match fingerprint. Expected: {0}")]
    Fingerprint(String),
    /// A certificate, CSR or key that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Signing was asked of a root without its key (external CA).
    #[error("this node does not hold the signing key of the root CA")]
    NoSigningKey,
    /// The machine gave no random numbers, or a signature could not be made.
    #[error("cryptography failed: {0}")]
    Crypto(String),
    /// A file below DATA_DIR/certificates could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl PkiError {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        PkiError::Invalid(what.into())
    }
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        PkiError::Crypto(error.to_string())
    }
}
