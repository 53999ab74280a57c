//! Outgoing connections: one per address and service, dialled once however many callers wait, and
//! not given up when the caller that started it does. Never retries by itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::timeout;

use super::endpoint::{Inner, lock};
use super::error::{CallError, describe};
use super::link::Link;
use super::{Service, serve, tls};
use crate::pki::verify::check_joined;
use crate::pki::{JoinToken, Peer, PkiError};

/// A handshake on a working network takes two round trips. The idle time-out (1.5 s) usually ends
/// a dial to a dead address earlier.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A root bundle has about 600 bytes a certificate.
const MAX_ROOT_PEM: usize = 64 << 10;

/// The cache of outgoing connections.
pub(super) type Slots = HashMap<(String, Service), Slot>;

/// One outgoing connection or the attempt at it.
pub(super) enum Slot {
    Live(Link),
    Dialling(Shared<BoxFuture<'static, Result<Link, CallError>>>),
}

/// The connection for this address and service; true if it stood already.
pub(super) async fn link(
    inner: &Arc<Inner>,
    addr: &str,
    service: Service,
) -> Result<(Link, bool), CallError> {
    let key = (addr.to_owned(), service);
    let dialling = {
        let mut slots = lock(&inner.slots);
        match slots.get(&key) {
            Some(Slot::Live(link)) if link.is_open() => return Ok((link.clone(), true)),
            Some(Slot::Dialling(dialling)) => dialling.clone(),
            _ => {
                let task = tokio::spawn(dial(inner.clone(), key.clone()));
                let gone = || Err(CallError::NotSent("the dialling task ended".into()));
                let dialling = async move { task.await.unwrap_or_else(|_| gone()) }
                    .boxed()
                    .shared();
                slots.insert(key, Slot::Dialling(dialling.clone()));
                dialling
            }
        }
    };
    dialling.await.map(|link| (link, false))
}

/// Dials and leaves the outcome in the slot.
async fn dial(inner: Arc<Inner>, key: (String, Service)) -> Result<Link, CallError> {
    let outcome = connect_member(&inner, &key.0, key.1).await;
    let mut slots = lock(&inner.slots);
    match &outcome {
        Ok(link) => {
            slots.insert(key.clone(), Slot::Live(link.clone()));
            drop(slots);
            let (inner, link) = (inner.clone(), link.clone());
            tokio::spawn(async move {
                serve::drive(inner.clone(), link.clone()).await;
                forget(&inner, &key, &link);
            });
        }
        Err(_) => {
            slots.remove(&key);
        }
    }
    outcome
}

fn forget(inner: &Inner, key: &(String, Service), link: &Link) {
    let mut slots = lock(&inner.slots);
    if matches!(slots.get(key), Some(Slot::Live(current)) if current.same(link)) {
        slots.remove(key);
    }
}

async fn connect_member(inner: &Inner, addr: &str, service: Service) -> Result<Link, CallError> {
    let identity = inner.identity().ok_or_else(|| {
        CallError::NotSent("this node has no certificate; is it part of a swarm?".into())
    })?;
    let config = tls::client_config(&identity, service).map_err(not_sent)?;
    let connection = connect(inner, addr, service, config).await?;
    let leaf = shown(&connection).into_iter().next();
    let peer = Peer::from_der(leaf.as_deref().unwrap_or_default()).map_err(not_sent)?;
    tls::raise_limits(&connection, service, false);
    let link = Link::new(connection, service, Some(peer), true);
    inner.links.add(&link);
    Ok(link)
}

/// A connection to a manager of which only a token is known: the manager shows its root, the
/// token's digest proves the root, the root proves the certificate of the handshake.
pub(super) async fn dial_joining(
    inner: &Arc<Inner>,
    addr: &str,
    token: &JoinToken,
) -> Result<(Link, String), CallError> {
    let config = tls::joining_config().map_err(not_sent)?;
    let connection = connect(inner, addr, Service::Ca, config).await?;
    let proven = timeout(DIAL_TIMEOUT, prove(&connection, addr, token)).await;
    let proven = proven.unwrap_or_else(|_| {
        Err(CallError::NotSent(format!(
            "the node at {addr} did not show its root certificate"
        )))
    });
    match proven {
        Ok((peer, root_pem)) => {
            let link = Link::new(connection, Service::Ca, Some(peer), true);
            inner.links.add(&link);
            tokio::spawn(serve::drive(inner.clone(), link.clone()));
            Ok((link, root_pem))
        }
        Err(error) => {
            connection.close(
                super::error::CLOSE_ENDED,
                b"the joining node does not trust us",
            );
            Err(error)
        }
    }
}

async fn prove(
    connection: &quinn::Connection,
    addr: &str,
    token: &JoinToken,
) -> Result<(Peer, String), CallError> {
    let bad = |what: &str| CallError::NotSent(format!("the node at {addr} {what}"));
    let mut greeting = connection.accept_uni().await.map_err(|error| {
        let (what, refused) = describe(&error);
        let text = format!("cannot join through {addr}: {what}");
        if refused {
            CallError::Refused(text)
        } else {
            CallError::NotSent(text)
        }
    })?;
    let root_pem = greeting.read_to_end(MAX_ROOT_PEM).await;
    let root_pem = root_pem.map_err(|_| bad("did not show its root certificate"))?;
    let root_pem = token
        .check_root(&root_pem)
        .map_err(|error| CallError::Refused(error.to_string()))?;
    let peer = check_joined(&root_pem, &shown(connection), UnixTime::now())
        .map_err(|error| CallError::Refused(format!("the node at {addr}: {error}")))?;
    Ok((peer, root_pem))
}

/// Resolves and connects; every address of a name is tried in turn.
async fn connect(
    inner: &Inner,
    addr: &str,
    service: Service,
    config: quinn::ClientConfig,
) -> Result<quinn::Connection, CallError> {
    let resolved = resolve(addr).await?;
    let mut last = CallError::NotSent(format!("{addr} has no address"));
    for target in resolved {
        match connect_one(inner, addr, target, service, config.clone()).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(
    inner: &Inner,
    addr: &str,
    target: SocketAddr,
    service: Service,
    config: quinn::ClientConfig,
) -> Result<quinn::Connection, CallError> {
    let failed = |what: &str| format!("cannot reach the {service} service of {addr}: {what}");
    let endpoint = inner
        .quic()
        .ok_or_else(|| CallError::NotSent("the node is stopping".into()))?;
    // The name goes nowhere: SNI is off and our verifier looks at the certificate's subject.
    let connecting = endpoint
        .connect_with(config, target, "swarm-manager")
        .map_err(|error| CallError::NotSent(failed(&error.to_string())))?;
    match timeout(DIAL_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let (what, refused) = describe(&error);
            let text = failed(&what);
            Err(if refused {
                CallError::Refused(text)
            } else {
                CallError::NotSent(text)
            })
        }
        Err(_) => Err(CallError::NotSent(failed("the handshake took too long"))),
    }
}

async fn resolve(addr: &str) -> Result<Vec<SocketAddr>, CallError> {
    if let Ok(addr) = addr.parse() {
        return Ok(vec![addr]);
    }
    let looked_up = timeout(DIAL_TIMEOUT, tokio::net::lookup_host(addr)).await;
    match looked_up {
        Ok(Ok(found)) => Ok(found.take(4).collect()),
        Ok(Err(error)) => Err(CallError::NotSent(format!(
            "cannot resolve {addr}: {error}"
        ))),
        Err(_) => Err(CallError::NotSent(format!(
            "cannot resolve {addr}: DNS did not answer"
        ))),
    }
}

/// The chain that the peer showed in the handshake, leaf first.
pub(super) fn shown(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity();
    let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

fn not_sent(error: PkiError) -> CallError {
    CallError::NotSent(error.to_string())
}
