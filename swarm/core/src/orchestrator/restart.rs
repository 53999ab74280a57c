//! When a task that ended is replaced, and when its replacement may start. Remembers nothing: how
//! often a slot was restarted shows in its history, and a wait is written on the task that waits.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/restart`.

use std::sync::Arc;

use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use super::slots::Slot;
use super::{is_over, node_is_silent, want};
use crate::object::{StartGate, Task};
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

/// Whether the policy allows one more restart. Every task of the slot and of this version of the
/// spec but the first is a restart.
fn attempts_left(slot: &Slot, ended: &Task, policy: &RestartPolicy, now: Timestamp) -> bool {
    let most = policy.max_attempts.unwrap_or(0);
    if most == 0 {
        return true;
    }
    let window = policy.window.unwrap_or(0);
    let alike = slot.0.iter().filter(|task| task.spec_version == ended.spec_version);
    let restarts = alike.skip(1);
    let counted = restarts.filter(|task| window <= 0 || now.since(task.meta.created_at) <= window);
    (counted.count() as u64) < most
}

/// The gate of a task that replaces one that ended or lost its node; `None` if it may start at
/// once.
pub(super) fn gate(
    view: &State,
    old: &Arc<Task>,
    delay: Nanos,
    now: Timestamp,
) -> Option<StartGate> {
    let after = (!is_over(old) && !node_is_silent(view, old)).then(|| old.id.clone());
    if delay <= 0 && after.is_none() {
        return None;
    }
    let not_before = now.plus(delay.max(0));
    Some(StartGate { not_before, after, deadline: not_before.plus(PATIENCE) })
}

/// The restart delay of a task's policy.
pub(super) fn delay(task: &Task) -> Nanos {
    policy(task).delay.unwrap_or(DEFAULT_DELAY)
}

fn policy(task: &Task) -> RestartPolicy {
    task.spec.restart_policy.clone().unwrap_or_default()
}

/// Lets a waiting task run if its gate is open, else asks to be woken when it may be.
pub(super) fn open_gate(
    view: &State,
    task: &Arc<Task>,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<Change> {
    if task.desired_state != TaskState::Ready {
        return None;
    }
    let Some(gate) = &task.start_gate else { return want(task, TaskState::Running) };
    if now < gate.not_before {
        plan.wake(gate.not_before);
        return None;
    }
    let before = gate.after.as_ref().and_then(|id| view.tasks().get(id));
    let stopped = before.is_none_or(|task| is_over(task) || node_is_silent(view, task));
    if stopped || now >= gate.deadline {
        return want(task, TaskState::Running);
    }
    plan.wake(gate.deadline);
    None
}
