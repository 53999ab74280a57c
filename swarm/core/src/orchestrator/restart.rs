//! When a task that ended is replaced, and when its replacement may start. Remembers nothing: how
//! often a slot was restarted shows in its history, and a wait is written on the task that waits.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/restart`.

use std::sync::Arc;

use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use super::slots::Slot;
use super::{goal, is_over, node_is_silent, want};
use crate::labels::{backoff, depends};
use crate::object::{Service, StartGate, Task};
use crate::reconcile::Plan;
use crate::store::{Change, State};
use crate::{MINUTE, Nanos, SECOND, Timestamp};

/// The delay of a policy that names none.
pub(super) const DEFAULT_DELAY: Nanos = 5 * SECOND;
/// A replacement waits this long for the task before it to stop, then starts all the same.
const PATIENCE: Nanos = MINUTE;

/// Whether a task that ended is to be replaced in its slot.
pub(super) fn wanted(slot: &Slot, ended: &Task, now: Timestamp) -> bool {
    let policy = policy(ended);
    let condition = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => ended.status.state != TaskState::Complete,
        _ => true,
    };
    condition && attempts_left(slot, ended, &policy, now)
}

/// Whether a place is done with until the service changes: what it ended with ended by itself and is
/// not to be restarted. Says the same at any later time.
pub(super) fn gave_up(slot: &Slot) -> bool {
    let ended_by_itself = |task: &&Arc<Task>| {
        matches!(
            task.status.state,
            TaskState::Complete | TaskState::Failed | TaskState::Rejected
        ) && task.desired_state < TaskState::Remove
    };
    let last = slot.0.last().filter(ended_by_itself);
    // The last write of a task that ended says that it is not wanted any more.
    last.is_some_and(|task| !wanted(slot, task, task.meta.updated_at))
}

/// Whether the policy allows one more restart. Every task of the slot and of this version of the
/// spec but the first is a restart.
fn attempts_left(slot: &Slot, ended: &Task, policy: &RestartPolicy, now: Timestamp) -> bool {
    let most = policy.max_attempts.unwrap_or(0);
    if most == 0 {
        return true;
    }
    let window = policy.window.unwrap_or(0);
    let alike = slot.0.iter().filter(|task| {
        task.spec_version == ended.spec_version && task.job_iteration == ended.job_iteration
    });
    let restarts = alike.skip(1);
    let counted = restarts.filter(|task| window <= 0 || now.since(task.meta.created_at) <= window);
    (counted.count() as u64) < most
}

/// The gate of a new task in a slot; `None` if it may start at once. It waits for every task of the
/// slot that may still run: the one it replaces may never have started, and the one before that
/// may be slow to stop.
pub(super) fn gate(
    view: &State,
    service: &Service,
    slot: &Slot,
    delay: Nanos,
    now: Timestamp,
) -> Option<StartGate> {
    let after = slot
        .0
        .iter()
        .rfind(|task| may_run(view, task))
        .map(|task| task.id.clone());
    if delay <= 0 && after.is_none() && depends::met(view, service) {
        return None;
    }
    let not_before = now.plus(delay.max(0));
    Some(StartGate {
        not_before,
        after,
        deadline: not_before.plus(PATIENCE),
    })
}

/// Whether a task may run, and its node is there to say when it does not any more.
fn may_run(view: &State, task: &Task) -> bool {
    !is_over(task) && !node_is_silent(view, task)
}

/// The restart delay of a task's policy; longer for one of many in a row that ended soon, where the
/// service asks for that.
pub(super) fn delay(service: &Service, ended: &Task) -> Nanos {
    let asked = policy(ended).delay.unwrap_or(DEFAULT_DELAY);
    match backoff::longest(&service.spec.labels) {
        Some(longest) => backoff::delay(asked, crashes(ended), longest),
        None => asked,
    }
}

/// How many tasks in a row have ended soon, this one included.
pub(super) fn crashes(ended: &Task) -> u32 {
    let ran = ended
        .running_since
        .map(|since| ended.status.timestamp.since(since));
    if ran.is_some_and(|ran| ran >= backoff::STEADY) {
        0
    } else {
        ended.crashes.saturating_add(1)
    }
}

fn policy(task: &Task) -> RestartPolicy {
    task.spec.restart_policy.clone().unwrap_or_default()
}

/// Until when a task must not start, if it still waits.
pub(super) fn waits_until(task: &Task, now: Timestamp) -> Option<Timestamp> {
    let gate = task
        .start_gate
        .as_ref()
        .filter(|_| task.desired_state == TaskState::Ready)?;
    Some(gate.not_before).filter(|until| now < *until)
}

/// Lets a waiting task run if its gate is open, else asks to be woken when it may be.
pub(super) fn open_gate(
    view: &State,
    slot: &Slot,
    task: &Arc<Task>,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<Change> {
    if task.desired_state != TaskState::Ready {
        return None;
    }
    let Some(gate) = &task.start_gate else {
        return want(task, goal(task.job_iteration));
    };
    if now < gate.not_before {
        plan.wake(gate.not_before);
        return None;
    }
    let service = view.services().get(&task.service_id);
    if service.is_some_and(|service| !depends::met(view, service)) {
        return None;
    }
    let unwanted = |other: &&Arc<Task>| other.desired_state > TaskState::Complete;
    let stopped = !slot
        .0
        .iter()
        .filter(unwanted)
        .any(|other| may_run(view, other));
    if stopped || now >= gate.deadline {
        return want(task, goal(task.job_iteration));
    }
    plan.wake(gate.deadline);
    None
}
