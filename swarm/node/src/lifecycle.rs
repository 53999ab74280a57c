//! Into a swarm, out of it and from one part in it to another: one move at a time, each to its end
//! even when the client that asked for it hangs up. An `init` or `join` that fails leaves nothing
//! on disk; the moves of a node that is in a swarm leave it one that the next start can go on from.
//! Here is what the moves share, resuming and stopping; `init`, `join`, `leave`, `unlock`,
//! `recover`, `come_back` and `turn` have files of their own. Never touches a running container
//! except when leaving.

mod come_back;
mod init;
mod join;
mod leave;
mod recover;
mod turn;
pub(crate) mod unlock;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_api::Error;
use tracing::{error, info, warn};

use crate::addr::{self, Host, HostPort};
use crate::agent::Parting;
use crate::disk::{DiskError, NodeState};
use crate::membership::Membership;
use crate::node::{Node, Phase, Way};
use crate::pki::{Identity, Role};
use crate::system;
use crate::texts::{self, system};

/// How long a stopping node's agent may take to find the manager that leadership went to.
const REUNION: Duration = Duration::from_secs(1);

impl Node {
    /// Takes up the membership that lies in the data directory. A failure is shown in the status.
    pub(crate) async fn resume(&self) {
        let phase = match self.load().await {
            Ok(None) => return,
            Ok(Some(phase)) => phase,
            Err(_) if matches!(self.0.disk.keys(), Err(DiskError::Locked)) => {
                info!("this manager is locked; it needs the swarm's unlock key");
                Phase::Locked
            }
            Err(error) => {
                error!(%error, "could not resume the membership");
                Phase::Broken(error.message)
            }
        };
        self.0.phase.send_replace(phase);
    }

    async fn load(&self) -> Result<Option<Phase>, Error> {
        let disk = &self.0.disk;
        let Some(state) = disk.load().map_err(|error| system(&error))? else {
            return Ok(None);
        };
        let identity = Identity::load(disk).map_err(|error| system(&error))?;
        let Some(identity) = identity else {
            return Err(Error::system(format!(
                "there is no certificate in {}; leave the swarm with --force and join again",
                disk.certificates().display()
            )));
        };
        if state.restored {
            return Err(texts::restored());
        }
        if identity.role == Role::Worker {
            // A demotion may have been interrupted.
            turn::sweep_raft(disk)?;
        }
        if identity.expired(SystemTime::now()) {
            error!("the node's certificate has expired");
            return Ok(Some(Phase::Expired));
        }
        let membership = self.begin(state, identity).await?;
        membership.settle(disk.clone());
        info!(node = %membership.node_id(), "resumed the membership");
        Ok(Some(Phase::Member(membership)))
    }

    /// Starts a membership. It does not write to the state file before it is settled.
    async fn begin(&self, state: NodeState, identity: Identity) -> Result<Arc<Membership>, Error> {
        let started = Membership::start(&self.0.options, &self.0.disk, state, identity).await;
        started.map(Arc::new)
    }

    /// Shows that the node is on its way into a swarm, with what is known by now.
    fn set_out(&self, advertise: Option<&HostPort>, remote: Option<&str>) {
        self.0.phase.send_replace(Phase::Joining(Way {
            node_addr: advertise.map_or_else(String::new, |addr| addr.ip.to_string()),
            remote: remote.map(str::to_owned),
        }));
    }

    /// What an attempt before this one may have left behind when the daemon was killed in it: a
    /// raft log of another swarm would be taken for this one's.
    fn sweep(&self) -> Result<(), Error> {
        self.0.disk.wipe().map_err(|error| system(&error))
    }

    /// Takes up the new membership or wipes what a failed attempt has left.
    fn conclude(&self, outcome: Result<Arc<Membership>, Error>) -> Result<Arc<Membership>, Error> {
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

    /// Hands leadership to another manager, if this one leads and there is another.
    pub async fn hand_over(&self) {
        if let Some(manager) = self.member().as_deref().and_then(Membership::manager) {
            manager.hand_over().await;
        }
    }

    /// Stops for a restart of the daemon: the membership stays on disk, containers go on, and a
    /// leader hands over first. Every call is refused afterwards.
    pub async fn stop(&self) {
        let _moving = self.0.moving.lock().await;
        let Some(membership) = self.member() else {
            return;
        };
        if let Some(manager) = membership.manager() {
            manager.hand_over().await;
            // Only the leader can grant the node the time that a restart takes.
            membership.reunited(REUNION).await;
        }
        membership.stop(Parting::BackSoon).await;
    }

    /// The membership, if there is one.
    fn member(&self) -> Option<Arc<Membership>> {
        match &*self.0.phase.borrow() {
            Phase::Member(membership) => Some(membership.clone()),
            _ => None,
        }
    }

    fn must_be_free(&self) -> Result<(), Error> {
        match &*self.0.phase.borrow() {
            Phase::Inactive => Ok(()),
            _ => Err(texts::already_part()),
        }
    }

    /// What the addresses in a request mean on this host. A joining node whose address is not clear
    /// leaves that to the route towards the manager, as in the original.
    async fn addresses(&self, asked: Asked<'_>, founding: bool) -> Result<Addresses, Error> {
        let interfaces = system::interfaces().map_err(|error| system(&error))?;
        let engine_subnets = self.engine().subnets().await;
        let host = Host {
            interfaces,
            engine_subnets,
        };
        let listen = match asked.listen {
            "" if !founding => "0.0.0.0:2377",
            listen => listen,
        };
        let listen = addr::listen(&host, listen)?;
        let default = self.0.options.default_advertise_addr.as_deref();
        let advertise = match addr::advertise(&host, asked.advertise, default, &listen) {
            Ok(advertise) => Some(advertise),
            Err(_) if !founding && asked.advertise.is_empty() => None,
            Err(error) => return Err(error),
        };
        let data_path = addr::data_path(&host, asked.data_path)?;
        Ok(Addresses {
            listen,
            advertise,
            data_path,
        })
    }
}

/// The addresses of a request, as they were given.
#[derive(Clone, Copy)]
struct Asked<'a> {
    listen: &'a str,
    advertise: &'a str,
    data_path: &'a str,
}

/// What they mean.
struct Addresses {
    listen: HostPort,
    advertise: Option<HostPort>,
    data_path: Option<IpAddr>,
}

impl Addresses {
    fn data_path(&self) -> String {
        self.data_path.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// Runs a move in a task of its own: a client that hangs up must not leave it half-done.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|_| Err(Error::system("the daemon stopped before this was done")))
}
