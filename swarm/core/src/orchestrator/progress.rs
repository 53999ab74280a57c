//! How far an update is, read from the tasks of the service: where each place stands, and what that
//! adds up to. Remembers nothing but sums, which follow the places, and decides nothing: `update.rs`
//! does.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::service::UpdateConfig;
use skep_api::task::TaskState;

use super::is_dirty;
use super::slots::{Place, Slot};
use crate::id::Id;
use crate::object::{Service, Task};
use crate::store::State;
use crate::{Nanos, SECOND, Timestamp};

/// Where one place stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// What this update made there.
    made: Option<Made>,
    /// It is still on an older spec.
    dirty: bool,
    /// An old task waits for the new one beside it to run.
    beside: bool,
    /// The new one beside it runs.
    replaced: bool,
    /// What stands for the place is of an older spec, whether or not an update is under way.
    outdated: bool,
    /// It takes part in updates: only what failed is counted where it does not.
    takes_part: bool,
}

/// A task that this update made.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    /// When it has run, or had failed, for long enough to go on.
    done: Option<Timestamp>,
    /// It is still to come to something.
    awaited: bool,
    /// It ended early although nobody wanted it to.
    failed: Option<(Timestamp, Id)>,
}

impl Standing {
    /// Reads it from the tasks of the place. `config` is that of the update that is under way or
    /// about to be.
    pub fn of(
        view: &State,
        service: &Service,
        config: Option<&UpdateConfig>,
        slot: &Slot,
        takes_part: bool,
    ) -> Self {
        let is_dirty = |task: &Task| is_dirty(view, service, task);
        let mut standing = Self {
            outdated: slot.current().is_some_and(|task| is_dirty(task)),
            ..Self::default()
        };
        if slot.wanted().nth(1).is_some() && slot.wanted().any(|task| is_dirty(task)) {
            let clean = || slot.wanted().filter(|task| !is_dirty(task));
            standing.beside = clean().next().is_some();
            standing.replaced = clean().any(|task| task.status.state == TaskState::Running);
        }
        if let Some(config) = config {
            // What is younger and of another spec was made by a later update: then this one has not
            // come to the place yet, whatever the clock of a leader before may have said.
            let made = slot.0.iter().rfind(|task| was_made(service, task));
            let made = made.filter(|made| {
                let younger = slot.0.iter().rev().take_while(|task| task.id != made.id);
                younger.chain([*made]).all(|task| !is_dirty(task))
            });
            standing.made = made.map(|task| Made::of(task, config));
            standing.dirty = standing.outdated
                && standing.made.is_none()
                && slot.wanted().all(|task| is_dirty(task));
        }
        standing.takes_part = takes_part && standing != Self::default();
        standing
    }
}

impl Made {
    fn of(task: &Task, config: &UpdateConfig) -> Self {
        let came_to_something = task.running_since.or_else(|| {
            // The time of the last write, since the agents' clocks are their own.
            task.status
                .state
                .is_terminal()
                .then_some(task.meta.updated_at)
        });
        let failed = failed_early(task, monitor(config));
        Self {
            done: came_to_something.map(|at| at.plus(config.delay.max(0))),
            // A task that is not wanted any more will come to nothing: its slot has gone, or its
            // node, and then the task in its place counts.
            awaited: came_to_something.is_none() && task.desired_state <= TaskState::Complete,
            failed: failed.then(|| (task.meta.updated_at, task.id.clone())),
        }
    }
}

/// Where the places of an update are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    standings: BTreeMap<Place, Standing>,
    /// The places that the update is about.
    total: usize,
    failed: BTreeSet<(Timestamp, Id)>,
    /// Places that are still on an older spec.
    pub dirty: BTreeSet<Place>,
    /// Places in which the new task runs beside an old one.
    pub replaced: BTreeSet<Place>,
    /// Places whose task is of an older spec.
    pub outdated: BTreeSet<Place>,
    /// Places in which an old task waits for the new one beside it to run.
    pub beside: usize,
    awaited: usize,
    /// When new tasks have run for long enough.
    done: BTreeSet<(Timestamp, Place)>,
    /// How many of those have by `now`.
    passed: usize,
    now: Timestamp,
}

impl Progress {
    /// A place stands so now.
    pub fn note(&mut self, place: &Place, standing: Standing) {
        if let Some(before) = self.standings.remove(place) {
            self.count(place, &before, false);
        }
        if standing != Standing::default() {
            self.count(place, &standing, true);
            self.standings.insert(place.clone(), standing);
        }
    }

    /// Adds where a place stands to the sums, or takes it away.
    fn count(&mut self, place: &Place, standing: &Standing, add: bool) {
        let made = standing.made.as_ref();
        let parts = usize::from(standing.dirty) + usize::from(made.is_some());
        tally(&mut self.total, parts, add);
        put(
            &mut self.failed,
            made.and_then(|made| made.failed.clone()),
            add,
        );
        let place_if = |is: bool| is.then(|| place.clone());
        put(&mut self.replaced, place_if(standing.replaced), add);
        if !standing.takes_part {
            return;
        }
        put(&mut self.dirty, place_if(standing.dirty), add);
        put(&mut self.outdated, place_if(standing.outdated), add);
        tally(&mut self.beside, usize::from(standing.beside), add);
        let Some(made) = made else { return };
        tally(&mut self.awaited, usize::from(made.awaited), add);
        if let Some(done) = made.done {
            put(&mut self.done, Some((done, place.clone())), add);
            tally(&mut self.passed, usize::from(done <= self.now), add);
        }
    }

    /// It is this time now.
    pub fn pass(&mut self, now: Timestamp) {
        let (from, to) = (self.now.min(now), self.now.max(now));
        let between = self.done_after(from).take_while(|at| *at <= to).count();
        tally(&mut self.passed, between, now >= self.now);
        self.now = now;
    }

    fn done_after(&self, moment: Timestamp) -> impl Iterator<Item = Timestamp> {
        let first = (moment.plus(1), Place::Slot(0));
        self.done.range(first..).map(|(at, _)| *at)
    }

    /// The places that the update is about.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many new tasks do not run yet, or not for long enough to go on to the next place.
    pub fn in_flight(&self) -> u64 {
        (self.awaited + self.done.len() - self.passed) as u64
    }

    /// When the first of those has run for long enough.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.done_after(self.now).next()
    }

    /// When the last place was done with.
    pub fn last_at(&self) -> Option<Timestamp> {
        self.done.last().map(|(at, _)| *at)
    }

    /// How many new tasks ended early although nobody wanted them to.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// The last of them.
    pub fn last_failed(&self) -> Option<&Id> {
        self.failed.last().map(|(_, task)| task)
    }
}

fn put<T: Ord>(set: &mut BTreeSet<T>, item: Option<T>, add: bool) {
    let Some(item) = item else { return };
    if add {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

fn tally(sum: &mut usize, by: usize, add: bool) {
    *sum = if add {
        sum.saturating_add(by)
    } else {
        sum.saturating_sub(by)
    };
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
