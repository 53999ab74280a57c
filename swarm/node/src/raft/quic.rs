//! Raft over the node's QUIC endpoint. Adds nothing to either.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

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
}

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
