//! How far an update is, read from the tasks of the service. Remembers nothing and decides nothing:
//! `update.rs` does.

use std::sync::Arc;

use skep_api::service::UpdateConfig;
use skep_api::task::TaskState;

use super::is_dirty;
use super::slots::{Place, Slot, Slots};
use crate::object::{Service, Task};
use crate::reconcile::earliest;
use crate::store::State;
use crate::{Nanos, SECOND, Timestamp};

/// Where the slots of an update are.
#[derive(Default)]
pub(super) struct Progress<'a> {
    /// Slots that are still on an older spec, with their places.
    pub dirty: Vec<(&'a Place, &'a Slot)>,
    /// Slots in which an old task waits for the new one beside it to run.
    pub beside: u64,
    /// Tasks that this update made, one in each slot that it has come to.
    pub made: Vec<&'a Arc<Task>>,
    /// How many of them do not run yet, or not for long enough to go on to the next slot.
    pub in_flight: u64,
    /// When the first of those has run for long enough.
    pub next_at: Option<Timestamp>,
    /// When the last slot was done with.
    pub last_at: Option<Timestamp>,
}

impl<'a> Progress<'a> {
    /// Reads the progress of the update to the present spec.
    pub fn of(
        view: &State,
        service: &Service,
        slots: &'a Slots,
        config: &UpdateConfig,
        now: Timestamp,
    ) -> Self {
        let mut progress = Self::default();
        for (place, slot) in slots {
            // What is younger and of another spec was made by a later update: then this one has
            // not come to the slot yet, whatever the clock of a leader before may have said.
            let newest = slot.0.iter().rev();
            let mut of_this = newest.take_while(|task| !is_dirty(view, service, task));
            let made = of_this.find(|task| was_made(service, task));
            if let Some(task) = made {
                progress.made.push(task);
                progress.time(task, config.delay.max(0), now);
            }
            let (dirty, clean): (Vec<_>, Vec<_>) = slot
                .wanted()
                .partition(|task| is_dirty(view, service, task));
            if !clean.is_empty() {
                progress.beside += u64::from(!dirty.is_empty());
            } else if made.is_none() && slot.current().is_some_and(|t| is_dirty(view, service, t)) {
                progress.dirty.push((place, slot));
            }
        }
        progress
    }

    /// The slots that the update is about.
    pub fn total(&self) -> usize {
        self.dirty.len() + self.made.len()
    }

    /// Takes the time of a new task into account: the update goes on when it has run, or failed,
    /// `delay` ago.
    fn time(&mut self, task: &Task, delay: Nanos, now: Timestamp) {
        let came_to_something = task.running_since.or_else(|| {
            // The time of the last write, since the agents' clocks are their own.
            task.status
                .state
                .is_terminal()
                .then_some(task.meta.updated_at)
        });
        match came_to_something {
            Some(at) => {
                let done = at.plus(delay);
                self.last_at = self.last_at.max(Some(done));
                if done > now {
                    self.in_flight += 1;
                    self.next_at = earliest(self.next_at, Some(done));
                }
            }
            // A task that is not wanted any more will come to nothing: its slot has gone, or its
            // node, and then the task in its place counts.
            None => self.in_flight += u64::from(task.desired_state <= TaskState::Complete),
        }
    }

    /// The new tasks that ended early although nobody wanted them to, in the order of slots.
    pub fn failed(&self, config: &UpdateConfig) -> Vec<&'a Arc<Task>> {
        let monitor = monitor(config);
        self.made
            .iter()
            .copied()
            .filter(|task| failed_early(task, monitor))
            .collect()
    }
}

/// Whether a task was made by the update that is under way.
pub(super) fn was_made(service: &Service, task: &Task) -> bool {
    let started = service
        .update_status
        .as_ref()
        .and_then(|status| status.started_at);
    task.of_update
        && task.spec_version == service.spec_version
        && started.is_some_and(|started| task.meta.created_at >= started)
}

/// Whether a task ended before it ran, or within `monitor` of running.
fn failed_early(task: &Task, monitor: Nanos) -> bool {
    let ended = matches!(
        task.status.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    );
    ended
        && task
            .running_since
            .is_none_or(|since| task.meta.updated_at.since(since) <= monitor)
}

/// How long a new task is watched once it runs.
pub(super) fn monitor(config: &UpdateConfig) -> Nanos {
    let monitor = if config.monitor <= 0 {
        5 * SECOND
    } else {
        config.monitor
    };
    if config.delay >= monitor {
        config.delay.saturating_add(SECOND)
    } else {
        monitor
    }
}
