//! What the handlers need of the node: the seam to `skep_node`, so that every answer can be tested
//! without a socket. Knows no HTTP.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use skep_api::cluster::{InitRequest, JoinRequest, LocalNodeState};
use skep_api::{Error, Secret};
use skep_core::command::{Command, Reply};
use skep_core::wire::Peers;
use skep_core::{Id, State};
use skep_node::agent::Attachments;
use skep_node::engine::{EngineEvent, EngineStream};
use skep_node::raft::AppliedRef;
use skep_node::{Happening, Interest};
use tokio::sync::mpsc;

use crate::reply::BodyStream;

/// This host as a node of a swarm, or of none.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Where the node stands. Asks nobody and does not block.
    fn standing(&self) -> Standing;

    /// The cluster, no older than this call.
    ///
    /// # Errors
    /// dockerd's 503 on a node that is no manager, its 500 when there is no leader.
    async fn view(&self) -> Result<View, Error>;

    /// Has the leader carry out a command.
    ///
    /// # Errors
    /// As [`view`](Self::view), and the command's own refusals.
    async fn execute(&self, command: Command) -> Result<Reply, Error>;

    /// `docker swarm init`; returns the node's id.
    async fn init(&self, request: InitRequest) -> Result<Id, Error>;

    /// `docker swarm join`
    async fn join(&self, request: JoinRequest) -> Result<(), Error>;

    /// `docker swarm unlock`
    ///
    /// # Errors
    /// dockerd's texts; that the swarm is not locked is one of them.
    async fn unlock(&self, key: Secret) -> Result<(), Error>;

    /// `docker swarm leave`
    async fn leave(&self, force: bool) -> Result<(), Error>;

    /// `skepd backup`: a tar of this manager as it is now.
    ///
    /// # Errors
    /// dockerd's 503s on a node that is no manager.
    async fn backup(&self) -> Result<BodyStream, Error> {
        Err(Error::not_implemented("this node makes no backups"))
    }

    /// This manager's own copy of the state, however old, without asking anyone; `None` on a node
    /// that is no manager. Must not block.
    fn local_state(&self) -> Option<State> {
        None
    }

    /// A connection with the engine of a node, this one's own included, to speak HTTP over. It ends
    /// with an error within seconds when the node goes away.
    ///
    /// # Errors
    /// dockerd's 503s on a node that is no manager; 404 for a node that the swarm does not know;
    /// 503 within seconds when the node or its engine cannot be reached, naming the node.
    async fn engine(&self, node: &Id) -> Result<EngineStream, Error> {
        Err(Error::unavailable(format!("cannot reach node {node}")))
    }

    /// The places that this host's containers have on networks of the swarm; `None` outside one.
    fn attachments(&self) -> Option<Attachments> {
        None
    }

    /// What happens to this host's containers, for as long as the receiver lives.
    fn watch(&self) -> Option<mpsc::Receiver<EngineEvent>> {
        None
    }

    /// Has this node's engine ask a registry for the digest behind an image's tag.
    ///
    /// # Errors
    /// In the engine's words.
    async fn digest(&self, _image: String, _auth: Option<Secret>) -> Result<String, String> {
        Err("this node has no engine".to_owned())
    }

    /// What this manager applies from now on, step by step; a [`view`](Self::view) that is asked for
    /// afterwards has all that came before. One that follows others which were missed is whole. Ends
    /// when the node is no manager any more.
    ///
    /// # Errors
    /// dockerd's 503s on a node that is no manager.
    fn changes(&self) -> Result<BoxStream<'static, AppliedRef>, Error> {
        Err(Error::unavailable("this node follows no changes"))
    }

    /// What happens to the cluster from now on, whenever this node is a manager that sees it.
    /// Without interest it need not ask others.
    fn events(&self, interest: Interest) -> BoxStream<'static, Happening>;
}

/// Where a node stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Inactive, pending, active, error or locked.
    pub state: LocalNodeState,
    /// Empty outside a swarm.
    pub node_id: String,
    /// The address that it advertises, without a port.
    pub node_addr: String,
    /// Whether it is a manager that can answer.
    pub control_available: bool,
    /// What went wrong.
    pub error: String,
    /// Managers that it knows: node id and `host:port`.
    pub managers: Vec<(Id, String)>,
}

/// A consistent picture of the cluster.
#[derive(Clone, Default)]
pub struct View {
    /// Everything the cluster knows.
    pub state: State,
    /// What raft knows of the managers.
    pub peers: Peers,
}
