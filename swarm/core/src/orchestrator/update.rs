//! Rolling updates and rollbacks: replaces tasks of an older spec, so many at a time, watches the
//! new ones, and stops or turns back when too many fail. Remembers nothing: how far an update is
//! shows in the tasks, when it began in the service's status.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/orchestrator/update`.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::service::{FailureAction, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus};
use skep_api::task::{TaskSpec, TaskState};

use super::constraint::Constraint;
use super::slots::Slot;
use super::{create, restart, template, want};
use crate::id::IdSource;
use crate::object::{Service, Task};
use crate::reconcile::Plan;
use crate::store::{Change, State};
use crate::{Nanos, SECOND, Timestamp};

/// Where the slots of an update are.
#[derive(Default)]
struct Progress<'a> {
    /// Still on an older spec: the slot and its task.
    dirty: Vec<Dirty<'a>>,
    /// Got a new task that does not run yet, or not for long enough to go on.
    in_flight: u64,
    /// The new tasks, wherever there was an older one.
    fresh: Vec<&'a Arc<Task>>,
}

/// A slot's number, the slot, and its task of an older spec.
type Dirty<'a> = (u64, &'a Slot, &'a Arc<Task>);

/// Moves an update on by what can be done now. `slots` are those in which nothing else is to be
/// done first.
pub(super) fn advance(
    view: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    retire_replaced(view, service, slots, plan);
    let state = service.update_status.as_ref().map(|status| &status.state);
    let config = match state {
        None | Some(UpdateState::Updating) => service.spec.update_config.clone(),
        Some(UpdateState::RollbackStarted) => service.spec.rollback_config.clone(),
        _ => return,
    };
    let config = config.unwrap_or_else(UpdateConfig::in_force);
    let progress = progress(view, service, slots, &config, now, plan);
    let Some(status) = &service.update_status else {
        if !progress.dirty.is_empty() {
            plan.changes.push(begin(service, now));
        }
        return;
    };
    let started = status.started_at.unwrap_or(service.meta.updated_at);
    if let Some(failed) = too_many_failures(view, service, &config, &progress, started)
        && let Some(change) = give_up(service, &config, failed, now)
    {
        plan.changes.push(change);
        return;
    }
    if progress.dirty.is_empty() {
        finish(view, service, &config, &progress, now, plan);
        return;
    }
    let room = match config.parallelism {
        0 => u64::MAX,
        most => most.saturating_sub(progress.in_flight),
    };
    for dirty in progress.dirty.iter().take(usize::try_from(room).unwrap_or(usize::MAX)) {
        replace(view, service, &config, dirty, now, ids, plan);
    }
}

/// Where a new task runs beside the old one (start-first), the old one has done its work.
fn retire_replaced(
    view: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot>,
    plan: &mut Plan,
) {
    for slot in slots.values() {
        let new_one_runs = slot.wanted().any(|task| {
            task.status.state == TaskState::Running && !is_dirty(view, service, task)
        });
        let beside = slot.wanted().count() > 1;
        if new_one_runs && beside {
            let old = slot.wanted().filter(|task| is_dirty(view, service, task));
            plan.changes.extend(old.filter_map(|task| want(task, TaskState::Shutdown)));
        }
    }
}

fn progress<'a>(
    view: &State,
    service: &Service,
    slots: &'a BTreeMap<u64, Slot>,
    config: &UpdateConfig,
    now: Timestamp,
    plan: &mut Plan,
) -> Progress<'a> {
    let mut progress = Progress::default();
    for (number, slot) in slots {
        let clean = slot.wanted().rfind(|task| !is_dirty(view, service, task));
        match (clean, slot.wanted().next_back()) {
            (Some(task), _) => {
                let replaced = slot.0.iter().any(|old| old.spec_version != service.spec_version);
                if !replaced || task.spec_version != service.spec_version {
                    continue;
                }
                progress.fresh.push(task);
                let next = task.running_since.map(|since| since.plus(config.delay.max(0)));
                match next.filter(|_| task.status.state == TaskState::Running) {
                    Some(next) if next <= now => {}
                    Some(next) => {
                        plan.wake(next);
                        progress.in_flight += 1;
                    }
                    None => progress.in_flight += 1,
                }
            }
            (None, Some(task)) => progress.dirty.push((*number, slot, task)),
            (None, None) => {}
        }
    }
    progress
}

/// Whether a task has to be replaced: its spec is another one, and not only in ways that the task
/// would not notice. Its placement counts only if its node no longer fits.
pub(crate) fn is_dirty(view: &State, service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version {
        return false;
    }
    let wanted = template(service);
    if task.spec == wanted {
        return false;
    }
    let elsewhere = TaskSpec { placement: wanted.placement.clone(), ..task.spec.clone() };
    if elsewhere != wanted {
        return true;
    }
    let constraints = wanted.placement.map(|placement| placement.constraints).unwrap_or_default();
    let node = task.node_id.as_ref().and_then(|id| view.nodes().get(id));
    !node.is_some_and(|node| Constraint::parse_all(&constraints).iter().all(|c| c.matches(node)))
}

/// Replaces one task in the order that the update asks for.
fn replace(
    view: &State,
    service: &Service,
    config: &UpdateConfig,
    (number, slot, old): &Dirty<'_>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    if config.order == UpdateOrder::StartFirst {
        plan.changes.push(create(service, *number, None, now, ids));
        return;
    }
    plan.changes.extend(want(old, TaskState::Shutdown));
    let gate = restart::gate(view, slot, 0, now);
    plan.changes.push(create(service, *number, gate, now, ids));
}

/// A new task that failed, if more failed than the update allows.
fn too_many_failures<'a>(
    view: &'a State,
    service: &Service,
    config: &UpdateConfig,
    progress: &Progress<'_>,
    started: Timestamp,
) -> Option<&'a Arc<Task>> {
    let failed: Vec<&Arc<Task>> = view
        .tasks_of_service(&service.id)
        .filter(|task| task.spec_version == service.spec_version)
        .filter(|task| task.meta.created_at >= started && failed_early(task, monitor(config)))
        .collect();
    let total = (progress.dirty.len() + progress.fresh.len()).max(1);
    let ratio = failed.len() as f64 / total as f64;
    if ratio > f64::from(config.max_failure_ratio) { failed.first().copied() } else { None }
}

/// Whether a task ended although nobody wanted it to, before or shortly after it ran.
fn failed_early(task: &Task, monitor: Nanos) -> bool {
    let ended = matches!(
        task.status.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    );
    ended && task.running_since.is_none_or(|since| task.status.timestamp.since(since) <= monitor)
}

/// What the update does about failures; `None` if it goes on.
fn give_up(
    service: &Service,
    config: &UpdateConfig,
    failed: &Task,
    now: Timestamp,
) -> Option<Change> {
    let status = service.update_status.clone().unwrap_or_default();
    let rolling_back = status.state == UpdateState::RollbackStarted;
    let because = format!("due to failure or early termination of task {}", failed.id);
    let pause = |state, words: &str| UpdateStatus {
        state,
        message: format!("{words} paused {because}"),
        ..status.clone()
    };
    let mut service = service.clone();
    match (&config.failure_action, rolling_back) {
        (FailureAction::Continue, _) => return None,
        (FailureAction::Rollback, false) => return roll_back(service, &because, now),
        (FailureAction::Rollback, true) => {
            service.update_status = Some(pause(UpdateState::RollbackPaused, "rollback"));
        }
        (_, true) => service.update_status = Some(pause(UpdateState::RollbackPaused, "update")),
        (_, false) => service.update_status = Some(pause(UpdateState::Paused, "update")),
    }
    Some(Change::Update(service.into()))
}

/// Returns to the previous spec, once: a rollback cannot itself be rolled back.
fn roll_back(mut service: Service, because: &str, now: Timestamp) -> Option<Change> {
    service.spec = service.previous_spec.take()?;
    service.spec_version = service.previous_spec_version.take().unwrap_or_default();
    service.registry_auth = service.previous_registry_auth.take();
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: Some(now),
        completed_at: None,
        message: format!("update rolled back {because}"),
    });
    Some(Change::Update(service.into()))
}

fn begin(service: &Service, now: Timestamp) -> Change {
    let mut service = service.clone();
    service.update_status = Some(UpdateStatus {
        state: UpdateState::Updating,
        started_at: Some(now),
        completed_at: None,
        message: "update in progress".to_owned(),
    });
    Change::Update(service.into())
}

/// Ends an update whose tasks have all run for as long as they are watched.
fn finish(
    view: &State,
    service: &Service,
    config: &UpdateConfig,
    progress: &Progress<'_>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let all_run = progress.fresh.iter().all(|task| task.status.state == TaskState::Running);
    let old_ones_left = view.tasks_of_service(&service.id).any(|task| {
        task.desired_state <= TaskState::Running && is_dirty(view, service, task)
    });
    if !all_run || old_ones_left {
        return;
    }
    let last = progress.fresh.iter().filter_map(|task| task.running_since).max();
    let watched = last.map(|since| since.plus(monitor(config)));
    if let Some(until) = watched.filter(|until| now < *until) {
        plan.wake(until);
        return;
    }
    let mut service = service.clone();
    let Some(status) = &mut service.update_status else { return };
    let rolled_back = status.state == UpdateState::RollbackStarted;
    (status.state, status.message) = if rolled_back {
        (UpdateState::RollbackCompleted, "rollback completed".to_owned())
    } else {
        (UpdateState::Completed, "update completed".to_owned())
    };
    status.completed_at = Some(now);
    plan.changes.push(Change::Update(service.into()));
}

/// How long a new task is watched once it runs.
fn monitor(config: &UpdateConfig) -> Nanos {
    let monitor = if config.monitor <= 0 { 5 * SECOND } else { config.monitor };
    if config.delay >= monitor { config.delay.saturating_add(SECOND) } else { monitor }
}
