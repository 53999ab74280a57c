//! Who takes part in the managers' log: seats by raft id, voters and learners. Travels in the log and
//! counts from the moment it is in there, committed or not, as in raft. Never decides who should.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_core::Id;

/// A place at the table. A node that comes anew gets a new one, so that nobody votes twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The host.
    pub host: usize,
    /// The node that the host was when it took the seat.
    pub node: Id,
}

/// All seats, by raft id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// They decide.
    pub voters: BTreeMap<u64, Seat>,
    /// They only listen, until they have heard enough.
    pub learners: BTreeMap<u64, Seat>,
}

impl Members {
    /// How many voters make a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Every seat.
    pub fn seats(&self) -> impl Iterator<Item = (u64, &Seat)> {
        self.voters
            .iter()
            .chain(&self.learners)
            .map(|(id, seat)| (*id, seat))
    }

    /// Whether this seat of the host is at the table.
    pub fn has(&self, id: u64, host: usize) -> bool {
        self.seats().any(|(seat, at)| (seat, at.host) == (id, host))
    }

    /// Whether so many voters for whom `good` holds are a majority.
    pub fn agreed(&self, good: impl Fn(usize) -> bool) -> bool {
        let agreeing = self.voters.values().filter(|seat| good(seat.host));
        agreeing.count() >= self.majority()
    }

    /// The table without a seat.
    pub fn without(&self, id: u64) -> Arc<Self> {
        let mut members = self.clone();
        members.voters.remove(&id);
        members.learners.remove(&id);
        Arc::new(members)
    }

    /// The table with another learner.
    pub fn with_learner(&self, id: u64, seat: Seat) -> Arc<Self> {
        let mut members = self.clone();
        members.learners.insert(id, seat);
        Arc::new(members)
    }

    /// The table with a learner as a voter.
    pub fn with_voter(&self, id: u64) -> Arc<Self> {
        let mut members = self.clone();
        if let Some(seat) = members.learners.remove(&id) {
            members.voters.insert(id, seat);
        }
        Arc::new(members)
    }
}
