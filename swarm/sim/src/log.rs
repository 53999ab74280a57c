//! One manager's part of the modelled log: entries, terms, what is committed and applied, and the
//! snapshot that a restart begins with. Never sends anything: `managers.rs` does.
//!
//! The model is raft's: an entry belongs to a term, a follower takes entries only after the ones
//! before them, and drops its own where they differ. Votes are not messages: a majority that can
//! talk to each other votes in one moment.

use std::sync::Arc;

use skep_core::{Batch, Event, Reject, State, Timestamp};

use crate::members::Members;
use crate::settings::Mutation;

/// One entry of the log.
pub struct Entry {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// What it writes; `None` for the first entry of a term.
    pub batch: Option<Batch>,
    /// Who takes part from here on, if that changes.
    pub members: Option<Arc<Members>>,
}

/// Entries on their way to a follower.
#[derive(Debug)]
pub struct Append {
    /// The leader.
    pub from: usize,
    /// The follower.
    pub to: usize,
    /// Its raft id, as the leader knows it.
    pub seat: u64,
    /// The leader's term.
    pub term: u64,
    /// When it was sent.
    pub sent: Timestamp,
    /// How many entries come before.
    pub before: usize,
    /// The last of those.
    pub previous: Option<Arc<Entry>>,
    /// The entries.
    pub entries: Vec<Arc<Entry>>,
    /// How much the leader knows to be committed.
    pub commit: usize,
    /// The state after exactly these entries, for a follower that is far behind.
    pub snapshot: Option<Snapshot>,
}

/// A state on its way to a follower.
pub struct Snapshot(pub State);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "snapshot of revision {}", self.0.revision())
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry of term {}", self.term)
    }
}

/// What applying an entry gave: its place, and for a batch its events or the refusal.
pub type Applied = (usize, Result<Vec<Event>, Reject>);

/// A manager's log and state. The log, the term and the snapshot survive a restart.
pub struct Replica {
    pub term: u64,
    pub log: Vec<Arc<Entry>>,
    pub commit: usize,
    pub applied: usize,
    pub state: State,
    snapshot: Option<(usize, Vec<u8>)>,
    first: Arc<Members>,
}

impl Replica {
    /// A replica whose log begins with this state.
    pub fn new(state: State, first: Arc<Members>) -> Self {
        let snapshot = rmp_serde::to_vec_named(&state).ok().map(|bytes| (0, bytes));
        Self {
            term: 0,
            log: Vec::new(),
            commit: 0,
            applied: 0,
            state,
            snapshot,
            first,
        }
    }

    /// Who takes part, and how many entries it took to say so.
    pub fn members(&self) -> (usize, Arc<Members>) {
        let entries = self.log.iter().enumerate().rev();
        let mut changes = entries.filter_map(|(at, entry)| Some((at + 1, entry.members.clone()?)));
        changes.next().unwrap_or_else(|| (0, self.first.clone()))
    }

    /// How new the log is, in the order that votes go by.
    pub fn age(&self) -> (u64, usize) {
        (
            self.log.last().map_or(0, |entry| entry.term),
            self.log.len(),
        )
    }

    /// Takes entries from a leader. Says how much of the leader's log is in this one from now on;
    /// `None` if what comes before is missing.
    pub fn take(&mut self, append: &Append) -> Option<usize> {
        let known = match (&append.previous, append.before) {
            (_, 0) => true,
            (Some(previous), before) => self
                .log
                .get(before - 1)
                .is_some_and(|mine| Arc::ptr_eq(mine, previous)),
            (None, _) => false,
        };
        if !known {
            return None;
        }
        for (place, entry) in (append.before..).zip(&append.entries) {
            match self.log.get(place) {
                Some(mine) if Arc::ptr_eq(mine, entry) => continue,
                Some(_) => self.log.truncate(place),
                None => {}
            }
            self.log.push(entry.clone());
        }
        let matched = append.before + append.entries.len();
        if let Some(Snapshot(state)) = &append.snapshot
            && matched > self.applied
        {
            (self.state, self.applied) = (state.clone(), matched);
            self.commit = self.commit.max(matched);
            self.take_snapshot();
        }
        self.commit = self.commit.max(append.commit.min(matched));
        Some(matched)
    }

    /// Applies what is committed.
    pub fn apply(&mut self, mutation: Option<Mutation>) -> Vec<Applied> {
        let mut done = Vec::new();
        while self.applied < self.commit {
            let Some(entry) = self.log.get(self.applied).cloned() else {
                break;
            };
            let result = match &entry.batch {
                None => Ok(Vec::new()),
                Some(batch) => apply(&mut self.state, batch, mutation),
            };
            done.push((self.applied, result));
            self.applied += 1;
        }
        done
    }

    /// Writes a snapshot of the state as it is.
    pub fn take_snapshot(&mut self) {
        if let Ok(bytes) = rmp_serde::to_vec_named(&self.state) {
            self.snapshot = Some((self.applied, bytes));
        }
    }

    /// The memory is gone: the state is what the snapshot says, and the rest of the log is applied
    /// once it is known to be committed.
    pub fn restart(&mut self) -> Result<(), String> {
        let (applied, bytes) = self
            .snapshot
            .as_ref()
            .ok_or("the snapshot could not be written")?;
        self.state = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
        (self.applied, self.commit) = (*applied, *applied);
        Ok(())
    }
}

/// Applies a batch as the store does, or as it would with the mistake.
pub fn apply(
    state: &mut State,
    batch: &Batch,
    mutation: Option<Mutation>,
) -> Result<Vec<Event>, Reject> {
    if mutation == Some(Mutation::IgnoreBase) && batch.base != state.revision() {
        let mut batch = batch.clone();
        batch.base = state.revision();
        return state.apply_batch(&batch);
    }
    state.apply_batch(batch)
}
