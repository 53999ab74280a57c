//! Many tasks through the leader: everything gets its node, evenly, in batches of bounded size. How
//! long it takes in large clusters is for `skep-sim --scale` to say.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise"
)]

use skep_api::node::{Availability, NodeDescription, NodeSpec, NodeState};
use skep_api::service::{ReplicatedService, ServiceSpec};
use skep_api::task::TaskState;
use skep_core::command::Command;
use skep_core::id::CountingIds;
use skep_core::leader::{Input, Leader};
use skep_core::object::{Meta, Node, NodeStatus, Role};
use skep_core::{Author, Change, State, Timestamp, Tx};

const NOW: Timestamp = Timestamp::from_nanos(1_000);

fn cluster(nodes: usize) -> State {
    let node = |number: usize| {
        let id = format!("node{number:05}");
        Change::Create(
            Node {
                id: id.as_str().into(),
                meta: Meta::default(),
                spec: NodeSpec {
                    availability: Availability::Active,
                    ..NodeSpec::default()
                },
                description: Some(NodeDescription {
                    hostname: id,
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
            .into(),
        )
    };
    let mut state = State::default();
    let changes = (0..nodes).map(node).collect();
    let tx = Tx {
        author: Author::Control,
        at: NOW,
        changes,
    };
    state.apply(&tx).unwrap();
    state
}

fn create(name: String, replicas: u64) -> Input {
    let mut spec = ServiceSpec {
        name,
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(ReplicatedService {
        replicas: Some(replicas),
    });
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.image = "web:1".to_owned();
    let command = Command::CreateService {
        spec: Box::new(spec),
        registry_auth: None,
    };
    Input::Command {
        ticket: 0,
        command: Box::new(command),
    }
}

/// Creates services and steps until there is nothing to do.
fn run(nodes: usize, services: usize, replicas: u64) {
    let mut state = cluster(nodes);
    let mut ids = CountingIds::default();
    let mut leader = Leader::new(&state);
    let mut inputs: Vec<Input> = (0..services)
        .map(|number| create(format!("s{number}"), replicas))
        .collect();
    let mut steps = 0;
    loop {
        let now = inputs.drain(..inputs.len().min(64)).collect();
        let step = leader.step(&state, now, NOW, &mut ids);
        assert!(step.refused.is_empty(), "{:?}", step.refused);
        for (_, answer) in &step.answers {
            assert!(answer.is_ok(), "{answer:?}");
        }
        let Some(batch) = step.batch else { break };
        let changes: usize = batch.txs.iter().map(|tx| tx.changes.len()).sum();
        assert!(changes < 4_000, "a batch of {changes} changes");
        state.apply_batch(&batch).unwrap();
        steps += 1;
    }
    let total = services as u64 * replicas;
    assert_eq!(state.tasks().len() as u64, total);
    let placed = |task: &&std::sync::Arc<_>| {
        let task: &skep_core::object::Task = task;
        task.status.state == TaskState::Assigned
    };
    assert_eq!(state.tasks().iter().filter(placed).count() as u64, total);
    let share = total / nodes as u64;
    for node in state.nodes().iter() {
        let here = state.tasks_of_node(&node.id).count() as u64;
        assert!(here.abs_diff(share) <= 1, "{here} tasks on {}", node.id);
    }
    assert!(
        steps as u64 <= 2 + total / 250,
        "{steps} batches for {total} tasks"
    );
}

#[test]
fn a_hundred_nodes() {
    run(100, 50, 20);
    run(100, 1, 1_000);
}
