//! The accepting side: limits on strangers, the gate, one task a stream. Never interprets a stream
//! beyond its first byte.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Buf;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Incoming as Handshake, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::endpoint::Inner;
use super::error::{CLOSE_ENDED, CLOSE_REFUSED};
use super::frame::{STATUS_OK, STATUS_REFUSED, Stream};
use super::link::Link;
use super::{Incoming, Refusal, Service, dial, role_table, tls};
use crate::pki::Peer;

/// Connections at a time, of everybody together.
const MAX_CONNECTIONS: usize = 4096;
/// Handshakes at a time; beyond, a caller has to prove first that its address is its own.
const MAX_HANDSHAKES: usize = 64;
/// Handshakes at a time of callers that have proved it.
const MAX_PROVEN_HANDSHAKES: usize = 256;
/// Connections without a certificate at a time, and how long each may last.
const MAX_JOINERS: usize = 64;
const JOINER_LIFETIME: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first byte of a stream comes with its first packet.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take to arrive: long for a peer with 64 MiB to send, short for strangers.
const PATIENCE: Duration = Duration::from_secs(60);
const STRANGERS_PATIENCE: Duration = Duration::from_secs(10);

/// Who is let in at a time.
pub(super) struct Doors {
    handshakes: Arc<Semaphore>,
    proven: Arc<Semaphore>,
    joiners: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new() -> Self {
        let limit = |permits| Arc::new(Semaphore::new(permits));
        Self {
            handshakes: limit(MAX_HANDSHAKES),
            proven: limit(MAX_PROVEN_HANDSHAKES),
            joiners: limit(MAX_JOINERS),
        }
    }
}

/// Accepts connections until the endpoint ends.
pub(super) async fn accept(inner: Arc<Inner>) {
    let Some(endpoint) = inner.quic() else { return };
    while let Some(handshake) = endpoint.accept().await {
        if endpoint.open_connections() >= MAX_CONNECTIONS {
            handshake.refuse();
            continue;
        }
        let validated = handshake.remote_address_validated();
        let permit = match inner.doors.handshakes.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if validated => inner.doors.proven.clone().try_acquire_owned().ok(),
            Err(_) => None,
        };
        match permit {
            Some(permit) => {
                tokio::spawn(welcome(inner.clone(), handshake, permit));
            }
            // A retry costs no memory here and a round trip there.
            None if !validated && handshake.may_retry() => {
                let _ = handshake.retry();
            }
            None => handshake.refuse(),
        }
    }
}

/// One connection from its handshake to its end.
async fn welcome(inner: Arc<Inner>, handshake: Handshake, permit: OwnedSemaphorePermit) {
    let Ok(connecting) = handshake.accept() else {
        return;
    };
    let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return,
    };
    drop(permit);
    let (service, peer) = match admit(&inner, &connection) {
        Ok(admitted) => admitted,
        Err(refusal) => return connection.close(CLOSE_REFUSED, refusal.0.as_bytes()),
    };
    let joiner = match &peer {
        Some(_) => None,
        None => match inner.doors.joiners.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                return connection.close(CLOSE_ENDED, b"too many nodes are joining; try again");
            }
        },
    };
    if peer.is_some() {
        tls::raise_limits(&connection, service, true);
    }
    if service == Service::Ca {
        tokio::spawn(greet(inner.clone(), connection.clone()));
    }
    let link = Link::new(connection, service, peer, false);
    inner.links.add(&link);
    match joiner {
        None => drive(inner, link).await,
        Some(_permit) => {
            if timeout(JOINER_LIFETIME, drive(inner, link.clone()))
                .await
                .is_err()
            {
                link.close("joining took too long");
            }
        }
    }
}

/// What the connection is for and whose it is, if the gate agrees.
fn admit(
    inner: &Inner,
    connection: &quinn::Connection,
) -> Result<(Service, Option<Peer>), Refusal> {
    let data = connection
        .handshake_data()
        .and_then(|any| any.downcast::<HandshakeData>().ok());
    let service = data
        .and_then(|data| data.protocol)
        .and_then(|alpn| {
            Service::ALL
                .into_iter()
                .find(|service| service.alpn() == alpn)
        })
        .ok_or_else(|| Refusal("the connection names no service of skep".into()))?;
    let peer = match dial::shown(connection).first() {
        Some(leaf) => Some(Peer::from_der(leaf).map_err(|error| Refusal(error.to_string()))?),
        None => None,
    };
    inner.check(service, peer.as_ref())?;
    Ok((service, peer))
}

/// Shows the root bundle, which a joiner compares with its token. It is no secret.
async fn greet(inner: Arc<Inner>, connection: quinn::Connection) {
    let Some(identity) = inner.identity() else {
        return;
    };
    // Whoever does not listen to the greeting has no use for it.
    if let Ok(mut stream) = connection.open_uni().await {
        let _ = stream.write_all(identity.root_pem.as_bytes()).await;
        let _ = stream.finish();
        let _ = stream.stopped().await;
    }
}

/// Serves the streams that the peer opens, until the connection ends or its certificate does: a
/// live connection is never verified again, so it must not outlive what it was verified by.
pub(super) async fn drive(inner: Arc<Inner>, link: Link) {
    let life = link.peer().map_or(Duration::MAX, |peer| {
        peer.not_after
            .duration_since(SystemTime::now())
            .unwrap_or_default()
    });
    // A timer's range ends somewhere; nobody keeps a connection for a year.
    let expiry = tokio::time::sleep(life.min(Duration::from_secs(365 * 24 * 3600)));
    tokio::pin!(expiry);
    loop {
        tokio::select! {
            accepted = link.connection().accept_bi() => match accepted {
                Ok((send, recv)) => {
                    tokio::spawn(stream(inner.clone(), link.clone(), send, recv));
                }
                Err(_) => break,
            },
            () = &mut expiry => {
                link.close("the certificate of this connection has expired");
                break;
            }
        }
    }
    inner.links.remove(&link);
}

async fn stream(inner: Arc<Inner>, link: Link, send: SendStream, recv: RecvStream) {
    let (mut sender, mut receiver) = link.frames(send, recv, link.service());
    match timeout(FIRST_BYTE_TIMEOUT, receiver.fill()).await {
        Ok(Ok(true)) if !receiver.buffer.is_empty() => {}
        _ => return,
    }
    let code = receiver.buffer.get_u8();
    let service = match allow(&inner, &link, code) {
        Ok(service) => service,
        Err(refusal) => return sender.send_status(STATUS_REFUSED, &refusal.0).await,
    };
    let Some(handler) = inner.handler() else {
        let text = "the node is still starting; try again";
        return sender.send_status(STATUS_REFUSED, text).await;
    };
    sender.prefix = Some(STATUS_OK);
    sender.max = service.max_frame();
    receiver.max = service.max_frame();
    let patience = if link.peer().is_some() {
        PATIENCE
    } else {
        STRANGERS_PATIENCE
    };
    let stream = Stream {
        sender,
        receiver,
        patience,
    };
    handler
        .handle(Incoming {
            link,
            service,
            stream,
        })
        .await;
}

/// The dialler of a connection is held to the service it named in the handshake. The other side
/// may open streams of any service that its certificate admits it to.
fn allow(inner: &Inner, link: &Link, code: u8) -> Result<Service, Refusal> {
    let service = Service::ALL
        .into_iter()
        .find(|service| service.code() == code);
    let service = service.ok_or_else(|| Refusal(format!("there is no service {code}")))?;
    if !link.dialled() && service != link.service() {
        return Err(Refusal(format!(
            "this connection is for {} only",
            link.service()
        )));
    }
    role_table(service, link.peer())?;
    inner.check(service, link.peer())?;
    Ok(service)
}
