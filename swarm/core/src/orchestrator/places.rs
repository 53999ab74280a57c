//! What is known of the places of one service, so that a plan costs what changed and not what
//! exists: which of them are to be looked at, and what those that are not add up to. A cache that
//! follows the store; decides nothing.

use std::collections::BTreeSet;

use skep_api::task::TaskState;

use super::BATCH;
use super::numbers::Numbers;
use super::progress::Progress;
use super::slots::{self, Place, Slot, Slots, is_everywhere};
use super::surplus::Surplus;
use super::waits::Waits;
use crate::Timestamp;
use crate::id::Id;
use crate::labels::depends;
use crate::object::{Secret, StartGate, Task};
use crate::reconcile::Plan;
use crate::store::State;

/// Places that something happened to since they were last looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stale {
    /// Every one there is.
    All,
    /// These.
    Some(BTreeSet<Place>),
}

impl Stale {
    /// None.
    pub fn none() -> Self {
        Self::Some(BTreeSet::new())
    }

    /// One more.
    pub fn add(&mut self, place: Place) {
        if let Self::Some(places) = self {
            places.insert(place);
        }
    }
}

/// The places of one service. New ones know nothing and look at everything.
#[derive(Clone, Debug)]
pub(super) struct Places {
    stale: Stale,
    /// Places that nothing has been done about yet, as they are now.
    open: Slots,
    /// When places are to be looked at again.
    waits: Waits<Place>,
    /// Where tasks have numbers.
    by_number: bool,
    /// Which numbered slots are taken.
    pub numbers: Numbers,
    /// Where a job's task is under way.
    pub busy: BTreeSet<Place>,
    /// How far the update is.
    pub progress: Progress,
    /// What goes first if there is too much.
    pub surplus: Surplus,
    /// Whether everything was there that the service waits for.
    met: bool,
    /// That may not be so any more.
    ask: bool,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            stale: Stale::All,
            open: Slots::new(),
            waits: Waits::default(),
            by_number: false,
            numbers: Numbers::default(),
            busy: BTreeSet::new(),
            progress: Progress::default(),
            surplus: Surplus::default(),
            met: false,
            ask: false,
        }
    }
}

impl Places {
    /// Something happened to a place.
    pub fn mark(&mut self, place: Place) {
        self.stale.add(place);
    }

    /// Something happened that concerns every place.
    pub fn mark_all(&mut self) {
        self.stale = Stale::All;
    }

    /// Something happened to the place of a task, or to the node of a task there.
    pub fn mark_place_of(&mut self, task: &Task) {
        let place = Place::of(task, self.by_number);
        self.mark(place);
    }

    /// A task came, changed or went. Says whether that is of interest here.
    pub fn follow(&mut self, before: Option<&Task>, after: Option<&Task>) -> bool {
        if self.stale == Stale::All {
            return true;
        }
        let differs = match (before, after) {
            (Some(before), Some(after)) => !reads_alike(before, after),
            _ => true,
        };
        let mut marked = false;
        for task in before.into_iter().chain(after) {
            let place = Place::of(task, self.by_number);
            // What is to be written is written of the task as it is now.
            if differs || self.open.contains_key(&place) {
                self.mark(place);
                marked = true;
            }
        }
        marked
    }

    /// Something that the service waits for may have come or gone.
    pub fn mark_dependencies(&mut self) {
        self.ask = true;
    }

    /// Whether everything is there that the service waits for. All places are concerned if that is
    /// news.
    fn is_met(&mut self, view: &State, id: &Id) -> bool {
        let all = self.stale == Stale::All;
        if !all && !std::mem::take(&mut self.ask) {
            return self.met;
        }
        let service = view.services().get(id);
        let met = service.is_none_or(|service| depends::met(view, service));
        if met != self.met {
            self.mark_all();
        }
        met
    }

    /// The places that are to be looked at because of what happened or because it is time, with
    /// their tasks. To be counted, and then [opened](Self::open). With all of them everything that
    /// was known before is forgotten.
    pub fn fresh(&mut self, view: &State, id: &Id, now: Timestamp) -> Slots {
        let met = self.is_met(view, id);
        for place in self.waits.due(now) {
            self.mark(place);
        }
        match std::mem::replace(&mut self.stale, Stale::none()) {
            Stale::All => {
                *self = Self {
                    stale: Stale::none(),
                    by_number: slots::numbers(view, id),
                    met,
                    ..Self::default()
                };
                let mut all = slots::of_service(view, id);
                if view.services().get(id).is_some_and(|s| is_everywhere(s)) {
                    for node in view.nodes().iter() {
                        all.entry(Place::Node(node.id.clone())).or_default();
                    }
                }
                all
            }
            Stale::Some(places) => {
                let one = |place: Place| {
                    let slot = slots::of_place(view, id, &place);
                    self.waits.set(&place, None);
                    (place, slot)
                };
                places.into_iter().map(one).collect()
            }
        }
    }

    /// These places have been counted; something may have to be done about them.
    pub fn open(&mut self, fresh: Slots) {
        // One by one: `append` would go through all that are open already.
        self.open.extend(fresh);
    }

    /// Whether there is something to be done yet.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The next place to do something about; `None` if there is none, or the plan is full.
    pub fn next(&mut self, plan: &Plan) -> Option<(Place, Slot)> {
        if plan.changes.len() >= BATCH {
            return None;
        }
        self.open.pop_first()
    }

    /// Nothing is to be done about a place any more.
    pub fn close(&mut self, place: &Place) {
        self.open.remove(place);
        self.waits.set(place, None);
    }

    /// What is to be done about a place, and when to look at it again.
    pub fn settled(&mut self, place: &Place, one: Plan, plan: &mut Plan) {
        self.waits.set(place, one.wake_at);
        plan.changes.extend(one.changes);
    }

    /// The plan is complete for now: it asks to go on when the first place is to be looked at.
    pub fn wake(&self, plan: &mut Plan) {
        if let Some(at) = self.waits.first() {
            plan.wake(at);
        }
    }
}

#[cfg(test)]
impl Places {
    /// Unless something is to be looked at yet, all sums are those of places that were counted anew.
    pub fn assert_counts_as(&self, anew: &Self, now: Timestamp) {
        if self.ask || self.stale != Stale::none() {
            return;
        }
        assert_eq!(self.numbers, anew.numbers);
        assert_eq!(self.busy, anew.busy);
        let at_once = |progress: &Progress| {
            let mut progress = progress.clone();
            progress.pass(now);
            progress
        };
        assert_eq!(at_once(&self.progress), at_once(&anew.progress));
        assert_eq!(self.met, anew.met);
    }
}

/// Whether all that is read of a task here is as before. Most of what agents, the allocator and the
/// scheduler write is about other things.
fn reads_alike(before: &Task, after: &Task) -> bool {
    what_is_read(before) == what_is_read(after)
}

type Read<'a> = (
    (TaskState, TaskState),
    Option<&'a Id>,
    Option<&'a StartGate>,
    (Option<Timestamp>, Option<Timestamp>),
    (u64, u64, bool),
    Option<&'a Secret>,
);

fn what_is_read(task: &Task) -> Read<'_> {
    let state = task.status.state;
    // Steps between which nothing is decided count as one.
    let steps = [TaskState::Ready, TaskState::Assigned, TaskState::New];
    let reached = match state {
        state if state >= TaskState::Running => state,
        state => steps
            .into_iter()
            .find(|step| *step <= state)
            .unwrap_or(state),
    };
    (
        (task.desired_state, reached),
        task.node_id.as_ref(),
        task.start_gate.as_ref(),
        (
            task.running_since,
            // How it ended is counted from its last write.
            state.is_terminal().then_some(task.meta.updated_at),
        ),
        (task.spec_version, task.roll, task.moving),
        task.registry_auth.as_ref(),
    )
}
