//! Global services: one task on every node that suits. Never chooses a node; whether the node can
//! bear the task is for the scheduler to say.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/global`. Different on purpose: a node
//! that was drained or down gets its task back whatever the restart policy says, since the policy is
//! about tasks that ended by themselves.

use skep_api::service::UpdateState;
use skep_api::task::TaskState;

use super::homes::Homes;
use super::places::Places;
use super::progress::{Progress, Standing};
use super::settle::settle;
use super::slots::{Place, Slot, Slots};
use super::{Made, create, restart, update, want};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::Service;
use crate::reconcile::Plan;
use crate::store::{Change, State};

/// What a global service needs now.
pub(super) fn plan(
    view: &State,
    service: &Service,
    places: &mut Places,
    fresh: Slots,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    let homes = Homes::of(view, service);
    count(view, service, &homes, places, &fresh, now);
    places.open(fresh);
    if let Some(verdict) = update::judge(view, service, &places.progress) {
        plan.changes.push(verdict);
        return plan;
    }
    while let Some((place, slot)) = places.next(&plan) {
        let mut one = Plan::default();
        if let Place::Node(node) = &place {
            if homes.keeps(node) {
                let takes = homes.takes(node);
                settle(view, service, (&place, &slot), takes, now, ids, &mut one);
                if homes.wants(node) && is_free(&slot) {
                    fill(view, service, (&place, &slot), now, ids, &mut one);
                }
            } else {
                evict(view, node, &slot, &mut one);
            }
        }
        places.settled(&place, one, &mut plan);
    }
    if plan.changes.is_empty() {
        // A paused node takes no part in updates, but does not keep two tasks for that.
        update::retire_replaced(view, service, &places.progress, &mut plan);
        if plan.changes.is_empty() {
            plan.changes
                .extend(resume(view, service, &places.progress, now));
        }
        if plan.changes.is_empty() {
            update::advance(view, service, places, now, ids, &mut plan);
        }
    }
    places.wake(&mut plan);
    plan
}

/// What the places that changed add up to with the others.
fn count(
    view: &State,
    service: &Service,
    homes: &Homes<'_>,
    places: &mut Places,
    fresh: &Slots,
    now: Timestamp,
) {
    let config = update::config(service);
    for (place, slot) in fresh {
        let takes_part = matches!(place, Place::Node(node) if homes.takes(node));
        let standing = Standing::of(view, service, config.as_ref(), slot, takes_part);
        places.progress.note(place, standing);
    }
    places.progress.pass(now);
}

/// Takes away what is where it must not be: on a node that is drained, down, or does not satisfy the
/// constraints. What was on a node that was removed leaves no history.
pub(super) fn evict(view: &State, node: &Id, slot: &Slot, plan: &mut Plan) {
    let desired = if view.nodes().get(node).is_none() {
        TaskState::Remove
    } else {
        TaskState::Shutdown
    };
    plan.changes
        .extend(slot.0.iter().filter_map(|task| want(task, desired)));
}

/// Whether a node that is to have a task has none.
pub(super) fn is_free(slot: &Slot) -> bool {
    slot.wanted().next().is_none() && !restart::gave_up(slot)
}

/// Creates a task in a place that is free.
pub(super) fn fill(
    view: &State,
    service: &Service,
    (place, slot): (&Place, &Slot),
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let gate = restart::gate(view, service, slot, 0, now);
    plan.changes
        .push(create(service, place, gate, Made::ToFill, now, ids));
}

/// What was on a paused node when the service was updated is updated once it is not paused any
/// more, although the update had come to an end.
fn resume(view: &State, service: &Service, progress: &Progress, now: Timestamp) -> Option<Change> {
    let status = service.update_status.as_ref()?;
    let state = match status.state {
        UpdateState::Completed => UpdateState::Updating,
        UpdateState::RollbackCompleted => UpdateState::RollbackStarted,
        _ => return None,
    };
    if progress.outdated.is_empty() {
        return None;
    }
    let keeps_spec = !update::any_differs(view, service, &progress.outdated);
    Some(update::begin(service, state, keeps_spec, now))
}
