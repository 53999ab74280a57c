//! Replicated services: as many tasks as are wanted, one a slot. Planning one service is a pure
//! function of the service, its tasks, the nodes and the time.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/replicated`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::task::TaskState;

use super::dependents::Dependents;
use super::slots::{self, Slot};
use super::{
    BATCH, Made, create, is_dirty, lost_its_node, progress, replicas, restart, update, want,
};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Object, Service, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Event, State};

/// Keeps replicated services at the number of tasks that they declare.
#[derive(Debug, Default)]
pub struct Replicated {
    dirty: BTreeSet<Id>,
    /// Services that wait for a moment.
    waiting: BTreeMap<Id, Timestamp>,
    /// Services that wait for others.
    dependents: Dependents,
}

impl Reconciler for Replicated {
    fn mark_all(&mut self, view: &State) {
        self.dependents = Dependents::of(view);
        self.dirty = view
            .services()
            .iter()
            .map(|service| service.id.clone())
            .collect();
        // Services that are gone may have left tasks behind.
        self.dirty
            .extend(view.tasks().iter().map(|task| task.service_id.clone()));
    }

    fn observe(&mut self, event: &Event, view: &State) {
        self.dirty.extend(self.dependents.follow(event));
        match event.after.as_ref().or(event.before.as_ref()) {
            Some(Object::Service(service)) => {
                self.dirty.insert(service.id.clone());
            }
            Some(Object::Task(task)) => {
                self.dirty.insert(task.service_id.clone());
            }
            Some(Object::Node(node)) => {
                let tasks = view.tasks_of_node(&node.id);
                self.dirty.extend(tasks.map(|task| task.service_id.clone()));
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
        let due = self.waiting.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Id> = due.map(|(id, _)| id.clone()).collect();
        self.dirty.extend(due);
        let mut plan = Plan::default();
        while let Some(id) = self.dirty.pop_first() {
            self.waiting.remove(&id);
            let one = plan_service(view, &id, now, ids);
            plan.changes.extend(one.changes);
            if let Some(at) = one.wake_at {
                self.waiting.insert(id, at);
            }
            if plan.changes.len() >= BATCH {
                plan.wake(now);
                break;
            }
        }
        if let Some(at) = self.waiting.values().min() {
            plan.wake(*at);
        }
        plan
    }
}

/// What one service needs now.
pub(super) fn plan_service(view: &State, id: &Id, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = view.services().get(id) else {
        let left = view
            .tasks_of_service(id)
            .filter_map(|task| want(task, TaskState::Remove));
        plan.changes.extend(left.take(BATCH));
        if plan.changes.len() >= BATCH {
            plan.wake(now);
        }
        return plan;
    };
    let mut slots = slots::of_service(view, id);
    if let Some(verdict) = update::judge(view, service, &slots, now) {
        plan.changes.push(verdict);
        return plan;
    }
    retire(&mut slots, service, &mut plan);
    settle(view, service, &slots, now, ids, &mut plan);
    fill(view, service, &slots, now, ids, &mut plan);
    // An update counts what is under way, so it looks again once this is written.
    if plan.changes.is_empty() {
        update::advance(view, service, &slots, now, ids, &mut plan);
    }
    if plan.changes.len() >= BATCH {
        plan.wake(now);
    }
    plan
}

/// Takes surplus slots away, with their history: those that do not run first, then those on the
/// nodes that have most, the highest number first among equals.
fn retire(slots: &mut BTreeMap<u64, Slot>, service: &Service, plan: &mut Plan) {
    let mut filled: Vec<(bool, u64)> = slots
        .iter()
        .filter(|(_, slot)| slot.current().is_some())
        .map(|(number, slot)| (!slot.runs(), *number))
        .collect();
    let surplus = filled
        .len()
        .saturating_sub(usize::try_from(replicas(service)).unwrap_or(usize::MAX));
    if surplus == 0 {
        return;
    }
    filled.sort_unstable();
    // The first, second, third ... copy on its node, those that run counted first.
    let mut copies: BTreeMap<Option<&Id>, usize> = BTreeMap::new();
    let mut ranked: Vec<(bool, usize, u64)> = Vec::with_capacity(filled.len());
    for (idle, number) in filled {
        let copy = copies
            .entry(slots.get(&number).and_then(Slot::node))
            .or_default();
        *copy += 1;
        ranked.push((idle, *copy, number));
    }
    ranked.sort_unstable();
    for (_, _, number) in ranked.into_iter().rev().take(surplus) {
        if plan.changes.len() >= BATCH {
            return;
        }
        let tasks = slots.remove(&number).unwrap_or_default().0;
        plan.changes.extend(
            tasks
                .iter()
                .filter_map(|task| want(task, TaskState::Remove)),
        );
    }
}

/// Replaces tasks that ended or lost their node, and lets waiting ones start.
fn settle(
    view: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    for (number, slot) in slots {
        if plan.changes.len() >= BATCH {
            return;
        }
        let mut healthy = Vec::new();
        let mut replacement = None;
        for task in slot.wanted() {
            let ended = task.status.state.is_terminal();
            let moved = lost_its_node(view, task);
            // One that failed while it waited (no image, say) is replaced no sooner than it would
            // have started.
            if ended && let Some(until) = restart::waits_until(task, now) {
                plan.wake(until);
                healthy.push(task);
            } else if !ended && !moved {
                healthy.push(task);
                let opened = restart::open_gate(view, slot, task, now, plan);
                plan.changes.extend(opened);
            } else {
                plan.changes.extend(want(task, TaskState::Shutdown));
                let rest = restart::waits_until(task, now).map_or(0, |until| until.since(now));
                let delay = if moved {
                    rest
                } else {
                    restart::delay(service, task)
                };
                if !ended || restart::wanted(slot, task, now) {
                    replacement = Some((task, restart::gate(view, service, slot, delay, now)));
                }
            }
        }
        if let Some((old, gate)) = replacement
            && (healthy.is_empty() || is_beside(view, service, old, &healthy))
        {
            // What an update made and never came to run is still to be watched.
            let unfinished = progress::was_made(service, old)
                && !old.status.state.is_terminal()
                && old.running_since.is_none();
            let made = if unfinished {
                Made::ByUpdate
            } else if old.status.state.is_terminal() {
                Made::Again(restart::crashes(old))
            } else {
                Made::ToFill
            };
            plan.changes
                .push(create(service, *number, gate, made, now, ids));
        }
    }
}

/// Whether the task was the new one beside old ones that are only there until it runs.
fn is_beside(view: &State, service: &Service, task: &Task, others: &[&Arc<Task>]) -> bool {
    !is_dirty(view, service, task) && others.iter().all(|other| is_dirty(view, service, other))
}

/// Creates tasks in the lowest slots that are free. What is left in a slot from before may still
/// run for a while.
fn fill(
    view: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let is_free = |number: &u64| slots.get(number).and_then(Slot::current).is_none();
    let taken = slots
        .values()
        .filter(|slot| slot.current().is_some())
        .count() as u64;
    let missing = replicas(service).saturating_sub(taken);
    let room = BATCH.saturating_sub(plan.changes.len());
    let free = (1u64..).filter(is_free);
    for number in free.take(room.min(usize::try_from(missing).unwrap_or(room))) {
        let empty = Slot::default();
        let slot = slots.get(&number).unwrap_or(&empty);
        let gate = restart::gate(view, service, slot, 0, now);
        plan.changes
            .push(create(service, number, gate, Made::ToFill, now, ids));
    }
}
