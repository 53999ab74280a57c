//! Into a swarm and out of it: resume, init, join, leave, stop. One move at a time; whatever fails
//! half-way leaves nothing on disk. Never touches a running container except when leaving.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_api::cluster::{InitRequest, JoinRequest};
use skep_api::{Error, Secret};
use skep_core::bootstrap::{self, Made};
use skep_core::command::Command;
use skep_core::object::{JoinTokens, ManagerMember, RootCa};
use skep_core::{Id, object};
use tracing::{error, info, warn};

use crate::addr::{self, Host, HostPort};
use crate::agent;
use crate::ca;
use crate::control::{self, ControlRequest};
use crate::disk::NodeState;
use crate::manager::Manager;
use crate::membership::Membership;
use crate::node::{Node, Phase};
use crate::pki::{self, Identity, JoinToken, KeyRequest, Leaf};
use crate::quic::{Endpoint, OpenGate};
use crate::system;
use crate::texts;

/// How long `join` waits for the node to be in; the attempt goes on after it.
const JOIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long a leaving manager tries to be taken out of raft.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pause between two looks at whether a join is through.
const LOOK: Duration = Duration::from_millis(20);

impl Node {
    /// Takes up the membership that lies in the data directory. A failure is shown in the status.
    pub(crate) async fn resume(&self) {
        let phase = match self.load().await {
            Ok(None) => return,
            Ok(Some(membership)) => {
                info!(node = %membership.node_id(), "resumed the membership");
                Phase::Member(membership)
            }
            Err(error) => {
                error!(%error, "could not resume the membership");
                Phase::Broken(error.message)
            }
        };
        self.0.phase.send_replace(phase);
    }

    async fn load(&self) -> Result<Option<Arc<Membership>>, Error> {
        let disk = &self.0.disk;
        let Some(state) = disk.load().map_err(|error| system(&error))? else { return Ok(None) };
        let identity = Identity::load(&disk.certificates()).map_err(|error| system(&error))?;
        let Some(identity) = identity else {
            return Err(Error::system(format!(
                "there is no certificate in {}; leave the swarm with --force and join again",
                disk.certificates().display()
            )));
        };
        self.begin(state, identity).await.map(Some)
    }

    /// Starts a membership that is on disk.
    async fn begin(&self, state: NodeState, identity: Identity) -> Result<Arc<Membership>, Error> {
        let disk = &self.0.disk;
        let membership = Membership::start(&self.0.options, disk, state, identity).await?;
        let membership = Arc::new(membership);
        membership.settle(disk.clone());
        Ok(membership)
    }

    /// Makes this node the first manager of a new swarm. Returns its node id.
    ///
    /// # Errors
    /// dockerd's texts; nothing is left behind then.
    pub async fn init(&self, request: InitRequest) -> Result<Id, Error> {
        let _moving = self.0.moving.lock().await;
        self.must_be_free()?;
        if request.force_new_cluster {
            return Err(Error::not_implemented(
                "--force-new-cluster is not supported by this version of skep",
            ));
        }
        if request.auto_lock_managers || request.spec.encryption_config.auto_lock_managers {
            return Err(Error::not_implemented(
                "autolock is not supported by this version of skep",
            ));
        }
        bootstrap::check(&request)?;
        let (listen, advertise) =
            self.addresses(&request.listen_addr, &request.advertise_addr, true).await?;
        let advertise = advertise.ok_or_else(|| Error::system("no address to advertise"))?;
        self.0.phase.send_replace(Phase::Joining);
        let outcome = self.found(&request, listen, advertise).await;
        self.conclude(outcome).await.map(|membership| membership.node_id().clone())
    }

    /// Founds the swarm: certificate authority, own certificate, raft of one, first transaction.
    async fn found(
        &self,
        request: &InitRequest,
        listen: HostPort,
        advertise: HostPort,
    ) -> Result<Arc<Membership>, Error> {
        let disk = &self.0.disk;
        let (cluster_id, node_id) = (system::random_id(), system::random_id());
        let root = pki::RootCa::create(SystemTime::now()).map_err(|error| system(&error))?;
        let token = || -> Result<Secret, Error> {
            let token = JoinToken::generate(&root).map_err(|error| system(&error))?;
            Ok(Secret::from(token.to_string()))
        };
        let member = ManagerMember {
            raft_id: system::random_number(),
            addr: advertise.to_string(),
        };
        let key = root.key_pem.as_ref().map(|key| Secret::from(key.expose()));
        let made = Made {
            cluster: cluster_id.clone(),
            node: node_id.clone(),
            root_ca: RootCa { cert_pem: root.cert_pem.clone(), key_pem: key.unwrap_or_default() },
            join_tokens: JoinTokens { worker: token()?, manager: token()? },
            member: member.clone(),
        };
        let (cluster, node) = bootstrap::objects(request, made);
        let identity = self_signed(&root, &cluster, &node_id)?;
        let state = NodeState {
            node_id: node_id.to_string(),
            raft_id: member.raft_id,
            listen: listen.to_string(),
            advertise: member.addr.clone(),
            data_path_addr: request.data_path_addr.clone(),
            data_path_port: request.data_path_port,
            availability: request.availability.clone(),
            ..NodeState::default()
        };
        identity.save(&disk.certificates()).map_err(|error| system(&error))?;
        let membership = self.begin(state.clone(), identity).await?;
        let founded = match membership.manager() {
            Some(manager) => first_transaction(manager, cluster, node).await,
            None => Err(Error::system("the first node must be a manager")),
        };
        // Written last: a crash before this line leaves a node that is in no swarm.
        let founded = founded.and_then(|()| disk.save(&state).map_err(|error| system(&error)));
        match founded {
            Ok(()) => Ok(membership),
            Err(error) => {
                membership.stop(false).await;
                Err(error)
            }
        }
    }

    /// Joins a swarm by token. Waits up to 20 s; after that the attempt goes on by itself.
    ///
    /// # Errors
    /// dockerd's texts. After a refusal nothing is left behind; after the time-out the node is in
    /// state pending.
    pub async fn join(&self, request: JoinRequest) -> Result<(), Error> {
        let moving = self.0.moving.lock().await;
        self.must_be_free()?;
        let remote = match request.remote_addrs.first() {
            None => return Err(Error::invalid("at least 1 RemoteAddr is required to join")),
            Some(remote) => addr::remote(remote)?,
        };
        bootstrap::check_availability(&request.availability)?;
        let (listen, advertise) =
            self.addresses(&request.listen_addr, &request.advertise_addr, false).await?;
        self.0.phase.send_replace(Phase::Joining);
        let outcome = self.enter(&request, &remote, listen, advertise).await;
        let membership = self.conclude(outcome).await?;
        drop(moving);
        let through = async {
            while !membership.joined() {
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(JOIN_DEADLINE, through).await {
            Ok(()) => Ok(()),
            Err(_) => Err(texts::join_timed_out()),
        }
    }

    /// Gets a certificate, writes everything down and starts.
    async fn enter(
        &self,
        request: &JoinRequest,
        remote: &str,
        listen: HostPort,
        advertise: Option<HostPort>,
    ) -> Result<Arc<Membership>, Error> {
        let disk = &self.0.disk;
        let advertise = match advertise {
            Some(advertise) => advertise,
            // As the manager sees us: the address that the route to it starts from.
            None => HostPort { ip: route_to(remote).await?, port: listen.port },
        };
        let dialling = Endpoint::bind(None, Arc::new(OpenGate)).map_err(|error| system(&error))?;
        let token = &request.join_token;
        let asked = ca::join(&dialling, remote, token, request.availability.clone()).await;
        dialling.shutdown("joined").await;
        let identity = asked?;
        let state = NodeState {
            node_id: identity.node_id.clone(),
            raft_id: system::random_number(),
            listen: listen.to_string(),
            advertise: advertise.to_string(),
            data_path_addr: request.data_path_addr.clone(),
            managers: vec![remote.to_owned()],
            availability: request.availability.clone(),
            ..NodeState::default()
        };
        identity.save(&disk.certificates()).map_err(|error| system(&error))?;
        disk.save(&state).map_err(|error| system(&error))?;
        self.begin(state, identity).await
    }

    /// Takes up the new membership or wipes what a failed attempt has left.
    async fn conclude(
        &self,
        outcome: Result<Arc<Membership>, Error>,
    ) -> Result<Arc<Membership>, Error> {
        match outcome {
            Ok(membership) => {
                self.0.phase.send_replace(Phase::Member(membership.clone()));
                Ok(membership)
            }
            Err(error) => {
                if let Err(error) = self.0.disk.wipe() {
                    warn!(%error, "could not wipe what a failed attempt left");
                }
                self.0.phase.send_replace(Phase::Inactive);
                Err(error)
            }
        }
    }

    /// Leaves the swarm: its containers are removed and nothing of it stays on disk.
    ///
    /// # Errors
    /// dockerd's refusals for a node in no swarm and, without force, for a manager.
    pub async fn leave(&self, force: bool) -> Result<(), Error> {
        let _moving = self.0.moving.lock().await;
        let phase = self.0.phase.borrow().clone();
        let membership = match phase {
            Phase::Inactive | Phase::Joining => return Err(texts::not_part()),
            Phase::Broken(_) => None,
            Phase::Member(membership) => Some(membership),
        };
        if let Some(membership) = membership {
            if let Some(manager) = membership.manager() {
                if !force {
                    let members = manager.members_as_leader_sees().await;
                    let reachable = members.iter().filter(|member| member.reachable).count();
                    return Err(texts::leaving_manager(reachable, members.len() - reachable));
                }
                say_farewell(manager).await;
            }
            membership.stop(false).await;
            let engine = self.engine();
            let worker = self.0.disk.worker();
            if let Err(error) =
                agent::forget_everything(engine, membership.node_id(), &worker).await
            {
                warn!(error, "containers of the swarm were left behind");
            }
        }
        self.0.disk.wipe().map_err(|error| system(&error))?;
        self.0.phase.send_replace(Phase::Inactive);
        info!("left the swarm");
        Ok(())
    }

    /// Hands leadership to another manager, if this one leads and there is another.
    pub async fn hand_over(&self) {
        let phase = self.0.phase.borrow().clone();
        let Phase::Member(membership) = phase else { return };
        if let Some(manager) = membership.manager()
            && let Err(error) = manager.raft.step_down().await
        {
            warn!(%error, "could not hand leadership over");
        }
    }

    /// Stops for a restart of the daemon: the membership stays on disk, containers go on, and a
    /// leader hands over first.
    pub async fn stop(&self) {
        let _moving = self.0.moving.lock().await;
        let phase = self.0.phase.borrow().clone();
        if let Phase::Member(membership) = phase {
            membership.stop(true).await;
        }
    }

    fn must_be_free(&self) -> Result<(), Error> {
        match &*self.0.phase.borrow() {
            Phase::Inactive => Ok(()),
            _ => Err(texts::already_part()),
        }
    }

    /// Where to listen and what to advertise. A joining node whose address is not clear leaves that
    /// to the route towards the manager, as in the original.
    async fn addresses(
        &self,
        listen: &str,
        advertise: &str,
        founding: bool,
    ) -> Result<(HostPort, Option<HostPort>), Error> {
        let interfaces = system::interfaces().map_err(|error| system(&error))?;
        let engine_subnets = self.engine().subnets().await;
        let host = Host { interfaces, engine_subnets };
        let listen = if listen.is_empty() && !founding { "0.0.0.0:2377" } else { listen };
        let listen = addr::listen(&host, listen)?;
        let default = self.0.options.default_advertise_addr.as_deref();
        match addr::advertise(&host, advertise, default, &listen) {
            Ok(advertise) => Ok((listen, Some(advertise))),
            Err(_) if !founding => Ok((listen, None)),
            Err(error) => Err(error),
        }
    }
}

/// The first node's certificate, signed by the root it has just made.
fn self_signed(
    root: &pki::RootCa,
    cluster: &object::Cluster,
    node_id: &Id,
) -> Result<Identity, Error> {
    let KeyRequest { key_pem, csr_pem } = KeyRequest::fresh().map_err(|error| system(&error))?;
    let leaf = Leaf { node_id, role: pki::Role::Manager, cluster_id: &cluster.id };
    let validity = ca::validity(cluster);
    let cert = root.sign(&csr_pem, &leaf, validity, SystemTime::now());
    let cert = cert.map_err(|error| system(&error))?;
    Identity::new(&root.cert_pem, &cert, key_pem).map_err(|error| system(&error))
}

async fn first_transaction(
    manager: &Manager,
    cluster: object::Cluster,
    node: object::Node,
) -> Result<(), Error> {
    manager.raft.initialize(manager.me.clone()).await.map_err(|error| system(&error))?;
    let command = Command::Bootstrap { cluster: Box::new(cluster), node: Box::new(node) };
    manager.execute(command).await.map(drop).map_err(|error| {
        // dockerd founds the swarm first and then writes its settings, and says so.
        Error::new(error.kind, format!("error updating cluster settings: {}", error.message))
    })
}

/// Has the leader take this manager out of raft, if there is time; a leader hands over first.
async fn say_farewell(manager: &Manager) {
    if manager.members().len() < 2 {
        return;
    }
    let farewell = async {
        if let Err(error) = manager.raft.step_down().await {
            warn!(%error, "could not hand leadership over");
        }
        let mut leadership = manager.raft.leadership();
        loop {
            let leader = leadership.borrow_and_update().leader.clone();
            if let Some(leader) = leader.filter(|leader| *leader != manager.me) {
                let request = ControlRequest::LeaveRaft;
                let asked =
                    control::call(&manager.endpoint, &leader.addr, FAREWELL, &request).await;
                match asked {
                    Ok(control::ControlResponse::Done) => return,
                    other => warn!(answer = ?other, "not out of raft yet"),
                }
            }
            let _ = tokio::time::timeout(LOOK * 5, leadership.changed()).await;
        }
    };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        warn!("left without being taken out of raft; the others see an unreachable manager");
    }
}

/// The address of this host that the route to `remote` starts from.
async fn route_to(remote: &str) -> Result<std::net::IpAddr, Error> {
    let found = async {
        let mut targets = tokio::net::lookup_host(remote).await?;
        let target = targets.next().ok_or(std::io::ErrorKind::NotFound)?;
        let any: std::net::IpAddr = match target.is_ipv4() {
            true => std::net::Ipv4Addr::UNSPECIFIED.into(),
            false => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a UDP socket asks the routing table and sends nothing.
        let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
        socket.connect(target).await?;
        socket.local_addr()
    };
    let addr: std::io::Result<std::net::SocketAddr> = found.await;
    addr.map(|addr| addr.ip())
        .map_err(|error| Error::system(format!("no route to {remote}: {error}")))
}

fn system(error: &impl std::fmt::Display) -> Error {
    Error::system(error.to_string())
}
