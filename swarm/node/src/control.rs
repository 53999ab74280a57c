//! The control service: what one manager asks of the leader. The messages and the calls; who
//! carries them out is `manager.rs`. Never retries a request that may have run.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_api::Error;
use skep_core::Id;
use skep_core::command::{Command, Reply};

use crate::quic::{CallError, Endpoint, Service};

/// What a manager asks of the leader.
#[derive(Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Carry out a client's command.
    Execute(Box<Command>),
    /// Make the calling manager a member of raft.
    JoinRaft {
        /// Its raft id, drawn by itself.
        raft_id: u64,
        /// `host:port` at which the others reach it.
        addr: String,
    },
    /// Take the calling manager out of raft; it is about to leave.
    LeaveRaft,
    /// Which members answer.
    Members,
}

/// What the leader answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum ControlResponse {
    /// The command's outcome.
    Executed(Result<Reply, Error>),
    /// The membership is as asked.
    Done,
    /// Members of raft as the leader sees them.
    Members(Vec<MemberState>),
    /// The request was not carried out: this manager does not lead. The leader's `host:port`, if
    /// it is known.
    NotLeader(Option<String>),
    /// The request failed; the text says why.
    Failed(String),
}

/// A member of raft as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// The manager.
    pub node: Id,
    /// `host:port`
    pub addr: String,
    /// Whether it answered the leader lately, or is given the time to.
    pub reachable: bool,
    /// Whether it did answer. One that leads only now has heard of nobody yet.
    #[serde(default)]
    pub heard: bool,
    /// Whether it leads.
    pub leader: bool,
}

/// Sends one request to the manager at `addr`.
///
/// # Errors
/// See [`CallError`]: only what was certainly not executed may be sent again.
pub async fn call(
    endpoint: &Endpoint,
    addr: &str,
    timeout: Duration,
    request: &ControlRequest,
) -> Result<ControlResponse, CallError> {
    endpoint
        .call(addr, Service::Control, None, timeout, request)
        .await
}
