//! The list of containers: what of it is news, and which containers are nobody's. Never believed
//! about a single task: a difference only makes the task's controller ask for itself.

use std::collections::BTreeSet;

use super::Worker;
use super::io::{Container, OpOutput, OpResult};
use super::lanes::Target;
use crate::id::Id;
use crate::{Nanos, SECOND, Timestamp};

/// How often to list without a reason, should an event have been lost.
const EVERY: Nanos = 60 * SECOND;
/// The pause after a list that failed.
const AGAIN: Nanos = 2 * SECOND;

/// When to list next.
#[derive(Debug, Default)]
pub(super) struct Listing {
    wanted: bool,
    busy: bool,
    at: Option<Timestamp>,
}

impl Listing {
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether to list now; then one is under way.
    pub(super) fn start(&mut self, now: Timestamp) -> bool {
        let due = self.wanted || self.at.is_some_and(|at| at <= now);
        let start = due && !self.busy;
        if start {
            (self.wanted, self.busy, self.at) = (false, true, None);
        }
        start
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.at
    }

    fn ended(&mut self, ok: bool, now: Timestamp) {
        self.busy = false;
        self.at = Some(now.plus(if ok { EVERY } else { AGAIN }));
    }
}

impl Target {
    pub(super) fn task(&self) -> Option<&Id> {
        match self {
            Target::Task(id) => Some(id),
            _ => None,
        }
    }
}

impl Worker {
    pub(super) fn listed(&mut self, result: OpResult, now: Timestamp) {
        let Ok(OpOutput::Containers(containers)) = result else {
            self.listing.ended(false, now);
            return;
        };
        self.listing.ended(true, now);
        let mut present: BTreeSet<Id> = BTreeSet::new();
        for container in &containers {
            match self.tasks.get_mut(container.task.as_str()) {
                Some(controller) if controller.owns(container) => {
                    controller.listed(Some(container));
                    present.insert(container.task.as_str().into());
                }
                _ => self.stray(container),
            }
        }
        for (id, controller) in &mut self.tasks {
            if !present.contains(id) {
                controller.listed(None);
            }
            self.awake.insert(Target::Task(id.clone()));
        }
    }

    /// A container without a task of ours. Until everything has been assigned it may yet have one.
    fn stray(&mut self, container: &Container) {
        if self.synced && !self.strays.contains_key(&container.id) {
            self.strays.insert(container.id.clone(), Default::default());
            self.awake.insert(Target::Stray(container.id.clone()));
        }
    }
}
