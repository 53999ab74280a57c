//! Removes tasks that are history: those whose slot is gone, and the oldest of a slot beyond the
//! limit. Never touches a task that runs or may still run.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/taskreaper`.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_api::task::TaskState;

use super::progress::was_made;
use super::slots;
use super::{is_over, iteration};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Kind, Object, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};

/// Tasks kept per slot, the current one included, unless the cluster says otherwise.
const HISTORY: i64 = 5;
/// Removals that one plan holds at most; the rest follows at once.
const BATCH: usize = 1_000;

/// Removes dead tasks.
#[derive(Debug, Default)]
pub struct Reaper {
    /// Services with tasks to look at.
    dirty: BTreeSet<Id>,
}

impl Reconciler for Reaper {
    fn mark_all(&mut self, view: &State) {
        self.dirty = view
            .tasks()
            .iter()
            .map(|task| task.service_id.clone())
            .collect();
    }

    fn observe(&mut self, event: &Event, view: &State) {
        match event.after.as_ref().or(event.before.as_ref()) {
            Some(Object::Task(task)) => {
                self.dirty.insert(task.service_id.clone());
            }
            // The limit may be another one now.
            Some(Object::Cluster(_)) => self.mark_all(view),
            // A node that is gone will report nothing of its tasks any more.
            Some(Object::Node(node)) if event.after.is_none() => {
                let tasks = view.tasks_of_node(&node.id);
                self.dirty.extend(tasks.map(|task| task.service_id.clone()));
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        while let Some(service) = self.dirty.pop_first() {
            let dead = dead_tasks(view, &service);
            plan.changes.extend(dead.iter().map(remove));
            if plan.changes.len() >= BATCH {
                plan.wake(now);
                break;
            }
        }
        plan
    }
}

fn remove(task: &Arc<Task>) -> Change {
    Change::Remove(Kind::Task, task.id.clone(), task.meta.version)
}

/// The tasks of a service that are to go.
fn dead_tasks(view: &State, service: &Id) -> Vec<Arc<Task>> {
    let mut dead = Vec::new();
    let run = view.services().get(service).and_then(|s| iteration(s));
    for slot in slots::of_service(view, service).into_values() {
        let youngest = slot.0.last().map(|task| task.id.clone());
        let mut history = Vec::new();
        let mut kept = 0usize;
        for task in slot.0 {
            if task.desired_state >= TaskState::Remove && may_go(view, &task) {
                dead.push(task);
            } else if (task.desired_state > TaskState::Complete || is_past(run, &task))
                && is_over(&task)
            {
                history.push(task);
            } else {
                kept += 1;
            }
        }
        let Some(limit) = history.last().and_then(|newest| limit(view, newest)) else {
            continue;
        };
        // The last task of a slot says that the slot is not free.
        let surplus = (kept + history.len()).saturating_sub(limit.max(1));
        // The youngest stands for its slot, also while one before it is slow to stop: without it
        // that one would seem to be what the slot ended with.
        if history.last().map(|task| &task.id) == youngest.as_ref() {
            history.pop();
        }
        // An update that is under way counts how its tasks ended.
        let update = view.services().get(service).filter(|_| limit > 1);
        let counts = |task: &Arc<Task>| update.is_some_and(|update| was_made(update, task));
        let (last, first): (Vec<_>, Vec<_>) = history.into_iter().partition(counts);
        dead.extend(first.into_iter().chain(last).take(surplus));
    }
    dead
}

/// Whether a task is of an earlier run of a job. The original keeps the tasks of all runs for ever.
fn is_past(run: Option<u64>, task: &Task) -> bool {
    run.is_some() && task.job_iteration != run
}

/// Whether nothing is left of a task that is to be removed, or nobody is there to say so.
fn may_go(view: &State, task: &Task) -> bool {
    let node_is_gone = task
        .node_id
        .as_ref()
        .is_some_and(|node| view.nodes().get(node).is_none());
    is_over(task) || node_is_gone
}

/// How many tasks a slot keeps; `None` for all of them. A policy that counts attempts needs as
/// many tasks to count by.
fn limit(view: &State, task: &Task) -> Option<usize> {
    let policy = task.spec.restart_policy.as_ref();
    let attempts = policy.and_then(|policy| policy.max_attempts).unwrap_or(0);
    if attempts > 0 {
        return usize::try_from(attempts.saturating_add(1)).ok();
    }
    let asked = view
        .cluster()
        .and_then(|cluster| cluster.spec.orchestration.task_history_retention_limit);
    usize::try_from(asked.unwrap_or(HISTORY)).ok()
}
