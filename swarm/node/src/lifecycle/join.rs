//! `swarm join`: a certificate by token, then the membership that it stands for. A refusal or a
//! manager that does not answer leaves nothing behind; once the certificate is on disk, the node
//! keeps trying, also after a restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use skep_api::Error;
use skep_api::cluster::JoinRequest;
use skep_core::command::Command;
use skep_core::{Id, bootstrap};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{Addresses, Asked, system, to_the_end};
use crate::addr::{self, HostPort};
use crate::ca;
use crate::control::{self, ControlRequest, ControlResponse};
use crate::disk::NodeState;
use crate::membership::Membership;
use crate::node::Node;
use crate::pki::{Identity, Role};
use crate::quic::{Endpoint, OpenGate};
use crate::system::random_number;
use crate::texts;

/// How long `join` waits in all for the node to be in; the attempt goes on after it.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a manager may take to forget a node that cannot start, and how many are asked.
const PATIENCE: Duration = Duration::from_secs(5);
const REDIRECTS: usize = 3;

impl Node {
    /// Joins a swarm by token. Waits up to 20 s; after that the attempt goes on by itself.
    ///
    /// # Errors
    /// dockerd's texts. After a refusal nothing is left behind; after the time-out the node is in
    /// state pending.
    pub async fn join(&self, request: JoinRequest) -> Result<(), Error> {
        let node = self.clone();
        to_the_end(async move { node.join_now(&request).await }).await
    }

    async fn join_now(&self, request: &JoinRequest) -> Result<(), Error> {
        let moving = self.0.moving.lock().await;
        let deadline = Instant::now() + DEADLINE;
        let returns = self.is_expired();
        if !returns {
            self.must_be_free()?;
        }
        let remote = match request.remote_addrs.first() {
            None => return Err(Error::invalid("at least 1 RemoteAddr is required to join")),
            Some(remote) => addr::remote(remote)?,
        };
        bootstrap::check_availability(&request.availability)?;
        let membership = match returns {
            true => self.come_back(request, &remote).await?,
            false => self.join_anew(request, &remote).await?,
        };
        // From here on the node may leave again.
        drop(moving);
        match timeout_at(deadline, membership.wait_joined()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(texts::left_while_joining()),
            Err(_) => Err(texts::join_timed_out()),
        }
    }

    async fn join_anew(
        &self,
        request: &JoinRequest,
        remote: &str,
    ) -> Result<Arc<Membership>, Error> {
        let asked = Asked {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        };
        let addresses = self.addresses(asked, false).await?;
        self.sweep()?;
        self.set_out(addresses.advertise.as_ref(), Some(remote));
        let outcome = self.enter(request, remote, addresses).await;
        self.conclude(outcome)
    }

    /// Gets a certificate, writes everything down and starts.
    async fn enter(
        &self,
        request: &JoinRequest,
        remote: &str,
        addresses: Addresses,
    ) -> Result<Arc<Membership>, Error> {
        let data_path_addr = addresses.data_path();
        let advertise = match addresses.advertise {
            Some(advertise) => advertise,
            // As the manager sees us: the address that the route to it starts from.
            None => HostPort {
                ip: route_to(remote).await?,
                port: addresses.listen.port,
            },
        };
        self.set_out(Some(&advertise), Some(remote));
        let dialling = Endpoint::bind(None, Arc::new(OpenGate)).map_err(|error| system(&error))?;
        let token = &request.join_token;
        let asked = ca::join(&dialling, remote, token, request.availability.clone()).await;
        dialling.shutdown("joined").await;
        let identity = asked?;
        let state = NodeState {
            node_id: identity.node_id.clone(),
            raft_id: random_number(),
            listen: addresses.listen.to_string(),
            advertise: advertise.to_string(),
            data_path_addr,
            managers: vec![remote.to_owned()],
            availability: request.availability.clone(),
            ..NodeState::default()
        };
        let disk = &self.0.disk;
        identity.save(disk).map_err(|error| system(&error))?;
        disk.save(&state).map_err(|error| system(&error))?;
        match self.begin(state, identity.clone()).await {
            Ok(membership) => {
                membership.settle(disk.clone());
                Ok(membership)
            }
            Err(error) => {
                take_back(identity, remote).await;
                Err(error)
            }
        }
    }
}

/// Has the row of this node removed again: it was let in but cannot start, since its port is taken
/// for example. Without success, the row stays for `docker node rm`. Only a manager can ask; but a
/// worker, which does not listen, hardly ever fails to start.
async fn take_back(identity: Identity, remote: &str) {
    if identity.role != Role::Manager {
        return;
    }
    let (id, force) = (Id::from(identity.node_id.as_str()), true);
    let request = ControlRequest::Execute(Box::new(Command::RemoveNode { id, force }));
    let Ok(endpoint) = Endpoint::bind(None, Arc::new(OpenGate)) else {
        return;
    };
    if endpoint.set_identity(Arc::new(identity)).is_ok() {
        let mut addr = remote.to_owned();
        for _ in 0..REDIRECTS {
            match control::call(&endpoint, &addr, PATIENCE, &request).await {
                Ok(ControlResponse::NotLeader(Some(leader))) => addr = leader,
                answer => {
                    debug!(?answer, "asked to be forgotten");
                    break;
                }
            }
        }
    }
    endpoint.shutdown("could not start").await;
}

/// The address of this host that the route to `remote` starts from.
async fn route_to(remote: &str) -> Result<IpAddr, Error> {
    let found = async {
        let mut targets = tokio::net::lookup_host(remote).await?;
        let target = targets.next().ok_or(std::io::ErrorKind::NotFound)?;
        let any: IpAddr = match target.is_ipv4() {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a UDP socket asks the routing table and sends nothing.
        let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
        socket.connect(target).await?;
        socket.local_addr()
    };
    let addr: std::io::Result<SocketAddr> = found.await;
    addr.map(|addr| addr.ip())
        .map_err(|error| Error::system(format!("no route to {remote}: {error}")))
}
