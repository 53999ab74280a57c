//! Raft over the node's QUIC endpoint. Adds nothing to either.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::network::{Request, Response, Transport, TransportError};
use super::{Member, Raft};
use crate::quic::{CallError, Endpoint, Incoming, Service};

/// Sends raft's messages as calls of [`Service::Raft`].
#[derive(Clone, Debug)]
pub struct QuicTransport {
    endpoint: Endpoint,
}

impl QuicTransport {
    /// Over this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }
}

impl Transport for QuicTransport {
    fn call(
        &self,
        to: &Member,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (endpoint, to) = (self.endpoint.clone(), to.clone());
        async move {
            let node_id = Some(to.node_id.as_str());
            let answer = endpoint
                .call(&to.addr, Service::Raft, node_id, timeout, &request)
                .await;
            answer.map_err(|error| match error {
                CallError::NotSent(text) | CallError::Refused(text) => {
                    TransportError::Unreachable(text)
                }
                CallError::Broken(text) => TransportError::Broken(text),
            })
        }
        .boxed()
    }

    fn is_dead(&self, member: &Member) -> BoxFuture<'static, bool> {
        let addr = member.addr.clone();
        async move { nobody_listens(&addr).await.unwrap_or(false) }.boxed()
    }
}

/// Whether the host answers that nobody has the UDP port open: the process is gone, the host is
/// not. The datagrams are too short for QUIC, which drops them. Two, so that a stray answer of the
/// network does not count.
async fn nobody_listens(addr: &str) -> std::io::Result<bool> {
    let addr: SocketAddr = addr.parse().map_err(std::io::Error::other)?;
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    for _ in 0..2 {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(addr).await?;
        socket.send(&[0]).await?;
        let refused = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
        match timeout(PROBE, socket.recv(&mut [0; 1])).await {
            Ok(Err(error)) if refused(&error) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// How long a host may take to say so.
const PROBE: Duration = Duration::from_millis(40);

/// Answers one stream of [`Service::Raft`]. The endpoint has admitted the caller as a manager.
pub async fn serve(raft: &Raft, mut incoming: Incoming) {
    let from = incoming
        .peer()
        .map(|peer| peer.node_id.to_string())
        .unwrap_or_default();
    // On failure the caller has been told already.
    let Ok(request) = incoming.stream.request::<Request>().await else {
        return;
    };
    match raft.handle(&from, request).await {
        // The caller may be gone; it will ask again.
        Some(answer) => drop(incoming.stream.reply(&answer).await),
        None => {
            incoming
                .stream
                .refuse("raft does not run here under this id")
                .await
        }
    }
}
