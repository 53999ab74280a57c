//! The node's one QUIC endpoint: identity, calls, streams, peers. Composes the files beside it and
//! holds no policy of its own beyond the order of checks.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{self, Slots};
use super::error::{CLOSE_ENDED, CallError};
use super::frame::{ByteStream, FrameReceiver, FrameSender, encode};
use super::link::Link;
use super::links::Links;
use super::serve::{self, Doors};
use super::{Gate, Handler, Refusal, Service, reset, role_table, socket, tls};
use crate::pki::{Identity, JoinToken, Peer, PkiError};

/// How long connections that have become another node's may finish what they do.
const RETIRE_AFTER: Duration = Duration::from_secs(3);
/// The same after a change of roots: the peers hear of that at their own times.
const RETIRE_ACCEPTED_AFTER: Duration = Duration::from_secs(5);
/// How long peers are given to hear that the endpoint ends.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long opening a stream may take, connection included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoint; clones share it. End it with [`Endpoint::shutdown`].
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

pub(super) struct Inner {
    quic: Mutex<Option<quinn::Endpoint>>,
    listening: Mutex<bool>,
    accepting: Mutex<bool>,
    identity: Mutex<Option<Arc<Identity>>>,
    handler: Mutex<Option<Arc<dyn Handler>>>,
    gate: Arc<dyn Gate>,
    pub(super) slots: Mutex<Slots>,
    pub(super) links: Links,
    pub(super) doors: Doors,
}

/// A panic elsewhere while the lock was held leaves these plain maps whole.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(super) fn quic(&self) -> Option<quinn::Endpoint> {
        lock(&self.quic).clone()
    }

    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        lock(&self.identity).clone()
    }

    pub(super) fn handler(&self) -> Option<Arc<dyn Handler>> {
        lock(&self.handler).clone()
    }

    pub(super) fn check(&self, service: Service, peer: Option<&Peer>) -> Result<(), Refusal> {
        role_table(service, peer)?;
        self.gate.admit(service, peer)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local", &self.local_addr().ok())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Binds the UDP port, within a tokio runtime. `listen` is `None` for a node that only dials
    /// (any port, both families where the system has both). Nothing is accepted before both
    /// [`Self::set_identity`] and [`Self::serve`] have been called.
    pub fn bind(listen: Option<SocketAddr>, gate: Arc<dyn Gate>) -> io::Result<Endpoint> {
        Self::bind_with(listen, gate, reset::endpoint_config(None))
    }

    /// [`Self::bind`] for a node that has its identity already, which is not set by this. If the
    /// daemon before was killed, its peers learn at once that their connections are gone.
    pub fn bind_as(
        listen: Option<SocketAddr>,
        gate: Arc<dyn Gate>,
        identity: &Identity,
    ) -> io::Result<Endpoint> {
        Self::bind_with(listen, gate, reset::endpoint_config(Some(identity)))
    }

    fn bind_with(
        listen: Option<SocketAddr>,
        gate: Arc<dyn Gate>,
        config: quinn::EndpointConfig,
    ) -> io::Result<Endpoint> {
        let quic = quinn::Endpoint::new(
            config,
            None,
            socket::bind(listen)?,
            Arc::new(quinn::TokioRuntime),
        )?;
        Ok(Endpoint(Arc::new(Inner {
            quic: Mutex::new(Some(quic)),
            listening: Mutex::new(listen.is_some()),
            accepting: Mutex::new(false),
            identity: Mutex::new(None),
            handler: Mutex::new(None),
            gate,
            slots: Mutex::default(),
            links: Links::default(),
            doors: Doors::new(),
        })))
    }

    /// Turns an endpoint that only dials into one that listens; its connections move along. The
    /// daemon does not need it: a node that changes its role starts with another endpoint.
    pub fn listen_on(&self, listen: SocketAddr) -> io::Result<()> {
        let quic = self.0.quic().ok_or(io::ErrorKind::NotConnected)?;
        quic.rebind(socket::bind(Some(listen))?)?;
        *lock(&self.0.listening) = true;
        if let Some(identity) = self.0.identity() {
            let config = tls::server_config(&identity).map_err(io::Error::other)?;
            quic.set_server_config(Some(config));
        }
        Ok(())
    }

    /// Sets or replaces the handler of the streams that peers open, and starts to accept.
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        *lock(&self.0.handler) = Some(handler);
        if !std::mem::replace(&mut *lock(&self.0.accepting), true) {
            tokio::spawn(serve::accept(self.0.clone()));
        }
    }

    /// Who this node is from now on, for new connections in both directions. Live connections go
    /// on, with two exceptions. Where role, node or cluster differ, new calls dial anew and the old
    /// connections that this node dialled are closed a little later. Where a root is not trusted
    /// any more, that happens to connections in both directions, since all were verified by it.
    pub fn set_identity(&self, identity: Arc<Identity>) -> Result<(), PkiError> {
        if *lock(&self.0.listening) {
            let config = tls::server_config(&identity)?;
            if let Some(quic) = self.0.quic() {
                quic.set_server_config(Some(config));
            }
        }
        let old = lock(&self.0.identity).replace(identity.clone());
        let name = |identity: &Identity| {
            (
                identity.node_id.clone(),
                identity.role,
                identity.cluster_id.clone(),
            )
        };
        let Some(old) = old else { return Ok(()) };
        let trusted = |root: &_| identity.roots().contains(root);
        if !old.roots().iter().all(trusted) {
            self.retire(|_| true, RETIRE_ACCEPTED_AFTER);
        }
        if name(&old) != name(&identity) {
            self.retire(Link::dialled, RETIRE_AFTER);
        }
        Ok(())
    }

    /// Dials anew from now on, and closes such connections of those that stand after a while.
    fn retire(&self, which: impl Fn(&Link) -> bool, after: Duration) {
        lock(&self.0.slots).clear();
        let old: Vec<Link> = self.0.links.all().into_iter().filter(which).collect();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            old.iter()
                .for_each(|link| link.close("the node has a new certificate"));
        });
    }

    /// Who this node is; `None` before it is part of a swarm.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.0.identity()
    }

    /// The bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0
            .quic()
            .ok_or(io::ErrorKind::NotConnected)?
            .local_addr()
    }

    /// One request and its answer. `addr` is `host:port`; with `expect`, the node that answers
    /// there must have this id. The connection is kept for the next call.
    pub async fn call<Req, Resp>(
        &self,
        addr: &str,
        service: Service,
        expect: Option<&str>,
        timeout: Duration,
        request: &Req,
    ) -> Result<Resp, CallError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let deadline = Instant::now() + timeout;
        let frame = encode(Some(service.code()), request, service.max_frame())?;
        loop {
            let (link, old) = self.link(addr, service, expect, deadline).await?;
            match link.exchange(service, deadline, &frame).await {
                // The kept connection had died unnoticed: once more over a new one.
                Err(CallError::NotSent(_)) if old && !link.is_open() => {}
                outcome => return outcome,
            }
        }
    }

    /// A stream of frames for a session, and the connection that carries it. A refusal comes with
    /// the first receive.
    pub async fn open(
        &self,
        addr: &str,
        service: Service,
        expect: Option<&str>,
    ) -> Result<(Link, FrameSender, FrameReceiver), CallError> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let (link, _) = self.link(addr, service, expect, deadline).await?;
        let opened = timeout_at(deadline, link.open(service)).await;
        let (sender, receiver) = opened.map_err(|_| slow(addr, service))??;
        Ok((link, sender, receiver))
    }

    /// A stream of raw bytes, accepted by the peer.
    pub async fn open_bytes(
        &self,
        addr: &str,
        service: Service,
        expect: Option<&str>,
    ) -> Result<ByteStream, CallError> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let (link, _) = self.link(addr, service, expect, deadline).await?;
        let opened = timeout_at(deadline, link.open_bytes(service)).await;
        opened.map_err(|_| slow(addr, service))?
    }

    async fn link(
        &self,
        addr: &str,
        service: Service,
        expect: Option<&str>,
        deadline: Instant,
    ) -> Result<(Link, bool), CallError> {
        let found = timeout_at(deadline, dial::link(&self.0, addr, service)).await;
        let (link, old) = found.map_err(|_| slow(addr, service))??;
        let answers = link
            .peer()
            .map(|peer| peer.node_id.as_str())
            .unwrap_or_default();
        match expect {
            Some(expected) if expected != answers => Err(CallError::NotSent(format!(
                "node {answers} answers at {addr}, not node {expected}; has the address moved?"
            ))),
            _ => Ok((link, old)),
        }
    }

    /// For a joiner: connects to a manager trusting nothing but the token, and returns the
    /// connection (service ca) with the proven root bundle. The peer on the link is proven too.
    pub async fn dial_joining(
        &self,
        addr: &str,
        token: &JoinToken,
        timeout: Duration,
    ) -> Result<(Link, String), CallError> {
        let joined = tokio::time::timeout(timeout, dial::dial_joining(&self.0, addr, token)).await;
        joined.unwrap_or_else(|_| Err(slow(addr, Service::Ca)))
    }

    /// The open connections with a node, in either direction, the youngest first.
    pub fn links(&self, node_id: &str) -> Vec<Link> {
        self.0.links.of(node_id)
    }

    /// Waits until no connection with the node is left.
    pub async fn closed(&self, node_id: &str) {
        while let Some(link) = self.links(node_id).first() {
            link.closed().await;
        }
    }

    /// Closes every connection with a node: it was removed, or its certificate was replaced.
    pub fn close_peer(&self, node_id: &str, reason: &str) {
        self.0
            .links
            .of(node_id)
            .iter()
            .for_each(|link| link.close(reason));
    }

    /// Ends the endpoint, tells the peers and frees the port.
    pub async fn shutdown(&self, reason: &str) {
        let Some(quic) = lock(&self.0.quic).take() else {
            return;
        };
        *lock(&self.0.handler) = None;
        let local = quic.local_addr().ok();
        quic.close(CLOSE_ENDED, reason.as_bytes());
        // Peers that are gone cannot hear it; they need not be waited for.
        let _ = timeout(GOODBYE, quic.wait_idle()).await;
        drop(quic);
        if let Some(local) = local {
            socket::wait_free(local, GOODBYE).await;
        }
    }
}

fn slow(addr: &str, service: Service) -> CallError {
    CallError::NotSent(format!(
        "cannot reach the {service} service of {addr}: the time was up before there was a \
         connection; is the node up, and does its firewall let this UDP port through?"
    ))
}
