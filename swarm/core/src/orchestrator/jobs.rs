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
use super::homes::Homes;
use super::settle::settle;
use super::slots::{self, Place, Slot, Slots};
use super::{BATCH, Made, create, global, is_over, iteration, restart, want};
use crate::Timestamp;
use crate::id::IdSource;
use crate::object::{Service, Task};
use crate::reconcile::Plan;
use crate::store::State;

/// What a job needs now.
pub(super) fn plan(
    view: &State,
    service: &Service,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    if cron::is_before_first_run(service) {
        return plan;
    }
    let mut slots = slots::of_service(view, &service.id);
    let run = iteration(service);
    retire(service, run, &slots, &mut plan);
    if !plan.changes.is_empty() {
        return plan;
    }
    for slot in slots.values_mut() {
        // Of earlier runs only what may still run counts.
        slot.0.retain(|task| {
            task.job_iteration == run || task.desired_state > TaskState::Complete && !is_over(task)
        });
    }
    let homes = Homes::of(view, service);
    let done = finished(&mut slots, run, &mut plan);
    match &service.spec.mode.replicated_job {
        Some(job) => {
            settle(view, service, &slots, &|_| true, now, ids, &mut plan);
            let free = free(job, &slots, &done);
            fill(view, service, free, now, ids, &mut plan);
        }
        None => {
            global::evict(view, &homes, &mut slots, &mut plan);
            let takes = |place: &Place| matches!(place, Place::Node(node) if homes.takes(node));
            settle(view, service, &slots, &takes, now, ids, &mut plan);
            let free = global::free(&homes, &slots).filter(|(place, _)| !done.contains_key(place));
            fill(view, service, free, now, ids, &mut plan);
        }
    }
    plan
}

/// Takes away what runs of earlier runs; where there is one task a node, also what has ended.
fn retire(service: &Service, run: Option<u64>, slots: &Slots, plan: &mut Plan) {
    let everything = service.spec.mode.global_job.is_some();
    let tasks = slots.values().flat_map(|slot| &slot.0);
    let old = tasks.filter(|task| {
        task.job_iteration != run && (everything || task.status.state <= TaskState::Running)
    });
    plan.changes.extend(
        old.filter_map(|task| want(task, TaskState::Remove))
            .take(BATCH),
    );
}

/// Takes out the places that have come to their end. What was started there a second time, because
/// nobody could know, is not needed any more.
fn finished(slots: &mut Slots, run: Option<u64>, plan: &mut Plan) -> Slots {
    let completed =
        |task: &Task| task.job_iteration == run && task.status.state == TaskState::Complete;
    let is_done = |slot: &Slot| slot.0.iter().any(|task| completed(task));
    let (done, rest): (Slots, Slots) = std::mem::take(slots)
        .into_iter()
        .partition(|(_, slot)| is_done(slot));
    *slots = rest;
    let twice = done.values().flat_map(Slot::wanted);
    let twice = twice.filter(|task| !task.status.state.is_terminal());
    plan.changes.extend(
        twice
            .filter_map(|task| want(task, TaskState::Shutdown))
            .take(BATCH),
    );
    done
}

/// The slots in which a replicated job may start a task now, lowest first.
fn free<'a>(
    job: &ReplicatedJob,
    slots: &'a Slots,
    done: &'a Slots,
) -> impl Iterator<Item = (Place, Option<&'a Slot>)> {
    let busy = slots.values().filter(|slot| slot.wanted().next().is_some());
    let room = job
        .max_concurrent
        .unwrap_or(1)
        .saturating_sub(busy.count() as u64);
    let places = (0..job.total_completions.unwrap_or(1)).map(Place::Slot);
    let free = places.filter_map(|place| {
        let slot = slots.get(&place);
        let taken =
            slot.is_some_and(|slot| slot.wanted().next().is_some() || restart::gave_up(slot));
        (!taken && !done.contains_key(&place)).then_some((place, slot))
    });
    free.take(usize::try_from(room).unwrap_or(usize::MAX))
}

fn fill<'a>(
    view: &State,
    service: &Service,
    free: impl Iterator<Item = (Place, Option<&'a Slot>)>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let room = BATCH.saturating_sub(plan.changes.len());
    let empty = Slot::default();
    for (place, slot) in free.take(room) {
        let slot = slot.unwrap_or(&empty);
        let gate = restart::gate(view, service, slot, 0, now);
        plan.changes
            .push(create(service, &place, gate, Made::ToFill, now, ids));
    }
}
