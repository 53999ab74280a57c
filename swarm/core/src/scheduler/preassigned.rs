//! Tasks that have their node from the start, as those of global services do: says whether the node
//! can bear them, and why not yet. Never gives one another node.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/scheduler`, which explains such tasks
//! without `no suitable node (...)`.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskState;

use super::claims::asked;
use super::filter::Filters;
use super::nodes::Nodes;
use super::{BATCH, unplaceable};
use crate::Timestamp;
use crate::id::Id;
use crate::object::{Object, Task};
use crate::reconcile::Plan;
use crate::store::{Change, Event, State};
use crate::task::is_live;

/// What swarmkit writes when such a task may go to its node.
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

/// Tasks that wait for the node that they have.
#[derive(Debug, Default)]
pub(super) struct Preassigned {
    waiting: BTreeMap<Id, BTreeSet<Id>>,
    /// Nodes to look at.
    dirty: BTreeSet<Id>,
}

impl Preassigned {
    /// Those of a state, all to be looked at.
    pub fn of(view: &State) -> Self {
        let mut all = Self::default();
        for task in view.tasks().iter() {
            all.enter(task);
        }
        all
    }

    /// Follows an event.
    pub fn observe(&mut self, event: &Event) {
        match (&event.before, &event.after) {
            (Some(Object::Node(node)), _) | (_, Some(Object::Node(node))) => self.mark(&node.id),
            (before, Some(Object::Task(after))) => {
                if waits(after) {
                    self.enter(after);
                } else {
                    self.leave(after);
                }
                let weight = |task: &Task| (occupies(task), is_live(task));
                if let Some(node) = &after.node_id
                    && let Some(Object::Task(before)) = before
                    && weight(before) != weight(after)
                {
                    self.mark(node);
                }
            }
            (Some(Object::Task(task)), None) => {
                self.leave(task);
                if let Some(node) = &task.node_id {
                    self.mark(node);
                }
            }
            _ => {}
        }
    }

    /// Whether any is to be looked at.
    pub fn is_due(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Confirms tasks whose nodes can bear them, and explains the others. What was confirmed is
    /// counted on the nodes.
    pub fn plan(&mut self, view: &State, nodes: &mut Nodes, now: Timestamp, plan: &mut Plan) {
        while let Some(node) = self.dirty.pop_first() {
            let ids = self.waiting.get(&node).into_iter().flatten();
            for task in ids.filter_map(|id| view.tasks().get(id)) {
                plan.changes.extend(look_at(view, task, &node, nodes, now));
            }
            if plan.changes.len() >= BATCH {
                plan.wake(now);
                return;
            }
        }
    }

    fn enter(&mut self, task: &Task) {
        if let Some(node) = task.node_id.as_ref().filter(|_| waits(task)) {
            let fresh = self.waiting.entry(node.clone()).or_default();
            if fresh.insert(task.id.clone()) {
                self.dirty.insert(node.clone());
            }
        }
    }

    fn leave(&mut self, task: &Task) {
        let Some(node) = &task.node_id else { return };
        if let Some(waiting) = self.waiting.get_mut(node) {
            waiting.remove(&task.id);
            if waiting.is_empty() {
                self.waiting.remove(node);
                self.dirty.remove(node);
            }
        }
    }

    fn mark(&mut self, node: &Id) {
        if self.waiting.contains_key(node) {
            self.dirty.insert(node.clone());
        }
    }
}

/// What is to be written about a task now; nothing while its node is not there at all.
fn look_at(
    view: &State,
    task: &Task,
    node: &Id,
    nodes: &mut Nodes,
    now: Timestamp,
) -> Option<Change> {
    // Where a task has to be on this node, it does not matter that the node keeps going down.
    let filters = Filters::of(view, task, None);
    let load = nodes.get(node)?;
    // What somebody runs there by hand is there already.
    if task.attached.is_none()
        && let Some(reason) = filters.refuse(load)
    {
        return unplaceable(task, &reason.explain(1), now);
    }
    let claimed = load.claim(asked(task)).unwrap_or_default();
    let mut task = task.clone();
    task.generic_resources = claimed;
    task.status.state = TaskState::Assigned;
    task.status.message = CONFIRMED.to_owned();
    task.status.err.clear();
    task.status.timestamp = now;
    nodes.occupy(&task);
    Some(Change::Update(task.into()))
}

/// Whether a task waits for the node that it has.
fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending
        && task.node_id.is_some()
        && task.desired_state <= TaskState::Complete
}

/// Whether a task takes some of its node.
fn occupies(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}
