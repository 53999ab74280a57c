//! Objects and a harness for tests of everything that plans: a state, a clock, and agents that do
//! as they are told. Holds every plan against that of a reconciler that starts anew. Only compiled
//! for tests.

use skep_api::node::{Availability, NodeDescription, NodeSpec, NodeState};
use skep_api::service::ServiceSpec;
use skep_api::task::TaskState;

use super::{Cron, Enforcer, Orchestrator, Reaper, Rebalance};
use crate::allocator::Allocator;
use crate::id::{Id, IdSource, RANDOM_BYTES};
use crate::object::{Meta, Node, NodeStatus, Object, Role, Task};
use crate::reconcile::{Plan, Reconciler, earliest};
use crate::scheduler::Scheduler;
use crate::store::{Author, Change, State, Tx, reads};
use crate::{Nanos, SECOND, Timestamp};

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
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    }
}

/// `seconds` after the start of the simulated clock.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * SECOND)
}

/// Counts upwards, and can be copied to plan the same twice.
#[derive(Clone, Debug, Default)]
pub struct Ids(u64);

impl IdSource for Ids {
    fn random_bytes(&mut self) -> [u8; RANDOM_BYTES] {
        self.0 += 1;
        let mut bytes = [0u8; RANDOM_BYTES];
        bytes[6..14].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

/// The planning parts of a leader.
#[derive(Default)]
struct Parts {
    cron: Cron,
    rebalance: Rebalance,
    orchestrator: Orchestrator,
    enforcer: Enforcer,
    allocator: Allocator,
    scheduler: Scheduler,
    reaper: Reaper,
}

impl Parts {
    fn each(&mut self) -> [(Author, &mut dyn Reconciler); 7] {
        [
            (Author::Orchestrator, &mut self.cron),
            (Author::Orchestrator, &mut self.rebalance),
            (Author::Orchestrator, &mut self.orchestrator),
            (Author::Orchestrator, &mut self.enforcer),
            (Author::Allocator, &mut self.allocator),
            (Author::Scheduler, &mut self.scheduler),
            (Author::Reaper, &mut self.reaper),
        ]
    }
}

/// A cluster without network, log or engines.
pub struct Harness {
    pub state: State,
    pub now: Timestamp,
    pub ids: Ids,
    /// How many objects the parts looked at, those apart that a new leader's would.
    pub reads: usize,
    /// Whether plans are held against those of a new leader, which takes its time in large clusters.
    pub held: bool,
    parts: Parts,
    wake_at: Option<Timestamp>,
}

impl Harness {
    /// A cluster of ready nodes at 1000 s.
    pub fn new(nodes: &[&str]) -> Self {
        let mut harness = Self {
            state: State::default(),
            now: at(1_000),
            ids: Ids::default(),
            reads: 0,
            held: true,
            parts: Parts::default(),
            wake_at: None,
        };
        for id in nodes {
            harness.put(node(id));
        }
        harness
    }

    /// Writes as an author who may, and tells every part.
    pub fn write(&mut self, author: Author, changes: Vec<Change>) {
        let tx = Tx {
            author,
            at: self.now,
            changes,
        };
        let events = self
            .state
            .apply(&tx)
            .unwrap_or_else(|why| panic!("{why}: {tx:?}"));
        let before = reads();
        for event in &events {
            for (_, part) in self.parts.each() {
                part.observe(event, &self.state);
            }
        }
        self.reads += reads() - before;
    }

    /// Creates or replaces a node, cluster or service.
    pub fn put(&mut self, object: impl Into<Object>) {
        let mut object = object.into();
        let known = self.state.object(object.kind(), object.id());
        let change = match known {
            Some(known) => {
                object.meta_mut().version = known.meta().version;
                Change::Update(object)
            }
            None => Change::Create(object),
        };
        self.write(Author::Control, vec![change]);
    }

    /// Changes a node.
    pub fn node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(self.state.nodes().get(id).unwrap());
        edit(&mut node);
        self.put(node);
    }

    pub fn drain(&mut self, id: &str) {
        self.node(id, |node| node.spec.availability = Availability::Drain);
    }

    pub fn down(&mut self, id: &str) {
        self.node(id, |node| node.status.state = NodeState::Down);
    }

    pub fn remove(&mut self, object: &Object) {
        let change = Change::Remove(object.kind(), object.id().clone(), object.meta().version);
        self.write(Author::Control, vec![change]);
    }

    pub fn remove_node(&mut self, id: &str) {
        let node = self.state.nodes().get(id).unwrap().clone();
        self.remove(&Object::Node(node));
    }

    pub fn remove_service(&mut self, id: &str) {
        let service = self.state.services().get(id).unwrap().clone();
        self.remove(&Object::Service(service));
    }

    /// Lets every part plan until none has anything to do at this moment.
    pub fn plan(&mut self) {
        for _ in 0..10_000 {
            let mut wrote = false;
            let mut wake_at = None;
            for index in 0..self.parts.each().len() {
                let (author, plan) = self.plan_one(index);
                wake_at = earliest(wake_at, plan.wake_at);
                if !plan.changes.is_empty() {
                    wrote = true;
                    self.write(author, plan.changes);
                }
            }
            self.wake_at = wake_at;
            if !wrote {
                assert!(
                    wake_at.is_none_or(|at| at > self.now),
                    "a timer that is due does nothing"
                );
                return;
            }
        }
        panic!("planning does not come to an end");
    }

    /// One part's plan, which must be the one that a new leader would make.
    fn plan_one(&mut self, index: usize) -> (Author, Plan) {
        let ids = self.ids.clone();
        let (author, part) = &mut self.parts.each()[index];
        let (author, before) = (author.clone(), reads());
        let plan = part.plan(&self.state, self.now, &mut self.ids);
        self.reads += reads() - before;
        if self.held {
            self.hold(index, &plan, ids);
        }
        (author, plan)
    }

    fn hold(&self, index: usize, plan: &Plan, mut ids: Ids) {
        let mut fresh = Parts::default();
        let (author, new) = &mut fresh.each()[index];
        new.mark_all(&self.state);
        let oracle = new.plan(&self.state, self.now, &mut ids);
        assert_eq!(
            plan.changes, oracle.changes,
            "a new leader ({author:?}) would plan otherwise"
        );
        assert_eq!(
            plan.wake_at, oracle.wake_at,
            "a new leader ({author:?}) would wake otherwise"
        );
        self.parts.orchestrator.recount(&self.state, self.now);
    }

    /// An agent reports a state of its task.
    pub fn report(&mut self, task: &Id, state: TaskState) {
        let mut task = Task::clone(self.state.tasks().get(task).unwrap());
        let node = task.node_id.clone().expect("only an agent reports");
        task.status.state = state;
        task.status.timestamp = self.now;
        if state == TaskState::Running {
            task.running_since.get_or_insert(self.now);
        }
        self.write(Author::Agent(node), vec![Change::Update(task.into())]);
    }

    /// What an agent that is quick and lucky would report next.
    pub fn next_report(&self, task: &Task) -> Option<TaskState> {
        let node = self.state.nodes().get(task.node_id.as_ref()?)?;
        let reached = match task.desired_state {
            TaskState::Ready => TaskState::Ready,
            // A job's work takes no time here once it has begun.
            TaskState::Complete if task.status.state == TaskState::Running => TaskState::Complete,
            TaskState::Running | TaskState::Complete => TaskState::Running,
            _ => TaskState::Shutdown,
        };
        let assigned = task.status.state >= TaskState::Assigned;
        let moves =
            assigned && node.status.state == NodeState::Ready && task.status.state < reached;
        (moves && !task.status.state.is_terminal()).then_some(reached)
    }

    /// Plans, and lets all agents do what they are told, until nothing moves at this moment.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.plan();
            let due = self
                .state
                .tasks()
                .iter()
                .find_map(|task| Some((task.id.clone(), self.next_report(task)?)));
            let Some((task, state)) = due else { return };
            self.report(&task, state);
        }
        panic!("the cluster does not settle");
    }

    /// Lets time pass, stopping at every timer. With agents that do as they are told.
    pub fn pass(&mut self, span: Nanos) {
        let until = self.now.plus(span);
        self.settle();
        while let Some(at) = self.wake_at.filter(|at| *at <= until) {
            self.now = at;
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    /// Agents stop what is not wanted, and nothing else.
    pub fn stop_unwanted(&mut self) {
        let stopped = |task: &&std::sync::Arc<Task>| {
            task.desired_state > TaskState::Complete && self.next_report(task).is_some()
        };
        let stopped: Vec<Id> = self
            .state
            .tasks()
            .iter()
            .filter(stopped)
            .map(|task| task.id.clone())
            .collect();
        for task in stopped {
            self.report(&task, TaskState::Shutdown);
        }
    }

    /// Plans and lets agents make some reports, no more.
    pub fn some_reports(&mut self, reports: u8) {
        for _ in 0..reports {
            self.plan();
            let due = self
                .state
                .tasks()
                .iter()
                .find_map(|task| Some((task.id.clone(), self.next_report(task)?)));
            let Some((task, state)) = due else { return };
            self.report(&task, state);
        }
    }

    /// One report at a time, until `tasks` tasks with this image run.
    pub fn settle_until_running(&mut self, image: &str, tasks: usize) {
        for _ in 0..1_000 {
            self.plan();
            let runs = |task: &&std::sync::Arc<Task>| {
                let container = task.spec.container_spec.as_ref();
                task.status.state == TaskState::Running
                    && task.desired_state == TaskState::Running
                    && container.is_some_and(|container| container.image == image)
            };
            if self.state.tasks().iter().filter(runs).count() >= tasks {
                return;
            }
            let due = self
                .state
                .tasks()
                .iter()
                .find_map(|task| Some((task.id.clone(), self.next_report(task)?)));
            let (task, state) = due.expect("more tasks with this image will run");
            self.report(&task, state);
        }
        panic!("no tasks with image {image} run");
    }

    /// Fails a task that has a node.
    pub fn fail(&mut self, task: &Id) {
        self.report(task, TaskState::Failed);
    }

    /// The tasks of a service in one desired state, by slot and age.
    pub fn tasks(&self, service: &str, desired: TaskState) -> Vec<Task> {
        let tasks = self
            .state
            .tasks_of_service(service)
            .filter(|t| t.desired_state == desired);
        let mut tasks: Vec<Task> = tasks.map(|task| Task::clone(task)).collect();
        tasks.sort_by_key(|task| (task.slot, task.meta.created_at, task.id.clone()));
        tasks
    }

    /// The tasks of a service that are meant to run.
    pub fn running(&self, service: &str) -> Vec<Task> {
        self.tasks(service, TaskState::Running)
    }

    /// The one task of a slot that is wanted.
    pub fn wanted(&self, service: &str, slot: u64) -> Task {
        let wanted: Vec<_> = self
            .state
            .tasks_of_service(service)
            .filter(|task| task.slot == slot && task.desired_state <= TaskState::Complete)
            .collect();
        assert_eq!(wanted.len(), 1, "tasks wanted in slot {slot} of {service}");
        Task::clone(wanted[0])
    }

    /// How many tasks meant to run each node has, by node id.
    pub fn spread(&self, service: &str) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for task in self.running(service) {
            let node = task.node_id.map_or("-".to_owned(), |id| id.to_string());
            *counts.entry(node).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    /// State and message of the service's update, empty if it has none.
    pub fn progress(&self, service: &str) -> (String, String) {
        let status = self
            .state
            .services()
            .get(service)
            .unwrap()
            .update_status
            .clone();
        status.map_or_else(Default::default, |s| {
            (s.state.as_str().to_owned(), s.message)
        })
    }
}

/// Sets the image, the part of a spec that restarts tasks.
pub fn image(spec: &mut ServiceSpec, image: &str) {
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.image = image.to_owned();
}
