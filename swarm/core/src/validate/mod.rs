//! What a client may ask for, and the exact words of each refusal. Never looks at the state: what
//! depends on other objects is refused in `control/`.
//!
//! Three layers, in the order in which a request meets them:
//! - the *daemon* layer ([`service_spec`], [`node_spec`], [`cluster_update`]) runs on the manager
//!   that took the request, as dockerd's own conversion does: texts without a prefix, and the
//!   result is the spec as it will be read back (defaults spelled out, unknown options dropped);
//! - the *manager* layer (`check_*`) runs on the leader: texts with `rpc error: ...`;
//! - what skep cannot do yet ([`unsupported`]) is refused last, so that a request that is wrong
//!   anyway gets the original's words.

mod cluster;
mod container;
mod daemon;
mod files;
mod image;
mod manager;
mod network;
mod network6;
mod template;
mod unsupported;

pub use cluster::{check_cluster, check_protocols, cluster_update};
pub use daemon::{node_spec, service_spec};
pub use files::{check_config, check_secret};
pub use image::{is_reference, to_pin};
pub use manager::check_service;
pub use network::{check_network, network_spec};
pub use unsupported::unsupported;

use skep_api::{Code, Error};

/// A refusal in the manager: 400 with the prefix.
pub(crate) fn refused(text: impl std::fmt::Display) -> Error {
    Error::rpc(Code::InvalidArgument, text)
}

/// A feature that is known and missing.
pub(crate) fn missing(what: &str) -> Error {
    Error::not_implemented(format!("{what} is not supported by this version of skep"))
}
