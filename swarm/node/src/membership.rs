//! A running membership: the endpoint, the agent and, on a manager, raft and its services. Starts
//! and stops them in order; never touches what lies on disk beyond its own parts.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use skep_api::Error;
use skep_api::cluster::LocalNodeState;
use skep_core::Id;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::agent::{self, Agent};
use crate::control::{self, ControlRequest, ControlResponse};
use crate::disk::{DataDir, NodeState};
use crate::manager::Manager;
use crate::node::{Options, Status};
use crate::pki::{Identity, Role};
use crate::quic::Endpoint;
use crate::raft::{self, Member, Raft};
use crate::services::StoreGate;

/// Pauses between attempts to become a member of raft: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one attempt may take: the new member has to catch up.
const JOIN_TIMEOUT: Duration = Duration::from_secs(70);

/// This node's part in a swarm.
pub struct Membership {
    node_id: Id,
    state: NodeState,
    endpoint: Endpoint,
    manager: Option<Manager>,
    agent_view: tokio::sync::watch::Receiver<agent::View>,
    /// Taken when the membership ends.
    agent: Mutex<Option<Agent>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Membership {
    /// Starts everything that an identity and a saved state stand for. Returns before the node has
    /// met any other.
    ///
    /// # Errors
    /// A port that is taken, a log that cannot be read: in words.
    pub async fn start(
        options: &Options,
        disk: &DataDir,
        state: NodeState,
        identity: Identity,
    ) -> Result<Self, Error> {
        let node_id = Id::from(identity.node_id.as_str());
        let leads_to_state = Arc::new(OnceLock::<Raft>::new());
        let gate_state = leads_to_state.clone();
        let gate = StoreGate::new(move || gate_state.get().map(Raft::state));
        let is_manager = identity.role == Role::Manager;
        let listen = is_manager.then(|| state.listen()).transpose()?;
        let endpoint = bind(listen, gate)?;
        endpoint.set_identity(Arc::new(identity)).map_err(|e| Error::system(e.to_string()))?;
        let manager = match is_manager {
            false => None,
            true => {
                let manager = start_manager(options, disk, &state, &node_id, &endpoint).await?;
                // Nobody else sets it: this is the first and only time.
                let _ = leads_to_state.set(manager.raft.clone());
                endpoint.serve(Arc::new(manager.clone()));
                Some(manager)
            }
        };
        let agent = Agent::start(agent::Config {
            node_id: node_id.clone(),
            dir: disk.worker(),
            managers: state.managers.clone(),
            endpoint: endpoint.clone(),
            engine: options.engine.clone(),
        });
        let agent = agent.map_err(|error| Error::system(format!("the agent: {error}")))?;
        let membership = Self {
            node_id,
            state,
            endpoint,
            manager,
            agent_view: agent.view(),
            agent: Mutex::new(Some(agent)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Ok(membership)
    }

    /// Keeps the agent's list of managers and the file's in step with what is known, and makes a
    /// manager that is not yet in raft a member of it.
    pub fn settle(self: &Arc<Self>, disk: DataDir) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let stop = this.stop.clone();
            stop.run_until_cancelled(this.follow_managers(disk)).await;
        });
        if let Some(manager) = self.manager.clone() {
            let this = self.clone();
            self.tasks.spawn(async move {
                let stop = this.stop.clone();
                stop.run_until_cancelled(this.become_member(manager)).await;
            });
        }
    }

    async fn follow_managers(&self, disk: DataDir) {
        let mut known = self.state.managers.clone();
        let mut leadership = self.manager.as_ref().map(|manager| manager.raft.leadership());
        let mut view = self.agent_view.clone();
        loop {
            let mut addrs = self.managers().into_iter().map(|(_, addr)| addr).collect::<Vec<_>>();
            addrs.sort();
            if !addrs.is_empty() && addrs != known {
                known = addrs;
                if let Some(agent) = self.agent.lock().await.as_ref() {
                    agent.set_managers(known.clone());
                }
                let state = NodeState { managers: known.clone(), ..self.state.clone() };
                if let Err(error) = disk.save(&state) {
                    warn!(%error, "could not write down the managers' addresses");
                }
            }
            let changed = match &mut leadership {
                Some(leadership) => tokio::select! {
                    changed = leadership.changed() => changed,
                    changed = view.changed() => changed,
                },
                None => view.changed().await,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Asks one manager after the other until the leader has made this one a voter.
    async fn become_member(&self, manager: Manager) {
        let mut pause = FIRST_PAUSE;
        let mut leadership = manager.raft.leadership();
        while !leadership.borrow_and_update().member(manager.me.raft_id).is_some_and(|m| m.voter) {
            for addr in self.addresses_to_ask() {
                let request = ControlRequest::JoinRaft {
                    raft_id: manager.me.raft_id,
                    addr: manager.me.addr.clone(),
                };
                match control::call(&self.endpoint, &addr, JOIN_TIMEOUT, &request).await {
                    Ok(ControlResponse::Done) => info!("became a member of raft"),
                    Ok(ControlResponse::NotLeader(_)) => continue,
                    Ok(other) => warn!(answer = ?other, addr, "not a member of raft yet"),
                    Err(error) => warn!(%error, "could not ask for membership of raft"),
                }
                break;
            }
            // Either there is news at once, or the next attempt waits its turn.
            let _ = tokio::time::timeout(pause, leadership.changed()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn addresses_to_ask(&self) -> Vec<String> {
        let me = self.manager.as_ref().map(|manager| manager.me.addr.clone());
        let view = self.agent_view.borrow();
        let leader = view.leader.clone().into_iter();
        let told = view.managers.iter().map(|(_, addr)| addr.clone());
        let mut addrs: Vec<String> = Vec::new();
        for addr in leader.chain(told).chain(self.state.managers.clone()) {
            if Some(&addr) != me.as_ref() && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs
    }

    /// The manager's part, if this node is one.
    pub fn manager(&self) -> Option<&Manager> {
        self.manager.as_ref()
    }

    /// Whether a manager can answer: the cluster is in its state.
    pub fn ready(&self) -> bool {
        self.manager.as_ref().is_some_and(|manager| manager.raft.state().cluster().is_some())
    }

    /// Whether the node has got so far into the swarm that `join` may say so.
    pub fn joined(&self) -> bool {
        let agent = self.agent_view.borrow().connected;
        let voter = self.manager.as_ref().is_none_or(|manager| {
            let leadership = manager.raft.leadership();
            let voter = leadership.borrow().member(manager.me.raft_id).is_some_and(|m| m.voter);
            voter && self.ready()
        });
        agent && voter
    }

    /// The node's id.
    pub fn node_id(&self) -> &Id {
        &self.node_id
    }

    /// Managers that are known here: node id and `host:port`.
    fn managers(&self) -> Vec<(Id, String)> {
        let members = self.manager.as_ref().map(Manager::members).unwrap_or_default();
        if members.is_empty() {
            return self.agent_view.borrow().managers.clone();
        }
        members.into_iter().map(|member| (member.node, member.addr)).collect()
    }

    /// What is known of the node without asking anyone.
    pub fn status(&self) -> Status {
        let ready = self.manager.is_none() || self.ready();
        let state = if ready { LocalNodeState::Active } else { LocalNodeState::Pending };
        Status {
            state,
            node_id: Some(self.node_id.clone()),
            node_addr: self.state.advertise_host(),
            control_available: self.ready(),
            manager: self.manager.is_some(),
            error: String::new(),
            managers: self.managers(),
        }
    }

    /// Stops everything; containers go on. `back_soon`: the leader gives the node its full
    /// heartbeats before it counts as down.
    pub async fn stop(&self, back_soon: bool) {
        self.stop.cancel();
        self.tasks.close();
        if let Some(agent) = self.agent.lock().await.take() {
            agent.stop(back_soon).await;
        }
        if let Some(manager) = &self.manager {
            manager.stop().await;
        }
        self.tasks.wait().await;
        self.endpoint.shutdown("the node stops").await;
    }
}

/// Opens the node's UDP port; a worker only dials.
fn bind(listen: Option<SocketAddr>, gate: StoreGate) -> Result<Endpoint, Error> {
    Endpoint::bind(listen, Arc::new(gate)).map_err(|error| {
        let at = listen.map(|addr| addr.to_string()).unwrap_or_default();
        Error::system(format!("could not listen at udp {at}: {error}"))
    })
}

async fn start_manager(
    options: &Options,
    disk: &DataDir,
    state: &NodeState,
    node_id: &Id,
    endpoint: &Endpoint,
) -> Result<Manager, Error> {
    let raft_id = state.raft_id;
    let me = Member { raft_id, node_id: node_id.clone(), addr: state.advertise.clone() };
    let mut config = raft::Config::new(disk.raft(), raft_id);
    if let Some(heartbeat) = options.timing.heartbeat {
        config.heartbeat = heartbeat;
    }
    if let Some(election) = options.timing.election {
        (config.election_min, config.election_max) = (election, election * 2);
    }
    let transport = raft::QuicTransport::new(endpoint.clone());
    let raft = Raft::start(config, Arc::new(transport)).await;
    let raft = raft.map_err(|error| Error::system(error.to_string()))?;
    Ok(Manager::start(raft, endpoint.clone(), me))
}
