//! A node that is a cluster of one in memory, for tests: commands run through the real control
//! layer and store, without raft, sockets or tasks.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use skep_api::cluster::{InitRequest, JoinRequest, LocalNodeState, Spec};
use skep_api::node::{Availability, NodeDescription, NodeSpec, NodeState, Role as WishedRole};
use skep_api::{Error, Secret};
use skep_core::command::{Command, Reply};
use skep_core::id::CountingIds;
use skep_core::object::{
    Cluster as Swarm, JoinTokens, ManagerMember, Meta, Node, NodeStatus, Role, RootCa,
};
use skep_core::wire::Peers;
use skep_core::{Author, Change, Id, Reject, State, Timestamp, Tx, bootstrap, control};
use skep_node::engine::EngineStream;
use skep_node::raft::{Applied, AppliedRef};
use skep_node::{Happening, Interest};
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc};

use super::{Cluster, Standing, View};

pub(super) struct Fake {
    standing: Standing,
    refusal: Option<Error>,
    silent: bool,
    inner: Mutex<(State, CountingIds)>,
    happenings: broadcast::Sender<Happening>,
    steps: broadcast::Sender<AppliedRef>,
    /// Gets the far end of every connection with an engine.
    pub(super) engines: Mutex<Option<mpsc::UnboundedSender<(Id, DuplexStream)>>>,
}

/// The manager's id.
pub(super) const NODE: &str = "1111111111111111111111111";
/// The other node's id.
pub(super) const OTHER: &str = "2222222222222222222222222";
/// The id of a third, with the host name of the second.
pub(super) const NAMESAKE: &str = "3333333333333333333333333";

impl Fake {
    /// A node that is no manager and says so with this text.
    pub(super) fn outside(state: LocalNodeState, refusal: &str) -> Self {
        let standing = Standing {
            state,
            ..Standing::default()
        };
        Self::standing_at(standing, refusal)
    }

    /// The same, of which more is known.
    pub(super) fn standing_at(standing: Standing, refusal: &str) -> Self {
        Self {
            standing,
            refusal: Some(Error::unavailable(refusal)),
            silent: false,
            inner: Mutex::default(),
            happenings: broadcast::Sender::new(64),
            steps: broadcast::Sender::new(64),
            engines: Mutex::default(),
        }
    }

    /// The only manager of a new swarm.
    pub(super) fn manager() -> Self {
        let standing = Standing {
            state: LocalNodeState::Active,
            node_id: NODE.into(),
            node_addr: "10.0.0.1".into(),
            control_available: true,
            error: String::new(),
            managers: vec![(Id::from(NODE), "10.0.0.1:2377".into())],
        };
        let fake = Self {
            standing,
            refusal: None,
            silent: false,
            inner: Mutex::default(),
            happenings: broadcast::Sender::new(64),
            steps: broadcast::Sender::new(64),
            engines: Mutex::default(),
        };
        let node = member(NODE, "n1");
        let command = Command::Bootstrap {
            cluster: Box::new(swarm()),
            node: Box::new(node),
        };
        fake.run(command).unwrap();
        fake
    }

    /// The others are gone: every call is refused.
    pub(super) fn without_leader(mut self) -> Self {
        let text = "rpc error: code = Unknown desc = The swarm does not have a leader.";
        self.refusal = Some(Error::system(text));
        self
    }

    /// Nothing is ever answered.
    pub(super) fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Adds a second node, a manager or a worker.
    pub(super) fn with_second(self, role: Role) -> Self {
        let mut node = member(OTHER, "n2");
        if role == Role::Worker {
            node.spec.role = WishedRole::Worker;
            (node.role, node.manager) = (role, None);
        }
        self.with_node(node)
    }

    /// Adds a worker on a host that is called as the second one's.
    pub(super) fn with_namesake(self) -> Self {
        let mut node = member(NAMESAKE, "n2");
        node.spec.role = WishedRole::Worker;
        (node.role, node.manager) = (Role::Worker, None);
        self.with_node(node)
    }

    fn with_node(self, node: Node) -> Self {
        self.write(Author::Ca, vec![Change::Create(node.into())]);
        self
    }

    /// Writes what no command would.
    pub(super) fn write(&self, author: Author, changes: Vec<Change>) {
        let at = Timestamp::from_nanos(1);
        let tx = Tx {
            author,
            at,
            changes,
        };
        let mut inner = self.inner.lock().unwrap();
        self.apply(&mut inner.0, &tx).unwrap();
    }

    fn apply(&self, state: &mut State, tx: &Tx) -> Result<(), Reject> {
        let events = state.apply(tx)?;
        let step = Applied {
            revision: state.revision(),
            events: events.clone(),
            state: state.clone(),
            whole: false,
        };
        // Nobody may be listening.
        drop(self.steps.send(Arc::new(step)));
        for event in events {
            drop(self.happenings.send(Happening::Written(event)));
        }
        Ok(())
    }

    fn run(&self, command: Command) -> Result<Reply, Error> {
        let mut inner = self.inner.lock().unwrap();
        let (state, ids) = &mut *inner;
        let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
        let (changes, author, reply) = control::execute(state, &command, now, ids)?;
        let tx = Tx {
            author,
            at: now,
            changes,
        };
        self.apply(state, &tx)
            .map_err(|why| control::rejected(&why))?;
        Ok(reply)
    }
}

fn swarm() -> Swarm {
    Swarm {
        id: Id::from("swarm1"),
        meta: Meta::default(),
        spec: bootstrap::with_defaults(&Spec::default()),
        root_ca: RootCa {
            cert_pem: String::new(),
            // Without one, an external authority would have to be named.
            key_pem: Some(Secret::from("key")),
            ..RootCa::default()
        },
        join_tokens: JoinTokens {
            worker: Secret::from("SWMTKN-1-d-w"),
            manager: Secret::from("SWMTKN-1-d-m"),
        },
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        unlock_key: None,
    }
}

fn member(id: &str, hostname: &str) -> Node {
    Node {
        id: Id::from(id),
        meta: Meta::default(),
        spec: NodeSpec {
            role: WishedRole::Manager,
            availability: Availability::Active,
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: hostname.into(),
            ..Default::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            ..NodeStatus::default()
        },
        role: Role::Manager,
        manager: Some(ManagerMember {
            raft_id: 1,
            addr: "10.0.0.1:2377".into(),
        }),
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Vec::new(),
        subnets6: Vec::new(),
        data_path: None,
    }
}

#[async_trait]
impl Cluster for Fake {
    fn standing(&self) -> Standing {
        self.standing.clone()
    }

    async fn view(&self) -> Result<View, Error> {
        if self.silent {
            std::future::pending::<()>().await;
        }
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => {
                let state = self.inner.lock().unwrap().0.clone();
                let leader = Some(Id::from(NODE));
                Ok(View {
                    state,
                    peers: Peers {
                        leader,
                        ..Peers::default()
                    },
                })
            }
        }
    }

    async fn execute(&self, command: Command) -> Result<Reply, Error> {
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => self.run(command),
        }
    }

    async fn init(&self, request: InitRequest) -> Result<Id, Error> {
        // Shows what arrived.
        Ok(Id::from(format!(
            "{} {}",
            request.listen_addr, request.data_path_port
        )))
    }

    async fn join(&self, request: JoinRequest) -> Result<(), Error> {
        if request.remote_addrs.is_empty() {
            return Err(Error::invalid("at least 1 RemoteAddr is required to join"));
        }
        Ok(())
    }

    async fn unlock(&self, _key: Secret) -> Result<(), Error> {
        self.view().await?;
        Err(Error::conflict("swarm is not locked"))
    }

    async fn leave(&self, force: bool) -> Result<(), Error> {
        if force {
            Ok(())
        } else {
            Err(Error::unavailable("This node is not part of a swarm"))
        }
    }

    fn local_state(&self) -> Option<State> {
        let state = self.inner.lock().unwrap().0.clone();
        self.refusal.is_none().then_some(state)
    }

    async fn engine(&self, node: &Id) -> Result<EngineStream, Error> {
        let engines = self.engines.lock().unwrap();
        let (near, far) = tokio::io::duplex(1 << 10);
        let sent = engines.as_ref().map(|it| it.send((node.clone(), far)));
        match sent {
            Some(Ok(())) => Ok(Box::new(near)),
            _ => Err(Error::unavailable(format!("cannot reach node {node}"))),
        }
    }

    fn changes(&self) -> Result<BoxStream<'static, AppliedRef>, Error> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let next = |mut from: broadcast::Receiver<AppliedRef>| async move {
            let step = from.recv().await.ok()?;
            Some((step, from))
        };
        Ok(unfold(self.steps.subscribe(), next).boxed())
    }

    fn events(&self, _interest: Interest) -> BoxStream<'static, Happening> {
        let next = |mut from: broadcast::Receiver<Happening>| async move {
            let happening = from.recv().await.ok()?;
            Some((happening, from))
        };
        unfold(self.happenings.subscribe(), next).boxed()
    }
}
