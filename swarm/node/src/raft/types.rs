//! What the rest of the crate sees of raft: members, leadership, applied batches, errors. Names
//! nothing of openraft and does nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_core::{Event, Id, Reject, State};

/// A manager as raft knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Drawn anew at each join and never used again: a wiped member must not vote twice.
    pub raft_id: u64,
    /// The node's id, which its certificate must prove.
    pub node_id: Id,
    /// `host:port` at which other managers reach it.
    pub addr: String,
}

/// A member and what is known of it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who.
    pub member: Member,
    /// Votes; a learner only receives the log.
    pub voter: bool,
    /// On the leader: whether the member has answered lately. `None` on every other manager, which
    /// cannot know.
    pub reachable: Option<bool>,
    /// On the leader: whether the member has really answered lately, to this leader. One that has
    /// just come to lead supposes that the others are reachable, and has heard nobody yet.
    pub heard: bool,
}

/// Who leads, as far as this manager knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; `None` during an election, and on a leader that has not heard from a quorum for
    /// a while.
    pub leader: Option<Member>,
    /// Raft's term: at most one leader in each.
    pub term: u64,
    /// This manager leads and its state holds everything that was written before it came to lead.
    pub i_lead: bool,
    /// Voters and learners in the order of raft ids.
    pub members: Vec<MemberStatus>,
}

impl Leadership {
    /// The member of this raft id.
    pub fn member(&self, raft_id: u64) -> Option<&MemberStatus> {
        self.members
            .iter()
            .find(|status| status.member.raft_id == raft_id)
    }
}

/// One step of the replicated state on this manager, in order and without gaps.
#[derive(Clone)]
pub struct Applied {
    /// The store's revision after the step.
    pub revision: u64,
    /// What changed; empty if `whole`.
    pub events: Vec<Event>,
    /// The state after the step.
    pub state: State,
    /// The state was replaced by a snapshot from the leader: events do not tell the difference, so
    /// look at everything.
    pub whole: bool,
}

/// A shared [`Applied`].
pub type AppliedRef = Arc<Applied>;

/// Why a proposal did not succeed, sorted by what the proposer may do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not accepted, nothing was written: this manager does not lead (any more, or has lost its
    /// quorum). The leader, if it is known.
    #[error("this manager does not lead the swarm")]
    NotLeader(Option<Member>),
    /// The store refused the batch; nothing of it was written.
    #[error("{0}")]
    Rejected(Reject),
    /// Accepted, but what became of it is unknown: leadership was lost, the quorum went away, or raft
    /// stopped. It may still be written. Proposing it again with the same base is safe.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// There is no room on this manager's disk and nobody else leads; nothing was written. Writes
    /// go on by themselves once there is.
    #[error("{0}")]
    NoSpace(String),
    /// Raft does not run (any more); nothing was written.
    #[error("raft has stopped: {0}")]
    Down(String),
}

/// Why a linearizable read is not possible now. Trying again is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader is known, or the leader has no quorum.
    #[error("the swarm has no leader")]
    NoLeader,
    /// The leader did not confirm in time, or this manager lags behind.
    #[error("no confirmation from the leader in time: {0}")]
    Timeout(String),
    /// There is a leader, but this manager lags behind it for want of room on its disk: the text
    /// for people. Reads go on by themselves once there is room.
    #[error("{0}")]
    NoSpace(String),
    /// Raft does not run (any more).
    #[error("raft has stopped: {0}")]
    Down(String),
}

/// Why a change of the membership, or of the leadership, did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Only the leader changes the membership. The leader, if it is known.
    #[error("this manager does not lead the swarm")]
    NotLeader(Option<Member>),
    /// Another change is under way; try again.
    #[error("another change of the managers is in progress")]
    Busy,
    /// The leader cannot remove itself: it must hand over first.
    #[error("the leader cannot remove itself; hand leadership over first")]
    Leads,
    /// There is no such member.
    #[error("no raft member {0}")]
    NotFound(u64),
    /// The change is written, but the member has not caught up in time (or the leadership has not
    /// moved in time). Safe to try again.
    #[error("{0}")]
    Timeout(String),
    /// Not possible in the present state.
    #[error("{0}")]
    Invalid(String),
    /// Raft does not run (any more), or the outcome is unknown.
    #[error("raft has stopped: {0}")]
    Down(String),
}

/// Why raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory, the log or a snapshot cannot be used; the text names the file.
    #[error("{0}")]
    Disk(String),
    /// The timing makes no sense.
    #[error("raft timing: {0}")]
    Config(String),
}
