//! A node's agent: keeps a session with the leader and carries out what the worker decides. Keeps
//! everything running when no manager can be reached. Never decides anything about a task.

mod attach;
mod dial;
mod exits;
mod files;
mod following;
mod introduction;
mod networks;
mod records;
mod run;
mod session;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_core::Id;
use skep_core::assignment::Trust;
use skep_core::object::Node;
use skep_core::worker::{EngineOp, OpError, OpOutput, Worker};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::addr::DataPath;
use crate::disk::Keys;
use crate::engine::Engine;
use crate::plane::{self, Plane};
use crate::quic::Endpoint;
pub use attach::{Attachments, Hold};
use dial::Known;
use exits::Exits;
use files::Files;
use following::Following;
use introduction::Introducer;
use networks::Networks;
use records::Records;
use run::{Runner, Stop};
pub use skep_core::worker::Standing;

/// Messages from the session that wait for the loop.
const QUEUE: usize = 64;
/// What the leader is told when an agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The daemon will be back soon, so the node is granted its full heartbeats.
    BackSoon,
    /// The node leaves the swarm.
    ForGood,
    /// Nothing.
    Wordless,
}

/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Containers that are removed at once when the node leaves.
const REMOVALS: usize = 8;

/// What an agent needs.
pub struct Config {
    /// The node's id.
    pub node_id: Id,
    /// `DATA_DIR/worker`: the agent keeps its tasks there.
    pub dir: PathBuf,
    /// What they are sealed with.
    pub keys: Keys,
    /// `host:port` of managers to try first; further ones come through [`Agent::set_managers`].
    pub managers: Vec<String>,
    /// The node's endpoint, with its identity set.
    pub endpoint: Endpoint,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Where other nodes send packets of networks to.
    pub data_path: DataPath,
}

/// What an agent knows of the cluster; see [`Agent::view`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Whether a session is open.
    pub connected: bool,
    /// The manager that the last session was with: `host:port`.
    pub leader: Option<String>,
    /// The node as the leader last described it: its spec has the desired role.
    pub node: Option<Arc<Node>>,
    /// Every manager as the leader last told: node id and `host:port`.
    pub managers: Vec<(Id, String)>,
    /// Whom the leader wants this node to trust, and who is to issue its certificate.
    pub trust: Option<Arc<Trust>>,
    /// Why the last attempt at a session failed.
    pub error: Option<String>,
}

/// A running agent.
pub struct Agent {
    view: watch::Receiver<View>,
    known: watch::Sender<Known>,
    stop: mpsc::Sender<Stop>,
    attachments: Attachments,
    session: JoinHandle<()>,
}

impl Agent {
    /// Starts the agent in tasks of its own.
    ///
    /// # Errors
    /// When its directory cannot be read or made.
    pub fn start(config: Config) -> std::io::Result<Agent> {
        let records = Records::open(&config.dir, config.keys.clone())?;
        let networks = Networks::open(&config.dir, config.keys)?;
        let known = records.load()?;
        let ids: Vec<Id> = known.iter().map(|record| record.task.id.clone()).collect();
        let files = Files::open(&config.dir, &ids)?;
        let worker = Worker::new(config.node_id, known, networks.load()?);
        let (view, seen) = watch::channel(View::default());
        let (known, told) = watch::channel(Known {
            managers: config.managers,
            leader: None,
            identity: 0,
        });
        let (events, news) = mpsc::channel(QUEUE);
        let (stop, asked) = mpsc::channel(1);
        let (standings, places) = watch::channel(Vec::new());
        let (attachments, requests) = Attachments::new(places);
        let (endpoint, engine) = (config.endpoint.clone(), config.engine.clone());
        let context = session::Context {
            endpoint: config.endpoint,
            introducer: Introducer::new(endpoint, engine, config.data_path, &config.dir),
            known: told,
            events,
        };
        let session = tokio::spawn(session::run(context));
        let plane = Plane::start();
        let runner = Runner {
            worker,
            engine: config.engine,
            records,
            networks,
            following: Following::start(plane.follow()),
            plane,
            exits: Exits::default(),
            keeping: None,
            files,
            view,
            standings,
            requests,
            asked: Default::default(),
            running: JoinSet::new(),
            handles: HashMap::new(),
            outgoing: None,
            wake_at: None,
        };
        tokio::spawn(runner.run(news, asked));
        Ok(Agent {
            view: seen,
            known,
            stop,
            attachments,
            session,
        })
    }

    /// What the agent knows, now and whenever it changes.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// The places of containers that are no task's.
    pub fn attachments(&self) -> Attachments {
        self.attachments.clone()
    }

    /// Managers to try.
    pub fn set_managers(&self, managers: Vec<String>) {
        self.learn(|known| known.managers = managers);
    }

    /// The leader, if this node knows it better than a session that has not broken yet: it is
    /// `host:port`, tried first, and a session with another manager is given up for it.
    pub fn set_leader(&self, leader: Option<String>) {
        self.learn(|known| known.leader = leader);
    }

    /// The endpoint has another identity: the leader is told.
    pub fn identity_changed(&self) {
        self.learn(|known| known.identity += 1);
    }

    fn learn(&self, change: impl FnOnce(&mut Known)) {
        self.known.send_if_modified(|known| {
            let before = known.clone();
            change(known);
            *known != before
        });
    }

    /// Ends the session and returns once it is over; containers go on.
    pub async fn stop(self, parting: Parting) {
        let (done, ended) = oneshot::channel();
        if self.stop.send(Stop { parting, done }).await.is_ok() {
            // The loop answers at once unless the disk is stuck, which must not hold the daemon.
            let _ = tokio::time::timeout(FAREWELL, ended).await;
        }
        // The session ends by itself once the loop is gone and the goodbye is out.
        let abort = self.session.abort_handle();
        if tokio::time::timeout(FAREWELL, self.session).await.is_err() {
            abort.abort();
        }
    }
}

/// Removes the node's part of every network of the swarm, and then what the engine does not know of:
/// a removal that was under way when the agent stopped ends in the middle. Returns what is left.
async fn remove_networks(engine: &Arc<dyn Engine>) -> Vec<String> {
    let networks = match engine.run(EngineOp::ListNetworks).await {
        Ok(OpOutput::Networks(networks)) => networks,
        _ => Vec::new(),
    };
    let mut left = Vec::new();
    for network in networks {
        let name = format!("network {network}");
        if engine
            .run(EngineOp::RemoveNetwork { network })
            .await
            .is_err()
        {
            left.push(name);
        }
    }
    if let Err(error) = engine.lead_nowhere().await {
        left.push(format!("ways to other nodes ({error})"));
    }
    left
}

/// Removes every container of the node's tasks and every network from the engine and forgets them on disk: the node
/// leaves its swarm. Call it after [`Agent::stop`].
///
/// # Errors
/// In words, naming what is left.
pub async fn forget_everything(
    engine: &Arc<dyn Engine>,
    node_id: &Id,
    dir: &Path,
) -> Result<(), String> {
    let list = engine
        .run(EngineOp::List {
            node: node_id.clone(),
        })
        .await;
    let mut left = Vec::new();
    let containers = match list {
        Ok(OpOutput::Containers(containers)) => containers,
        // What needs no engine goes all the same.
        other => {
            left.push(format!(
                "containers, which the engine does not list ({other:?})"
            ));
            Vec::new()
        }
    };
    for some in containers.chunks(REMOVALS) {
        let mut removals = JoinSet::new();
        for container in some {
            let removal = engine.run(EngineOp::Remove {
                container: container.id.clone(),
            });
            let name = container.name.clone();
            removals.spawn(async move { (name, removal.await) });
        }
        while let Some(Ok((name, outcome))) = removals.join_next().await {
            if !matches!(outcome, Ok(_) | Err(OpError::NotFound(_))) {
                left.push(name);
            }
        }
    }
    left.extend(remove_networks(engine).await);
    plane::clean().await;
    files::forget_all(dir);
    introduction::forget(dir);
    let forgotten = records::forget(dir).and(networks::forget(dir));
    if left.is_empty() {
        forgotten.map_err(|error| error.to_string())
    } else {
        Err(format!("could not remove {}", left.join(", ")))
    }
}
