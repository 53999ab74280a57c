//! One service of very many tasks on nodes whose agents are connected: every task is told to its
//! node, and the node says what became of it. The agents are quick and lucky, and take no time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::task::{TaskState, TaskStatus};
use skep_core::assignment::{ToAgent, ToDispatcher};
use skep_core::command::Command;
use skep_core::dispatcher::Peer;
use skep_core::id::Id;
use skep_core::leader::Input;
use skep_core::object::{Object, Service, Task};
use skep_core::{Batch, Change};

use super::{Scale, service};

impl Scale {
    /// So many nodes with agents, and nothing to run.
    pub fn connected(nodes: usize) -> Self {
        let mut scale = Self::pending(nodes, 0, 0);
        let nodes: Vec<_> = scale.state.nodes().iter().cloned().collect();
        for node in nodes {
            let description = Box::new(node.description.clone().unwrap_or_default());
            scale.say(
                &node.id,
                ToDispatcher::Register {
                    description,
                    subnets: Vec::new(),
                    subnets6: Vec::new(),
                    data_path: None,
                },
            );
        }
        scale.settle();
        scale.tell();
        scale
    }

    /// Asks for a service of so many tasks.
    pub fn create_one(&mut self, replicas: u64) {
        let Service { spec, .. } = service(0, replicas, &mut self.ids);
        self.ask(Command::CreateService {
            spec: Box::new(spec),
            registry_auth: None,
        });
    }

    /// Asks for so many tasks of the service.
    pub fn scale_one(&mut self, replicas: u64) {
        let Some(service) = self.state.services().iter().next().cloned() else {
            return;
        };
        let mut spec = service.spec.clone();
        let replicated = spec.mode.replicated.get_or_insert_default();
        replicated.replicas = Some(replicas);
        self.update(&service, spec);
    }

    /// Asks for the service to be removed.
    pub fn remove_one(&mut self) {
        let first = self.state.services().iter().next().cloned();
        if let Some(service) = first {
            self.ask(Command::RemoveService {
                id: service.id.clone(),
            });
        }
    }

    /// The node of a task in the middle says that it failed.
    pub fn fail_one(&mut self) {
        let middle = self.state.tasks().len() / 2;
        let tasks = self.state.tasks().iter().skip(middle);
        let running = tasks.filter(|task| is_running(task)).take(1).cloned();
        for task in running.collect::<Vec<_>>() {
            self.report(&[(task, TaskState::Failed)]);
        }
    }

    /// Hands over what the agents are to be told; they follow at once.
    pub fn tell(&mut self) {
        for (node, _, message) in self.leader.messages(&self.state) {
            if let ToAgent::Assignments(told) = message
                && told.follow
            {
                self.say(&node, ToDispatcher::Followed(told.revision));
            }
        }
    }

    /// The agents do what a batch asks of them; the leader hears of it in the next step.
    pub fn obey(&mut self, batch: &Batch) {
        let changes = batch.txs.iter().flat_map(|tx| &tx.changes);
        let touched: BTreeSet<&Id> = changes
            .filter_map(|change| match change {
                Change::Create(Object::Task(task)) | Change::Update(Object::Task(task)) => {
                    Some(&task.id)
                }
                _ => None,
            })
            .collect();
        let tasks = touched
            .into_iter()
            .filter_map(|id| self.state.tasks().get(id));
        let done: Vec<(Arc<Task>, TaskState)> = tasks
            .filter_map(|task| Some((task.clone(), outcome(task)?)))
            .collect();
        self.report(&done);
    }

    /// Steps until nothing is to be done, with agents that do as they are told; gives how many steps
    /// that took.
    pub fn settle_all(&mut self) -> usize {
        let mut steps = 0;
        while let Some(batch) = self.step() {
            self.commit(&batch);
            self.tell();
            self.obey(&batch);
            steps += 1;
        }
        steps
    }

    /// How many tasks run that are meant to.
    pub fn running(&self) -> usize {
        let tasks = self.state.tasks().iter();
        tasks.filter(|task| is_running(task)).count()
    }

    /// How many tasks of an image run that are meant to.
    pub fn of_image(&self, image: &str) -> usize {
        let of = |task: &Task| {
            let container = task.spec.container_spec.as_ref();
            container.is_some_and(|container| container.image == image)
        };
        let tasks = self.state.tasks().iter();
        tasks.filter(|task| is_running(task) && of(task)).count()
    }

    fn report(&mut self, done: &[(Arc<Task>, TaskState)]) {
        let mut by_node: BTreeMap<Id, Vec<(Id, TaskStatus)>> = BTreeMap::new();
        for (task, state) in done {
            let Some(node) = task.node_id.clone() else {
                continue;
            };
            let status = TaskStatus {
                state: *state,
                ..task.status.clone()
            };
            let statuses = by_node.entry(node).or_default();
            statuses.push((task.id.clone(), status));
        }
        for (node, statuses) in by_node {
            let sequence = self.state.revision();
            self.say(&node, ToDispatcher::Statuses { sequence, statuses });
        }
    }

    fn say(&mut self, node: &Id, message: ToDispatcher) {
        let peer = Peer {
            node: node.clone(),
            session: 1,
            addr: String::new(),
        };
        self.inputs.push(Input::Agent { peer, message });
    }
}

/// What becomes of a task that its node has.
fn outcome(task: &Task) -> Option<TaskState> {
    let given = task.node_id.is_some() && task.status.state >= TaskState::Assigned;
    let outcome = match task.desired_state {
        TaskState::Ready => TaskState::Ready,
        TaskState::Running => TaskState::Running,
        _ => TaskState::Shutdown,
    };
    (given && task.status.state < outcome).then_some(outcome)
}

fn is_running(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.desired_state == TaskState::Running
}
