//! `swarm init --force-new-cluster`: a manager that has lost the others goes on alone, with all that
//! it knows. Reads its own disk only and asks no other manager. Until the new raft takes the place
//! of the old one, a failure leaves the node in its old swarm.

use std::time::SystemTime;

use skep_api::Error;
use skep_api::cluster::InitRequest;
use skep_core::command::Command;
use skep_core::object::{ManagerMember, Role};
use skep_core::{Id, State, bootstrap, recover};
use tracing::info;

use super::{Addresses, Asked, system};
use crate::addr::{self, HostPort};
use crate::agent::Parting;
use crate::ca;
use crate::disk::NodeState;
use crate::node::{Node, Phase};
use crate::pki::{Identity, KeyRequest};
use crate::raft::{Member, Rescued};
use crate::system::{interfaces, now, random_number};
use crate::texts;

/// What the node is while it is in the swarm.
struct Present {
    state: NodeState,
    identity: Identity,
}

impl Node {
    /// Makes the only manager of its swarm out of a node that is or was one. Every object, id and
    /// token stays, the other managers become workers. A membership that runs is stopped first.
    ///
    /// # Errors
    /// dockerd's texts for addresses, for a worker and for a locked node; what is wrong with the
    /// disk.
    pub(super) async fn go_on_alone(&self, request: &InitRequest) -> Result<Id, Error> {
        let phase = self.0.phase.borrow().clone();
        if matches!(phase, Phase::Locked) {
            return Err(texts::locked());
        }
        bootstrap::check(request)?;
        let present = self.present()?;
        let addresses = self.new_addresses(request, &present.state).await?;
        if let Phase::Member(membership) = phase {
            membership.stop(Parting::BackSoon).await;
        }
        self.set_out(addresses.advertise.as_ref(), None);
        let outcome = self.rebuild(&present, &addresses, request).await;
        // Whatever lies on the disk now is what the node is: the new swarm or, after a failure, the
        // one before.
        self.resume().await;
        let state = outcome?;
        let node = Id::from(state.node_id.as_str());
        match &*self.0.phase.borrow() {
            Phase::Broken(why) => return Err(Error::system(why.clone())),
            Phase::Locked => return Err(texts::locked()),
            _ => {}
        }
        self.merge_spec(request).await?;
        info!(%node, "went on as the only manager");
        Ok(node)
    }

    /// What lies on the disk of a node that is a manager.
    fn present(&self) -> Result<Present, Error> {
        let disk = &self.0.disk;
        let state = disk.load().map_err(|error| system(&error))?;
        let identity = Identity::load(disk).map_err(|error| system(&error))?;
        let (Some(state), Some(identity)) = (state, identity) else {
            return Err(Error::system(format!(
                "{} does not hold a whole membership; leave the swarm with --force",
                disk.path().display()
            )));
        };
        if identity.role != crate::pki::Role::Manager {
            return Err(texts::worker());
        }
        Ok(Present { state, identity })
    }

    /// The addresses of the request. Where it names none to advertise and the host has several,
    /// the one before does; and where it names none for packets of networks, the one before, if
    /// the host still has it.
    async fn new_addresses(
        &self,
        request: &InitRequest,
        before: &NodeState,
    ) -> Result<Addresses, Error> {
        let mut asked = Asked {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        };
        let own = interfaces().unwrap_or_default();
        let kept = before.data_path_addr.parse();
        if asked.data_path.is_empty() && kept.is_ok_and(|ip| addr::has(&own, &ip)) {
            asked.data_path = &before.data_path_addr;
        }
        match self.addresses(asked, true).await {
            Err(_) if request.advertise_addr.is_empty() && !before.advertise.is_empty() => {
                asked.advertise = &before.advertise;
                self.addresses(asked, true).await
            }
            outcome => outcome,
        }
    }

    /// Writes the new raft and the new state file and puts them in the place of the old.
    async fn rebuild(
        &self,
        present: &Present,
        addresses: &Addresses,
        request: &InitRequest,
    ) -> Result<NodeState, Error> {
        let disk = &self.0.disk;
        let advertise = addresses.advertise.as_ref().map(HostPort::to_string);
        let state = next_state(&present.state, addresses, advertise, request);
        let me = Member {
            raft_id: state.raft_id,
            node_id: Id::from(state.node_id.as_str()),
            addr: state.advertise.clone(),
        };
        let keys = disk.keys().map_err(|error| system(&error))?;
        let read = Rescued::read(&disk.raft(), keys).await;
        let mut rescued = read.map_err(|error| system(&error))?;
        let member = ManagerMember {
            raft_id: me.raft_id,
            addr: me.addr.clone(),
        };
        let batch = recover::batch(&rescued.state, &me.node_id, &member, now());
        let batch = batch.map_err(Error::system)?;
        rescued.amend(&batch).map_err(|error| system(&error))?;
        self.renew_alone(present, &rescued.state).await?;
        let next = disk.next_raft().map_err(|error| system(&error))?;
        let written = rescued.write(&next, &me).await;
        written.map_err(|error| system(&error))?;
        disk.adopt(&state).map_err(|error| system(&error))?;
        Ok(state)
    }

    /// A certificate that has expired is replaced by one that the node signs itself, since there is
    /// nobody else left to do it.
    async fn renew_alone(&self, present: &Present, state: &State) -> Result<(), Error> {
        let identity = &present.identity;
        if !identity.expired(SystemTime::now()) {
            return Ok(());
        }
        let KeyRequest { key_pem, csr_pem } =
            KeyRequest::fresh().map_err(|error| system(&error))?;
        let cert = ca::issue(state, &identity.node_id, Role::Manager, &csr_pem).await?;
        let fresh = Identity::new(&identity.root_pem, &cert, key_pem);
        let fresh = fresh.map_err(|error| system(&error))?;
        fresh.save(&self.0.disk).map_err(|error| system(&error))
    }

    /// The settings that the request names, over those that the swarm has, as in the original.
    async fn merge_spec(&self, request: &InitRequest) -> Result<(), Error> {
        let view = self.view().await?;
        let Some(cluster) = view.state.cluster() else {
            return Err(Error::system("the swarm's settings are gone"));
        };
        let spec = recover::merged(&cluster.spec, request);
        if spec == cluster.spec {
            return Ok(());
        }
        let command = Command::UpdateCluster {
            version: cluster.meta.version,
            spec: Box::new(spec),
            rotate_worker_token: false,
            rotate_manager_token: false,
            rotate_unlock_key: false,
            new_root: None,
        };
        self.execute(command).await.map(drop)
    }
}

fn next_state(
    before: &NodeState,
    addresses: &Addresses,
    advertise: Option<String>,
    request: &InitRequest,
) -> NodeState {
    let advertise = advertise.unwrap_or_else(|| before.advertise.clone());
    let data_path_port = match request.data_path_port {
        0 => before.data_path_port,
        port => port,
    };
    NodeState {
        // Never used before: what the others still send is for somebody else.
        raft_id: random_number(),
        listen: addresses.listen.to_string(),
        managers: vec![advertise.clone()],
        advertise,
        data_path_addr: addresses.data_path(),
        data_path_port,
        restored: false,
        ..before.clone()
    }
}
