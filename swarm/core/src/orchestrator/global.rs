//! Global services: one task on every node that suits. Never chooses a node; whether the node can
//! bear the task is for the scheduler to say.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/global`. Different on purpose: a node
//! that was drained or down gets its task back whatever the restart policy says, since the policy is
//! about tasks that ended by themselves.

use skep_api::service::UpdateState;
use skep_api::task::TaskState;

use super::dirty::differs;
use super::homes::Homes;
use super::settle::settle;
use super::slots::{self, Place, Slot, Slots};
use super::{BATCH, Made, create, is_dirty, restart, update, want};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::Service;
use crate::reconcile::Plan;
use crate::store::{Change, State};

/// What a global service needs now.
pub(super) fn plan(
    view: &State,
    service: &Service,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    let mut slots = slots::of_service(view, &service.id);
    if let Some(verdict) = update::judge(view, service, &slots, now) {
        plan.changes.push(verdict);
        return plan;
    }
    let homes = Homes::of(view, service);
    evict(view, &homes, &mut slots, &mut plan);
    let takes = |place: &Place| matches!(place, Place::Node(node) if homes.takes(node));
    settle(view, service, &slots, &takes, now, ids, &mut plan);
    fill(view, service, &homes, &slots, now, ids, &mut plan);
    if !plan.changes.is_empty() {
        return plan;
    }
    // A paused node takes no part in updates, but does not keep two tasks for that.
    update::retire_replaced(view, service, &slots, &mut plan);
    slots.retain(|place, _| takes(place));
    if plan.changes.is_empty() {
        plan.changes.extend(resume(view, service, &slots, now));
    }
    if plan.changes.is_empty() {
        update::advance(view, service, &slots, now, ids, &mut plan);
    }
    plan
}

/// Takes away what is where it must not be: on nodes that are drained, down, or do not satisfy the
/// constraints. What was on a node that was removed leaves no history.
pub(super) fn evict(view: &State, homes: &Homes<'_>, slots: &mut Slots, plan: &mut Plan) {
    slots.retain(|place, slot| {
        let Place::Node(node) = place else {
            return false;
        };
        if homes.keeps(node) {
            return true;
        }
        let desired = if view.nodes().get(node).is_none() {
            TaskState::Remove
        } else {
            TaskState::Shutdown
        };
        let lost = slot.0.iter().filter_map(|task| want(task, desired));
        let room = BATCH.saturating_sub(plan.changes.len());
        plan.changes.extend(lost.take(room));
        false
    });
}

/// Creates tasks on nodes that have none.
fn fill(
    view: &State,
    service: &Service,
    homes: &Homes<'_>,
    slots: &Slots,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let room = BATCH.saturating_sub(plan.changes.len());
    let empty = Slot::default();
    for (place, slot) in free(homes, slots).take(room) {
        let slot = slot.unwrap_or(&empty);
        let gate = restart::gate(view, service, slot, 0, now);
        plan.changes
            .push(create(service, &place, gate, Made::ToFill, now, ids));
    }
}

/// The nodes that are to have a task and have none.
pub(super) fn free<'a>(
    homes: &'a Homes<'a>,
    slots: &'a Slots,
) -> impl Iterator<Item = (Place, Option<&'a Slot>)> {
    let places = homes.all().map(|node: &Id| Place::Node(node.clone()));
    places.filter_map(|place| {
        let slot = slots.get(&place);
        let taken =
            slot.is_some_and(|slot| slot.wanted().next().is_some() || restart::gave_up(slot));
        (!taken).then_some((place, slot))
    })
}

/// What was on a paused node when the service was updated is updated once it is not paused any
/// more, although the update had come to an end.
fn resume(view: &State, service: &Service, slots: &Slots, now: Timestamp) -> Option<Change> {
    let status = service.update_status.as_ref()?;
    let state = match status.state {
        UpdateState::Completed => UpdateState::Updating,
        UpdateState::RollbackCompleted => UpdateState::RollbackStarted,
        _ => return None,
    };
    let current = || slots.values().filter_map(Slot::current);
    if !current().any(|task| is_dirty(view, service, task)) {
        return None;
    }
    let keeps_spec = !current().any(|task| differs(view, service, task));
    Some(update::begin(service, state, keeps_spec, now))
}
