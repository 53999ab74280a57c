//! Chooses a node for every task that waits for one, and says why where there is none. Never moves
//! a task that has a node.
//!
//! Source of the behaviour: swarmkit `manager/scheduler`.

mod failures;
mod filter;
mod nodes;
mod preassigned;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Object, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};
use filter::Filters;
use nodes::Nodes;
use preassigned::Preassigned;
use spread::{Branch, Label, rank};

/// Tasks that one plan assigns or explains at most; the rest follows at once in the next.
const BATCH: usize = 200;
/// What swarmkit writes when a task gets its node.
const ASSIGNED: &str = "scheduler assigned task to node";

/// Tasks that are alike: what fits one fits all.
type Group = (Id, u64);

/// Assigns pending tasks to nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    waiting: BTreeMap<Group, BTreeSet<(u64, Id)>>,
    /// Tasks whose node is not chosen here.
    preassigned: Preassigned,
    /// Groups to look at: new ones, or all when something happened that may make room.
    dirty: BTreeSet<Group>,
    /// When the first node that came back too often may have tasks again.
    rested_at: Option<Timestamp>,
    /// What is where; a cache that is counted anew when it is not there.
    nodes: Option<Nodes>,
}

impl Reconciler for Scheduler {
    fn mark_all(&mut self, view: &State) {
        *self = Self {
            preassigned: Preassigned::of(view),
            ..Self::default()
        };
        for task in view.tasks().iter().filter(|task| waits(task)) {
            self.enter(task);
        }
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        self.nodes = self.nodes.take().and_then(|nodes| nodes.follow(event));
        self.preassigned.observe(event);
        match (&event.before, &event.after) {
            (Some(Object::Node(_)), _) | (_, Some(Object::Node(_))) => self.look_at_all(),
            (before, Some(Object::Task(after))) => {
                if waits(after) {
                    self.enter(after);
                } else {
                    self.leave(after);
                }
                if let Some(Object::Task(before)) = before
                    && changes_room(before, after)
                {
                    self.look_at_all();
                }
            }
            (Some(Object::Task(task)), None) => {
                self.leave(task);
                if task.node_id.is_some() {
                    self.look_at_all();
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        if self.preassigned.is_due() {
            let nodes = self.nodes.get_or_insert_with(|| Nodes::of(view));
            self.preassigned.plan(view, nodes, now, &mut plan);
            if !plan.changes.is_empty() {
                give_back(&plan, nodes);
                return plan;
            }
        }
        if self.rested_at.is_some_and(|at| at <= now) {
            self.look_at_all();
        }
        if self.dirty.is_empty() {
            plan.wake_at = self.rested_at.filter(|_| !self.waiting.is_empty());
            return plan;
        }
        let nodes = self.nodes.get_or_insert_with(|| Nodes::of(view));
        self.rested_at = nodes.rested_at(now);
        while let Some(group) = self.dirty.pop_first() {
            let ids = self.waiting.get(&group).into_iter().flatten();
            let tasks: Vec<&Arc<Task>> = ids.filter_map(|(_, id)| view.tasks().get(id)).collect();
            place(view, &tasks, nodes, &mut plan.changes, now);
            if plan.changes.len() >= BATCH {
                self.dirty.insert(group);
                plan.wake(now);
                break;
            }
        }
        if let Some(at) = self.rested_at {
            plan.wake(at);
        }
        give_back(&plan, nodes);
        plan
    }
}

/// Once the plan is written, its events count again what it gave away.
fn give_back(plan: &Plan, nodes: &mut Nodes) {
    for change in &plan.changes {
        if let Change::Update(Object::Task(task)) = change {
            nodes.vacate(task);
        }
    }
}

impl Scheduler {
    fn enter(&mut self, task: &Task) {
        let group = (task.service_id.clone(), task.spec_version);
        let fresh = self.waiting.entry(group.clone()).or_default();
        if fresh.insert((task.slot, task.id.clone())) {
            self.dirty.insert(group);
        }
    }

    fn leave(&mut self, task: &Task) {
        let group = (task.service_id.clone(), task.spec_version);
        if let Some(waiting) = self.waiting.get_mut(&group) {
            waiting.remove(&(task.slot, task.id.clone()));
            if waiting.is_empty() {
                self.waiting.remove(&group);
                self.dirty.remove(&group);
            }
        }
    }

    fn look_at_all(&mut self) {
        self.dirty.extend(self.waiting.keys().cloned());
    }
}

/// Whether a task takes less of its node than before; or more, if it reserves something: then
/// there may be another reason why others have to wait.
fn changes_room(before: &Task, after: &Task) -> bool {
    let ended = |task: &Task| task.status.state.is_terminal();
    let less = crate::task::is_live(before) && !crate::task::is_live(after)
        || !ended(before) && ended(after);
    let placed =
        before.status.state < TaskState::Assigned && after.status.state >= TaskState::Assigned;
    let more = placed && after.reserved() != (0, 0);
    after.node_id.is_some() && (less || more)
}

/// Gives the tasks of one group their nodes, best node first for each, and tells the others why
/// not.
fn place(
    view: &State,
    tasks: &[&Arc<Task>],
    nodes: &mut Nodes,
    changes: &mut Vec<Change>,
    now: Timestamp,
) {
    let Some(kind) = tasks.first() else { return };
    let filters = Filters::of(kind, nodes.rest(now));
    let labels = Label::of(kind);
    let failures = failures::of(view, kind, now);
    let failed = |id: &Id| failures.get(id).copied().unwrap_or(0);
    let mut root = Branch::default();
    for load in nodes.iter() {
        let path = path(&labels, &load.node);
        root.count(&path, load.of_service(&kind.service_id));
        if filters.refuse(load).is_none() {
            root.open(&path, rank(load, kind, failed(&load.node.id)));
        }
    }
    let mut rest = tasks.iter().peekable();
    while let Some(task) = rest.next_if(|_| changes.len() < BATCH) {
        let Some(node) = root.take() else {
            // The others are alike: the same explanation serves them all.
            let why = filters.explain(nodes);
            let unplaced = std::iter::once(task).chain(rest);
            let news = unplaced.filter_map(|task| unplaceable(task, &why, now));
            changes.extend(news.take(BATCH.saturating_sub(changes.len())));
            return;
        };
        let assigned = assigned(task, &node, now);
        if let Some(load) = nodes.occupy(&assigned)
            && filters.refuse(load).is_none()
        {
            root.open(&path(&labels, &load.node), rank(load, kind, failed(&node)));
        }
        changes.push(Change::Update(assigned.into()));
    }
}

fn path(labels: &[Label], node: &crate::object::Node) -> Vec<String> {
    labels.iter().map(|label| label.value(node)).collect()
}

fn assigned(task: &Task, node: &Id, now: Timestamp) -> Task {
    let mut task = task.clone();
    task.node_id = Some(node.clone());
    task.status.state = TaskState::Assigned;
    task.status.message = ASSIGNED.to_owned();
    task.status.err.clear();
    task.status.timestamp = now;
    task
}

/// Writes down why a task waits, if that is news.
fn unplaceable(task: &Task, why: &str, now: Timestamp) -> Option<Change> {
    if task.status.err == why {
        return None;
    }
    let mut task = task.clone();
    task.status.err = why.to_owned();
    task.status.timestamp = now;
    Some(Change::Update(task.into()))
}

/// Whether a task waits for a node.
fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending
        && task.node_id.is_none()
        && task.desired_state <= TaskState::Complete
}
