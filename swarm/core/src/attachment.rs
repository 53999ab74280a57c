//! Places on networks, and the tasks that stand for containers that are no task's: someone ran one
//! on a network of the swarm, and its node asked for a place there. Only the types: `control/` makes
//! such tasks, the allocator gives them their addresses, and nobody ever schedules one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::id::Id;
use crate::ipv6::Cidr6;
use crate::network::{branch_name, engine_name};

/// A task's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: Id,
    /// Where on it.
    pub place: Place,
    /// Where on its IPv6 side, if it has one.
    #[serde(default)]
    pub ipv6: Option<Cidr6>,
    /// Which of the network's IPv4 subnets that is, counted from 0.
    #[serde(default)]
    pub branch: usize,
}

impl Attachment {
    /// Its addresses there, IPv4's first; none on a network of the engine's own.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = match &self.place {
            Place::Address(cidr) => Some(cidr.address.into()),
            Place::Engine(_) => None,
        };
        let ipv6 = self.ipv6.map(|cidr| cidr.address.into());
        ipv4.into_iter().chain(ipv6)
    }

    /// What the engine calls its part of the network.
    pub fn engine_name(&self, ingress: bool) -> String {
        match &self.place {
            Place::Engine(name) => name.clone(),
            Place::Address(_) => branch_name(&self.network, ingress, self.branch),
        }
    }

    /// Whether the node makes the network for its tasks, and the engine does not have it anyway.
    pub fn is_made_here(&self) -> bool {
        match &self.place {
            Place::Address(_) => true,
            Place::Engine(name) => *name == engine_name(&self.network, false),
        }
    }
}

/// Where on a network a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// It has this address.
    Address(Cidr),
    /// The network is one of each engine's own, which the engine knows by this name.
    Engine(String),
}

/// What a node asks for on behalf of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The network: its id, its name or the beginning of its id.
    pub network: String,
    /// The container.
    pub container: Attached,
}

/// The container that a task stands for, which the node did not make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its id at the engine.
    pub id: String,
    /// What others on the network call it.
    pub names: Vec<String>,
    /// The address that it must have.
    pub address: Option<Ipv4Addr>,
    /// The IPv6 address that it must have.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// The address that it had and keeps if nobody else has got it.
    #[serde(default)]
    pub last: Option<Ipv4Addr>,
}

impl Attached {
    /// Whether it asks for an address itself.
    pub fn asks_for_address(&self) -> bool {
        self.address.is_some() || self.ipv6.is_some()
    }
}
