//! An agent against scripted managers over real QUIC and an engine of nothing but a map.

// Helpers of tests may state what they expect, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/engine.rs"]
mod map;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use map::MapEngine;
use skep_api::container::ContainerSpec;
use skep_api::node::NodeSpec;
use skep_api::task::{TaskSpec, TaskState, TaskStatus};
use skep_core::assignment::{Assignments, ToAgent, ToDispatcher, Trust};
use skep_core::object::{Meta, Node, NodeStatus, Role, Task};
use skep_core::worker::{EngineOp, OpOutput};
use skep_node::agent::{Agent, Config, Parting, forget_everything};
use skep_node::disk::Keys;
use skep_node::engine::Engine;
use skep_node::pki::{self, DEFAULT_LEAF_VALIDITY, Identity, KeyRequest, Leaf, RootCa};
use skep_node::quic::{Endpoint, FrameReceiver, FrameSender, Handler, Incoming, OpenGate};
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(20);
const NODE: &str = "n1";

/// A manager: every session is handed to the test.
struct Manager {
    addr: String,
    sessions: mpsc::Receiver<Session>,
    _endpoint: Endpoint,
}

struct Session {
    sender: FrameSender,
    receiver: FrameReceiver,
}

struct Desk(mpsc::Sender<Session>);

impl Handler for Desk {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let sessions = self.0.clone();
        Box::pin(async move {
            let (sender, receiver) = incoming.stream.split();
            // The test may have ended.
            let _ = sessions.send(Session { sender, receiver }).await;
        })
    }
}

impl Session {
    /// The next message that is no heartbeat.
    async fn hear(&mut self) -> ToDispatcher {
        loop {
            let heard = tokio::time::timeout(SOON, self.receiver.recv::<ToDispatcher>()).await;
            match heard.unwrap().unwrap().unwrap() {
                ToDispatcher::Heartbeat => {}
                message => return message,
            }
        }
    }

    async fn say(&mut self, message: ToAgent) {
        self.sender.send(&message).await.unwrap();
    }

    /// Lets the agent in and tells it everything it has to do.
    async fn welcome(&mut self, tasks: Vec<Task>) {
        assert!(matches!(self.hear().await, ToDispatcher::Register { .. }));
        let node = Node {
            id: NODE.into(),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: None,
            status: NodeStatus::default(),
            role: Role::Worker,
            manager: None,
            active_since: Default::default(),
            gateways: Default::default(),
            subnets: Default::default(),
            subnets6: Default::default(),
            data_path: None,
        };
        let managers = vec![("m1".into(), "127.0.0.1:1".to_owned())];
        let heartbeat = 100_000_000;
        self.say(ToAgent::Session {
            heartbeat,
            node: Box::new(node),
            managers,
            trust: Trust::default(),
        })
        .await;
        let all = Assignments {
            complete: true,
            tasks,
            ..Assignments::default()
        };
        self.say(ToAgent::Assignments(all)).await;
    }

    /// Reports until the task is in this state; the number of the last report.
    async fn reported(&mut self, state: TaskState) -> (u64, TaskStatus) {
        loop {
            if let ToDispatcher::Statuses { sequence, statuses } = self.hear().await
                && let Some((_, status)) = statuses.into_iter().find(|(_, s)| s.state == state)
            {
                return (sequence, status);
            }
        }
    }
}

struct Swarm(RootCa, Keys);

impl Swarm {
    fn new() -> Self {
        let root = RootCa::create(SystemTime::now()).unwrap();
        Self(root, Keys::generate().unwrap())
    }

    fn endpoint(&self, node_id: &str, role: pki::Role, listen: bool) -> Endpoint {
        let request = KeyRequest::fresh().unwrap();
        let leaf = Leaf {
            node_id,
            role,
            cluster_id: "cluster",
        };
        let now = SystemTime::now();
        let cert = self
            .0
            .sign(&request.csr_pem, &leaf, DEFAULT_LEAF_VALIDITY, now)
            .unwrap();
        let identity = Identity::new(&self.0.cert_pem, &cert, request.key_pem).unwrap();
        let listen = listen.then_some(([127, 0, 0, 1], 0).into());
        let endpoint = Endpoint::bind(listen, Arc::new(OpenGate)).unwrap();
        endpoint.set_identity(Arc::new(identity)).unwrap();
        endpoint
    }

    fn manager(&self, node_id: &str) -> Manager {
        let endpoint = self.endpoint(node_id, pki::Role::Manager, true);
        let (sender, sessions) = mpsc::channel(4);
        endpoint.serve(Arc::new(Desk(sender)));
        let addr = endpoint.local_addr().unwrap().to_string();
        Manager {
            addr,
            sessions,
            _endpoint: endpoint,
        }
    }

    fn agent(&self, engine: &MapEngine, dir: &Path, managers: &[&Manager]) -> Agent {
        Agent::start(Config {
            node_id: NODE.into(),
            dir: dir.to_owned(),
            keys: self.1.clone(),
            managers: managers
                .iter()
                .map(|manager| manager.addr.clone())
                .collect(),
            endpoint: self.endpoint(NODE, pki::Role::Worker, false),
            engine: Arc::new(engine.clone()),
            data_path: Default::default(),
        })
        .unwrap()
    }
}

impl Manager {
    async fn session(&mut self) -> Session {
        tokio::time::timeout(SOON, self.sessions.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

fn task() -> Task {
    let container = ContainerSpec {
        image: "busybox".into(),
        ..Default::default()
    };
    Task {
        spec_version: 1,
        service_id: "s1".into(),
        service_name: "web".into(),
        slot: 1,
        node_id: Some(NODE.into()),
        status: TaskStatus {
            state: TaskState::Assigned,
            ..Default::default()
        },
        ..Task::new(
            "t1".into(),
            TaskSpec {
                container_spec: Some(container),
                ..Default::default()
            },
        )
    }
}

#[tokio::test]
async fn an_agent_finds_the_leader_runs_its_tasks_and_repeats_what_was_not_acknowledged() {
    let (swarm, engine) = (Swarm::new(), MapEngine::default());
    let dir = tempfile::tempdir().unwrap();
    let (mut follower, mut leader) = (swarm.manager("m1"), swarm.manager("m2"));
    let agent = swarm.agent(&engine, dir.path(), &[&follower]);

    let mut session = follower.session().await;
    session
        .say(ToAgent::NotLeader(Some(leader.addr.clone())))
        .await;
    let mut session = leader.session().await;
    session.welcome(vec![task()]).await;
    let (_, status) = session.reported(TaskState::Running).await;
    assert_eq!(status.container_status.unwrap().container_id, "c1");
    assert_eq!(
        agent.view().borrow().leader.as_deref(),
        Some(leader.addr.as_str())
    );

    // Nothing was acknowledged, and the session ends.
    session.say(ToAgent::Expired).await;
    drop(session);
    agent.set_managers(vec![leader.addr.clone()]);
    let mut session = leader.session().await;
    session.welcome(vec![task()]).await;
    let (sequence, _) = session.reported(TaskState::Running).await;
    session.say(ToAgent::Ack(sequence)).await;

    // What it only is to know needs no answer.
    for (revision, follow) in [(7, false), (8, true)] {
        let assignments = Assignments {
            revision,
            follow,
            ..Assignments::default()
        };
        session.say(ToAgent::Assignments(assignments)).await;
    }
    let followed = loop {
        if let ToDispatcher::Followed(revision) = session.hear().await {
            break revision;
        }
    };
    assert_eq!(followed, 8);

    engine.die("c1", 3).await;
    let (_, status) = session.reported(TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (3)");
    agent.stop(Parting::BackSoon).await;
}

#[tokio::test]
async fn a_restart_leaves_containers_alone_even_without_managers() {
    let (swarm, engine) = (Swarm::new(), MapEngine::default());
    let dir = tempfile::tempdir().unwrap();
    let mut leader = swarm.manager("m1");
    let agent = swarm.agent(&engine, dir.path(), &[&leader]);
    let mut session = leader.session().await;
    session.welcome(vec![task()]).await;
    session.reported(TaskState::Running).await;
    let (stopped, goodbye) = tokio::join!(agent.stop(Parting::BackSoon), session.hear());
    let () = stopped;
    assert_eq!(goodbye, ToDispatcher::Restarting);

    // Its container ends while nobody looks and no manager is there: that is remembered.
    let agent = swarm.agent(&engine, dir.path(), &[]);
    tokio::time::timeout(SOON, async {
        while engine
            .0
            .lock()
            .unwrap()
            .events
            .as_ref()
            .is_none_or(mpsc::Sender::is_closed)
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    engine.die("c1", 7).await;
    agent.set_managers(vec![leader.addr.clone()]);
    let mut session = leader.session().await;
    session.welcome(vec![task()]).await;
    let (_, status) = session.reported(TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (7)");
    {
        let shelf = engine.0.lock().unwrap();
        assert_eq!((shelf.made, shelf.starts.get("c1")), (1, Some(&1)));
    }

    agent.stop(Parting::Wordless).await;
    let shelf = engine.0.clone();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    forget_everything(&engine, &NODE.into(), dir.path())
        .await
        .unwrap();
    let listed = engine.run(EngineOp::List { node: NODE.into() }).await;
    assert_eq!(listed, Ok(OpOutput::Containers(Vec::new())));
    // Also of networks that the engine does not know.
    assert!(shelf.lock().unwrap().leads_nowhere);
    assert!(!dir.path().join("tasks").exists());
}

#[tokio::test]
async fn a_session_tells_what_has_changed_about_the_node() {
    let (swarm, engine) = (Swarm::new(), MapEngine::default());
    let dir = tempfile::tempdir().unwrap();
    let mut leader = swarm.manager("m1");
    let agent = swarm.agent(&engine, dir.path(), &[&leader]);
    let mut session = leader.session().await;
    session.welcome(Vec::new()).await;

    let rack = BTreeMap::from([("rack".to_owned(), "7".to_owned())]);
    engine.0.lock().unwrap().labels = rack.clone();
    let ToDispatcher::Register { description, .. } = session.hear().await else {
        panic!("the node said something else");
    };
    assert_eq!(description.engine.labels, rack);
    let (stopped, goodbye) = tokio::join!(agent.stop(Parting::ForGood), session.hear());
    let () = stopped;
    assert_eq!(goodbye, ToDispatcher::Leaving);
}

#[tokio::test]
async fn a_daemon_that_starts_beside_a_slow_engine_is_there_at_once() {
    let (swarm, engine) = (Swarm::new(), MapEngine::default());
    let dir = tempfile::tempdir().unwrap();
    let mut leader = swarm.manager("m1");
    let agent = swarm.agent(&engine, dir.path(), &[&leader]);
    leader.session().await.welcome(Vec::new()).await;
    agent.stop(Parting::Wordless).await;

    engine.0.lock().unwrap().is_silent = true;
    let agent = swarm.agent(&engine, dir.path(), &[&leader]);
    let ToDispatcher::Register { description, .. } = leader.session().await.hear().await else {
        panic!("the node said something else");
    };
    assert_eq!(description.hostname, "host");
    agent.stop(Parting::Wordless).await;
}
