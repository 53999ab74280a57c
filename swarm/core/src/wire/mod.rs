//! From stored objects to what clients see, and the lists with their filters. Reads only: nothing
//! here changes a state, and no secret but the join tokens (for managers) leaves through it.
//!
//! Source of the behaviour: moby `daemon/cluster/convert` and `daemon/cluster/{services,nodes,
//! tasks,filters}.go`.

pub(crate) mod cert;
mod cluster;
mod event;
mod files;
mod list;
mod network;
mod network_services;
mod node;
mod service;
mod task;

use std::collections::BTreeSet;

pub use cert::tls_info;
pub use cluster::{cluster_info, swarm};
pub use event::{event, leadership, reachability};
pub use files::{config, configs, secret, secrets};
pub use list::{nodes, services, tasks};
pub(crate) use network::peer;
pub use network::{
    NetworkFacts, NetworkResource, PeerInfo, is_in_use, network, network_in_full, networks,
};
pub use network_services::{ServiceInfo, network_services};
pub use node::node;
pub use service::{service, service_status};
pub use task::task;

use crate::id::Id;

/// What the manager that answers knows of its peers, from raft: it is not in the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// The node that leads, if this manager knows one.
    pub leader: Option<Id>,
    /// Managers that do not answer. The others are taken to be reachable.
    pub unreachable: BTreeSet<Id>,
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
