//! One connection with one peer: who it is, streams on it, calls over it, the moment it is lost.
//! Never dials again; that is the endpoint's business.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::Service;
use super::error::{CLOSE_ENDED, CallError, describe, lost};
use super::frame::{ByteStream, FrameReceiver, FrameSender, encode};
use crate::pki::Peer;

/// A live or lost connection; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    connection: Connection,
    service: Service,
    dialled: bool,
    peer: Option<Peer>,
    label: Arc<str>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("at", &self.0.label)
            .field("dialled", &self.0.dialled)
            .field("peer", &self.0.peer)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        service: Service,
        peer: Option<Peer>,
        dialled: bool,
    ) -> Self {
        let label = format!("{service} at {}", canonical(connection.remote_address())).into();
        Self(Arc::new(Inner {
            connection,
            service,
            dialled,
            peer,
            label,
        }))
    }

    /// Who is at the other end; `None` for a joiner without a certificate.
    pub fn peer(&self) -> Option<&Peer> {
        self.0.peer.as_ref()
    }

    /// The service that the connection was made for.
    pub fn service(&self) -> Service {
        self.0.service
    }

    /// Whether this node dialled.
    pub fn dialled(&self) -> bool {
        self.0.dialled
    }

    /// The peer's address as this node sees it (which is how a manager learns where a node is).
    pub fn remote(&self) -> SocketAddr {
        canonical(self.0.connection.remote_address())
    }

    /// This node's address on the connection, where the system tells it.
    pub fn local_ip(&self) -> Option<std::net::IpAddr> {
        self.0.connection.local_ip().map(|ip| ip.to_canonical())
    }

    /// Whether the connection still stands, as far as this node knows.
    pub fn is_open(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }

    /// Whether both are the same connection.
    pub fn same(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until the connection is lost or closed and tells why. A black hole shows after 1.5 s.
    pub async fn closed(&self) -> String {
        describe(&self.0.connection.closed().await).0
    }

    /// Closes the connection; the peer is told the reason.
    pub fn close(&self, reason: &str) {
        self.0.connection.close(CLOSE_ENDED, reason.as_bytes());
    }

    /// Opens a stream of frames. The peer's refusal, if any, comes with the first receive.
    pub async fn open(&self, service: Service) -> Result<(FrameSender, FrameReceiver), CallError> {
        let (mut sender, receiver) = self.start(service).await?;
        sender.write(&[service.code()]).await?;
        Ok((sender, receiver))
    }

    /// Opens a stream of raw bytes and waits for the peer to accept it.
    pub async fn open_bytes(&self, service: Service) -> Result<ByteStream, CallError> {
        let (sender, mut receiver) = self.open(service).await?;
        receiver.accepted().await?;
        Ok(ByteStream::join(sender, receiver))
    }

    /// One request and its answer over this connection.
    pub async fn call<Req, Resp>(
        &self,
        service: Service,
        timeout: Duration,
        request: &Req,
    ) -> Result<Resp, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let frame = encode(Some(service.code()), request, service.max_frame())?;
        self.exchange(service, Instant::now() + timeout, &frame)
            .await
    }

    /// [`Self::call`] with a frame that is encoded already, so that a retry costs no encoding.
    pub(super) async fn exchange<Resp: DeserializeOwned>(
        &self,
        service: Service,
        deadline: Instant,
        frame: &[u8],
    ) -> Result<Resp, CallError> {
        let label = &self.0.label;
        let send = async {
            let (mut sender, receiver) = self.start(service).await?;
            let sent = sender.write(frame).await;
            sender.finish();
            Ok::<_, CallError>((receiver, sent))
        };
        let (mut receiver, sent) = timeout_at(deadline, send).await.map_err(|_| {
            CallError::NotSent(format!(
                "{label}: the time was up before the request was sent"
            ))
        })??;
        let answer = timeout_at(deadline, receiver.recv()).await;
        match (answer, sent) {
            // A peer that refuses stops reading early; its text is better than our write error.
            (Ok(Err(CallError::Refused(text))), _) => Err(CallError::Refused(text)),
            (_, Err(not_sent)) => Err(not_sent),
            (Ok(Ok(Some(answer))), _) => Ok(answer),
            (Ok(Ok(None)), _) => Err(CallError::Broken(format!("{label}: there was no answer"))),
            (Ok(Err(error)), _) => Err(error),
            (Err(_), _) => Err(CallError::Broken(format!(
                "{label}: the time was up before the answer came; the request may or may not \
                 have been executed"
            ))),
        }
    }

    /// A stream with nothing on it; the peer does not see it yet.
    async fn start(&self, service: Service) -> Result<(FrameSender, FrameReceiver), CallError> {
        let opened = self.0.connection.open_bi().await;
        let (send, recv) = opened.map_err(|error| lost(&self.0.label, &error, false))?;
        let (sender, mut receiver) = self.frames(send, recv, service);
        receiver.awaits_status = true;
        Ok((sender, receiver))
    }

    /// Frames over a raw stream of this connection.
    pub(super) fn frames(
        &self,
        stream: SendStream,
        recv: RecvStream,
        service: Service,
    ) -> (FrameSender, FrameReceiver) {
        let max = service.max_frame();
        let label = self.0.label.clone();
        let sender = FrameSender {
            stream,
            prefix: None,
            max,
            label: label.clone(),
        };
        let receiver = FrameReceiver {
            stream: recv,
            buffer: BytesMut::new(),
            awaits_status: false,
            verdict: None,
            max,
            label,
        };
        (sender, receiver)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0.connection
    }
}

/// An IPv4 address that came through a dual-stack socket as what it is.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
