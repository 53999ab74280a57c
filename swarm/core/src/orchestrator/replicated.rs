//! Replicated services: as many tasks as are wanted, one a slot. Knows nothing of the other modes.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/replicated`.

use std::collections::BTreeMap;

use skep_api::task::TaskState;

use super::settle::settle;
use super::slots::{self, Place, Slot, Slots};
use super::{BATCH, Made, create, replicas, restart, update, want};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::Service;
use crate::reconcile::Plan;
use crate::store::State;

/// What a replicated service needs now.
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
    retire(&mut slots, service, &mut plan);
    settle(view, service, &slots, &|_| true, now, ids, &mut plan);
    fill(view, service, &slots, now, ids, &mut plan);
    // An update counts what is under way, so it looks again once this is written.
    if plan.changes.is_empty() {
        update::advance(view, service, &slots, now, ids, &mut plan);
    }
    plan
}

/// Takes surplus slots away, with their history: those that do not run first, then those on the
/// nodes that have most, the highest number first among equals.
fn retire(slots: &mut Slots, service: &Service, plan: &mut Plan) {
    let mut filled: Vec<(bool, Place)> = slots
        .iter()
        .filter(|(_, slot)| slot.current().is_some())
        .map(|(place, slot)| (!slot.runs(), place.clone()))
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
    let mut ranked: Vec<(bool, usize, Place)> = Vec::with_capacity(filled.len());
    for (idle, place) in filled {
        let copy = copies
            .entry(slots.get(&place).and_then(Slot::node))
            .or_default();
        *copy += 1;
        ranked.push((idle, *copy, place));
    }
    ranked.sort_unstable();
    for (_, _, place) in ranked.into_iter().rev().take(surplus) {
        if plan.changes.len() >= BATCH {
            return;
        }
        let tasks = slots.remove(&place).unwrap_or_default().0;
        plan.changes.extend(
            tasks
                .iter()
                .filter_map(|task| want(task, TaskState::Remove)),
        );
    }
}

/// Creates tasks in the lowest slots that are free. What is left in a slot from before may still
/// run for a while.
fn fill(
    view: &State,
    service: &Service,
    slots: &Slots,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let is_free = |place: &Place| slots.get(place).and_then(Slot::current).is_none();
    let taken = slots
        .values()
        .filter(|slot| slot.current().is_some())
        .count() as u64;
    let missing = replicas(service).saturating_sub(taken);
    let room = BATCH.saturating_sub(plan.changes.len());
    let free = (1u64..).map(Place::Slot).filter(is_free);
    let empty = Slot::default();
    for place in free.take(room.min(usize::try_from(missing).unwrap_or(room))) {
        let slot = slots.get(&place).unwrap_or(&empty);
        let gate = restart::gate(view, service, slot, 0, now);
        plan.changes
            .push(create(service, &place, gate, Made::ToFill, now, ids));
    }
}
