//! Whether all nodes have followed when somebody was taken out of their directories: a node stops a
//! task once nobody is sent there any more. Never makes a node wait: that it does itself, for so long.

use super::{Dispatcher, Outgoing, Peer};
use crate::assignment::{Assignments, ToAgent};

/// Revisions that are waited for: the first and the last of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span(Option<(u64, u64)>);

impl Span {
    /// Waits for this one, too.
    fn add(&mut self, revision: u64) {
        let (first, last) = self.0.unwrap_or((revision, revision));
        self.0 = Some((first.min(revision), last.max(revision)));
    }

    /// Those up to this one are there. Says whether there is one among them.
    fn pass(&mut self, revision: u64) -> bool {
        let Some((first, last)) = self.0 else {
            return false;
        };
        let passed = first <= revision;
        if passed {
            self.0 = (last > revision).then_some((revision + 1, last));
        }
        passed
    }

    /// The last one before all of them.
    fn before(self) -> Option<u64> {
        self.0.map(|(first, _)| first.saturating_sub(1))
    }

    fn is_empty(self) -> bool {
        self.0.is_none()
    }
}

/// What is waited for in one session.
pub(super) struct Followed {
    /// What the node has not followed yet.
    behind: Span,
    /// What all are to have followed before the node stops something.
    stops: Span,
}

impl Followed {
    /// A session begins: what the node was told in an earlier one may not have come.
    pub(super) fn begin() -> Self {
        Self {
            behind: Span(Some((0, 0))),
            stops: Span::default(),
        }
    }

    /// Notes what the node is told, and asks it to say when it has followed where that matters.
    /// Says whether the node is to wait for all others.
    pub(super) fn note(&mut self, told: &mut Assignments) -> bool {
        told.follow = told.takes_away();
        if told.follow {
            self.behind.add(told.revision);
        }
        if told.stops() {
            self.stops.add(told.revision);
        }
        !self.stops.is_empty()
    }
}

impl Dispatcher {
    /// A node has followed up to this revision.
    pub(super) fn followed(&mut self, peer: &Peer, revision: u64) {
        if let Some(session) = self.current(peer) {
            session.followed.behind.pass(revision);
        }
    }

    /// The newest revision that all nodes have followed. One that may be back any moment has not.
    fn followed_by_all(&self, committed: u64) -> u64 {
        if !self.graces.is_empty() {
            return 0;
        }
        let behind = self.sessions.values();
        let behind = behind.filter_map(|it| it.followed.behind.before());
        behind.min().unwrap_or(committed)
    }

    /// Tells those that wait for it.
    pub(super) fn tell_followed(&mut self, committed: u64, out: &mut Vec<Outgoing>) {
        if self.waiting.is_empty() {
            return;
        }
        let all = self.followed_by_all(committed);
        let sessions = &mut self.sessions;
        self.waiting.retain(|node| {
            let Some(session) = sessions.get_mut(node) else {
                return false;
            };
            if session.followed.stops.pass(all) {
                out.push((node.clone(), session.number, ToAgent::Followed(all)));
            }
            !session.followed.stops.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
