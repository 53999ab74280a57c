//! Replicated services: as many tasks as are wanted, one a slot. Planning one service is a pure
//! function of the service, its tasks, the nodes and the time.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/replicated`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::task::TaskState;

use super::slots::{self, Slot};
use super::{create, lost_its_node, replicas, restart, update, want};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Object, Service, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Event, State};

/// Changes after which a plan ends; the other services follow at once in the next.
const BATCH: usize = 200;

/// Keeps replicated services at the number of tasks that they declare.
#[derive(Debug, Default)]
pub struct Replicated {
    dirty: BTreeSet<Id>,
    /// Services that wait for a moment.
    waiting: BTreeMap<Id, Timestamp>,
}

impl Reconciler for Replicated {
    fn mark_all(&mut self, view: &State) {
        self.dirty = view.services().iter().map(|service| service.id.clone()).collect();
        // Services that are gone may have left tasks behind.
        self.dirty.extend(view.tasks().iter().map(|task| task.service_id.clone()));
    }

    fn observe(&mut self, event: &Event, view: &State) {
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
            Some(Object::Cluster(_)) | None => {}
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
pub(super) fn plan_service(
    view: &State,
    id: &Id,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = view.services().get(id) else {
        let left = view.tasks_of_service(id);
        plan.changes.extend(left.filter_map(|task| want(task, TaskState::Remove)));
        return plan;
    };
    let mut slots = slots::of_service(view, id);
    retire(&mut slots, service, &mut plan);
    settle(view, service, &slots, now, ids, &mut plan);
    fill(view, service, &slots, now, ids, &mut plan);
    // An update counts what is under way, so it looks again once this is written.
    if plan.changes.is_empty() {
        update::advance(view, service, &slots, now, ids, &mut plan);
    }
    plan
}

/// Whether a slot counts as filled: it has a wanted task, or its task ended for good under the
/// present spec and stays ended until the service changes.
fn is_filled(service: &Service, slot: &Slot) -> bool {
    if slot.wanted().next().is_some() {
        return true;
    }
    let ended_for_good = |task: &Arc<Task>| {
        task.desired_state < TaskState::Remove && task.spec_version == service.spec_version
    };
    slot.newest().is_some_and(ended_for_good)
}

/// Takes surplus slots away, with their history: those that do not run first, then those on the
/// nodes that have most, the highest number first among equals.
fn retire(slots: &mut BTreeMap<u64, Slot>, service: &Service, plan: &mut Plan) {
    let filled = slots.iter().filter(|(_, slot)| is_filled(service, slot));
    let mut left: BTreeSet<u64> = filled.map(|(number, _)| *number).collect();
    let surplus = (left.len() as u64).saturating_sub(replicas(service));
    for _ in 0..surplus {
        let mut on_node: BTreeMap<Option<&Id>, usize> = BTreeMap::new();
        for slot in left.iter().filter_map(|number| slots.get(number)) {
            *on_node.entry(slot.node()).or_default() += 1;
        }
        let candidates = left.iter().filter_map(|number| Some((*number, slots.get(number)?)));
        let victim = candidates.max_by_key(|(number, slot)| {
            (!slot.runs(), on_node.get(&slot.node()).copied(), *number)
        });
        let Some((victim, _)) = victim else { return };
        left.remove(&victim);
        let tasks = slots.remove(&victim).unwrap_or_default().0;
        let removed = tasks.iter().filter_map(|task| want(task, TaskState::Remove));
        plan.changes.extend(removed);
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
        let mut healthy = Vec::new();
        let mut replacement = None;
        for task in slot.wanted() {
            // One that failed while it waited (no image, say) keeps the others waiting: its
            // replacement must not come sooner than it would have started.
            if task.status.state.is_terminal()
                && let Some(gate) = task.start_gate.as_ref().filter(|gate| now < gate.not_before)
            {
                plan.wake(gate.not_before);
                continue;
            }
            let moved = lost_its_node(view, task);
            if !moved && !task.status.state.is_terminal() {
                healthy.push(task);
                continue;
            }
            plan.changes.extend(want(task, TaskState::Shutdown));
            if task.status.state.is_terminal() {
                let delay = if moved { 0 } else { restart::delay(task) };
                if restart::wanted(slot, task, now) {
                    replacement = Some(restart::gate(view, slot, delay, now));
                }
            } else {
                replacement = Some(restart::gate(view, slot, 0, now));
            }
        }
        if healthy.is_empty()
            && let Some(gate) = replacement
        {
            plan.changes.push(create(service, *number, gate, now, ids));
        }
        for task in healthy {
            let opened = restart::open_gate(view, slot, task, now, plan);
            plan.changes.extend(opened);
        }
    }
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
    let is_taken = |number: &u64| slots.get(number).is_some_and(|slot| is_filled(service, slot));
    let taken = slots.keys().filter(|number| is_taken(number)).count() as u64;
    let missing = replicas(service).saturating_sub(taken);
    let room = BATCH.saturating_sub(plan.changes.len()).max(1);
    if missing > room as u64 {
        plan.wake(now);
    }
    let free = (1u64..).filter(|number| !is_taken(number));
    for number in free.take(room.min(usize::try_from(missing).unwrap_or(room))) {
        let gate = slots.get(&number).and_then(|slot| restart::gate(view, slot, 0, now));
        plan.changes.push(create(service, number, gate, now, ids));
    }
}

