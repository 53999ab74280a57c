//! What is to be remembered of the node's networks, so that a restart without a manager goes on with
//! it. Told now and then, not with every change. Never touches the disk.

use std::collections::BTreeSet;

use super::Worker;
use super::directory::Listed;
use super::io::Kept;
use crate::id::Id;
use crate::{Nanos, SECOND, Timestamp};

/// How long changes are gathered: a restart without a manager may begin with what was this long ago.
const GATHER: Nanos = 2 * SECOND;

/// Networks that are another way than what was written down.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    networks: BTreeSet<Id>,
    due: Option<Timestamp>,
}

impl Unkept {
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    pub(super) fn note(&mut self, networks: BTreeSet<Id>, now: Timestamp) {
        if !networks.is_empty() {
            self.networks.extend(networks);
            self.due.get_or_insert_with(|| now.plus(GATHER));
        }
    }
}

impl Worker {
    /// Takes up the networks that an earlier worker had.
    pub(super) fn restore(&mut self, kept: Vec<Kept>) {
        for (id, task) in &self.tasks {
            self.directories.local(id, task.serves(), None);
        }
        for kept in kept {
            let services = kept.services.into_iter().map(|it| (it.id.clone(), it));
            let endpoints = kept.endpoints.into_iter().map(|it| (it.id.clone(), it));
            let listed = Listed {
                services: services.collect(),
                endpoints: endpoints.collect(),
            };
            self.directories.restore(&kept.overlay, listed);
            self.networks.restore(kept.overlay);
        }
    }

    /// What is to be written now.
    pub(super) fn keep(&mut self, now: Timestamp) -> Vec<(Id, Option<Kept>)> {
        match self.unkept.due {
            Some(due) if due <= now => self.unkept(),
            _ => Vec::new(),
        }
    }

    /// What is still to be written, network by network; `None` for those that are to be forgotten.
    /// It counts as written. For a daemon that ends: others are told in [`super::Output::keep`].
    pub fn unkept(&mut self) -> Vec<(Id, Option<Kept>)> {
        self.unkept.due = None;
        let networks = std::mem::take(&mut self.unkept.networks);
        let kept = networks.into_iter().map(|id| {
            let kept = self.kept(&id);
            (id, kept)
        });
        kept.collect()
    }

    fn kept(&self, id: &Id) -> Option<Kept> {
        let listed = self.directories.listed(id)?;
        Some(Kept {
            overlay: self.networks.wanted(id)?.clone(),
            services: listed.services.values().cloned().collect(),
            endpoints: listed.endpoints.values().cloned().collect(),
        })
    }
}
