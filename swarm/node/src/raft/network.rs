//! Raft's messages and how openraft sends them. Knows no sockets: a [`Transport`] carries the
//! messages, the other end answers in `server.rs`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::blob::Blob;
use super::config::{Peer, Types};
use super::log_store::{LogId, Vote};
use super::snapshot::{Head, Image, Reader};
use super::types::{Leadership, Member};

/// Carries raft's messages to other members.
pub trait Transport: Send + Sync + 'static {
    /// One call: the request reaches `Raft::handle` of the member at `to`, its answer comes back.
    /// Dropping the future gives the call up.
    fn call(
        &self,
        to: &Member,
        request: Request,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>>;

    /// Whether it is certain that nobody serves at the member's address: its host has said so.
    /// Silence proves nothing. Takes some milliseconds at most.
    fn is_dead(&self, _member: &Member) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }
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

/// A message to a member. Opaque to transports.
#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    /// The raft id it is meant for: whoever has the address now may be another member.
    pub(super) to: u64,
    pub(super) message: Message,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Entries may hold secrets.
        write!(f, "Request(to {})", self.to)
    }
}

/// What members say to each other.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Message {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(Piece),
    Transfer(TransferLeaderRequest<Types>),
    /// A follower asks the leader up to where it must have applied to serve a read.
    ReadIndex,
    /// Whether the member leads.
    Leads,
    /// Whether the member's disk has room.
    HasRoom,
    /// Whether the member knows, too, that the leader of this term is gone.
    Buried(u64),
}

/// A piece of a snapshot; pieces are sent in order, one after the other.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Piece {
    pub vote: Vote,
    pub head: Head,
    /// There is nothing after it.
    pub last: bool,
    /// Where this piece starts.
    pub offset: u64,
    pub data: Blob,
}

/// The answer to a [`Request`]. Opaque to transports.
#[derive(Clone, Serialize, Deserialize)]
pub struct Response(pub(super) Answer);

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Response")
    }
}

/// What a member answers.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    /// The snapshot is installed, or the sender's vote is out of date.
    Snapshot(SnapshotResponse<Types>),
    /// Ready for the piece at this offset.
    MorePieces(u64),
    Transfer(TransferLeaderResponse<Types>),
    /// The index; `None` if this member cannot say, because it does not lead or has no quorum.
    ReadIndex(Option<u64>),
    Leads(bool),
    HasRoom(bool),
    /// If it does: the last entry of its log.
    Buried(Option<Option<LogId>>),
}

/// Patience with a member that stores entries: its disk may stall.
const APPEND_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes connections to members for openraft.
pub(super) struct Factory {
    pub transport: Arc<dyn Transport>,
    /// Has the members' present addresses.
    pub view: watch::Receiver<Leadership>,
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        Connection {
            to: node.member(target),
            transport: self.transport.clone(),
            view: self.view.clone(),
        }
    }
}

/// The way to one member.
pub(super) struct Connection {
    to: Member,
    transport: Arc<dyn Transport>,
    view: watch::Receiver<Leadership>,
}

impl Connection {
    async fn call(&self, message: Message, timeout: Duration) -> Result<Answer, TransportError> {
        // openraft keeps a connection when a member moves to another address.
        let known = self
            .view
            .borrow()
            .member(self.to.raft_id)
            .map(|known| known.member.clone());
        let to = known.unwrap_or_else(|| self.to.clone());
        let request = Request {
            to: to.raft_id,
            message,
        };
        let call = self.transport.call(&to, request, timeout);
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => Ok(answer?.0),
            Err(_) => Err(TransportError::Broken(format!(
                "no answer within {timeout:?}"
            ))),
        }
    }

    async fn snapshot(
        &self,
        vote: Vote,
        head: Head,
        mut state: Reader,
        timeout: Duration,
    ) -> Result<SnapshotResponse<Types>, TransportError> {
        let unreadable = |error: &dyn fmt::Display| TransportError::Broken(error.to_string());
        let mut offset = 0;
        loop {
            // One chunk at a time is in memory, and the next is read when this one has arrived.
            let read = move || (state.chunk(), state);
            let (chunk, rest) = tokio::task::spawn_blocking(read)
                .await
                .map_err(|error| unreadable(&error))?;
            state = rest;
            let chunk = chunk.map_err(|error| unreadable(&error))?;
            let (data, last) = chunk.ok_or_else(wrong_answer)?;
            let next = offset + data.len() as u64;
            let piece = Piece {
                vote,
                head: head.clone(),
                last,
                offset,
                data: Blob(data),
            };
            match self.call(Message::Snapshot(piece), timeout).await? {
                Answer::Snapshot(response) => return Ok(response),
                Answer::MorePieces(wanted) if wanted == next && !last => offset = next,
                _ => return Err(wrong_answer()),
            }
        }
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // openraft gives every append the time of a heartbeat, but entries wait for a disk.
        let timeout = if request.entries.is_empty() {
            option.hard_ttl()
        } else {
            APPEND_TIMEOUT
        };
        match self.call(Message::Append(request), timeout).await? {
            Answer::Append(response) => Ok(response),
            _ => Err(wrong_answer().into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Message::Vote(request), option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(wrong_answer().into()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self
            .call(Message::PreVote(request), option.hard_ttl())
            .await?
        {
            Answer::Vote(response) => Ok(response),
            _ => Err(wrong_answer().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Image>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let failed = |what: String| NetworkError::<Types>::from_string(what);
        let Image::Stored(store) = snapshot.snapshot else {
            return Err(failed("a snapshot that came in is not sent on".into()).into());
        };
        let read = tokio::task::spawn_blocking(move || store.read()).await;
        let (head, state) = read
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?
            // A newer one than openraft asked for is as good.
            .ok_or_else(|| failed("the snapshot is gone".into()))?;
        tokio::select! {
            sent = self.snapshot(vote, head, state, option.hard_ttl()) => Ok(sent.map_err(RPCError::from)?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self
            .call(Message::Transfer(request), option.hard_ttl())
            .await?
        {
            Answer::Transfer(response) => Ok(response),
            _ => Err(wrong_answer().into()),
        }
    }
}

fn wrong_answer() -> TransportError {
    TransportError::Broken("the member answered something else than it was asked".into())
}

impl From<TransportError> for RPCError<Types> {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Broken(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}
