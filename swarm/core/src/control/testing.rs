//! Small objects and states for tests. Not compiled otherwise.

use skep_api::Error;
use skep_api::container::ContainerSpec;
use skep_api::node::{NodeDescription, NodeSpec, NodeState, Role as WishedRole};
use skep_api::service::ServiceSpec;
use skep_api::task::{Runtime, TaskSpec, TaskState, TaskStatus};

use super::{Outcome, execute};
use crate::Timestamp;
use crate::bootstrap::with_defaults;
use crate::command::Command;
use crate::id::{CountingIds, Id};
use crate::object::{
    Cluster, JoinTokens, ManagerMember, Meta, Node, NodeStatus, Object, Role, RootCa, Secret,
    Service, Task,
};
use crate::store::{Author, Change, State, Tx};
use crate::validate::service_spec;

pub(crate) const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: Id::from("cluster"),
        meta: Meta::default(),
        spec: with_defaults(&skep_api::cluster::Spec::default()),
        root_ca: RootCa {
            key_pem: Some(Secret::from("key")),
            ..RootCa::default()
        },
        join_tokens: JoinTokens {
            worker: Secret::from("SWMTKN-1-d-w"),
            manager: Secret::from("SWMTKN-1-d-m"),
        },
        default_addr_pool: vec!["10.0.0.0/8".into()],
        subnet_size: 24,
        data_path_port: 4789,
        unlock_key: None,
    }
}

/// A worker that is ready.
pub(crate) fn node(id: &str, hostname: &str) -> Node {
    Node {
        id: Id::from(id),
        meta: Meta::default(),
        spec: NodeSpec {
            role: WishedRole::Worker,
            availability: skep_api::node::Availability::Active,
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: hostname.into(),
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            ..NodeStatus::default()
        },
        role: Role::Worker,
        manager: None,
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    }
}

/// A manager that is ready and a member of raft.
pub(crate) fn manager(id: &str) -> Node {
    let mut node = node(id, id);
    node.spec.role = WishedRole::Manager;
    node.role = Role::Manager;
    node.manager = Some(ManagerMember {
        raft_id: 1,
        addr: "10.0.0.1:2377".into(),
    });
    node
}

/// The least spec that a client can send, as the daemon layer passes it on.
pub(crate) fn spec(name: &str) -> ServiceSpec {
    let container = ContainerSpec {
        image: "busybox".into(),
        ..ContainerSpec::default()
    };
    let task_template = TaskSpec {
        container_spec: Some(container),
        ..TaskSpec::default()
    };
    service_spec(ServiceSpec {
        name: name.into(),
        task_template,
        ..ServiceSpec::default()
    })
    .unwrap()
}

pub(crate) fn service(id: &str, name: &str) -> Service {
    Service {
        id: Id::from(id),
        meta: Meta::default(),
        spec: spec(name),
        spec_version: 0,
        previous_spec: None,
        previous_spec_version: None,
        update_status: None,
        registry_auth: None,
        previous_registry_auth: None,
        job: None,
        endpoint: None,
        rebalanced_at: None,
        rebalancing: false,
        roll: 0,
    }
}

/// A running task of the service on a node.
pub(crate) fn task(id: &str, service: &Service, slot: u64, node: &str) -> Task {
    Task {
        spec_version: service.spec_version,
        service_id: service.id.clone(),
        service_name: service.spec.name.as_str().into(),
        service_labels: service.spec.labels.clone().into(),
        slot,
        node_id: Some(Id::from(node)),
        status: TaskStatus {
            state: TaskState::Running,
            ..TaskStatus::default()
        },
        ..Task::new(
            Id::from(id),
            TaskSpec {
                runtime: Runtime::Unset,
                ..service.spec.task_template.clone()
            },
        )
    }
}

/// A state with these objects, all of version 1.
pub(crate) fn state(objects: impl IntoIterator<Item = Object>) -> State {
    let mut state = State::default();
    let changes = objects.into_iter().map(Change::Create).collect();
    state
        .apply(&Tx {
            author: Author::Orchestrator,
            at: NOW,
            changes,
        })
        .unwrap();
    state
}

pub(crate) fn run(view: &State, command: &Command) -> Result<Outcome, Error> {
    execute(view, command, NOW, &mut CountingIds::default())
}
