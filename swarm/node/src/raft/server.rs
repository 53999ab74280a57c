//! Answers the messages of other members. Never sends one, and trusts that the transport has
//! checked who calls.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use openraft::type_config::alias::SnapshotOf;
use tokio::time::{Instant, timeout};

use super::Core;
use super::config::{Config, Types};
use super::log_store::{LogId, LogStore};
use super::network::{Answer, Message, Piece, Request, Response, Transport};
use super::snapshot::{Head, Image, Part, SnapshotStore};
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
    snapshots: Arc<SnapshotStore>,
    arriving: Mutex<Option<Arriving>>,
    heard: Mutex<Option<Instant>>,
}

/// A snapshot on its way in; one at a time.
struct Arriving {
    head: Head,
    received: u64,
    part: Part,
    touched: Instant,
}

impl Server {
    pub fn new(
        core: Core,
        log: LogStore,
        snapshots: Arc<SnapshotStore>,
        transport: Arc<dyn Transport>,
        config: &Config,
    ) -> Self {
        Self {
            core,
            transport,
            grave: Grave::default(),
            heartbeat: config.heartbeat,
            raft_id: config.raft_id,
            log,
            snapshots,
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
        let head = piece.head.clone();
        let (arriving, snapshots) = (self.continued(&piece), self.snapshots.clone());
        let kept = tokio::task::spawn_blocking(move || keep(arriving?, piece, &snapshots)).await;
        let image = match kept.ok()?? {
            Ok(Kept::More(arriving)) => {
                let arriving = *arriving;
                let next = arriving.received;
                *self.arriving.lock().unwrap_or_else(PoisonError::into_inner) = Some(arriving);
                return Some(Answer::MorePieces(next));
            }
            Ok(Kept::All(image)) => image,
            Err(error) => {
                tracing::error!(%error, "a snapshot from the leader cannot be used");
                return None;
            }
        };
        let snapshot: SnapshotOf<Types, Image> = SnapshotOf::<Types, Image> {
            meta: head.meta(),
            snapshot: image,
        };
        let installed = self.core.install_full_snapshot(vote, snapshot).await.ok()?;
        Some(Answer::Snapshot(installed))
    }

    /// What has arrived before this piece, taken out of its place: pieces come one at a time.
    /// `None` if the piece does not fit to it.
    fn continued(&self, piece: &Piece) -> Option<Option<Arriving>> {
        let mut place = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let before = place.take();
        if piece.offset == 0 {
            return Some(None);
        }
        let fits = |it: &Arriving| {
            it.head == piece.head && it.received == piece.offset && it.touched.elapsed() < ABANDONED
        };
        before.filter(fits).map(Some)
    }
}

/// What became of a piece.
enum Kept {
    More(Box<Arriving>),
    All(Image),
}

/// Writes a piece to its file. The last one is decoded, so that a snapshot that is damaged is
/// refused before anything is replaced. Blocks; `None` for a piece that no leader sends.
fn keep(
    arriving: Option<Arriving>,
    piece: Piece,
    snapshots: &SnapshotStore,
) -> Option<io::Result<Kept>> {
    let bytes = piece.data.0;
    if (bytes.is_empty() && !piece.last) || piece.offset > MAX_SNAPSHOT {
        return None;
    }
    let work = || {
        let mut arriving = match arriving {
            Some(arriving) => arriving,
            None => Arriving {
                part: snapshots.part(&piece.head)?,
                head: piece.head,
                received: 0,
                touched: Instant::now(),
            },
        };
        arriving.part.add(&bytes)?;
        arriving.received += bytes.len() as u64;
        arriving.touched = Instant::now();
        if !piece.last {
            return Ok(Kept::More(Box::new(arriving)));
        }
        let part = arriving.part.finish()?;
        let state = Box::new(snapshots.read_part(&part)?);
        Ok(Kept::All(Image::Received { part, state }))
    };
    Some(work())
}

/// On the leader, after a quorum has confirmed it: how far a reader must have applied.
pub(super) async fn read_index(core: &Core) -> Option<u64> {
    let linearizer = core.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
    Some(linearizer.read_log_id().index())
}
