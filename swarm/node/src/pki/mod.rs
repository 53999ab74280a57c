//! Who is who in a swarm: root CA, join tokens, node certificates and how peers are checked.
//! Never opens a socket and never decides membership; it only proves identities.

mod base36;
mod identity;
mod issuer;
mod keys;
mod peer;
mod pem;
mod proof;
mod root;
mod successor;
mod token;
pub mod verify;

use std::path::PathBuf;

pub use base36::{random_bytes, random_id};
pub use identity::{Identity, KeyRequest};
pub use peer::Peer;
pub use proof::vouched_for;
pub use root::{DEFAULT_LEAF_VALIDITY, Leaf, RootCa, TlsInfo, hosts};
pub use skep_api::Secret;
pub use skep_core::object::Role;
pub use token::JoinToken;

/// The organisational unit of a certificate of this role, as in swarmkit. The role that a
/// certificate grants is not always the one that is desired.
pub fn ou(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarm-worker",
        Role::Manager => "swarm-manager",
    }
}

/// The role that an organisational unit stands for.
pub fn role_of(unit: &str) -> Option<Role> {
    [Role::Worker, Role::Manager]
        .into_iter()
        .find(|role| ou(*role) == unit)
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
    /// The keys that seal the node's private key cannot be used, or are locked.
    #[error(transparent)]
    Disk(#[from] crate::disk::DiskError),
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
