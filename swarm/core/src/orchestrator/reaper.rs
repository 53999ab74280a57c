//! Removes tasks that are history: those whose slot is gone, and the oldest of a slot beyond the
//! limit. Never touches a task that runs or may still run.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/taskreaper`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::task::TaskState;

use super::places::Stale;
use super::progress::was_made;
use super::slots::{self, Place, Slot, Slots};
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
    /// Services with places to look at.
    dirty: BTreeMap<Id, Stale>,
}

impl Reconciler for Reaper {
    fn mark_all(&mut self, view: &State) {
        let services = view.tasks().iter().map(|task| task.service_id.clone());
        self.dirty = services.map(|id| (id, Stale::All)).collect();
    }

    fn observe(&mut self, event: &Event, view: &State) {
        match (&event.before, &event.after) {
            (Some(Object::Task(before)), Some(Object::Task(after)))
                if reads(before) != reads(after) =>
            {
                self.mark(before, view);
                self.mark(after, view);
            }
            (None, Some(Object::Task(task))) | (Some(Object::Task(task)), None) => {
                self.mark(task, view);
            }
            // A job that runs again has history from then on.
            (Some(Object::Service(before)), Some(Object::Service(after)))
                if iteration(before) != iteration(after) =>
            {
                self.dirty.insert(after.id.clone(), Stale::All);
            }
            // Its tasks are sorted by what they have, not by what it was.
            (Some(Object::Service(service)), None) => {
                self.dirty.insert(service.id.clone(), Stale::All);
            }
            // The limit may be another one now.
            (Some(Object::Cluster(before)), Some(Object::Cluster(after)))
                if before.spec.orchestration == after.spec.orchestration => {}
            (_, Some(Object::Cluster(_))) => self.mark_all(view),
            // A node that is gone will report nothing of its tasks any more.
            (Some(Object::Node(node)), None) => {
                for task in view.tasks_of_node(&node.id) {
                    self.mark(task, view);
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        while let Some((service, stale)) = self.dirty.pop_first() {
            let left = reap(view, &service, stale, &mut plan);
            if !left.is_empty() {
                self.dirty.insert(service, Stale::Some(left));
            }
            if plan.changes.len() >= BATCH {
                plan.wake(now);
                break;
            }
        }
        plan
    }
}

impl Reaper {
    fn mark(&mut self, task: &Task, view: &State) {
        let place = Place::of(task, slots::numbers(view, &task.service_id));
        let places = self.dirty.entry(task.service_id.clone());
        places.or_insert_with(Stale::none).add(place);
    }
}

/// What decides whether a task is dead, apart from its place and its service.
fn reads(task: &Task) -> (TaskState, bool, Option<&Id>) {
    (task.desired_state, is_over(task), task.node_id.as_ref())
}

/// Removes what is dead in some places of a service; gives those that did not fit into the plan.
fn reap(view: &State, service: &Id, stale: Stale, plan: &mut Plan) -> BTreeSet<Place> {
    let (mut slots, mut places) = match stale {
        Stale::All => (slots::of_service(view, service), BTreeSet::new()),
        Stale::Some(places) => (Slots::new(), places),
    };
    while plan.changes.len() < BATCH {
        let known = slots.pop_first().map(|(_, slot)| slot);
        let Some(slot) = known.or_else(|| {
            let place = places.pop_first()?;
            Some(slots::of_place(view, service, &place))
        }) else {
            break;
        };
        let dead = dead_tasks(view, service, slot);
        plan.changes.extend(dead.iter().map(remove));
    }
    places.extend(slots.into_keys());
    places
}

fn remove(task: &Arc<Task>) -> Change {
    Change::Remove(Kind::Task, task.id.clone(), task.meta.version)
}

/// The tasks of one place that are to go.
fn dead_tasks(view: &State, service: &Id, slot: Slot) -> Vec<Arc<Task>> {
    let mut dead = Vec::new();
    let service = view.services().get(service);
    let run = service.and_then(|service| iteration(service));
    let youngest = slot.0.last().map(|task| task.id.clone());
    let mut history = Vec::new();
    let mut kept = 0usize;
    for task in slot.0 {
        if task.attached.is_some() {
            dead.extend(has_left(view, &task).then_some(task));
        } else if task.desired_state >= TaskState::Remove && may_go(view, &task) {
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
        return dead;
    };
    // The last task of a slot says that the slot is not free.
    let surplus = (kept + history.len()).saturating_sub(limit.max(1));
    // The youngest stands for its slot, also while one before it is slow to stop: without it
    // that one would seem to be what the slot ended with.
    if history.last().map(|task| &task.id) == youngest.as_ref() {
        history.pop();
    }
    // An update that is under way counts how its tasks ended.
    let update = service.filter(|_| limit > 1);
    let counts = |task: &Arc<Task>| update.is_some_and(|update| was_made(update, task));
    let (last, first): (Vec<_>, Vec<_>) = history.into_iter().partition(counts);
    dead.extend(first.into_iter().chain(last).take(surplus));
    dead
}

/// Whether a task has to go that stood for a container. Such tasks have no history.
fn has_left(view: &State, task: &Task) -> bool {
    task.status.state.is_terminal() || task.desired_state >= TaskState::Remove && may_go(view, task)
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
