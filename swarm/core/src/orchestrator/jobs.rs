//! Jobs: tasks that are to come to an end, so many in all and so many at a time, or one on every
//! node. A job whose spec changes runs again from the start. Jobs have no updates.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/jobs`. Different on purpose: what the
//! restart policy does not restart stays as it ended, where the original makes a new task in its
//! place at once; a run waits, slot by slot, for what is left of the one before; a node that joins
//! later runs a global job, too.

use skep_api::service::ReplicatedJob;
use skep_api::task::TaskState;

use super::cron;
use super::global::{evict, fill, is_free};
use super::homes::Homes;
use super::places::Places;
use super::settle::settle;
use super::slots::{self, Place, Slot, Slots};
use super::{BATCH, is_over, iteration, want};
use crate::Timestamp;
use crate::id::IdSource;
use crate::object::{Service, Task};
use crate::reconcile::Plan;
use crate::store::State;

/// What a job needs now.
pub(super) fn plan(
    view: &State,
    service: &Service,
    places: &mut Places,
    fresh: Slots,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    count(service, places, &fresh);
    places.open(fresh);
    if cron::is_before_first_run(service) {
        return plan;
    }
    let homes = Homes::of(view, service);
    let mut at_rest = true;
    while let Some((place, slot)) = places.next(&plan) {
        let mut one = Plan::default();
        retire(service, &slot, &mut one);
        at_rest &= one.changes.is_empty();
        if one.changes.is_empty() {
            let of_run = of_run(service, slot);
            look(view, service, &homes, (&place, &of_run), now, ids, &mut one);
        }
        places.settled(&place, one, &mut plan);
    }
    // What is left of the run before is told to stop first: then it can be waited for.
    if let Some(job) = service
        .spec
        .mode
        .replicated_job
        .as_ref()
        .filter(|_| at_rest)
    {
        start(view, service, job, places, now, ids, &mut plan);
    }
    places.wake(&mut plan);
    plan
}

/// Which places of a replicated job are done with or busy.
fn count(service: &Service, places: &mut Places, fresh: &Slots) {
    for (place, slot) in fresh {
        let Place::Slot(number) = place else { continue };
        let slot = of_run(service, slot.clone());
        let done = is_done(service, &slot);
        places.numbers.set(*number, done || !is_free(&slot));
        if !done && slot.wanted().next().is_some() {
            places.busy.insert(place.clone());
        } else {
            places.busy.remove(place);
        }
    }
}

/// Takes away what runs of earlier runs; where there is one task a node, also what has ended.
fn retire(service: &Service, slot: &Slot, plan: &mut Plan) {
    let everything = service.spec.mode.global_job.is_some();
    let run = iteration(service);
    let old = slot.0.iter().filter(|task| {
        task.job_iteration != run && (everything || task.status.state <= TaskState::Running)
    });
    plan.changes
        .extend(old.filter_map(|task| want(task, TaskState::Remove)));
}

/// Of earlier runs only what may still run counts.
fn of_run(service: &Service, mut slot: Slot) -> Slot {
    let run = iteration(service);
    slot.0.retain(|task| {
        task.job_iteration == run || task.desired_state > TaskState::Complete && !is_over(task)
    });
    slot
}

/// Whether a place has come to its end.
fn is_done(service: &Service, slot: &Slot) -> bool {
    let run = iteration(service);
    let completed =
        |task: &Task| task.job_iteration == run && task.status.state == TaskState::Complete;
    slot.0.iter().any(|task| completed(task))
}

/// What one place needs; a node that is to have a task gets one.
fn look(
    view: &State,
    service: &Service,
    homes: &Homes<'_>,
    (place, slot): (&Place, &Slot),
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    if is_done(service, slot) {
        return finish(slot, plan);
    }
    if service.spec.mode.replicated_job.is_some() {
        return settle(view, service, (place, slot), true, now, ids, plan);
    }
    let Place::Node(node) = place else { return };
    if !homes.keeps(node) {
        return evict(view, node, slot, plan);
    }
    let takes = homes.takes(node);
    settle(view, service, (place, slot), takes, now, ids, plan);
    if homes.wants(node) && is_free(slot) {
        fill(view, service, (place, slot), now, ids, plan);
    }
}

/// What was started a second time in a place that has come to its end, because nobody could know, is
/// not needed any more.
fn finish(slot: &Slot, plan: &mut Plan) {
    let twice = slot.wanted();
    let twice = twice.filter(|task| !task.status.state.is_terminal());
    plan.changes
        .extend(twice.filter_map(|task| want(task, TaskState::Shutdown)));
}

/// Starts as many tasks of a replicated job as may run now, in the lowest slots.
fn start(
    view: &State,
    service: &Service,
    job: &ReplicatedJob,
    places: &Places,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let concurrent = job.max_concurrent.unwrap_or(1);
    let room = concurrent.saturating_sub(places.busy.len() as u64);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let room = room.min(BATCH.saturating_sub(plan.changes.len()));
    let total = job.total_completions.unwrap_or(1);
    let free = places.numbers.free().take_while(|number| *number < total);
    for place in free.take(room).map(Place::Slot) {
        let slot = of_run(service, slots::of_place(view, &service.id, &place));
        fill(view, service, (&place, &slot), now, ids, plan);
    }
}
