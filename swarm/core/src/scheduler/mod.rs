//! Chooses a node for every task that waits for one, and says why where there is none. Never moves
//! a task that has a node.
//!
//! Source of the behaviour: swarmkit `manager/scheduler`.

mod filter;
mod nodes;
mod spread;

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

/// Tasks that one plan assigns at most; the rest follows at once in the next.
const BATCH: usize = 200;
/// What swarmkit writes when a task gets its node.
const ASSIGNED: &str = "scheduler assigned task to node";

/// Tasks that are alike: what fits one fits all.
type Group = (Id, u64);

/// Assigns pending tasks to nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    waiting: BTreeSet<Id>,
    /// Something happened that may give a waiting task a place.
    dirty: bool,
}

impl Reconciler for Scheduler {
    fn mark_all(&mut self, view: &State) {
        let waiting = view.tasks().iter().filter(|task| waits(task));
        self.waiting = waiting.map(|task| task.id.clone()).collect();
        self.dirty = true;
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        match (&event.before, &event.after) {
            (_, Some(Object::Node(_))) | (Some(Object::Node(_)), None) => self.dirty = true,
            (_, Some(Object::Task(task))) if waits(task) => {
                let fresh = self.waiting.insert(task.id.clone());
                self.dirty |= fresh;
            }
            (Some(Object::Task(task)), after) => {
                self.waiting.remove(&task.id);
                let over = match after {
                    Some(Object::Task(after)) => !crate::task::is_live(after),
                    _ => true,
                };
                // Its place on the node is free now.
                self.dirty |= over && task.node_id.is_some();
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        if !self.dirty || self.waiting.is_empty() {
            self.dirty = false;
            return plan;
        }
        let mut nodes = Nodes::of(view, now);
        for (_, tasks) in self.groups(view) {
            if place(&tasks, &mut nodes, &mut plan.changes, now) == Placed::BatchFull {
                plan.wake(now);
                return plan;
            }
        }
        self.dirty = false;
        plan
    }
}

/// How far the tasks of one group got.
#[derive(PartialEq, Eq)]
enum Placed {
    All,
    BatchFull,
}

impl Scheduler {
    fn groups(&self, view: &State) -> BTreeMap<Group, Vec<Arc<Task>>> {
        let mut groups: BTreeMap<Group, Vec<Arc<Task>>> = BTreeMap::new();
        for task in self.waiting.iter().filter_map(|id| view.tasks().get(id)) {
            let group = (task.service_id.clone(), task.spec_version);
            groups.entry(group).or_default().push(task.clone());
        }
        for tasks in groups.values_mut() {
            tasks.sort_by_key(|task| (task.slot, task.id.clone()));
        }
        groups
    }
}

/// Gives the tasks of one group their nodes, best node first for each.
fn place(
    tasks: &[Arc<Task>],
    nodes: &mut Nodes,
    changes: &mut Vec<Change>,
    now: Timestamp,
) -> Placed {
    let Some(sample) = tasks.first() else {
        return Placed::All;
    };
    let filters = Filters::of(sample);
    let mut rest = tasks.iter();
    for task in rest.by_ref() {
        if changes.len() >= BATCH {
            return Placed::BatchFull;
        }
        let Some(node) = spread::choose(nodes, &filters, task) else {
            // The others are alike: the same explanation serves them all.
            let why = filters.explain(nodes);
            let unplaced = std::iter::once(task).chain(rest);
            changes.extend(unplaced.filter_map(|task| unplaceable(task, &why, now)));
            return Placed::All;
        };
        nodes.occupy(&node, task);
        changes.push(assign(task, node, now));
    }
    Placed::All
}

fn assign(task: &Arc<Task>, node: Id, now: Timestamp) -> Change {
    let mut task = task.as_ref().clone();
    task.node_id = Some(node);
    task.status.state = TaskState::Assigned;
    task.status.message = ASSIGNED.to_owned();
    task.status.err.clear();
    task.status.timestamp = now;
    Change::Update(task.into())
}

/// Writes down why a task waits, if that is news.
fn unplaceable(task: &Arc<Task>, why: &str, now: Timestamp) -> Option<Change> {
    if task.status.err == why {
        return None;
    }
    let mut task = task.as_ref().clone();
    task.status.err = why.to_owned();
    task.status.timestamp = now;
    Some(Change::Update(task.into()))
}

/// Whether a task waits for a node.
fn waits(task: &Arc<Task>) -> bool {
    task.status.state == TaskState::Pending
        && task.node_id.is_none()
        && task.desired_state <= TaskState::Running
}
