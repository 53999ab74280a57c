//! What travels between the dispatcher and an agent: sessions, heartbeats, assignments, statuses.
//! Only the messages: `dispatcher/` and `worker/` decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use skep_api::node::NodeDescription;
use skep_api::task::{TaskState, TaskStatus};
use skep_api::{Error, Secret};

use crate::Nanos;
use crate::attachment::Wish;
use crate::cidr::Cidr;
use crate::id::Id;
use crate::ipv6::{Cidr6, Ipv6};
use crate::network::{LocalDriver, bridge_name};
use crate::object::{Node, Task};
use crate::plane::{Endpoint, Service};
use crate::task_files::FileData;
use crate::wire::PeerInfo;

/// From a node's agent to the leader. The node itself is known from its certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToDispatcher {
    /// Opens a session; sent first, and again when the description changes.
    Register {
        /// What the node says of itself.
        description: Box<NodeDescription>,
        /// What it reaches besides the swarm's networks.
        #[serde(default)]
        subnets: Vec<Cidr>,
        /// The same of IPv6.
        #[serde(default)]
        subnets6: Vec<Cidr6>,
        /// Where others are to send packets of networks to, if the node can say.
        #[serde(default)]
        data_path: Option<IpAddr>,
    },
    /// Proves that the node is alive.
    Heartbeat,
    /// Statuses of the node's own tasks, newest last; answered by [`ToAgent::Ack`].
    Statuses {
        /// Numbers the message within the session, for the answer.
        sequence: u64,
        /// Task ids with what is known of them.
        statuses: Vec<(Id, TaskStatus)>,
    },
    /// The daemon stops for a short while; its containers go on.
    Restarting,
    /// A container that is no task's is to be on a network; answered by [`ToAgent::Answer`].
    Attach {
        /// Numbers the request, for the answer.
        number: u64,
        /// What is wanted.
        wish: Box<Wish>,
    },
    /// It is not to be there any more; not answered.
    Detach {
        /// The container.
        container: String,
        /// The network as the wish named it; `None` for all.
        network: Option<String>,
    },
    /// The node leaves the swarm, and its containers are about to be removed.
    Leaving,
    /// Nobody here is sent to any more whom messages up to this revision took away; said of those
    /// that ask for it: [`Assignments::follow`].
    Followed(u64),
}

/// From the leader to a node's agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The session is open.
    Session {
        /// How often to send a heartbeat, in nanoseconds.
        heartbeat: Nanos,
        /// The node as the store has it.
        node: Box<Node>,
        /// Every manager: node id and `host:port`.
        managers: Vec<(Id, String)>,
        /// What the node's certificate should be like.
        #[serde(default)]
        trust: Trust,
    },
    /// What the node has to do.
    Assignments(Assignments),
    /// The statuses up to this sequence number are on a majority's disks.
    Ack(u64),
    /// This manager does not lead; the leader's `host:port`, if it knows one.
    NotLeader(Option<String>),
    /// The session is over; say [`ToDispatcher::Register`] again.
    Expired,
    /// The node may not register now, and why. It may try again after a while.
    Refused(String),
    /// What became of a request.
    Answer {
        /// The request's number.
        number: u64,
        /// The task that stands for the container, or the refusal.
        outcome: Result<Id, Error>,
    },
    /// Every node has followed up to this revision, as in [`ToDispatcher::Followed`]: what was to
    /// be stopped by then may be.
    Followed(u64),
}

/// Whom a node is to trust, and who must have issued its certificate. A node that differs renews
/// its certificate at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Root certificates to trust, PEM: during a rotation the old one, then the new one.
    pub roots_pem: String,
    /// The root whose key must have signed the node's certificate, PEM.
    pub issuer_pem: String,
}

/// Tasks for one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// Whether `tasks` is everything: tasks of the node that are not in it are to be removed.
    pub complete: bool,
    /// Tasks that are new or changed.
    pub tasks: Vec<Task>,
    /// Tasks that the node must forget, removing their containers.
    pub removed: Vec<Id>,
    /// The store's revision that this tells of. A node never listens to an older one than it has
    /// heard: it comes from a leader that has been overtaken without knowing it yet.
    #[serde(default)]
    pub revision: u64,
    /// Secrets and configs that tasks of the node need, in this message or a later one. The node
    /// keeps them in memory alone, and only while a task needs them.
    #[serde(default)]
    pub files: Vec<(Id, FileData)>,
    /// Networks that the node has a part in, each whole: new ones, and those with another gateway.
    #[serde(default)]
    pub networks: Vec<Overlay>,
    /// Networks that the node has no part in any more.
    #[serde(default)]
    pub networks_removed: Vec<Id>,
    /// Addresses of networks that the node has a part in, and where they are now.
    #[serde(default)]
    pub moves: Vec<Move>,
    /// Who is on networks that the node has a part in. What is too much for one message goes on in
    /// the next.
    #[serde(default)]
    pub directories: Vec<Directory>,
    /// The node is to say when it has followed: [`ToDispatcher::Followed`].
    #[serde(default)]
    pub follow: bool,
}

impl Assignments {
    /// Whether somebody may be sent to no more who was before.
    pub fn takes_away(&self) -> bool {
        let takes = |it: &Directory| it.complete || !it.endpoints_removed.is_empty();
        self.complete || self.directories.iter().any(takes)
    }

    /// Whether a task that may run is to be stopped; what is missing among all is, too.
    pub fn stops(&self) -> bool {
        let stops = |task: &Task| task.desired_state > TaskState::Complete;
        self.complete || !self.removed.is_empty() || self.tasks.iter().any(stops)
    }
}

/// A network as one node has a part in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// The network.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its VXLAN id.
    pub vni: u32,
    /// UDP port of the data path.
    pub port: u16,
    /// The largest packet of its containers, in bytes.
    pub mtu: u32,
    /// Nobody asked for that: it is what is left of an Ethernet's 1500, and a node whose packets
    /// leave on another kind of wire goes by that.
    #[serde(default)]
    pub mtu_follows: bool,
    /// Its subnet; of several, the one in which the node has its address.
    pub subnet: Cidr,
    /// The node's own address.
    pub gateway: Ipv4Addr,
    /// What that subnet has of IPv6, if it has.
    #[serde(default)]
    pub ipv6: Option<Ipv6>,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether ports are published on it.
    #[serde(default)]
    pub ingress: bool,
    /// Where other nodes send the node's packets to.
    pub local: IpAddr,
    /// Addresses on other nodes, gateways included, with the address of the node.
    pub remotes: BTreeMap<Ipv4Addr, IpAddr>,
    /// Those of them that are the nodes' own.
    #[serde(default)]
    pub gateways: BTreeSet<Ipv4Addr>,
    /// All nodes that have a part in it, this one too, by their own addresses on it.
    #[serde(default)]
    pub peers: BTreeMap<Ipv4Addr, PeerInfo>,
    /// Keys that what is sent between nodes is sealed with, newest first; none if it is sent as it
    /// is.
    #[serde(default)]
    pub keys: Vec<OverlayKey>,
    /// The network as clients see it in lists, in JSON. It never changes.
    #[serde(default)]
    pub shown: String,
    /// How to make it if the engine does so by itself. Then nothing of it is elsewhere.
    #[serde(default)]
    pub driver: Option<LocalDriver>,
    /// Which of the network's subnets that one is, counted from 0.
    #[serde(default)]
    pub number: usize,
    /// Its other IPv4 subnets.
    #[serde(default)]
    pub branches: Vec<Branch>,
}

/// A subnet of a network in which a node has no address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Which of the network's subnets it is, counted from 0.
    pub number: usize,
    /// The subnet.
    pub subnet: Cidr,
    /// The way out of it: an address that every node has for its own containers, and nobody else.
    pub gateway: Ipv4Addr,
    /// What it has of IPv6, if it has.
    #[serde(default)]
    pub ipv6: Option<Ipv6>,
}

/// A key of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverlayKey {
    /// Names it in packets.
    pub number: u32,
    /// The key.
    pub secret: Secret,
}

impl Overlay {
    /// All its IPv4 subnets, first the one in which the node has its address.
    pub fn subnets(&self) -> impl Iterator<Item = Branch> {
        let first = Branch {
            number: self.number,
            subnet: self.subnet,
            gateway: self.gateway,
            ipv6: self.ipv6,
        };
        std::iter::once(first).chain(self.branches.iter().copied())
    }

    /// What they have of IPv6.
    pub fn sides(&self) -> impl Iterator<Item = Ipv6> {
        self.subnets().filter_map(|it| it.ipv6)
    }

    /// The bridges that are its subnets here, in the same order.
    pub fn bridges(&self) -> impl Iterator<Item = String> {
        let own = (self.number, self.gateway);
        self.subnets()
            .map(move |it| bridge_name(&self.id, own, it.number))
    }

    /// Whether the two could not be on one node: they have an address or a VXLAN id in common.
    pub fn collides(&self, other: &Self) -> bool {
        let theirs = |it: Branch| {
            let ipv6 = |other: Ipv6| it.ipv6.is_some_and(|it| it.subnet.overlaps(other.subnet));
            other
                .subnets()
                .any(|other| other.subnet.overlaps(it.subnet))
                || other.sides().any(ipv6)
        };
        self.vni == other.vni || self.subnets().any(theirs)
    }

    /// Whether both are the same but for what is on other nodes.
    pub fn same_here(&self, other: &Self) -> bool {
        let here = |it: &Self| {
            (
                it.vni,
                it.port,
                (it.mtu, it.mtu_follows),
                it.subnet,
                it.gateway,
                it.ipv6,
                it.internal,
                it.ingress,
                it.local,
                it.keys.is_empty(),
                (it.number, it.branches.clone()),
            )
        };
        here(self) == here(other)
    }
}

/// An address of a network that came to be somewhere, or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The network.
    pub network: Id,
    /// The address.
    pub address: Ipv4Addr,
    /// The address of the node that it is on; `None` if that is this one, or none.
    pub to: Option<IpAddr>,
    /// Whether it is that node's own.
    #[serde(default)]
    pub gateway: bool,
    /// The node whose own it is, wherever that is.
    #[serde(default)]
    pub peer: Option<PeerInfo>,
}

/// Who is on a network, or what has changed about that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The network.
    pub network: Id,
    /// This is all of it, or a part of all: what is in no part is not on the network.
    #[serde(default)]
    pub complete: bool,
    /// Another part of all of it follows; none of it counts before the last one is there.
    #[serde(default)]
    pub more: bool,
    /// Services that are on it, or are another way.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Services that are not on it any more.
    #[serde(default)]
    pub services_removed: Vec<Id>,
    /// Tasks that serve on it, or are another way.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Tasks that do not serve any more.
    #[serde(default)]
    pub endpoints_removed: Vec<Id>,
}

impl Directory {
    /// One that says nothing yet.
    pub fn of(network: Id, complete: bool) -> Self {
        Self {
            network,
            complete,
            more: false,
            services: Vec::new(),
            services_removed: Vec::new(),
            endpoints: Vec::new(),
            endpoints_removed: Vec::new(),
        }
    }

    /// Whether telling it would tell nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::of(self.network.clone(), false)
    }
}
