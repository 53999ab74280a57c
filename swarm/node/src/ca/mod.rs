//! The CA service: how a node gets a certificate, its first or its next. Here are the messages; the
//! node's side is `client.rs`, the manager's `server.rs`, the signing `issue.rs`. The leader alone
//! decides who is admitted. Never logs a token.

mod attempts;
mod client;
mod external;
mod issue;
mod server;
mod successor;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_api::node::Availability;
use skep_api::{Error, Secret};

use crate::texts::system;
pub use attempts::Attempts;
pub use client::{come_back, join, renew};
pub use issue::{issue, issue_as, validity};
pub use server::{renewed, serve};
pub use successor::prepare;

/// How long a node waits for one answer of a manager.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a node asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum CaRequest {
    /// A certificate for the role of the token.
    Join {
        /// The whole join token.
        token: Secret,
        /// A request that proves possession of the key; its names are ignored.
        csr_pem: String,
        /// What the node wants to be at first.
        availability: Availability,
    },
    /// A certificate for a node whose last one has expired.
    Return(Returning),
    /// The next certificate of the calling node, for the role that its row in the node table has.
    Renew {
        /// A request that proves possession of the new key; its names are ignored.
        csr_pem: String,
    },
}

/// What a node that comes back with an expired certificate shows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Returning {
    /// A fresh join token, of its role at least.
    pub token: Secret,
    /// A request that proves possession of the new key; its names are ignored.
    pub csr_pem: String,
    /// The expired certificate with its intermediates.
    pub old_cert_pem: String,
    /// The old key's signature over the request; see [`crate::pki::vouched_for`].
    pub signature: Vec<u8>,
}

/// What a manager answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum CaResponse {
    /// The node is in.
    Issued {
        /// Its certificate, with intermediates.
        cert_pem: String,
        /// Root certificates to trust from now on, PEM. A joiner has proven them by its token
        /// already; empty from a manager that does not say.
        #[serde(default)]
        roots_pem: String,
    },
    /// The exact refusal.
    Refused(Error),
}
