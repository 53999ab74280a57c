//! Raft: managers agree on one log of batches and apply it to one state. Only this directory names
//! openraft and redb. It never looks into a batch and never decides what to write.

mod codec;
pub mod config;
mod disk_log;
mod log_store;
mod machine;
mod snapshot;
pub mod types;
mod writer;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use skep_core::{Batch, State};
use tokio::sync::{broadcast, watch};

pub use config::Config;
pub use types::{
    Applied, AppliedRef, Leadership, Member, MemberError, MemberStatus, ProposeError, ReadError,
    StartError,
};

/// Carries raft's messages to other members.
pub trait Transport: Send + Sync + 'static {
    /// One call: the request reaches [`Raft::handle`] of the member at `to`, its answer comes back.
    fn call(
        &self,
        to: &Member,
        request: Request,
        timeout: std::time::Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The member cannot be reached, so that trying again at once is of no use.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The call broke or was too slow.
    #[error("{0}")]
    Broken(String),
}

/// A message to a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {}

/// This manager's part in raft. Clones share it.
#[derive(Clone)]
pub struct Raft {
    leadership: watch::Receiver<Leadership>,
    applied: broadcast::Sender<AppliedRef>,
}

impl Raft {
    /// Opens (or creates) the log below `config.dir`, restores the state and starts to take part. A
    /// fresh member waits until it is initialised or a leader adds it.
    ///
    /// # Errors
    /// A directory, log or snapshot that cannot be used; nothing was changed.
    pub async fn start(config: Config, transport: Arc<dyn Transport>) -> Result<Self, StartError> {
        drop((config, transport));
        Err(StartError::Config("not there yet".into()))
    }

    /// Whether this member has ever belonged to a cluster: its log, vote or snapshot is not empty.
    pub async fn is_initialized(&self) -> bool {
        false
    }

    /// Makes this member the only one of a new cluster and waits until it leads.
    ///
    /// # Errors
    /// [`MemberError::Invalid`] if it belongs to a cluster already.
    pub async fn initialize(&self, member: Member) -> Result<(), MemberError> {
        drop(member);
        Err(MemberError::Down("not there yet".into()))
    }

    /// Writes a batch: on success it is on the disks of a majority and applied here, and the state
    /// is at the revision that is returned. Only on the leader. A loss of quorum of less than a
    /// second is waited out.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Unknown` leaves open whether the batch was or will be written.
    pub async fn propose(&self, batch: Batch) -> Result<u64, ProposeError> {
        drop(batch);
        Err(ProposeError::Down("not there yet".into()))
    }

    /// After this, [`Raft::state`] holds at least everything that was acknowledged anywhere before
    /// the call. On any member: a follower asks the leader, the leader asks a quorum.
    ///
    /// # Errors
    /// No leader, no quorum, or too slow (`Config::read_timeout`).
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        Err(ReadError::NoLeader)
    }

    /// The state as applied here, which may be behind: see [`Raft::read_barrier`]. Costs nothing.
    pub fn state(&self) -> State {
        State::default()
    }

    /// Everything applied from now on. A receiver that lags (more than 1,024 steps) gets an error
    /// from the channel and must start over from [`Raft::state`], taken after subscribing: steps at
    /// or below that state's revision are then old news.
    pub fn subscribe(&self) -> broadcast::Receiver<AppliedRef> {
        self.applied.subscribe()
    }

    /// Who leads and who the members are; changes are seen as they happen.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Adds a member without a vote and waits until it has caught up
    /// (`Config::catch_up_timeout`). Harmless if it is a member already. Only on the leader.
    pub async fn add_learner(&self, member: Member) -> Result<(), MemberError> {
        drop(member);
        Err(MemberError::Down("not there yet".into()))
    }

    /// Gives a learner a vote. Harmless if it has one. Only on the leader.
    pub async fn promote_voter(&self, raft_id: u64) -> Result<(), MemberError> {
        Err(MemberError::NotFound(raft_id))
    }

    /// Removes a voter or learner. Harmless if it is gone already. Only on the leader, and not the
    /// leader itself: it must [`Raft::step_down`] first.
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), MemberError> {
        Err(MemberError::NotFound(raft_id))
    }

    /// Hands leadership to a voter and waits until it leads. Only on the leader.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MemberError> {
        Err(MemberError::NotFound(to))
    }

    /// Hands leadership to the reachable voter whose log is longest. `Ok` at once if this manager
    /// does not lead or is the only voter.
    pub async fn step_down(&self) -> Result<(), MemberError> {
        Ok(())
    }

    /// Answers a message from the member with this node id (proven by its certificate). `None` if
    /// raft has stopped: leave the caller without an answer.
    pub async fn handle(&self, from: &str, request: Request) -> Option<Response> {
        drop((from.len(), request));
        None
    }

    /// Stops taking part and closes the log; everything acknowledged is on disk. Does not hand over
    /// leadership: see [`Raft::step_down`].
    pub async fn shutdown(&self) {}
}
