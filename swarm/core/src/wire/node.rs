//! A node as clients see it. What is known from raft alone (leader, reachability) is an input.

use skep_api::go::Version;
use skep_api::node::{ManagerStatus, Node as WireNode, NodeStatus, Reachability};

use super::Peers;
use crate::object::Node;

/// `GET /nodes/{id}`. A node that has not registered yet has an empty description.
pub fn node(node: &Node, peers: &Peers) -> WireNode {
    let manager_status = node.manager.as_ref().map(|member| ManagerStatus {
        leader: peers.leader.as_ref() == Some(&node.id),
        reachability: if peers.unreachable.contains(&node.id) {
            Reachability::Unreachable
        } else {
            Reachability::Reachable
        },
        addr: member.addr.clone(),
    });
    WireNode {
        id: node.id.to_string(),
        version: Version::from(node.meta.version),
        created_at: node.meta.created_at,
        updated_at: node.meta.updated_at,
        spec: node.spec.clone(),
        description: node.description.clone().unwrap_or_default(),
        status: NodeStatus {
            state: node.status.state.clone(),
            message: node.status.message.clone(),
            addr: node.status.addr.clone(),
        },
        manager_status,
    }
}
