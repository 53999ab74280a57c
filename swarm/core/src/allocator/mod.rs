//! Gives tasks what they need of the network before they may be scheduled. Never chooses a node.
//!
//! Tasks need nothing yet, so that a new task becomes pending at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Object, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};

/// What swarmkit writes when a task waits for the scheduler.
const PENDING: &str = "pending task scheduling";

/// Moves tasks from new to pending.
#[derive(Debug, Default)]
pub struct Allocator {
    fresh: BTreeSet<Id>,
}

impl Reconciler for Allocator {
    fn mark_all(&mut self, view: &State) {
        let fresh = view.tasks().iter().filter(|task| is_new(task));
        self.fresh = fresh.map(|task| task.id.clone()).collect();
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        if let Some(Object::Task(task)) = &event.after
            && is_new(task)
        {
            self.fresh.insert(task.id.clone());
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let fresh = std::mem::take(&mut self.fresh);
        let tasks = fresh.iter().filter_map(|id| view.tasks().get(id));
        let changes = tasks
            .filter(|task| is_new(task))
            .map(|task| allocate(task, now));
        Plan {
            changes: changes.collect(),
            wake_at: None,
        }
    }
}

/// A task that is no longer wanted is allocated all the same: the scheduler passes over it.
fn is_new(task: &Arc<Task>) -> bool {
    task.status.state == TaskState::New
}

fn allocate(task: &Arc<Task>, now: Timestamp) -> Change {
    let mut task = task.as_ref().clone();
    task.status.state = TaskState::Pending;
    task.status.message = PENDING.to_owned();
    task.status.timestamp = now;
    Change::Update(task.into())
}
