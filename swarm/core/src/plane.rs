//! What a node's data plane is told: the networks that it has a part in, who is on them, and which
//! containers are here. Only the shapes: the dispatcher and the worker decide, the node carries out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::assignment::Overlay;
use crate::cidr::Cidr;
use crate::id::Id;
use crate::ipv6::Ipv6;

/// A network that is there on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// The bridge that it is here.
    pub bridge: String,
    /// Its subnet; of several, the one in which the node has its address.
    pub subnet: Cidr,
    /// The node's own address on it.
    pub gateway: Ipv4Addr,
    /// What that subnet has of IPv6, if it has.
    pub ipv6: Option<Ipv6>,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether ports are published on it.
    pub ingress: bool,
    /// If so, the other nodes' own addresses on it, with where they are.
    pub hosts: BTreeMap<Ipv4Addr, IpAddr>,
    /// Its other IPv4 subnets.
    pub branches: Vec<Branch>,
}

/// A subnet of a network in which this node has no address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The bridge that it is here.
    pub bridge: String,
    /// The subnet.
    pub subnet: Cidr,
    /// What it has of IPv6, if it has.
    pub ipv6: Option<Ipv6>,
}

impl From<&Overlay> for Network {
    fn from(overlay: &Overlay) -> Self {
        let hosts = overlay.gateways.iter().filter(|_| overlay.ingress);
        let hosts = hosts.filter_map(|it| Some((*it, *overlay.remotes.get(it)?)));
        let mut bridges = overlay.bridges();
        let first = bridges.next();
        let branches = bridges.zip(&overlay.branches);
        Self {
            id: overlay.id.clone(),
            name: overlay.name.clone(),
            bridge: first.unwrap_or_default(),
            subnet: overlay.subnet,
            gateway: overlay.gateway,
            ipv6: overlay.ipv6,
            internal: overlay.internal,
            ingress: overlay.ingress,
            hosts: hosts.collect(),
            branches: branches
                .map(|(bridge, it)| Branch {
                    bridge,
                    subnet: it.subnet,
                    ipv6: it.ipv6,
                })
                .collect(),
        }
    }
}

/// A service on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Other names that it has on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its virtual addresses there; none if its name stands for its tasks.
    #[serde(default)]
    pub vips: Vec<IpAddr>,
    /// Ports that it publishes on every node; none on networks that are not for that.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Clients of its published ports may be hidden behind a node's address.
    #[serde(default)]
    pub snat: bool,
    /// Connections to its published ports begin with a PROXY protocol header, version 2.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// A port that a service publishes on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// On the nodes.
    pub published: u16,
    /// In the containers.
    pub target: u16,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// Somebody on a network who is there to be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The task's id.
    pub id: Id,
    /// Its service, if it has one.
    #[serde(default)]
    pub service: Option<Id>,
    /// Its own names on this network.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// The address on this network of the node that it is on; `None` if it is on the one that is
    /// told.
    #[serde(default)]
    pub host: Option<Ipv4Addr>,
}

/// A container that runs on this node, or is about to start, and is on networks of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The task's id.
    pub id: Id,
    /// The engine's id of it.
    pub container: String,
    /// Its first process; 0 while the engine has not said which that is.
    pub pid: i64,
    /// It is about to start: before its first process begins, the plane is to be there.
    pub starting: bool,
    /// Its addresses, by network.
    pub addresses: BTreeMap<Id, Vec<IpAddr>>,
    /// Resolvers that it was given instead of the node's.
    pub resolvers: Vec<IpAddr>,
}

/// Something that is another way now. Telling what is known already changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A network is there, or is another way.
    Network(Network),
    /// A network is gone, and all that was on it.
    NetworkGone(Id),
    /// A service is on a network.
    Service(Id, Service),
    /// No longer: network and service.
    ServiceGone(Id, Id),
    /// Somebody is on a network.
    Endpoint(Id, Endpoint),
    /// No longer: network and task.
    EndpointGone(Id, Id),
    /// A container runs, or is about to.
    Container(Container),
    /// The container of this task does not run any more, or was not started.
    ContainerGone(Id),
}
