//! What may be asked of the cluster, and what it answers. Commands travel from any manager to the
//! leader; the leader alone executes them. Never carries anything out itself: see `control/`.

use serde::{Deserialize, Serialize};
use skep_api::cluster::Spec as ClusterSpec;
use skep_api::network::NetworkSpec;
use skep_api::node::{Availability, NodeSpec};
use skep_api::secret::{ConfigSpec, SecretSpec};
use skep_api::service::ServiceSpec;

use crate::attachment::Wish;
use crate::id::Id;
use crate::object::{Cluster, ManagerMember, Node, Role, Rotation, Secret};

/// A request that changes the cluster. Ids may be ids only: names and prefixes are resolved by the
/// manager that took the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first transaction of a new swarm: the cluster and its first manager.
    Bootstrap {
        /// The new cluster; its meta is ignored.
        cluster: Box<Cluster>,
        /// The node that says so, already a manager.
        node: Box<Node>,
    },
    /// `POST /swarm/update`
    UpdateCluster {
        /// The version that the client read.
        version: u64,
        /// The whole new spec.
        spec: Box<ClusterSpec>,
        /// Make a new worker token.
        rotate_worker_token: bool,
        /// Make a new manager token.
        rotate_manager_token: bool,
        /// Make a new unlock key, if autolock is on.
        #[serde(default)]
        rotate_unlock_key: bool,
        /// The root to rotate to, if the spec asks for one. Made by the manager that took the
        /// request, from the root of the version that the client read: keys need randomness.
        #[serde(default)]
        new_root: Option<Box<Rotation>>,
    },
    /// `POST /services/create`
    CreateService {
        /// The spec; an empty name has been replaced already.
        spec: Box<ServiceSpec>,
        /// `X-Registry-Auth`, if the client sent one.
        registry_auth: Option<Secret>,
    },
    /// `POST /services/{id}/update`
    UpdateService {
        /// Which service.
        id: Id,
        /// The version that the client read.
        version: u64,
        /// The whole new spec (validated also when rolling back, as the original does).
        spec: Box<ServiceSpec>,
        /// `X-Registry-Auth`, if the client sent one.
        registry_auth: Option<Secret>,
        /// Whose credentials are kept when none were sent.
        auth_from: AuthFrom,
        /// Return to the previous spec instead.
        rollback: bool,
    },
    /// `DELETE /services/{id}`
    RemoveService {
        /// Which service.
        id: Id,
    },
    /// `POST /secrets/create`
    CreateSecret {
        /// The spec, data included.
        spec: Box<SecretSpec>,
    },
    /// `POST /secrets/{id}/update`
    UpdateSecret {
        /// Which secret.
        id: Id,
        /// The version that the client read.
        version: u64,
        /// The whole new spec; without data the data stays.
        spec: Box<SecretSpec>,
    },
    /// `DELETE /secrets/{id}`
    RemoveSecret {
        /// Which secret.
        id: Id,
    },
    /// `POST /configs/create`
    CreateConfig {
        /// The spec, data included.
        spec: Box<ConfigSpec>,
    },
    /// `POST /configs/{id}/update`
    UpdateConfig {
        /// Which config.
        id: Id,
        /// The version that the client read.
        version: u64,
        /// The whole new spec; without data the data stays.
        spec: Box<ConfigSpec>,
    },
    /// `DELETE /configs/{id}`
    RemoveConfig {
        /// Which config.
        id: Id,
    },
    /// `POST /networks/create`
    CreateNetwork {
        /// What the user asked for.
        spec: Box<NetworkSpec>,
    },
    /// `DELETE /networks/{id}`
    RemoveNetwork {
        /// Which network.
        id: Id,
    },
    /// `POST /nodes/{id}/update`
    UpdateNode {
        /// Which node.
        id: Id,
        /// The version that the client read.
        version: u64,
        /// The whole new spec.
        spec: Box<NodeSpec>,
    },
    /// `DELETE /nodes/{id}`
    RemoveNode {
        /// Which node.
        id: Id,
        /// Also if it is ready.
        force: bool,
    },
    /// A node without a certificate asks to be let in by token.
    AdmitNode {
        /// The join token it presents.
        token: Secret,
        /// What it wants to be: active, paused, drained.
        availability: Availability,
    },
    /// A node whose certificate has expired proves who it was and asks to be let in again, with a
    /// fresh token.
    ReturnNode {
        /// Which node, as its old certificate says; the manager that was asked has checked that.
        node: Id,
        /// The join token it presents.
        token: Secret,
    },
    /// Records that a manager has become a member of raft, or has left it.
    SetMember {
        /// Which node.
        node: Id,
        /// Its membership, `None` once it is out.
        member: Option<ManagerMember>,
    },
    /// A node says goodbye: `docker swarm leave`.
    NodeLeft {
        /// Which node.
        node: Id,
    },
    /// A container that is no task's is to be on a network: `docker run --network`.
    Attach {
        /// The node that has it.
        node: Id,
        /// What is wanted.
        wish: Box<Wish>,
    },
    /// It is not to be there any more.
    Detach {
        /// The node that has it.
        node: Id,
        /// Its id at the engine.
        container: String,
        /// The network as the wish named it; `None` for all.
        network: Option<String>,
    },
}

/// Whose registry credentials an update without any keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthFrom {
    /// Those of the current spec.
    #[default]
    Spec,
    /// Those of the previous spec.
    PreviousSpec,
}

/// What the leader answers to a command that it carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The id of what was created.
    Created(Id),
    /// A node was let in: its new id and the role its token gave it.
    Admitted {
        /// The node's id.
        node: Id,
        /// Its role.
        role: Role,
    },
}
