//! A real engine behind a unix socket: Docker, or whatever speaks its API. This file and those
//! below `docker/` are the only ones that name bollard; nothing here decides anything.

mod clear;
mod connect;
mod describe;
mod error;
mod fields;
mod image;
mod local;
mod network;
mod ops;
mod podman;
mod progress;
mod raw;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use skep_api::Secret;
use skep_api::node::NodeDescription;
use skep_api::task::GenericResource;
use skep_core::worker::{EngineOp, OpError, OpResult};
use skep_dataplane::Overlays;
use tokio::sync::mpsc;

use super::{Engine, EngineEvent, EngineStream};
use connect::Link;

/// Events that wait for a slow reader; then the engine waits.
const EVENTS: usize = 256;

/// A container engine that answers on a unix socket. Cheap to clone. Connects when it is first
/// used, and again whenever the engine was away.
#[derive(Clone)]
pub struct DockerEngine {
    link: Arc<Link>,
    generic: Arc<[GenericResource]>,
    /// Who hears how far images are.
    listener: Arc<Mutex<Option<mpsc::Sender<EngineEvent>>>>,
    /// The overlay networks of this host.
    overlays: Overlays,
}

impl DockerEngine {
    /// An engine by its socket: a path or `unix://PATH`. `generic_resources` are what the node
    /// offers besides: `gpu=UUID1` is one of a named kind, `ssd=3` an amount. One that is neither
    /// is left out, with a warning.
    pub fn new(socket: impl AsRef<Path>, generic_resources: &[String]) -> Self {
        Self {
            link: Arc::new(Link::new(socket.as_ref())),
            generic: describe::generic_resources(generic_resources).into(),
            listener: Arc::default(),
            overlays: Overlays::default(),
        }
    }
}

impl fmt::Debug for DockerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DockerEngine")
            .field(&self.link.socket())
            .finish()
    }
}

impl Engine for DockerEngine {
    fn run(&self, op: EngineOp) -> BoxFuture<'static, OpResult> {
        let link = Arc::clone(&self.link);
        let (listener, overlays) = (Arc::clone(&self.listener), self.overlays.clone());
        let tell = move |event| {
            let listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(listener) = listener.as_ref() {
                // Who does not keep up misses this, and hears the next.
                let _ = listener.try_send(event);
            }
        };
        Box::pin(async move { ops::run(&link, &overlays, op, &tell).await })
    }

    fn lead_nowhere(&self) -> BoxFuture<'static, Result<(), String>> {
        let overlays = self.overlays.clone();
        Box::pin(async move { overlays.clear().await.map_err(|error| error.to_string()) })
    }

    fn describe(&self) -> BoxFuture<'static, Result<NodeDescription, String>> {
        let (link, generic) = (Arc::clone(&self.link), Arc::clone(&self.generic));
        Box::pin(async move {
            match ops::info(&link).await {
                Ok(info) => Ok(describe::description(info, &generic)),
                Err(error) => Err(text(error)),
            }
        })
    }

    fn subnets(&self) -> BoxFuture<'static, Vec<(IpAddr, u8)>> {
        let link = Arc::clone(&self.link);
        Box::pin(async move {
            match ops::networks(&link).await {
                Ok(networks) => describe::subnets(networks),
                Err(_) => Vec::new(),
            }
        })
    }

    fn dial(&self) -> BoxFuture<'static, Result<EngineStream, String>> {
        let link = Arc::clone(&self.link);
        Box::pin(async move { link.dial().await.map_err(text) })
    }

    fn digest(
        &self,
        image: String,
        auth: Option<Secret>,
    ) -> BoxFuture<'static, Result<String, String>> {
        let link = Arc::clone(&self.link);
        Box::pin(async move { image::digest(&link, &image, auth).await.map_err(text) })
    }

    fn watch(&self) -> mpsc::Receiver<EngineEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS);
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        *listener = Some(sender.clone());
        tokio::spawn(watch::watch(Arc::clone(&self.link), sender));
        receiver
    }
}

fn text(error: OpError) -> String {
    match error {
        OpError::NotFound(text)
        | OpError::Conflict(text)
        | OpError::Failed(text)
        | OpError::Unavailable(text) => text,
    }
}
