//! skeleton
use super::*;
use crate::pki::{Identity, JoinToken};
use serde::{Serialize, de::DeserializeOwned};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The node's one QUIC endpoint; clones share it.
#[derive(Clone, Debug)]
pub struct Endpoint {}
/// One live connection with a peer.
#[derive(Clone, Debug)]
pub struct Link {}

impl Link {
    /// Who is at the other end; `None` for a joiner without a certificate.
    pub fn peer(&self) -> Option<&Peer> {
        None
    }
    /// The peer's address as we see it.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }
    /// Resolves with the reason when the connection is lost or closed.
    pub async fn closed(&self) -> String {
        String::new()
    }
    /// Closes the connection.
    pub fn close(&self, _reason: &str) {}
    /// Opens a stream of frames.
    pub async fn open(&self, _service: Service) -> Result<(FrameSender, FrameReceiver), CallError> {
        Err(CallError::NotSent(String::new()))
    }
    /// Opens a stream of bytes.
    pub async fn open_bytes(&self, _service: Service) -> Result<ByteStream, CallError> {
        Err(CallError::NotSent(String::new()))
    }
    /// One call over this connection.
    pub async fn call<Req: Serialize + ?Sized, Resp: DeserializeOwned>(
        &self,
        _service: Service,
        _timeout: Duration,
        _request: &Req,
    ) -> Result<Resp, CallError> {
        Err(CallError::NotSent(String::new()))
    }
}

impl Endpoint {
    /// Binds. `listen`: `None` for a node that only dials.
    pub fn bind(
        _listen: Option<SocketAddr>,
        _gate: Arc<dyn Gate>,
    ) -> Result<Endpoint, std::io::Error> {
        Ok(Endpoint {})
    }
    /// Starts to accept connections and streams.
    pub fn serve(&self, _handler: Arc<dyn Handler>) {}
    /// Who we are from now on.
    pub fn set_identity(&self, _identity: Arc<Identity>) -> Result<(), crate::pki::PkiError> {
        Ok(())
    }
    /// Our identity.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        None
    }
    /// Where we listen.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Err(std::io::ErrorKind::Other.into())
    }
    /// One call: `addr` is host:port.
    pub async fn call<Req: Serialize + ?Sized, Resp: DeserializeOwned>(
        &self,
        _addr: &str,
        _service: Service,
        _expect: Option<&str>,
        _timeout: Duration,
        _request: &Req,
    ) -> Result<Resp, CallError> {
        Err(CallError::NotSent(String::new()))
    }
    /// Opens a long stream of frames.
    pub async fn open(
        &self,
        _addr: &str,
        _service: Service,
        _expect: Option<&str>,
    ) -> Result<(Link, FrameSender, FrameReceiver), CallError> {
        Err(CallError::NotSent(String::new()))
    }
    /// Opens a stream of raw bytes.
    pub async fn open_bytes(
        &self,
        _addr: &str,
        _service: Service,
        _expect: Option<&str>,
    ) -> Result<ByteStream, CallError> {
        Err(CallError::NotSent(String::new()))
    }
    /// A connection to a manager that is proven by nothing but the token; returns it with the root PEM.
    pub async fn dial_joining(
        &self,
        _addr: &str,
        _token: &JoinToken,
        _timeout: Duration,
    ) -> Result<(Link, String), CallError> {
        Err(CallError::NotSent(String::new()))
    }
    /// Live connections with a node, in either direction.
    pub fn links(&self, _node_id: &str) -> Vec<Link> {
        Vec::new()
    }
    /// Resolves when no connection with the node is left.
    pub async fn closed(&self, _node_id: &str) {}
    /// Closes every connection with a node.
    pub fn close_peer(&self, _node_id: &str, _reason: &str) {}
    /// Closes every connection.
    pub fn close_all(&self, _reason: &str) {}
    /// Ends the endpoint and frees its port.
    pub async fn shutdown(&self, _reason: &str) {}
}
