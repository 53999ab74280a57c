//! A running membership: the endpoint, the agent and, on a manager, raft and its services. Starts
//! and stops them in order; never touches what lies on disk beyond its own parts.

mod entry;
mod renewal;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_api::Error;
use skep_api::cluster::LocalNodeState;
use skep_core::Id;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::addr::DataPath;
use crate::agent::{self, Agent, Parting};
use crate::disk::{DataDir, NodeState};
use crate::gate::StoreGate;
use crate::lifecycle::unlock::follow_unlock_key;
use crate::manager::Manager;
use crate::node::{Options, Status};
use crate::pki::{Identity, Role};
use crate::quic::Endpoint;
use crate::raft::{self, Member, Raft};
use crate::texts;
use crate::tunnel::OwnEngine;

/// Pause between two looks at whether something has come about.
const LOOK: Duration = Duration::from_millis(20);

/// This node's part in a swarm.
pub struct Membership {
    node_id: Id,
    state: NodeState,
    gate: StoreGate,
    endpoint: Endpoint,
    manager: Option<Manager>,
    agent_view: watch::Receiver<agent::View>,
    attachments: agent::Attachments,
    /// Taken when the membership ends.
    agent: Mutex<Option<Agent>>,
    /// Who the node is to be next, if that is in another role.
    turn: watch::Sender<Option<Arc<Identity>>>,
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
        // A worker only dials.
        let is_manager = identity.role == Role::Manager;
        let listen = is_manager.then(|| state.listen()).transpose()?;
        let gate = StoreGate::default();
        let endpoint = Endpoint::bind_as(listen, Arc::new(gate.clone()), &identity);
        let endpoint = endpoint.map_err(|error| Error::system(error.to_string()))?;
        let identity = Arc::new(identity);
        match assemble(options, disk, &state, &endpoint, identity).await {
            Ok((manager, agent)) => {
                gate.follow(manager.as_ref().map(|manager| manager.raft.clone()));
                Ok(Self {
                    node_id,
                    state,
                    gate,
                    endpoint,
                    manager,
                    agent_view: agent.view(),
                    attachments: agent.attachments(),
                    agent: Mutex::new(Some(agent)),
                    turn: watch::Sender::default(),
                    stop: CancellationToken::new(),
                    tasks: TaskTracker::new(),
                })
            }
            Err(error) => {
                // The port must be free for the next attempt.
                endpoint.shutdown("the node could not start").await;
                Err(error)
            }
        }
    }

    /// Keeps the agent's list of managers and the file's in step with what is known, the
    /// certificate fresh, and a manager a member of raft.
    pub fn settle(self: &Arc<Self>, disk: DataDir) {
        let (this, files, keys) = (self.clone(), disk.clone(), disk.clone());
        self.tasks.spawn(async move {
            let stop = this.stop.clone();
            stop.run_until_cancelled(this.follow_managers(files)).await;
        });
        let this = self.clone();
        self.tasks.spawn(async move {
            let stop = this.stop.clone();
            stop.run_until_cancelled(this.keep_certificate(disk)).await;
        });
        if let Some(manager) = self.manager.clone() {
            let (stop, following) = (self.stop.clone(), manager.clone());
            self.tasks.spawn(async move {
                let follow = follow_unlock_key(&following, &keys);
                stop.run_until_cancelled(follow).await;
            });
            let this = self.clone();
            self.tasks.spawn(async move {
                let stop = this.stop.clone();
                stop.run_until_cancelled(this.stay_member(manager)).await;
            });
        }
    }

    async fn follow_managers(&self, disk: DataDir) {
        let mut known = self.state.managers.clone();
        let mut leadership = self
            .manager
            .as_ref()
            .map(|manager| manager.raft.leadership());
        let mut view = self.agent_view.clone();
        loop {
            let leader = self.manager().and_then(Manager::leader_addr);
            if let Some(agent) = self.agent.lock().await.as_ref() {
                agent.set_leader(leader);
            }
            let addrs = self.addresses(&known);
            if !addrs.is_empty() && addrs != known {
                known = addrs;
                if let Some(agent) = self.agent.lock().await.as_ref() {
                    agent.set_managers(known.clone());
                }
                let state = NodeState {
                    managers: known.clone(),
                    ..self.state.clone()
                };
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

    /// The manager's part, if this node is one and is to stay one.
    pub fn manager(&self) -> Option<&Manager> {
        self.manager.as_ref().filter(|_| !self.retired())
    }

    /// Whether it was stopped.
    pub fn ended(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether the leader has taken this manager out of raft, so that it can answer nobody: it
    /// becomes a worker as soon as it has the certificate of one.
    fn retired(&self) -> bool {
        let view = self.agent_view.borrow();
        view.node
            .as_ref()
            .is_some_and(|row| row.role == Role::Worker)
    }

    /// Waits until the node has a certificate for another role than the one it runs in. Pends when
    /// the membership has ended.
    pub async fn turning(&self) -> Arc<Identity> {
        let mut turn = self.turn.subscribe();
        loop {
            let next = turn.borrow_and_update().clone();
            match next {
                Some(identity) if !self.stop.is_cancelled() => return identity,
                _ => {}
            }
            if turn.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether a manager can answer: the cluster is in its state.
    pub fn ready(&self) -> bool {
        self.manager
            .as_ref()
            .is_some_and(|manager| manager.raft.state().cluster().is_some())
    }

    /// Waits until the node has got so far into the swarm that `join` may say so. False if the
    /// membership ended before.
    pub async fn wait_joined(&self) -> bool {
        let joined = async {
            while !self.joined() {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.stop.run_until_cancelled(joined).await.is_some()
    }

    fn joined(&self) -> bool {
        let member = |manager: &Manager| manager.is_member();
        self.agent_view.borrow().connected && self.manager.as_ref().is_none_or(member)
    }

    /// Waits until a manager's agent has its session with the leader, if there is one, so that a
    /// goodbye reaches the manager that it is meant for.
    pub async fn reunited(&self, at_most: Duration) {
        let Some(leader) = self.manager.as_ref().and_then(Manager::leader_addr) else {
            return;
        };
        let mut view = self.agent_view.clone();
        let there = |view: &agent::View| view.connected && view.leader.as_ref() == Some(&leader);
        // Otherwise the leader finds out by itself.
        let _ = tokio::time::timeout(at_most, view.wait_for(there)).await;
    }

    /// Whether the certificate that the node calls with has ended.
    pub fn expired(&self, now: SystemTime) -> bool {
        let identity = self.endpoint.identity();
        identity.is_some_and(|identity| identity.expired(now))
    }

    /// The node's id.
    pub fn node_id(&self) -> &Id {
        &self.node_id
    }

    /// Where managers are, in order. One that was taken out of raft may know of nobody but itself:
    /// those that it knew before are kept then.
    fn addresses(&self, known: &[String]) -> Vec<String> {
        let managers = self.managers().into_iter();
        let mut addrs = managers.map(|(_, addr)| addr).collect::<Vec<_>>();
        if addrs.iter().all(|addr| *addr == self.state.advertise) {
            addrs.extend_from_slice(known);
        }
        addrs.sort();
        addrs.dedup();
        addrs
    }

    /// The places of containers that are no task's.
    pub fn attachments(&self) -> agent::Attachments {
        self.attachments.clone()
    }

    /// Managers that are known here: node id and `host:port`.
    fn managers(&self) -> Vec<(Id, String)> {
        let members = self.manager().map(Manager::members).unwrap_or_default();
        if members.is_empty() {
            return self.agent_view.borrow().managers.clone();
        }
        members
            .into_iter()
            .map(|member| (member.node, member.addr))
            .collect()
    }

    /// What is known of the node without asking anyone.
    pub fn status(&self) -> Status {
        let manager = self.manager().is_some();
        let ready = !manager || self.ready();
        let state = if ready {
            LocalNodeState::Active
        } else {
            LocalNodeState::Pending
        };
        Status {
            state,
            node_id: Some(self.node_id.clone()),
            node_addr: self.state.advertise_host(),
            control_available: manager && ready,
            manager,
            error: self.removal().unwrap_or_default(),
            managers: self.managers(),
        }
    }

    /// What the managers say to a node that was removed: it has to leave, and until then knows why
    /// nothing happens. The original tells it in its log only.
    fn removal(&self) -> Option<String> {
        let error = self.agent_view.borrow().error.clone();
        let removed = error.is_some_and(|error| error.contains(texts::REMOVED));
        removed.then(|| texts::removed(&self.node_id))
    }

    /// Ends what keeps the membership up by itself: renewals, and becoming a member of raft again.
    pub fn quiet(&self) {
        self.stop.cancel();
    }

    /// Stops everything; containers go on.
    pub async fn stop(&self, parting: Parting) {
        self.quiet();
        self.tasks.close();
        if let Some(agent) = self.agent.lock().await.take() {
            agent.stop(parting).await;
        }
        if let Some(manager) = &self.manager {
            manager.stop().await;
        }
        self.tasks.wait().await;
        self.endpoint.shutdown("the node stops").await;
        // Raft holds the endpoint and the endpoint its gate: nothing may hold itself.
        self.gate.follow(None);
    }
}

/// Starts what runs on the endpoint, or nothing.
async fn assemble(
    options: &Options,
    disk: &DataDir,
    state: &NodeState,
    endpoint: &Endpoint,
    identity: Arc<Identity>,
) -> Result<(Option<Manager>, Agent), Error> {
    let node_id = Id::from(identity.node_id.as_str());
    let is_manager = identity.role == Role::Manager;
    let keys = disk
        .keys()
        .map_err(|error| Error::system(error.to_string()))?;
    if !is_manager {
        // Only managers know the unlock key, so nobody else is ever locked.
        let unwrapped = disk.lock_with(None);
        unwrapped.map_err(|error| Error::system(error.to_string()))?;
    }
    endpoint
        .set_identity(identity)
        .map_err(|error| Error::system(error.to_string()))?;
    let manager = match is_manager {
        true => Some(start_manager(options, disk, state, &node_id, endpoint).await?),
        false => None,
    };
    let own = OwnEngine {
        node_id: node_id.clone(),
        engine: options.engine.clone(),
    };
    let agent = Agent::start(agent::Config {
        node_id,
        dir: disk.worker(),
        keys,
        managers: state.managers.clone(),
        endpoint: endpoint.clone(),
        engine: options.engine.clone(),
        data_path: DataPath {
            named: state.data_path_addr.clone(),
            advertised: state.advertise_host(),
        },
    });
    match (agent, manager) {
        (Ok(agent), manager) => {
            match &manager {
                Some(manager) => endpoint.serve(Arc::new(manager.clone())),
                None => endpoint.serve(Arc::new(own)),
            }
            Ok((manager, agent))
        }
        (Err(error), manager) => {
            if let Some(manager) = manager {
                manager.stop().await;
            }
            Err(Error::system(format!("the agent: {error}")))
        }
    }
}

async fn start_manager(
    options: &Options,
    disk: &DataDir,
    state: &NodeState,
    node_id: &Id,
    endpoint: &Endpoint,
) -> Result<Manager, Error> {
    let raft_id = state.raft_id;
    let me = Member {
        raft_id,
        node_id: node_id.clone(),
        addr: state.advertise.clone(),
    };
    let keys = disk
        .keys()
        .map_err(|error| Error::system(error.to_string()))?;
    let mut config = raft::Config::new(disk.raft(), raft_id, keys);
    if let Some(heartbeat) = options.timing.heartbeat {
        config.heartbeat = heartbeat;
    }
    if let Some(election) = options.timing.election {
        (config.election_min, config.election_max) = (election, election * 2);
    }
    let transport = raft::QuicTransport::new(endpoint.clone());
    let raft = Raft::start(config, Arc::new(transport)).await;
    let raft = raft.map_err(|error| Error::system(error.to_string()))?;
    Ok(Manager::start(
        raft,
        endpoint.clone(),
        me,
        options.engine.clone(),
    ))
}
