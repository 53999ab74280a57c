//! The objects of a cluster as the replicated store keeps them. Never the wire form: `wire/`
//! turns these into what clients see. Secrets hide in `Debug`.

mod task;
mod trust;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use skep_api::Secret;
use skep_api::cluster::Spec as ClusterSpec;
use skep_api::go::{Driver, Version};
use skep_api::network::{Endpoint, EndpointSpec, IpamOptions, NetworkSpec};
use skep_api::node::{NodeDescription, NodeSpec, NodeState};
use skep_api::secret::{ConfigSpec, SecretSpec};
use skep_api::service::{JobStatus, ServiceSpec, UpdateStatus};
use skep_api::task::{GenericResource, TaskSpec, TaskState, TaskStatus};

use crate::Timestamp;
pub use crate::attachment::{Attached, Attachment, Place};
use crate::cidr::Cidr;
use crate::id::Id;
use crate::ipv6::Cidr6;
pub use crate::network::NetworkKey;
use crate::shared::Shared;

pub use trust::{JoinTokens, RootCa, Rotation};

/// Bookkeeping that every object carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The store's revision at the object's last write: clients see it as `Version.Index`.
    pub version: u64,
    /// When the object was created.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// What all kinds of objects have in common.
pub trait Entity {
    /// The object's id.
    fn id(&self) -> &Id;
    /// Its bookkeeping.
    fn meta(&self) -> &Meta;
}

/// The swarm itself; there is exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id, the `O` of every node's certificate.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What the user asked for. Its write-only CA fields are cleared before it is stored.
    pub spec: ClusterSpec,
    /// The certificate authority.
    pub root_ca: RootCa,
    /// Tokens that let nodes in, in the `SWMTKN-1-…` form.
    pub join_tokens: JoinTokens,
    /// Pools that overlay networks take their subnets from.
    pub default_addr_pool: Vec<String>,
    /// Prefix length of a subnet out of the pools.
    pub subnet_size: u32,
    /// UDP port of the overlay's data path.
    pub data_path_port: u32,
    /// What managers wrap the key of their disk with, `SWMKEY-1-…`; `None` without autolock.
    #[serde(default)]
    pub unlock_key: Option<Secret>,
}

/// What a node may do, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks only.
    Worker,
    /// Runs tasks, takes part in raft and answers API calls.
    Manager,
}

/// A host in the swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The node's id, the `CN` of its certificate.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What the user asked for, the desired role included.
    pub spec: NodeSpec,
    /// What the node says of itself; absent until it has registered once.
    pub description: Option<NodeDescription>,
    /// Whether the node is there.
    pub status: NodeStatus,
    /// The role its certificate gives it; `spec` has the desired one.
    pub role: Role,
    /// Its part in raft, if it is a manager.
    pub manager: Option<ManagerMember>,
    /// When it was last made active after it had been paused or drained.
    #[serde(default)]
    pub active_since: Timestamp,
    /// Its own address on each network of which it has tasks: their gateway there.
    #[serde(default)]
    pub gateways: BTreeMap<Id, Ipv4Addr>,
    /// What it reaches besides the swarm's networks, as it said last: its own networks and routes.
    #[serde(default)]
    pub subnets: Vec<Cidr>,
    /// The same of IPv6.
    #[serde(default)]
    pub subnets6: Vec<Cidr6>,
    /// Where it said last that packets of networks are to be sent to.
    #[serde(default)]
    pub data_path: Option<IpAddr>,
}

/// Whether a node is there, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Ready, down and so on.
    pub state: NodeState,
    /// Why, in words clients may show.
    pub message: String,
    /// The address the dispatcher sees the node at, without a port.
    pub addr: String,
    /// When the node last went down, or came back from that.
    #[serde(default)]
    pub since: Timestamp,
    /// How often it went down each time without having been there for long.
    #[serde(default)]
    pub flaps: u32,
    /// The node said that it stops for a while, and is not to be missed before then.
    #[serde(default)]
    pub back_by: Option<Timestamp>,
}

/// A manager's membership in raft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerMember {
    /// Its raft id: drawn anew at each join, so that a wiped member never votes twice.
    pub raft_id: u64,
    /// `host:port` at which other nodes reach it.
    pub addr: String,
}

/// A service: what the user declared and how far its last update got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The service's id.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: ServiceSpec,
    /// Version of `spec`: changes only when the spec changes, unlike `meta.version`.
    pub spec_version: u64,
    /// What the user asked for before; `rollback` returns to it.
    pub previous_spec: Option<ServiceSpec>,
    /// Version of `previous_spec`.
    pub previous_spec_version: Option<u64>,
    /// Progress of the last update.
    pub update_status: Option<UpdateStatus>,
    /// `X-Registry-Auth` as sent with `spec`.
    pub registry_auth: Option<Secret>,
    /// `X-Registry-Auth` as sent with `previous_spec`.
    pub previous_registry_auth: Option<Secret>,
    /// Which run of a job this is; `None` for services that are none.
    #[serde(default)]
    pub job: Option<JobStatus>,
    /// The ports and addresses that the allocator gave it; `None` until then.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// When it was last seen to whether tasks are to move to nodes that had joined.
    #[serde(default)]
    pub rebalanced_at: Option<Timestamp>,
    /// The update under way leaves the spec as it is, since it only moves tasks or brings them new
    /// data: there is nothing to roll back to.
    #[serde(default)]
    pub rebalancing: bool,
    /// How often the data of a secret or config that it uses was changed in place.
    #[serde(default)]
    pub roll: u64,
}

/// One instance of a service in one slot; never restarted, always replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The task's id.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What to run: a copy of the service's template when the task was made.
    pub spec: Shared<TaskSpec>,
    /// `Service::spec_version` the task was made from.
    pub spec_version: u64,
    /// The service it belongs to.
    pub service_id: Id,
    /// The service's name when the task was made.
    pub service_name: Arc<str>,
    /// The service's labels when the task was made.
    pub service_labels: Shared<BTreeMap<String, String>>,
    /// Which of the service's slots it fills, from 1; a job's from 0. 0 in a global service.
    pub slot: u64,
    /// Where it runs, once the scheduler has decided.
    pub node_id: Option<Id>,
    /// What is known of it.
    pub status: TaskStatus,
    /// When it was first reported running. An update watches new tasks from then on.
    #[serde(default)]
    pub running_since: Option<Timestamp>,
    /// Made by an update, which watches it; not by scaling or as a replacement of one that ended.
    #[serde(default)]
    pub of_update: bool,
    /// What it is meant to be; only ever moves forward.
    pub desired_state: TaskState,
    /// For pulling its image.
    pub registry_auth: Option<Secret>,
    /// Set on a replacement that waits: when and after whom it may start.
    pub start_gate: Option<StartGate>,
    /// The run of the job that it belongs to; `None` for tasks of other services.
    #[serde(default)]
    pub job_iteration: Option<u64>,
    /// The resources that the scheduler took for it from those that its node names.
    #[serde(default)]
    pub generic_resources: Vec<GenericResource>,
    /// How its service was to be reached when the task was made.
    #[serde(default)]
    pub endpoint: Option<EndpointSpec>,
    /// The networks that it is on, in the order of its spec; none before the allocator was there.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// Another node is to have it: the next update replaces it.
    #[serde(default)]
    pub moving: bool,
    /// How many tasks in a row before it in its slot ended soon.
    #[serde(default)]
    pub crashes: u32,
    /// `Service::roll` when the task was made: its secrets and configs are at least as new.
    #[serde(default)]
    pub roll: u64,
    /// The container that it stands for, if that is none of a service's.
    #[serde(default)]
    pub attached: Option<Attached>,
}

/// What a task in desired state `ready` waits for before it may run. In the store, so that a new
/// leader resumes the wait where the old one left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartGate {
    /// The restart delay ends then.
    pub not_before: Timestamp,
    /// The task that must have stopped first.
    pub after: Option<Id>,
    /// Give up waiting for `after` then.
    pub deadline: Timestamp,
}

/// What the status of a node says that left.
pub const LEFT: &str = "node left the swarm";

impl Node {
    /// Whether it said that it leaves, and was not heard of since. One that is merely down may be
    /// cut off, with all that is on it.
    pub fn has_left(&self) -> bool {
        self.status.state == NodeState::Down && self.status.message == LEFT
    }
}

impl Service {
    /// Begins the next run of a job, as every write of its spec does, even if nothing changed; does
    /// nothing to a service that is none.
    pub fn run_again(&mut self, now: Timestamp) {
        if let Some(job) = &mut self.job {
            job.job_iteration = Version::from(job.job_iteration.index.saturating_add(1));
            job.last_execution = now;
        }
    }
}

/// A small file that nobody sees but the tasks that use it. Its spec hides the data in `Debug`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretObject {
    /// The secret's id.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What the user gave, data included.
    pub spec: SecretSpec,
}

/// A small file for tasks that may be read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigObject {
    /// The config's id.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What the user gave, data included.
    pub spec: ConfigSpec,
}

/// A network of the swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkObject {
    /// The network's id.
    pub id: Id,
    /// Bookkeeping.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: NetworkSpec,
    /// The driver and what was chosen for it, such as the VXLAN id.
    pub driver_state: Option<Driver>,
    /// The subnets that it has, gateways included; `None` for networks that are the engines' own.
    pub ipam: Option<IpamOptions>,
    /// What nodes seal with what they send each other on it, newest first; none if they need not.
    #[serde(default)]
    pub keys: Vec<NetworkKey>,
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// [`Cluster`]
    Cluster,
    /// [`Node`]
    Node,
    /// [`Service`]
    Service,
    /// [`Task`]
    Task,
    /// [`SecretObject`]
    Secret,
    /// [`ConfigObject`]
    Config,
    /// [`NetworkObject`]
    Network,
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// The swarm.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A secret.
    Secret(Arc<SecretObject>),
    /// A config.
    Config(Arc<ConfigObject>),
    /// A network.
    Network(Arc<NetworkObject>),
}

macro_rules! entities {
    ($($kind:ident: $object:ident),*) => {
        $(
            impl Entity for $object {
                fn id(&self) -> &Id { &self.id }
                fn meta(&self) -> &Meta { &self.meta }
            }
            impl From<$object> for Object {
                fn from(object: $object) -> Self { Object::$kind(Arc::new(object)) }
            }
        )*
        impl Object {
            /// The object's kind.
            pub fn kind(&self) -> Kind {
                match self { $(Object::$kind(_) => Kind::$kind,)* }
            }
            /// The object's id.
            pub fn id(&self) -> &Id {
                match self { $(Object::$kind(object) => &object.id,)* }
            }
            /// The object's bookkeeping.
            pub fn meta(&self) -> &Meta {
                match self { $(Object::$kind(object) => &object.meta,)* }
            }
            pub(crate) fn meta_mut(&mut self) -> &mut Meta {
                match self { $(Object::$kind(object) => &mut Arc::make_mut(object).meta,)* }
            }

            /// Gives it this bookkeeping; does not copy an object that has it already.
            pub(crate) fn set_meta(&mut self, meta: Meta) {
                if *self.meta() != meta {
                    *self.meta_mut() = meta;
                }
            }
        }
    };
}

entities!(
    Cluster: Cluster,
    Node: Node,
    Service: Service,
    Task: Task,
    Secret: SecretObject,
    Config: ConfigObject,
    Network: NetworkObject
);
