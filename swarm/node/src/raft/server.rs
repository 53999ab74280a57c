//! Answers the messages of other members. Never sends one, and trusts that the transport has
//! checked who calls.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use openraft::type_config::alias::SnapshotOf;
use tokio::time::{Instant, timeout};

use super::Core;
use super::config::{Config, Types};
use super::log_store::{LogId, LogStore};
use super::network::{Answer, Message, Piece, Request, Response, Transport};
use super::snapshot::{Head, Image, decode_state};
use super::succession::Grave;

/// A snapshot that has not come in full is forgotten after so long.
const ABANDONED: Duration = Duration::from_secs(60);
/// A heartbeat is answered after so long even if the disk is busy with entries before it.
const PROMPT: Duration = Duration::from_millis(5);
/// The same for entries on a full disk: with a refusal, since they are not on disk.
const FULL_PATIENCE: Duration = Duration::from_millis(100);
/// Bytes that may wait for the disk before more are refused.
const MAX_WAITING: usize = 64 << 20;
/// Largest snapshot accepted, in bytes: far beyond any swarm, but bounded.
const MAX_SNAPSHOT: u64 = 4 << 30;

/// The state of this end.
pub(super) struct Server {
    pub(super) core: Core,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) grave: Grave,
    pub(super) heartbeat: Duration,
    raft_id: u64,
    log: LogStore,
    arriving: Mutex<Option<Arriving>>,
    heard: Mutex<Option<Instant>>,
}

/// A snapshot on its way in; one at a time.
struct Arriving {
    head: Head,
    total: u64,
    bytes: Vec<u8>,
    touched: Instant,
}

impl Server {
    pub fn new(core: Core, log: LogStore, transport: Arc<dyn Transport>, config: &Config) -> Self {
        Self {
            core,
            transport,
            grave: Grave::default(),
            heartbeat: config.heartbeat,
            raft_id: config.raft_id,
            log,
            arriving: Mutex::new(None),
            heard: Mutex::new(None),
        }
    }

    /// The last entry of the log here.
    pub fn last(&self) -> Option<LogId> {
        self.log.last()
    }

    /// When a leader was last heard.
    pub fn heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if there is no answer: raft has stopped, or the message is for another member.
    pub async fn handle(&self, request: Request) -> Option<Response> {
        if request.to != self.raft_id {
            tracing::debug!(to = request.to, "a raft message for another member");
            return None;
        }
        let answer = match request.message {
            Message::Append(append) => Answer::Append(self.append(append).await?),
            Message::Vote(mut vote) => {
                // openraft's lease protects a leader that lives; this one is known to be dead.
                vote.leadership_transfer |= self.is_buried(&vote.vote);
                Answer::Vote(self.core.vote(vote).await.ok()?)
            }
            Message::PreVote(vote) => Answer::Vote(self.core.pre_vote(vote).await.ok()?),
            Message::Snapshot(piece) => {
                self.touch();
                self.receive(piece).await?
            }
            Message::Transfer(transfer) => {
                Answer::Transfer(self.core.handle_transfer_leader(transfer).await.ok()?)
            }
            Message::ReadIndex => Answer::ReadIndex(read_index(&self.core).await),
            Message::Leads => Answer::Leads(self.leads()),
            Message::HasRoom => Answer::HasRoom(self.log.space().full().is_none()),
            Message::Buried(term) => Answer::Buried(self.agree(term).await),
        };
        Some(Response(answer))
    }

    /// Entries are acknowledged once they are on disk, which openraft sees to. What only says that
    /// the leader is there must not wait for a disk: silence would look like death.
    async fn append(
        &self,
        append: AppendEntriesRequest<Types>,
    ) -> Option<AppendEntriesResponse<Types>> {
        self.touch();
        let (vote, prev) = (append.vote, append.prev_log_id);
        let heartbeat = append.entries.is_empty();
        if !heartbeat && self.log.waiting_bytes() > MAX_WAITING {
            // The disk is full or far too slow; the leader tries again.
            return None;
        }
        let appending = self.core.append_entries(append);
        tokio::pin!(appending);
        let patience = if heartbeat { PROMPT } else { FULL_PATIENCE };
        loop {
            match timeout(patience, &mut appending).await {
                Ok(answer) => return answer.ok(),
                Err(_) if heartbeat && self.log.is_durable(prev) => {
                    // openraft's core has dealt with it, and still follows this leader.
                    let held = self.core.with_raft_state(|state| *state.vote_ref()).await;
                    if held.ok()? == vote {
                        return Some(AppendEntriesResponse::Success);
                    }
                }
                // The entries are in memory and can be applied, so the leader may send the next.
                Err(_) if !heartbeat && self.log.space().full().is_some() => return None,
                Err(_) => {}
            }
        }
    }

    fn touch(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    async fn receive(&self, piece: Piece) -> Option<Answer> {
        let vote = piece.vote;
        let held = self
            .core
            .with_raft_state(|state| *state.vote_ref())
            .await
            .ok()?;
        // `partial_cmp` says nothing of two candidates in one term: then openraft decides below.
        if vote < held {
            return Some(Answer::Snapshot(SnapshotResponse { vote: held }));
        }
        let (head, bytes) = match self.collect(piece)? {
            Collected::More(next) => return Some(Answer::MorePieces(next)),
            Collected::All(head, bytes) => (head, bytes),
        };
        let bytes = Bytes::from(bytes);
        let encoded = bytes.clone();
        // Decoded here, so that one that is damaged is refused before anything is replaced.
        let decoded = tokio::task::spawn_blocking(move || decode_state(&encoded)).await;
        let state = match decoded.ok()? {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, "the leader sent a snapshot that cannot be used");
                return None;
            }
        };
        let snapshot: SnapshotOf<Types, Image> = SnapshotOf::<Types, Image> {
            meta: head.meta(),
            snapshot: Image::Received { bytes, state },
        };
        let installed = self.core.install_full_snapshot(vote, snapshot).await.ok()?;
        Some(Answer::Snapshot(installed))
    }

    fn collect(&self, piece: Piece) -> Option<Collected> {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        if piece.total > MAX_SNAPSHOT {
            return None;
        }
        if piece.offset == 0 {
            *arriving = Some(Arriving {
                head: piece.head.clone(),
                total: piece.total,
                bytes: Vec::new(),
                touched: Instant::now(),
            });
        }
        let current = arriving.as_mut()?;
        let continues = current.head == piece.head
            && current.total == piece.total
            && current.bytes.len() as u64 == piece.offset
            && current.touched.elapsed() < ABANDONED;
        let length = piece.offset.saturating_add(piece.data.0.len() as u64);
        let empty = piece.data.0.is_empty() && piece.total > 0;
        if !continues || length > piece.total || empty {
            *arriving = None;
            return None;
        }
        current.bytes.extend_from_slice(&piece.data.0);
        current.touched = Instant::now();
        if length < piece.total {
            return Some(Collected::More(length));
        }
        arriving
            .take()
            .map(|done| Collected::All(done.head, done.bytes))
    }
}

enum Collected {
    More(u64),
    All(Head, Vec<u8>),
}

/// On the leader, after a quorum has confirmed it: how far a reader must have applied.
pub(super) async fn read_index(core: &Core) -> Option<u64> {
    let linearizer = core.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
    Some(linearizer.read_log_id().index())
}
