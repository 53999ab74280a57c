//! Several nodes that make up a swarm, for tests of whole nodes: their roles and their restarts.

use std::net::UdpSocket;

use skep_api::Error;
use skep_api::cluster::{InitRequest, LocalNodeState};
use skep_api::node::Role;
use skep_core::Id;
use skep_core::command::{Command, Reply};
use skep_node::Node;
use tokio::runtime::Runtime;

use crate::host::{Host, tokens, until};

pub fn id(node: &Node) -> Id {
    node.status().node_id.unwrap()
}

/// `docker node promote` and `demote`, asked of `through`, by a client that reads again when the
/// node has changed meanwhile.
pub async fn set_role(through: &Node, whom: &Id, role: Role) -> Result<Reply, Error> {
    loop {
        let state = through.view().await.unwrap().state;
        let row = state.nodes().get(whom).unwrap();
        let mut spec = row.spec.clone();
        spec.role = role.clone();
        let command = Command::UpdateNode {
            id: whom.clone(),
            version: row.meta.version,
            spec: Box::new(spec),
        };
        match through.execute(command).await {
            Err(error) if error.message.ends_with("update out of sequence") => {}
            outcome => return outcome,
        }
    }
}

/// Whether a node answers as a manager, and so do `count` members of raft and of the table.
pub async fn managers(node: &Node, count: usize) -> bool {
    node.view().await.is_ok_and(|view| {
        let rows = view.state.nodes().iter();
        let recorded = rows.filter(|row| row.manager.is_some()).count();
        (recorded, view.members.len()) == (count, count)
    })
}

pub fn is_worker(node: &Node) -> bool {
    let status = node.status();
    !status.manager && !status.control_available && status.state == LocalNodeState::Active
}

/// Hosts of which the first `count` are in a swarm: the first has founded it.
pub async fn swarm(hosts: &[Host], managers: usize) -> Vec<Node> {
    let mut nodes = vec![hosts[0].start().await];
    hosts[0].init(&nodes[0]).await.unwrap();
    let (worker, manager) = tokens(&nodes[0]).await;
    for (index, host) in hosts.iter().enumerate().skip(1) {
        let node = host.start().await;
        let token = if index < managers { &manager } else { &worker };
        host.join(&node, &hosts[0], token.clone()).await.unwrap();
        nodes.push(node);
    }
    nodes
}

pub async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.stop().await;
    }
}

/// A restart of the daemon.
pub async fn restart(host: &Host, node: Node) -> Node {
    node.stop().await;
    drop(node);
    host.start().await
}

/// `docker swarm init --force-new-cluster`.
pub async fn force(host: &Host, node: &Node) -> Result<Id, Error> {
    let request = InitRequest {
        listen_addr: host.addr.clone(),
        advertise_addr: host.addr.clone(),
        force_new_cluster: true,
        ..Default::default()
    };
    node.init(request).await
}

/// A daemon with a runtime of its own.
pub struct Daemon {
    pub runtime: Runtime,
    pub node: Node,
}

impl Daemon {
    pub fn start(host: &Host) -> Self {
        let runtime = Runtime::new().unwrap();
        let node = runtime.block_on(async {
            // One that was killed in a process that lives never lets go of its port.
            until("the port is free", async || {
                UdpSocket::bind(&host.addr).is_ok()
            })
            .await;
            host.start().await
        });
        Self { runtime, node }
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Ends it suddenly. Its port stays taken: only one that was stopped can be started again.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }
}
