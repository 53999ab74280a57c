//! Objects and a harness for tests of everything that plans. Only compiled for tests.

use skep_api::node::{Availability, NodeDescription, NodeSpec, NodeState};

use crate::Timestamp;
use crate::object::{Meta, Node, NodeStatus, Role};

/// A ready, active worker.
pub fn node(id: &str) -> Node {
    Node {
        id: id.into(),
        meta: Meta::default(),
        spec: NodeSpec {
            availability: Availability::Active,
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: id.to_owned(),
            ..Default::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            ..NodeStatus::default()
        },
        role: Role::Worker,
        manager: None,
    }
}

/// `seconds` after the start of the simulated clock.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * crate::SECOND)
}
