//! A host for tests of whole nodes: what survives a restart of its daemon, and what to ask of it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_api::cluster::{InitRequest, JoinRequest};
use skep_api::container::ContainerSpec;
use skep_api::node::NodeState;
use skep_api::service::{ReplicatedService, ServiceMode, ServiceSpec};
use skep_api::task::TaskSpec;
use skep_api::{Error, Secret};
use skep_core::Id;
use skep_core::command::{Command, Reply};
use skep_node::{Node, Options, Timing, View};

use crate::map::MapEngine;

const SOON: Duration = Duration::from_secs(30);

/// A host: what survives a restart of its daemon.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub engine: MapEngine,
    pub addr: String,
}

impl Host {
    pub fn new() -> Self {
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            engine: MapEngine::default(),
            addr: format!("127.0.0.1:{port}"),
        }
    }

    pub async fn start(&self) -> Node {
        let options = Options {
            data_dir: self.dir.path().to_owned(),
            engine: Arc::new(self.engine.clone()),
            default_advertise_addr: None,
            timing: Timing::default(),
        };
        Node::start(options).await.unwrap()
    }

    pub async fn init(&self, node: &Node) -> Result<Id, Error> {
        let request = InitRequest {
            listen_addr: self.addr.clone(),
            advertise_addr: self.addr.clone(),
            ..Default::default()
        };
        node.init(request).await
    }

    pub async fn join(&self, node: &Node, through: &Host, token: Secret) -> Result<(), Error> {
        let request = JoinRequest {
            listen_addr: self.addr.clone(),
            advertise_addr: self.addr.clone(),
            remote_addrs: vec![through.addr.clone()],
            join_token: token,
            ..Default::default()
        };
        node.join(request).await
    }

    /// Names of what lies in the data directory beside the lock.
    pub fn left_behind(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "skepd.lock").collect()
    }

    pub fn containers(&self) -> usize {
        self.engine.0.lock().unwrap().containers.len()
    }
}

/// Waits for a condition; says which one did not come.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn web(name: &str, replicas: u64) -> Command {
    let container = ContainerSpec {
        image: "busybox".into(),
        ..Default::default()
    };
    let spec = ServiceSpec {
        name: name.into(),
        task_template: TaskSpec {
            container_spec: Some(container),
            ..Default::default()
        },
        mode: ServiceMode {
            replicated: Some(ReplicatedService {
                replicas: Some(replicas),
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    Command::CreateService {
        spec: Box::new(spec),
        registry_auth: None,
    }
}

pub async fn create(node: &Node, name: &str, replicas: u64) {
    let reply = node.execute(web(name, replicas)).await.unwrap();
    assert!(matches!(reply, Reply::Created(_)), "{reply:?}");
}

pub fn services(view: &View) -> usize {
    view.state.services().len()
}

pub async fn tokens(node: &Node) -> (Secret, Secret) {
    let state = node.view().await.unwrap().state;
    let tokens = state.cluster().unwrap().join_tokens.clone();
    (tokens.worker, tokens.manager)
}

pub fn ready(view: &View) -> usize {
    view.state
        .nodes()
        .iter()
        .filter(|node| node.status.state == NodeState::Ready)
        .count()
}
