//! Large clusters through the leader, for measurements: many nodes, many tasks, no network, no
//! engines and one moment. Knows no clock: whoever runs it measures.

mod agents;

use std::sync::Arc;

use skep_api::node::{Availability, NodeDescription, NodeSpec, NodeState};
use skep_api::service::{ReplicatedService, ServiceSpec};
use skep_api::task::{TaskState, TaskStatus};
use skep_core::command::{AuthFrom, Command};
use skep_core::id::{CountingIds, IdSource};
use skep_core::leader::{Input, Leader};
use skep_core::object::{Meta, Node, NodeStatus, Role, Service, Task};
use skep_core::{Author, Batch, Change, State, Timestamp, Tx};

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);
/// Objects that are written at once while a cluster is set up.
const CHUNK: usize = 10_000;

/// A cluster at one moment, with what a leader of it has still to do.
pub struct Scale {
    /// What the managers agree on.
    pub state: State,
    ids: CountingIds,
    leader: Leader,
    inputs: Vec<Input>,
}

impl Scale {
    /// So many ready nodes, and services with as many pending tasks as are asked for each.
    pub fn pending(nodes: usize, services: usize, replicas: u64) -> Self {
        let mut ids = CountingIds::default();
        let mut state = State::default();
        let fresh = (0..nodes).map(|number| Change::Create(node(number).into()));
        write(&mut state, &Author::Control, fresh);
        let made: Vec<Service> = (0..services)
            .map(|n| service(n, replicas, &mut ids))
            .collect();
        let rows = made.iter().map(|s| Change::Create(s.clone().into()));
        write(&mut state, &Author::Control, rows);
        let slots = made
            .iter()
            .flat_map(|s| (1..=replicas).map(move |slot| (s, slot)));
        let tasks = slots.map(|(s, slot)| Change::Create(task(s, slot, &mut ids).into()));
        write(&mut state, &Author::Orchestrator, tasks);
        Self {
            leader: Leader::new(&state),
            inputs: Vec::new(),
            state,
            ids,
        }
    }

    /// One step of the leader, the batch of which is to be [committed](Self::commit); `None` once
    /// there is nothing to do.
    pub fn step(&mut self) -> Option<Batch> {
        let inputs = std::mem::take(&mut self.inputs);
        let step = self.leader.step(&self.state, inputs, NOW, &mut self.ids);
        assert!(step.refused.is_empty(), "{:?}", step.refused);
        for (_, answer) in &step.answers {
            assert!(answer.is_ok(), "{answer:?}");
        }
        step.batch
    }

    /// Applies a batch, as every manager does.
    pub fn commit(&mut self, batch: &Batch) {
        let applied = self.state.apply_batch(batch);
        assert!(applied.is_ok(), "{:?}", applied.err());
    }

    /// Steps until there is nothing to do; gives how many steps that took.
    pub fn settle(&mut self) -> usize {
        let mut steps = 0;
        while let Some(batch) = self.step() {
            self.commit(&batch);
            steps += 1;
        }
        steps
    }

    /// All nodes say that what they were given runs; another leader takes over.
    pub fn run(&mut self) {
        let given: Vec<Arc<Task>> = self.state.tasks().iter().cloned().collect();
        let report = |task: &Arc<Task>| {
            let node = task.node_id.clone()?;
            let mut task = Task::clone(task);
            task.status.state = TaskState::Running;
            task.running_since = Some(NOW);
            Some((Author::Agent(node), Change::Update(task.into())))
        };
        for (author, change) in given.iter().filter_map(report) {
            write(&mut self.state, &author, std::iter::once(change));
        }
        drop(given);
        self.leader = Leader::new(&self.state);
        self.settle();
    }

    /// Asks for another image of one service in the next step.
    pub fn update_one(&mut self, image: &str) {
        let fresh = |service: &&Arc<Service>| service.update_status.is_none();
        let Some(service) = self.state.services().iter().find(fresh).cloned() else {
            return;
        };
        let mut spec = service.spec.clone();
        let container = spec.task_template.container_spec.get_or_insert_default();
        container.image = image.to_owned();
        self.update(&service, spec);
    }

    /// Asks for a service to be like this in the next step.
    fn update(&mut self, service: &Service, spec: ServiceSpec) {
        self.ask(Command::UpdateService {
            id: service.id.clone(),
            version: service.meta.version,
            spec: Box::new(spec),
            registry_auth: None,
            auth_from: AuthFrom::Spec,
            rollback: false,
        });
    }

    /// Drains the first so many nodes in the next step; gives how many tasks they have.
    pub fn drain(&mut self, count: usize) -> usize {
        let nodes: Vec<Arc<Node>> = self.state.nodes().iter().take(count).cloned().collect();
        for node in &nodes {
            let spec = NodeSpec {
                availability: Availability::Drain,
                ..node.spec.clone()
            };
            self.ask(Command::UpdateNode {
                id: node.id.clone(),
                version: node.meta.version,
                spec: Box::new(spec),
            });
        }
        let on = |node: &Arc<Node>| self.state.tasks_of_node(&node.id).count();
        nodes.iter().map(on).sum()
    }

    /// How many tasks have a node and are meant to run.
    pub fn placed(&self) -> usize {
        let tasks = self.state.tasks().iter();
        tasks
            .filter(|task| task.node_id.is_some() && task.desired_state <= TaskState::Running)
            .count()
    }

    fn ask(&mut self, command: Command) {
        self.inputs.push(Input::Command {
            ticket: 0,
            command: Box::new(command),
        });
    }
}

fn write(state: &mut State, author: &Author, changes: impl Iterator<Item = Change>) {
    let mut changes = changes.peekable();
    while changes.peek().is_some() {
        let tx = Tx {
            author: author.clone(),
            at: NOW,
            changes: changes.by_ref().take(CHUNK).collect(),
        };
        let applied = state.apply(&tx);
        assert!(applied.is_ok(), "{:?}", applied.err());
    }
}

fn node(number: usize) -> Node {
    let id = format!("node{number:06}");
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
        active_since: Timestamp::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    }
}

fn service(number: usize, replicas: u64, ids: &mut dyn IdSource) -> Service {
    let mut spec = ServiceSpec {
        name: format!("service{number}"),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(ReplicatedService {
        replicas: Some(replicas),
    });
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.image = "web:1".to_owned();
    Service {
        id: ids.next_id(),
        meta: Meta::default(),
        spec,
        spec_version: 1,
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

fn task(service: &Service, slot: u64, ids: &mut dyn IdSource) -> Task {
    Task {
        spec_version: service.spec_version,
        service_id: service.id.clone(),
        service_name: service.spec.name.as_str().into(),
        service_labels: service.spec.labels.clone().into(),
        slot,
        status: TaskStatus {
            timestamp: NOW,
            state: TaskState::Pending,
            message: "pending task scheduling".to_owned(),
            ..TaskStatus::default()
        },
        ..Task::new(ids.next_id(), service.spec.task_template.clone())
    }
}
