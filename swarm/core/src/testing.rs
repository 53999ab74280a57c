//! Objects for the tests of this crate's agent side. Test-only; decides nothing.

use skep_api::container::ContainerSpec;
use skep_api::node::{NodeDescription, NodeSpec};
use skep_api::task::{TaskSpec, TaskState, TaskStatus};

use crate::id::Id;
use crate::object::{Meta, Node, NodeStatus, Role, Task};

/// A node that has described itself.
pub fn node(id: &str) -> Node {
    let description = NodeDescription {
        hostname: format!("host-{id}"),
        ..Default::default()
    };
    Node {
        id: id.into(),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(description),
        status: NodeStatus::default(),
        role: Role::Worker,
        manager: None,
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    }
}

/// A task assigned to node `n1`, wanted running.
pub fn task(id: &str, service: &str, slot: u64) -> Task {
    let container = ContainerSpec {
        image: "busybox".into(),
        ..Default::default()
    };
    Task {
        spec_version: 1,
        service_id: format!("service-{service}").into(),
        service_name: service.into(),
        slot,
        node_id: Some(Id::from("n1")),
        status: TaskStatus {
            state: TaskState::Assigned,
            ..Default::default()
        },
        ..Task::new(
            id.into(),
            TaskSpec {
                container_spec: Some(container),
                ..Default::default()
            },
        )
    }
}
