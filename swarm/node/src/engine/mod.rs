//! What the agent needs of a container engine. The trait only; `docker.rs` speaks to a real one.

mod docker;

pub use docker::DockerEngine;

use futures_util::future::BoxFuture;
use skep_api::Secret;
use skep_api::node::NodeDescription;
use skep_core::Id;
use skep_core::worker::{EngineOp, OpResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A stream in both directions. Shutting down the writer is a half-close: reading goes on.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection with an engine's API, here or on another node.
pub type EngineStream = Box<dyn Duplex>;

/// A container engine. Every call may take its time; dropping its future cancels it.
pub trait Engine: Send + Sync + 'static {
    /// Carries out one operation of the worker.
    fn run(&self, op: EngineOp) -> BoxFuture<'static, OpResult>;

    /// Removes what leads from any network to other hosts, whether or not the engine knows of it: the
    /// node leaves its swarm. What other nodes of this host have stays.
    ///
    /// # Errors
    /// In words, when something is left.
    fn lead_nowhere(&self) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// What the node says of itself: host name, platform, resources, engine. Without `tls_info`.
    ///
    /// # Errors
    /// In words, when the engine does not answer.
    fn describe(&self) -> BoxFuture<'static, Result<NodeDescription, String>>;

    /// Subnets of the engine's own networks; empty when it does not answer. They are never chosen
    /// as this host's address.
    fn subnets(&self) -> BoxFuture<'static, Vec<(std::net::IpAddr, u8)>>;

    /// Opens a connection with the engine's API, to speak HTTP over.
    ///
    /// # Errors
    /// In words, within seconds, when the engine does not answer.
    fn dial(&self) -> BoxFuture<'static, Result<EngineStream, String>> {
        Box::pin(async { Err("this engine has no API to connect with".to_owned()) })
    }

    /// Asks the registry of an image, through the engine, for the digest behind its tag. `auth` is
    /// `X-Registry-Auth` as the client sent it.
    ///
    /// # Errors
    /// In the engine's words.
    fn digest(
        &self,
        _image: String,
        _auth: Option<Secret>,
    ) -> BoxFuture<'static, Result<String, String>> {
        Box::pin(async { Err("this engine asks no registry".to_owned()) })
    }

    /// Watches the engine for as long as the receiver lives, through restarts of the engine.
    fn watch(&self) -> mpsc::Receiver<EngineEvent>;
}

/// What an engine says of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// It answers (again); events before this one may have been missed.
    Up,
    /// It does not answer any more.
    Down,
    /// Something happened to a task's container.
    Container {
        /// Label `com.docker.swarm.task.id`.
        task: Id,
        /// With a `die` event: the exit code.
        died: Option<i64>,
    },
    /// Something happened to a container that is no task's.
    Other {
        /// Its id.
        container: String,
    },
    /// An image takes long to fetch.
    Pulling {
        /// As the operation named it.
        image: String,
        /// How far it is, in words.
        text: String,
    },
}
