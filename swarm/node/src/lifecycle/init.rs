//! `swarm init`: a certificate authority, a certificate, a raft of one and the first transaction.
//! Never reuses anything of a swarm before: `--force-new-cluster` does, in `recover.rs`.

use std::sync::Arc;
use std::time::SystemTime;

use skep_api::cluster::InitRequest;
use skep_api::{Error, Kind, Secret};
use skep_core::bootstrap::{self, Made};
use skep_core::command::Command;
use skep_core::object::{JoinTokens, ManagerMember, Role, RootCa};
use skep_core::{Id, object};

use super::unlock::wrap_with_newest;
use super::{Addresses, Asked, system, to_the_end};
use crate::agent::Parting;
use crate::ca;
use crate::disk::{DataDir, NodeState};
use crate::manager::Manager;
use crate::membership::Membership;
use crate::node::{Node, Phase};
use crate::pki::{self, Identity, JoinToken, KeyRequest, Leaf};
use crate::system::{random_id, random_number};

impl Node {
    /// Makes this node the first manager of a new swarm. Returns its node id.
    ///
    /// # Errors
    /// dockerd's texts; nothing is left behind then.
    pub async fn init(&self, request: InitRequest) -> Result<Id, Error> {
        let node = self.clone();
        to_the_end(async move { node.init_now(&request).await }).await
    }

    async fn init_now(&self, request: &InitRequest) -> Result<Id, Error> {
        let _moving = self.0.moving.lock().await;
        let free = matches!(&*self.0.phase.borrow(), Phase::Inactive);
        if request.force_new_cluster && !free {
            return self.go_on_alone(request).await;
        }
        self.must_be_free()?;
        bootstrap::check(request)?;
        let asked = Asked {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        };
        let addresses = self.addresses(asked, true).await?;
        bootstrap::check_ports(addresses.listen.port, request.data_path_port)?;
        self.sweep()?;
        self.set_out(addresses.advertise.as_ref(), None);
        let outcome = self.found(request, addresses).await;
        self.conclude(outcome)
            .map(|membership| membership.node_id().clone())
    }

    async fn found(
        &self,
        request: &InitRequest,
        addresses: Addresses,
    ) -> Result<Arc<Membership>, Error> {
        let advertise = addresses.advertise.as_ref();
        let advertise = advertise.ok_or_else(|| Error::system("no address to advertise"))?;
        let root = pki::RootCa::create(SystemTime::now()).map_err(|error| system(&error))?;
        let member = ManagerMember {
            raft_id: random_number(),
            addr: advertise.to_string(),
        };
        let (cluster, node) = bootstrap::objects(request, make(&root, member.clone())?);
        let identity = self_signed(&root, &cluster, &node.id)?;
        let state = NodeState {
            node_id: node.id.to_string(),
            raft_id: member.raft_id,
            listen: addresses.listen.to_string(),
            advertise: member.addr,
            data_path_addr: addresses.data_path(),
            data_path_port: request.data_path_port,
            availability: request.availability.clone(),
            ..NodeState::default()
        };
        let disk = &self.0.disk;
        identity.save(disk).map_err(|error| system(&error))?;
        let membership = self.begin(state.clone(), identity).await?;
        let founded = match membership.manager() {
            Some(manager) => first_transaction(manager, disk, cluster, node).await,
            None => Err(Error::system("the first node must be a manager")),
        };
        // Written last: a crash before this line leaves a node that is in no swarm.
        let founded = founded.and_then(|()| disk.save(&state).map_err(|error| system(&error)));
        match founded {
            Ok(()) => {
                membership.settle(disk.clone());
                Ok(membership)
            }
            Err(error) => {
                membership.stop(Parting::Wordless).await;
                Err(error)
            }
        }
    }
}

/// Ids, keys and tokens of the new swarm.
fn make(root: &pki::RootCa, member: ManagerMember) -> Result<Made, Error> {
    let token = || -> Result<Secret, Error> {
        let token = JoinToken::generate(root).map_err(|error| system(&error))?;
        Ok(Secret::from(token.to_string()))
    };
    Ok(Made {
        cluster: random_id(),
        node: random_id(),
        root_ca: RootCa {
            cert_pem: root.cert_pem.clone(),
            key_pem: root.key_pem.clone(),
            rotation: None,
        },
        join_tokens: JoinTokens {
            worker: token()?,
            manager: token()?,
        },
        member,
    })
}

/// The first node's certificate, signed by the root it has just made.
fn self_signed(
    root: &pki::RootCa,
    cluster: &object::Cluster,
    node_id: &Id,
) -> Result<Identity, Error> {
    let KeyRequest { key_pem, csr_pem } = KeyRequest::fresh().map_err(|error| system(&error))?;
    let leaf = Leaf {
        node_id,
        role: Role::Manager,
        cluster_id: &cluster.id,
    };
    let validity = ca::validity(cluster);
    let cert = root.sign(&csr_pem, &leaf, validity, SystemTime::now());
    let cert = cert.map_err(|error| system(&error))?;
    Identity::new(&root.cert_pem, &cert, key_pem).map_err(|error| system(&error))
}

async fn first_transaction(
    manager: &Manager,
    disk: &DataDir,
    cluster: object::Cluster,
    node: object::Node,
) -> Result<(), Error> {
    manager
        .raft
        .initialize(manager.me.clone())
        .await
        .map_err(|error| system(&error))?;
    let command = Command::Bootstrap {
        cluster: Box::new(cluster),
        node: Box::new(node),
    };
    manager.execute(command).await.map_err(|error| {
        // dockerd founds the swarm first and then writes its settings: what is wrong with them is
        // its own failure by then, with the manager's text behind its own.
        Error::new(
            Kind::System,
            format!("error updating cluster settings: {}", error.message),
        )
    })?;
    // A client that has asked for autolock may rely on it from the answer on.
    let wrapped = wrap_with_newest(manager, disk).await;
    wrapped.map(drop).map_err(Error::system)
}
