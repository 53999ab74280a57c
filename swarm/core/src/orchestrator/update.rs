//! Rolling updates and rollbacks: replaces tasks of an older spec, so many at a time, watches the
//! new ones, and stops or turns back when too many fail. Remembers nothing that is not written: how
//! far an update is shows in the tasks, when it began in the service's status.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/orchestrator/update`. Different on
//! purpose: where a rollback is asked for and there is no previous spec, or its secrets and configs are
//! gone, or the rollback itself fails, the update is paused; the original leaves it under way, or calls
//! it completed.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_api::service::{FailureAction, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus};
use skep_api::task::TaskState;

use super::dirty::differs;
use super::places::Places;
use super::progress::{Progress, monitor};
use super::slots::{self, Place, Slot};
use super::{Made, create, is_dirty, restart, want};
use crate::Timestamp;
use crate::control::files;
use crate::id::{Id, IdSource};
use crate::object::{Service, Task};
use crate::ports;
use crate::reconcile::Plan;
use crate::store::{Change, State};

/// What swarmkit writes while an update is under way.
const IN_PROGRESS: &str = "update in progress";

/// How the service's update proceeds; `None` if none is under way or about to be.
pub(super) fn config(service: &Service) -> Option<UpdateConfig> {
    let state = service.update_status.as_ref().map(|status| &status.state);
    let config = match state {
        None | Some(UpdateState::Updating) => &service.spec.update_config,
        Some(UpdateState::RollbackStarted) => &service.spec.rollback_config,
        _ => return None,
    };
    Some(config.clone().unwrap_or_else(UpdateConfig::in_force))
}

/// What the update does about its failures, if there are more than it endures. To be asked before
/// the tasks that failed are replaced.
pub(super) fn judge(view: &State, service: &Service, progress: &Progress) -> Option<Change> {
    service.update_status.as_ref()?;
    let config = config(service)?;
    if config.failure_action == FailureAction::Continue {
        return None;
    }
    let ratio = progress.failures() as f64 / progress.total().max(1) as f64;
    if ratio <= f64::from(config.max_failure_ratio) {
        return None;
    }
    // The one that was too many.
    let last = progress.last_failed()?;
    Some(give_up(view, service, &config, last))
}

/// Moves an update on by what can be done now. To be asked when nothing else is to be done.
pub(super) fn advance(
    view: &State,
    service: &Service,
    places: &Places,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let progress = &places.progress;
    retire_replaced(view, service, progress, plan);
    let Some(config) = config(service) else {
        return;
    };
    if service.update_status.is_none() {
        if !progress.dirty.is_empty() {
            let keeps_spec = !any_differs(view, service, &progress.dirty);
            plan.changes
                .push(begin(service, UpdateState::Updating, keeps_spec, now));
        }
        return;
    }
    if progress.dirty.is_empty() {
        finish(service, &config, progress, now, plan);
        return;
    }
    let room = match config.parallelism {
        0 => u64::MAX,
        most => most.saturating_sub(progress.in_flight()),
    };
    let room = usize::try_from(room)
        .unwrap_or(usize::MAX)
        .min(super::BATCH);
    for place in progress.dirty.iter().take(room) {
        let slot = slots::of_place(view, &service.id, place);
        replace(view, service, &config, (place, &slot), now, ids, plan);
    }
    if let Some(at) = progress.next_at() {
        plan.wake(at);
    }
}

/// Whether what stands for one of these places has another spec than the service.
pub(super) fn any_differs(view: &State, service: &Service, places: &BTreeSet<Place>) -> bool {
    places.iter().any(|place| {
        let slot = slots::of_place(view, &service.id, place);
        slot.current()
            .is_some_and(|task| differs(view, service, task))
    })
}

/// Where a new task runs beside the old one (start-first), the old one has done its work.
pub(super) fn retire_replaced(
    view: &State,
    service: &Service,
    progress: &Progress,
    plan: &mut Plan,
) {
    for place in progress.replaced.iter().take(super::BATCH) {
        let slot = slots::of_place(view, &service.id, place);
        let old = slot.wanted().filter(|task| is_dirty(view, service, task));
        plan.changes
            .extend(old.filter_map(|task| want(task, TaskState::Shutdown)));
    }
}

/// Replaces what is in a slot, in the order that the update asks for.
fn replace(
    view: &State,
    service: &Service,
    config: &UpdateConfig,
    (place, slot): (&Place, &Slot),
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let mut old: Vec<&Arc<Task>> = slot.wanted().collect();
    let gate = if config.order == UpdateOrder::StartFirst {
        // Only one of them stays beside the new one: the best.
        let best = old
            .iter()
            .enumerate()
            .max_by_key(|(_, task)| task.status.state);
        if let Some((index, _)) = best {
            old.remove(index);
        }
        None
    } else {
        restart::gate(view, service, slot, 0, now)
    };
    plan.changes.extend(
        old.into_iter()
            .filter_map(|task| want(task, TaskState::Shutdown)),
    );
    plan.changes
        .push(create(service, place, gate, Made::ByUpdate, now, ids));
}

/// Stops an update that fails, or turns it back.
fn give_up(view: &State, service: &Service, config: &UpdateConfig, failed: &Id) -> Change {
    let mut service = service.clone();
    let mut status = service.update_status.take().unwrap_or_default();
    let because = format!("due to failure or early termination of task {failed}");
    let rolling_back = status.state == UpdateState::RollbackStarted;
    let wants_rollback = config.failure_action == FailureAction::Rollback && !service.rebalancing;
    if wants_rollback
        && !rolling_back
        && let Some(previous) = service.previous_spec.take_if(|spec| {
            // Tasks of a spec whose secrets are gone, or whose ports another service has by now,
            // would never start.
            files::references(view, spec).is_ok()
                && ports::usable(view, spec, Some(&service.id)).is_ok()
        })
    {
        // Once: there is nothing left to return to from here.
        service.spec = previous;
        service.spec_version = service.previous_spec_version.take().unwrap_or_default();
        service.registry_auth = service.previous_registry_auth.take();
        status.state = UpdateState::RollbackStarted;
        status.message = format!("update rolled back {because}");
    } else {
        let words = if wants_rollback && rolling_back {
            "rollback"
        } else {
            "update"
        };
        status.state = if rolling_back {
            UpdateState::RollbackPaused
        } else {
            UpdateState::Paused
        };
        status.message = format!("{words} paused {because}");
    }
    service.update_status = Some(status);
    Change::Update(service.into())
}

/// An update or a rollback, as `state` says, is under way from now on. One that keeps the spec only
/// moves tasks or brings them new data.
pub(super) fn begin(
    service: &Service,
    state: UpdateState,
    keeps_spec: bool,
    now: Timestamp,
) -> Change {
    let mut service = service.clone();
    service.rebalancing = keeps_spec;
    service.update_status = Some(UpdateStatus {
        state,
        started_at: Some(now),
        completed_at: None,
        message: IN_PROGRESS.to_owned(),
    });
    Change::Update(service.into())
}

/// Ends an update that has come to all slots and watched the last of them for long enough.
fn finish(
    service: &Service,
    config: &UpdateConfig,
    progress: &Progress,
    now: Timestamp,
    plan: &mut Plan,
) {
    if let Some(at) = progress.next_at() {
        plan.wake(at);
    }
    if progress.in_flight() > 0 || progress.beside > 0 {
        return;
    }
    if let Some(until) = progress.last_at().map(|at| at.plus(monitor(config)))
        && now < until
    {
        plan.wake(until);
        return;
    }
    let mut service = service.clone();
    let Some(status) = &mut service.update_status else {
        return;
    };
    service.rebalancing = false;
    let rolled_back = status.state == UpdateState::RollbackStarted;
    (status.state, status.message) = if rolled_back {
        (
            UpdateState::RollbackCompleted,
            "rollback completed".to_owned(),
        )
    } else {
        (UpdateState::Completed, "update completed".to_owned())
    };
    status.completed_at = Some(now);
    plan.changes.push(Change::Update(service.into()));
}
