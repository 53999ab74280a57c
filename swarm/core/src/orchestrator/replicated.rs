//! Replicated services: as many tasks as are wanted, one a slot. Knows nothing of the other modes.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/replicated`.

use skep_api::task::TaskState;

use super::places::Places;
use super::progress::Standing;
use super::settle::settle;
use super::slots::{self, Place, Slot, Slots};
use super::{BATCH, Made, create, replicas, restart, update, want};
use crate::Timestamp;
use crate::id::IdSource;
use crate::object::Service;
use crate::reconcile::Plan;
use crate::store::State;

/// What a replicated service needs now.
pub(super) fn plan(
    view: &State,
    service: &Service,
    places: &mut Places,
    fresh: Slots,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    count(view, service, places, &fresh, now);
    places.open(fresh);
    if let Some(verdict) = update::judge(view, service, &places.progress) {
        plan.changes.push(verdict);
        return plan;
    }
    retire(view, service, places, &mut plan);
    while let Some((place, slot)) = places.next(&plan) {
        let mut one = Plan::default();
        settle(view, service, (&place, &slot), true, now, ids, &mut one);
        places.settled(&place, one, &mut plan);
    }
    fill(view, service, places, now, ids, &mut plan);
    // An update counts what is under way, so it looks again once this is written.
    if plan.changes.is_empty() {
        update::advance(view, service, places, now, ids, &mut plan);
    }
    places.wake(&mut plan);
    plan
}

/// What the places that changed add up to with the others.
fn count(view: &State, service: &Service, places: &mut Places, fresh: &Slots, now: Timestamp) {
    let config = update::config(service);
    for (place, slot) in fresh {
        if let Place::Slot(number) = place {
            places.numbers.set(*number, slot.current().is_some());
        }
        let standing = Standing::of(view, service, config.as_ref(), slot, true);
        places.progress.note(place, standing);
        places.surplus.note(place, slot);
    }
    places.progress.pass(now);
}

/// Takes surplus slots away, with their history.
fn retire(view: &State, service: &Service, places: &mut Places, plan: &mut Plan) {
    let surplus = places.numbers.taken().saturating_sub(replicas(service));
    if surplus == 0 {
        return places.surplus.forget();
    }
    for _ in 0..surplus {
        if plan.changes.len() >= BATCH {
            return;
        }
        let Some(place) = places.surplus.next(view, &service.id) else {
            return;
        };
        let Slot(tasks) = slots::of_place(view, &service.id, &place);
        plan.changes.extend(
            tasks
                .iter()
                .filter_map(|task| want(task, TaskState::Remove)),
        );
        places.close(&place);
    }
}

/// Creates tasks in the lowest slots that are free. What is left in a slot from before may still
/// run for a while.
fn fill(
    view: &State,
    service: &Service,
    places: &Places,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let missing = replicas(service).saturating_sub(places.numbers.taken());
    let room = BATCH.saturating_sub(plan.changes.len());
    let room = room.min(usize::try_from(missing).unwrap_or(room));
    let free = places.numbers.free().filter(|number| *number > 0);
    for place in free.take(room).map(Place::Slot) {
        let slot = slots::of_place(view, &service.id, &place);
        let gate = restart::gate(view, service, &slot, 0, now);
        plan.changes
            .push(create(service, &place, gate, Made::ToFill, now, ids));
    }
}
