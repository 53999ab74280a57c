//! The one clock of a simulated cluster: it jumps from event to event. Never reads a real clock and
//! never runs backwards; events of the same moment keep the order in which they were made.

use std::collections::BTreeMap;

use skep_core::{Nanos, Timestamp};

use crate::event::Event;

/// When a simulation begins: late enough that no span of time reaches back before the epoch.
pub const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

/// Events to come, in order of time.
pub struct Clock {
    now: Timestamp,
    made: u64,
    queue: BTreeMap<(Timestamp, u64), Event>,
    /// Events at the present moment so far: a number that keeps growing is a loop.
    at_once: u32,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            now: START,
            made: 0,
            queue: BTreeMap::new(),
            at_once: 0,
        }
    }
}

impl Clock {
    /// The simulated time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Nanos {
        self.now.since(START)
    }

    /// Lets an event happen at a moment, at once if that has passed.
    pub fn at(&mut self, at: Timestamp, event: Event) {
        self.made += 1;
        self.queue.insert((at.max(self.now), self.made), event);
    }

    /// Lets an event happen after a span of time.
    pub fn after(&mut self, span: Nanos, event: Event) {
        self.at(self.now.plus(span.max(0)), event);
    }

    /// The next event; time jumps to it.
    pub fn next_event(&mut self) -> Option<Event> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
        self.now = at;
        Some(event)
    }

    /// How many events have happened at the present moment.
    pub fn at_once(&self) -> u32 {
        self.at_once
    }
}
