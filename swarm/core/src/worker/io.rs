//! What goes into a worker and what comes out of it. Only the shapes: `worker/mod.rs` decides.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_api::network::PortConfig;
use skep_api::task::TaskStatus;

use super::PortsTaken;
use crate::Timestamp;
use crate::assignment::{Assignments, Overlay};
use crate::id::Id;
use crate::ipv6::Ipv6;
use crate::object::{Node, Secret, Task};
use crate::plane::{Change, Endpoint, Service};
use crate::task_files::TaskFile;

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The dispatcher opened a session, or told again what the node is.
    Session(Box<Node>),
    /// The session is over.
    SessionLost,
    /// The dispatcher said what to do.
    Assignments(Assignments),
    /// The dispatcher has reports up to this number safe.
    Ack(u64),
    /// Every node has followed up to this revision: see [`crate::assignment::ToAgent::Followed`].
    Followed(u64),
    /// The engine answers: at start, and after it was away. Sent also when events may have been
    /// missed.
    EngineUp,
    /// The engine does not answer. Nothing is known of its containers until it does again.
    EngineDown,
    /// An operation that the worker asked for has ended.
    Finished {
        /// The number it was asked under.
        op: u64,
        /// How it ended.
        result: OpResult,
    },
    /// The engine said that something happened to a container with a task label.
    Event {
        /// The label `com.docker.swarm.task.id`.
        task: Id,
        /// With a `die` event: the exit code.
        died: Option<i64>,
    },
    /// The engine said that something happened to a container without such a label.
    Happened {
        /// Its id.
        container: String,
    },
    /// Somebody begins to start or to connect a container that is no task's.
    Hold {
        /// Its id.
        container: String,
    },
    /// That is over.
    LetGo {
        /// The container's id.
        container: String,
    },
    /// The image of a [`EngineOp::Pull`] takes long, and is so far. Comes seldom: what is told of it
    /// ends in the store.
    Pulling {
        /// As the operation named it.
        image: String,
        /// In words.
        text: String,
    },
    /// The data plane has just started and knows nothing.
    PlaneUp,
    /// A container's process has ended, which the plane was told of. Says nothing about how.
    Exited {
        /// The task.
        task: Id,
        /// The process.
        pid: i64,
    },
    /// Published ports that are not to be had on this node; none of those that are not among them.
    PortsTaken(PortsTaken),
    /// Nothing but that time has passed.
    Tick,
}

/// What a worker wants done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Operations to start; each is answered by [`Input::Finished`] with its number, in any order.
    pub ops: Vec<(u64, EngineOp)>,
    /// Operations whose outcome is no longer wanted; they need not be answered.
    pub cancel: Vec<u64>,
    /// Statuses for the dispatcher: [`crate::assignment::ToDispatcher::Statuses`]. Given out once a
    /// session; whatever is not acknowledged is given out again in the next one.
    pub reports: Vec<Report>,
    /// Records to write (`Some`) or to delete (`None`), so that a restart remembers them.
    pub persist: Vec<(Id, Option<Record>)>,
    /// What the data plane is to be told.
    pub plane: Vec<Change>,
    /// Networks to write down (`Some`) or to forget (`None`), for a restart without a manager.
    pub keep: Vec<(Id, Option<Kept>)>,
    /// When to call again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// Statuses for the dispatcher.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Rises with every report.
    pub sequence: u64,
    /// Task ids with their newest status.
    pub statuses: Vec<(Id, TaskStatus)>,
}

/// What a worker remembers of a task across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The task as it was assigned. Without its registry credentials once it is prepared.
    pub task: Task,
    /// What became of it here.
    pub status: TaskStatus,
    /// The id of its container, once it has one.
    pub container: Option<String>,
}

/// What a worker remembers of a network across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The node's part in it.
    pub overlay: Overlay,
    /// Services on it.
    pub services: Vec<Service>,
    /// Tasks that serve on it.
    pub endpoints: Vec<Endpoint>,
}

/// One call of the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineOp {
    /// All containers, stopped ones included, whose label `com.docker.swarm.node.id` is this node.
    List {
        /// The node's id.
        node: Id,
    },
    /// One container.
    Inspect {
        /// Its id or name.
        container: String,
    },
    /// Fetches an image. An image named by its own id is never fetched.
    Pull {
        /// The reference as the service names it.
        image: String,
        /// `X-Registry-Auth` as the client sent it.
        auth: Option<Secret>,
    },
    /// Creates a container.
    Create {
        /// The container's name.
        name: String,
        /// The task it is for; the labels in `body` say so too.
        task: Id,
        /// The body of `POST /containers/create`.
        body: Box<Value>,
        /// Secrets and configs that are to be there as files, in memory alone.
        files: Vec<TaskFile>,
    },
    /// Starts a container. One that runs already is a success.
    Start {
        /// Its id.
        container: String,
        /// Networks to connect it with before, by their names at the engine, with the
        /// `EndpointConfig` of each. One that it is connected with already is a success.
        networks: Vec<(String, Value)>,
    },
    /// Stops a container. One that is stopped already is a success.
    Stop {
        /// Its id.
        container: String,
        /// Seconds until it is killed; `None` is the engine's default.
        grace: Option<i64>,
    },
    /// Removes a container, by force, and its anonymous volumes.
    Remove {
        /// Its id.
        container: String,
    },
    /// Takes a container off a network by force. One that is not on it is a success.
    Disconnect {
        /// Its id.
        container: String,
        /// The network's name at the engine.
        network: String,
    },
    /// The engine's networks that realise networks of the swarm.
    ListNetworks,
    /// Makes a network what it should be on this node: the engine's part of it, and the way to
    /// other nodes. What is there already stays, but for addresses that are nobody's any more.
    MakeNetwork {
        /// What it should be.
        network: Box<Overlay>,
    },
    /// Addresses of a network are somewhere else now.
    MoveOnNetwork {
        /// Its id.
        network: Id,
        /// What its IPv4 subnets have of IPv6.
        sides: Vec<Ipv6>,
        /// The addresses, with the nodes that they are on; `None` for those that are on no other.
        moves: BTreeMap<Ipv4Addr, Option<IpAddr>>,
    },
    /// Removes all of a network from this node.
    RemoveNetwork {
        /// Its id.
        network: Id,
    },
}

/// How an operation ended.
pub type OpResult = Result<OpOutput, OpError>;

/// What an operation gave.
#[derive(Clone, Debug, PartialEq)]
pub enum OpOutput {
    /// Most operations give nothing.
    Done,
    /// Create: the new container's id.
    Created(String),
    /// Inspect.
    Container(Container),
    /// List.
    Containers(Vec<Container>),
    /// The ids of the swarm's networks that the engine has something of.
    Networks(Vec<Id>),
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpError {
    /// The engine says that there is no such container or image (404), in its own words.
    NotFound(String),
    /// The engine says that the name is taken, or that it is busy with the container (409).
    Conflict(String),
    /// The engine refused for another reason, in its own words.
    Failed(String),
    /// The engine did not answer. Says nothing about the container.
    Unavailable(String),
}

/// A container as the engine shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name, without a leading slash.
    pub name: String,
    /// The label `com.docker.swarm.task.id`; empty if there is none.
    pub task: String,
    /// What it does.
    pub state: ContainerState,
    /// Its first process, 0 if there is none. A list does not know it.
    pub pid: i64,
    /// How it ended. A list does not know it.
    pub exit_code: i64,
    /// Why it could not be started or went wrong, in the engine's words. A list does not know it.
    pub error: String,
    /// Whether it was started at least once. A list does not know it.
    pub started: bool,
    /// Whether it is healthy; `None` without a health check. A list does not know it.
    pub health: Option<Health>,
    /// Ports of its host that are bound to it, once per address family. A list does not know them.
    pub ports: Vec<PortConfig>,
    /// Names of the engine's networks that it is connected with; of one that does not run, will be. A
    /// list does not know them.
    pub networks: Vec<String>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// It was never started.
    #[default]
    Created,
    /// It runs; also while it is paused or being restarted.
    Running,
    /// It has ended.
    Exited,
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not decided yet.
    Starting,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}
