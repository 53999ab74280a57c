//! This host as a node: in a swarm or in none. What the daemon holds on to; `lifecycle.rs` moves it
//! between the two. Answers calls, never decides what the cluster should do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_api::Error;
use skep_api::cluster::LocalNodeState;
use skep_core::Id;
use skep_core::command::{Command, Reply};
use tokio::sync::{Mutex, watch};

use crate::agent::Attachments;
use crate::ca;
use crate::disk::{DataDir, DiskError};
use crate::engine::{Engine, EngineStream};
use crate::manager::{Manager, View};
use crate::membership::Membership;
use crate::texts;

/// What a node needs to know before it starts.
#[derive(Clone)]
pub struct Options {
    /// Where everything durable lies.
    pub data_dir: PathBuf,
    /// The engine that runs the tasks' containers.
    pub engine: Arc<dyn Engine>,
    /// `--swarm-default-advertise-addr`: an address or an interface.
    pub default_advertise_addr: Option<String>,
    /// Timing of raft; see [`Timing`].
    pub timing: Timing,
}

/// Raft's timing. The leader says that it is there once a heartbeat; a follower that hears nothing
/// for an election starts one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Between two heartbeats; `None` for skep's own.
    pub heartbeat: Option<Duration>,
    /// Shortest silence before an election; `None` for skep's own.
    pub election: Option<Duration>,
}

/// What one tick of `--swarm-raft-heartbeat-tick` and `--swarm-raft-election-tick` means. The
/// original's tick is a second; with its defaults of 1 and 10 ours give skep's own timing or a
/// little more patience.
const TICK: Duration = Duration::from_millis(60);

impl Timing {
    /// The timing that dockerd's flags stand for.
    pub fn from_ticks(heartbeat: Option<u32>, election: Option<u32>) -> Self {
        let time = |ticks: Option<u32>| ticks.map(|ticks| TICK * ticks);
        Self {
            heartbeat: time(heartbeat),
            election: time(election),
        }
    }
}

/// The node as the daemon sees it. Clones share it.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) disk: DataDir,
    /// Held while the node moves between swarms.
    pub(crate) moving: Mutex<()>,
    pub(crate) phase: watch::Sender<Phase>,
}

/// Where the node stands.
#[derive(Clone, Default)]
pub(crate) enum Phase {
    /// In no swarm.
    #[default]
    Inactive,
    /// On its way into one.
    Joining(Way),
    /// In one.
    Member(Arc<Membership>),
    /// In one, but its keys are locked until somebody brings the unlock key.
    Locked,
    /// In one, but its certificate has expired; a fresh token lets it in again.
    Expired,
    /// In one, but it could not be resumed: the text says why.
    Broken(String),
}

/// What is known of a node that is on its way into a swarm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// The address it is going to advertise, without a port; empty while that is not clear.
    pub node_addr: String,
    /// The manager that it asks: `host:port`. Its id is not known.
    pub remote: Option<String>,
}

/// What `/info` and `/_ping` say of the node without asking anyone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Inactive, pending, active or error.
    pub state: LocalNodeState,
    /// The node's id, if it is in a swarm.
    pub node_id: Option<Id>,
    /// The address it advertises, without a port.
    pub node_addr: String,
    /// Whether it is a manager that can answer.
    pub control_available: bool,
    /// Whether it is a manager at all.
    pub manager: bool,
    /// What went wrong.
    pub error: String,
    /// Managers that it knows: node id and `host:port`.
    pub managers: Vec<(Id, String)>,
}

impl Node {
    /// Opens the data directory and resumes the membership that lies in it, if any.
    ///
    /// # Errors
    /// When the data directory cannot be used. A membership that cannot be resumed is no error: the
    /// node is then in state `error` and can leave.
    pub async fn start(options: Options) -> Result<Self, DiskError> {
        let disk = DataDir::open(&options.data_dir)?;
        let moving = Mutex::default();
        let phase = watch::Sender::new(Phase::default());
        let node = Self(Arc::new(Inner {
            options,
            disk,
            moving,
            phase,
        }));
        node.resume().await;
        node.watch_the_clock();
        node.watch_role();
        Ok(node)
    }

    /// What is known of the node without asking anyone.
    pub fn status(&self) -> Status {
        let phase = self.0.phase.borrow().clone();
        match phase {
            Phase::Inactive => Status {
                state: LocalNodeState::Inactive,
                ..Status::default()
            },
            Phase::Joining(way) => Status {
                state: LocalNodeState::Pending,
                node_addr: way.node_addr,
                managers: way
                    .remote
                    .map(|addr| (Id::from(""), addr))
                    .into_iter()
                    .collect(),
                ..Status::default()
            },
            Phase::Member(membership) => membership.status(),
            Phase::Locked => Status {
                state: LocalNodeState::Locked,
                node_addr: self.recorded_addr(),
                error: texts::locked().message,
                ..Status::default()
            },
            Phase::Expired => Status {
                state: LocalNodeState::Error,
                error: texts::expired().message,
                ..Status::default()
            },
            Phase::Broken(error) => Status {
                state: LocalNodeState::Error,
                error,
                ..Status::default()
            },
        }
    }

    /// The address in the state file, which is legible while the keys are locked.
    fn recorded_addr(&self) -> String {
        let state = self.0.disk.load().ok().flatten();
        state.map_or_else(String::new, |state| state.advertise_host())
    }

    /// The cluster as it is now: no older than this call.
    ///
    /// # Errors
    /// dockerd's 503s on a node that is no manager; its text when there is no leader.
    pub async fn view(&self) -> Result<View, Error> {
        self.manager()?.view().await
    }

    /// Has the leader carry out a command. A change that is acknowledged is on the disks of a
    /// majority.
    ///
    /// # Errors
    /// As [`view`](Self::view), and the command's own refusals.
    pub async fn execute(&self, command: Command) -> Result<Reply, Error> {
        let manager = self.manager()?;
        let (state, me) = (manager.raft.state(), manager.endpoint.identity());
        let command = ca::prepare(command, &state, me.as_deref()).await?;
        manager.execute(command).await
    }

    /// The places that this node's containers have on networks of the swarm; `None` outside one.
    pub fn attachments(&self) -> Option<Attachments> {
        match &*self.0.phase.borrow() {
            Phase::Member(membership) => Some(membership.attachments()),
            _ => None,
        }
    }

    /// The engine that runs the tasks' containers.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.0.options.engine
    }

    /// This manager's own copy of the state, as far as it has come, without asking anyone; `None` on
    /// a node that is no manager.
    pub fn local_state(&self) -> Option<skep_core::State> {
        Some(self.manager().ok()?.raft.state())
    }

    /// A connection with the engine of any node of the swarm, this one's own included, to speak
    /// HTTP over. It ends with an error within seconds when the node goes away.
    ///
    /// # Errors
    /// dockerd's 503s on a node that is no manager; 404 for a node that the swarm does not know;
    /// 503 within seconds when the node or its engine cannot be reached, naming the node.
    pub async fn engine_of(&self, node: &Id) -> Result<EngineStream, Error> {
        self.manager()?.engine_of(node).await
    }

    /// The manager, if this node is one and can answer.
    pub(crate) fn manager(&self) -> Result<Manager, Error> {
        match &*self.0.phase.borrow() {
            Phase::Inactive | Phase::Broken(_) => Err(texts::no_swarm()),
            // Until it knows its role, the original takes it for a worker.
            Phase::Joining(_) => Err(texts::worker()),
            Phase::Locked => Err(texts::locked()),
            Phase::Expired => Err(texts::expired()),
            Phase::Member(membership) => match membership.manager() {
                Some(manager) if membership.ready() => Ok(manager.clone()),
                Some(_) => Err(texts::being_prepared()),
                None => Err(texts::worker()),
            },
        }
    }
}
