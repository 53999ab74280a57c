//! A worker against an engine and a dispatcher that misbehave in every way that the seed says.
//! Whatever happens: one container a task, started once; statuses never go back; in the end the
//! engine holds exactly what the dispatcher wants.

mod engine;
mod files;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_api::task::TaskState;

use super::*;
use crate::SECOND;
use crate::object::Task;
use crate::testing::{node, task};
use engine::FakeEngine;

/// Deterministic choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % sides.max(1)
    }
}

/// A node and what surrounds it.
struct World {
    dice: Dice,
    now: Timestamp,
    engine: FakeEngine,
    worker: Worker,
    disk: BTreeMap<Id, Record>,
    kept: BTreeMap<Id, Kept>,
    /// What the store says; tasks as the dispatcher assigns them.
    store: BTreeMap<Id, Task>,
    ever: u64,
    flying: Vec<(u64, EngineOp)>,
    events: Vec<(Id, Option<i64>)>,
    connected: bool,
    wake_at: Option<Timestamp>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            now: Timestamp::from_nanos(0),
            engine: FakeEngine {
                up: true,
                ..FakeEngine::default()
            },
            worker: Worker::new("n1".into(), Vec::new(), Vec::new()),
            disk: BTreeMap::new(),
            kept: BTreeMap::new(),
            store: BTreeMap::new(),
            ever: 0,
            flying: Vec::new(),
            events: Vec::new(),
            connected: false,
            wake_at: None,
        }
    }

    fn input(&mut self, input: Input) {
        let out = self.worker.step(input, self.now);
        for (id, record) in out.persist {
            match record {
                Some(record) => drop(self.disk.insert(id, record)),
                None => drop(self.disk.remove(&id)),
            }
        }
        for (id, kept) in out.keep {
            match kept {
                Some(kept) => drop(self.kept.insert(id, kept)),
                None => drop(self.kept.remove(&id)),
            }
        }
        self.flying.retain(|(op, _)| !out.cancel.contains(op));
        self.flying.extend(out.ops);
        self.wake_at = out.wake_at;
        assert!(self.flying.len() <= 3 + 16 + 8);
        for report in out.reports {
            assert!(self.connected, "reports go out in sessions only");
            for (id, status) in report.statuses {
                let Some(task) = self.store.get_mut(&id) else {
                    continue;
                };
                assert!(status.state >= task.status.state, "{id} went back");
                task.status = status;
            }
            if self.dice.roll(4) > 0 {
                self.input(Input::Ack(report.sequence));
            }
        }
    }

    fn connect(&mut self) {
        self.connected = true;
        self.input(Input::Session(Box::new(node("n1"))));
        let tasks = self.store.values().cloned().collect();
        self.input(Input::Assignments(Assignments {
            complete: true,
            tasks,
            ..Default::default()
        }));
    }

    fn tell(&mut self, id: &Id) {
        if !self.connected {
            return;
        }
        let assignments = match self.store.get(id) {
            Some(task) => Assignments {
                tasks: vec![task.clone()],
                ..Default::default()
            },
            None => Assignments {
                removed: vec![id.clone()],
                ..Default::default()
            },
        };
        self.input(Input::Assignments(assignments));
    }

    fn some_task(&mut self) -> Option<Id> {
        let at = self.dice.roll(self.store.len());
        self.store.keys().nth(at).cloned()
    }

    /// One thing happens.
    fn happen(&mut self) {
        self.now = self.now.plus(SECOND / 4);
        match self.dice.roll(20) {
            0 | 1 if self.store.len() < 12 => self.assign_one(),
            2 => self.advance_desired(),
            3 => self.reap_one(),
            4 => self.hurt_a_container(),
            5 => {
                self.engine.up = !self.engine.up;
                let up = self.engine.up;
                self.input(if up {
                    Input::EngineUp
                } else {
                    Input::EngineDown
                });
            }
            6 => match self.connected {
                true => {
                    self.connected = false;
                    self.input(Input::SessionLost);
                }
                false => self.connect(),
            },
            7 => self.restart(),
            8..12 => self.deliver_event(),
            12 => self.input(Input::Tick),
            _ => self.finish_one(),
        }
        self.check();
    }

    fn assign_one(&mut self) {
        self.ever += 1;
        let mut task = task(&format!("t{:03}", self.ever), "web", self.ever);
        if self.dice.roll(3) == 0 {
            task.desired_state = TaskState::Ready;
        }
        let id = task.id.clone();
        self.store.insert(id.clone(), task);
        self.tell(&id);
    }

    fn advance_desired(&mut self) {
        let Some(id) = self.some_task() else { return };
        let Some(task) = self.store.get_mut(&id) else {
            return;
        };
        task.desired_state = match task.desired_state {
            TaskState::Ready => TaskState::Running,
            _ => TaskState::Shutdown,
        };
        self.tell(&id);
    }

    fn reap_one(&mut self) {
        let Some(id) = self.some_task() else { return };
        if self
            .store
            .get(&id)
            .is_some_and(|task| task.desired_state == TaskState::Shutdown)
        {
            self.store.remove(&id);
            self.tell(&id);
        }
    }

    fn hurt_a_container(&mut self) {
        let at = self.dice.roll(self.engine.containers.len());
        let Some(id) = self.engine.containers.keys().nth(at).cloned() else {
            return;
        };
        let remove = self.dice.roll(2) == 0;
        let Some(container) = self.engine.containers.get_mut(&id) else {
            return;
        };
        let mut died = None;
        if container.state == ContainerState::Running {
            container.state = ContainerState::Exited;
            container.exit_code = 1;
            died = Some(1);
        }
        self.events.push((container.task.as_str().into(), died));
        if remove {
            self.engine.containers.remove(&id);
        }
    }

    fn deliver_event(&mut self) {
        if self.engine.up && !self.events.is_empty() {
            let (task, died) = self.events.remove(0);
            self.input(Input::Event { task, died });
        }
    }

    fn finish_one(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.dice.roll(self.flying.len());
        let (op, what) = self.flying.remove(at);
        let mut result = self.engine.run(&what);
        // The answer may get lost although the engine has done it.
        if self.dice.roll(12) == 0 {
            result = Err(OpError::Unavailable("connection reset".into()));
        }
        self.input(Input::Finished { op, result });
    }

    /// The daemon is killed and comes back; now and then without its disk.
    fn restart(&mut self) {
        if self.dice.roll(5) == 0 {
            self.disk.clear();
            self.kept.clear();
        }
        let records = self.disk.values().cloned().collect();
        let kept = self.kept.values().cloned().collect();
        self.worker = Worker::new("n1".into(), records, kept);
        self.flying.clear();
        self.connected = false;
        if self.engine.up {
            self.input(Input::EngineUp);
        }
    }

    fn check(&self) {
        let mut tasks = BTreeSet::new();
        for container in self.engine.containers.values() {
            assert!(
                tasks.insert(&container.task),
                "two containers of {}",
                container.task
            );
        }
        for (container, starts) in &self.engine.starts {
            assert_eq!(*starts, 1, "{container} was started twice");
        }
    }

    /// No more faults: everything that was begun must come to its end.
    fn settle(&mut self) {
        self.events.clear();
        self.engine.up = true;
        self.input(Input::EngineUp);
        self.connected = false;
        self.input(Input::SessionLost);
        self.connect();
        for _ in 0..4000 {
            while !self.flying.is_empty() {
                let (op, what) = self.flying.remove(0);
                let result = self.engine.run(&what);
                self.input(Input::Finished { op, result });
                self.check();
            }
            let Some(at) = self.wake_at else { return };
            if at > self.now.plus(200 * SECOND) {
                return;
            }
            self.now = self.now.max(at);
            if self.now > Timestamp::from_nanos(4000 * SECOND) {
                return;
            }
            self.input(Input::Tick);
        }
    }

    fn check_settled(&self) {
        for container in self.engine.containers.values() {
            let task = self.store.get(container.task.as_str());
            let task = task.unwrap_or_else(|| panic!("{} has no task", container.id));
            let runs = container.state == ContainerState::Running;
            assert_eq!(
                runs,
                task.status.state == TaskState::Running,
                "{task:?} {container:?}"
            );
        }
        for task in self.store.values() {
            let (state, desired) = (task.status.state, task.desired_state);
            assert!(
                state.is_terminal() || state == desired,
                "{}: {state}, not {desired}",
                task.id
            );
            if state == TaskState::Running {
                let mut all = self.engine.containers.values();
                assert!(all.any(|container| container.task == *task.id));
            }
        }
        assert_eq!(self.worker.tasks(), self.store.len());
        assert!(self.disk.keys().eq(self.store.keys()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_worker_keeps_its_promises(seed: u64) {
        let mut world = World::new(seed);
        world.input(Input::EngineUp);
        world.connect();
        for _ in 0..400 {
            world.happen();
        }
        world.settle();
        world.check_settled();
    }
}

#[test]
fn a_container_that_is_nobodys_is_removed_once_that_is_certain() {
    let mut world = World::new(1);
    let stray = |id: &str| Container {
        id: id.into(),
        name: format!("old.1.{id}"),
        task: format!("gone-{id}"),
        state: ContainerState::Running,
        ..Container::default()
    };
    world.engine.containers.insert("s1".into(), stray("s1"));
    world.input(Input::EngineUp);
    for _ in 0..10 {
        world.finish_one();
    }
    assert_eq!(
        world.engine.containers.len(),
        1,
        "its task may still be assigned"
    );
    world.settle();
    assert!(world.engine.containers.is_empty());
}

#[test]
fn an_older_leader_is_not_listened_to() {
    let mut world = World::new(1);
    world.assign_one();
    world.connect();
    world.settle();
    world.check_settled();
    let tasks = world.store.values().cloned().collect();
    let told = Assignments {
        complete: true,
        tasks,
        revision: 9,
        ..Default::default()
    };
    world.input(Input::Assignments(told));
    world.input(Input::Assignments(Assignments {
        complete: true,
        revision: 8,
        ..Default::default()
    }));
    assert!(
        world
            .flying
            .iter()
            .all(|(_, op)| !matches!(op, EngineOp::Stop { .. }))
    );
    assert_eq!(world.worker.tasks(), 1);
}
