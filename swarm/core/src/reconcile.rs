//! The shape of everything that works towards the desired state. A reconciler marks what changed
//! and plans from a view; it never sleeps, never writes, and never remembers what the store must.

use crate::store::{Change, Event, State};
use crate::{IdSource, Timestamp};

/// A part of the leader that plans changes from the state.
///
/// Its memory may only be a cache: a new leader starts with an empty one, is told
/// [`mark_all`](Reconciler::mark_all), and must plan the same. That gives an oracle for free:
/// planning with everything dirty must equal planning with what events marked.
pub trait Reconciler {
    /// Marks everything dirty: the start of a leadership.
    fn mark_all(&mut self, view: &State);

    /// Marks what an event touches. Does nothing else: bursts of events cost one plan.
    fn observe(&mut self, event: &Event, view: &State);

    /// Plans changes for what is dirty and clears it. Called again when an event marked something,
    /// or at `wake_at`.
    fn plan(&mut self, view: &State, now: Timestamp, ids: &mut dyn IdSource) -> Plan;
}

/// What a reconciler wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Changes to write in one transaction.
    pub changes: Vec<Change>,
    /// When to plan again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// Asks to be woken at `at`, or sooner if that was asked before.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = earliest(self.wake_at, Some(at));
    }
}

/// The sooner of two optional times.
pub fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
