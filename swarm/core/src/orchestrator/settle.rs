//! What happens in a place whose task ended, lost its node or waits to start. The same in all modes;
//! never makes a task where there was none, and never decides how many there are to be.

use std::sync::Arc;

use skep_api::task::TaskState;

use super::slots::{Place, Slot};
use super::{Made, create, is_dirty, lost_its_node, progress, restart, want};
use crate::Timestamp;
use crate::id::IdSource;
use crate::object::{Service, Task};
use crate::reconcile::Plan;
use crate::store::State;

/// Replaces what ended or lost its node in a place, and lets what waits there start. Where
/// `may_replace` says no, what ended is only put down as such.
pub(super) fn settle(
    view: &State,
    service: &Service,
    (place, slot): (&Place, &Slot),
    may_replace: bool,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let mut healthy = Vec::new();
    let mut replacement = None;
    for task in slot.wanted() {
        let ended = task.status.state.is_terminal();
        let moved = lost_its_node(view, task);
        // One that failed while it waited (no image, say) is replaced no sooner than it would
        // have started.
        if ended && let Some(until) = restart::waits_until(task, now) {
            plan.wake(until);
            healthy.push(task);
        } else if !ended && !moved {
            healthy.push(task);
            let opened = restart::open_gate(view, slot, task, now, plan);
            plan.changes.extend(opened);
        } else {
            plan.changes.extend(want(task, TaskState::Shutdown));
            let rest = restart::waits_until(task, now).map_or(0, |until| until.since(now));
            let delay = if moved {
                rest
            } else {
                restart::delay(service, task)
            };
            if may_replace && (!ended || restart::wanted(slot, task, now)) {
                replacement = Some((task, restart::gate(view, service, slot, delay, now)));
            }
        }
    }
    if let Some((old, gate)) = replacement
        && (healthy.is_empty() || is_beside(view, service, old, &healthy))
    {
        // What an update made and never came to run is still to be watched.
        let unfinished = progress::was_made(service, old)
            && !old.status.state.is_terminal()
            && old.running_since.is_none();
        let made = if unfinished {
            Made::ByUpdate
        } else if old.status.state.is_terminal() {
            Made::Again(restart::crashes(old))
        } else {
            Made::ToFill
        };
        plan.changes
            .push(create(service, place, gate, made, now, ids));
    }
}

/// Whether the task was the new one beside old ones that are only there until it runs.
fn is_beside(view: &State, service: &Service, task: &Task, others: &[&Arc<Task>]) -> bool {
    !is_dirty(view, service, task) && others.iter().all(|other| is_dirty(view, service, other))
}
