//! What may be asked of the cluster, and what it answers. Commands travel from any manager to the
//! leader; the leader alone executes them. Never carries anything out itself: see `control/`.

use serde::{Deserialize, Serialize};
use skep_api::cluster::Spec as ClusterSpec;
use skep_api::node::{Availability, NodeSpec};
use skep_api::service::ServiceSpec;

use crate::id::Id;
use crate::object::{Cluster, ManagerMember, Node, Role, Secret};

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
