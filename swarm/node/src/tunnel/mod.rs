//! Byte streams from a manager to the engine of any node. Finds a way there: this host's own socket,
//! a connection that the node keeps with this manager, the address of a manager, or the leader, with
//! whom every node keeps a session. Knows nothing of the HTTP that travels on them.

mod serve;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_api::Error;
use skep_api::node::NodeState;
use skep_core::object::Node;
use skep_core::{Id, State};
use tokio::time::{Instant, sleep, timeout_at};

pub use serve::OwnEngine;

use crate::engine::EngineStream;
use crate::manager::Manager;
use crate::quic::{ByteStream, CallError, FrameReceiver, FrameSender, Link, Service};
use crate::system::jittered;

/// How long getting through may take in all. Sessions need about a second to find a new leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the ways are tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What the first frame of a stream of [`Service::Http`] asks for. Bytes follow the answer.
#[derive(Debug, Serialize, Deserialize)]
struct EngineRequest {
    /// The node whose engine is meant: the one that is asked, or one that it has a connection with.
    /// It goes no further than that, so no request ever turns in a circle.
    node: Id,
}

/// The answer to it, also one frame.
#[derive(Debug, Serialize, Deserialize)]
enum EngineAnswer {
    /// What follows, in both directions, are the engine's own bytes.
    Connected,
    /// There is no way to the node from here at the moment.
    NoWay(String),
    /// The node was reached and its engine does not answer.
    EngineDown(String),
}

/// Why there is no stream.
#[derive(Debug)]
enum Missed {
    /// There may be a way in a moment, or another one.
    ForNow(String),
    /// The node itself said no.
    ForGood(String),
}

impl Manager {
    /// A connection with the engine of a node.
    ///
    /// # Errors
    /// 404 for a node that is not in the table; 503, within [`PATIENCE`] and naming the node, when
    /// it or its engine cannot be reached.
    pub(crate) async fn engine_of(&self, node: &Id) -> Result<EngineStream, Error> {
        let row = self.raft.state().nodes().get(node).cloned();
        let row = row.ok_or_else(|| Error::not_found(format!("node {node} not found")))?;
        let failed = |why: &str| unreachable(&row, why);
        if *node == self.me.node_id {
            return self.engine.dial().await.map_err(|why| failed(&why));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tried = timeout_at(deadline, self.try_every_way(&row)).await;
            let why = match tried {
                Ok(Ok(stream)) => return Ok(Box::new(stream)),
                Ok(Err(Missed::ForGood(why))) => return Err(failed(&why)),
                Ok(Err(Missed::ForNow(why))) => why,
                Err(_) => "it does not answer".to_owned(),
            };
            if is_down(&self.raft.state(), node) {
                return Err(failed("the node is down"));
            }
            let pause = jittered(RETRY);
            if Instant::now() + pause >= deadline {
                return Err(failed(&why));
            }
            sleep(pause).await;
        }
    }

    async fn try_every_way(&self, node: &Node) -> Result<ByteStream, Missed> {
        match self.over_its_connection(&node.id).await {
            Err(Missed::ForNow(_)) => {}
            outcome => return outcome,
        }
        if let Some(manager) = &node.manager {
            match self.at(&manager.addr, &node.id, &node.id).await {
                Err(Missed::ForNow(_)) => {}
                outcome => return outcome,
            }
        }
        let leader = self.raft.leadership().borrow().leader.clone();
        match leader {
            Some(leader) if leader != self.me && leader.node_id != node.id => {
                self.at(&leader.addr, &leader.node_id, &node.id).await
            }
            Some(_) => Err(Missed::ForNow("there is no connection with it".to_owned())),
            None => Err(Missed::ForNow("the swarm has no leader".to_owned())),
        }
    }

    /// Over a connection that stands: one that the node has dialled for its session, or one that
    /// was dialled for its engine before.
    async fn over_its_connection(&self, node: &Id) -> Result<ByteStream, Missed> {
        let mut last = "there is no connection with it".to_owned();
        for link in self.endpoint.links(node).iter().filter(|it| usable(it)) {
            let asked = match link.open(Service::Http).await {
                Ok((sender, receiver)) => ask(sender, receiver, node).await,
                Err(error) => Err(Missed::ForNow(error.to_string())),
            };
            match asked {
                Err(Missed::ForNow(why)) => last = why,
                outcome => return outcome,
            }
        }
        Err(Missed::ForNow(last))
    }

    /// Through the manager at `addr`, which may be the node itself.
    async fn at(&self, addr: &str, manager: &Id, node: &Id) -> Result<ByteStream, Missed> {
        let expect = Some(manager.as_str());
        let opened = self.endpoint.open(addr, Service::Http, expect).await;
        let (_, sender, receiver) = opened.map_err(for_now)?;
        ask(sender, receiver, node).await
    }
}

/// Asks on a fresh stream and waits for the answer.
async fn ask(
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
    node: &Id,
) -> Result<ByteStream, Missed> {
    let node = node.clone();
    sender
        .send(&EngineRequest { node })
        .await
        .map_err(for_now)?;
    let answer = receiver.recv::<EngineAnswer>().await.map_err(for_now)?;
    match answer {
        Some(EngineAnswer::Connected) => Ok(ByteStream::join(sender, receiver)),
        Some(EngineAnswer::EngineDown(why)) => Err(Missed::ForGood(why)),
        Some(EngineAnswer::NoWay(why)) => Err(Missed::ForNow(why)),
        None => Err(Missed::ForNow("the stream was closed".to_owned())),
    }
}

/// The peer takes streams of every service on a connection that it dialled itself.
fn usable(link: &Link) -> bool {
    match link.service() {
        Service::Http => true,
        Service::Dispatch => !link.dialled(),
        Service::Raft | Service::Control | Service::Ca => false,
    }
}

/// Nothing of the client's request was sent yet, so whatever happened may be tried again.
fn for_now(error: CallError) -> Missed {
    Missed::ForNow(error.to_string())
}

fn is_down(state: &State, node: &Id) -> bool {
    let row = state.nodes().get(node);
    row.is_none_or(|row| row.status.state == NodeState::Down)
}

fn unreachable(node: &Node, why: &str) -> Error {
    let hostname = node.description.as_ref().map(|it| it.hostname.as_str());
    let name = match hostname {
        Some(name) if !name.is_empty() => format!("{name} ({})", node.id),
        _ => node.id.to_string(),
    };
    Error::unavailable(format!("cannot reach the engine of node {name}: {why}"))
}
