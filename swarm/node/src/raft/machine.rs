//! The state machine: applies committed batches to the state, in order, and tells everyone here.
//! The store decides what a batch does; this never looks into one.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::entry::{EntryPayload, RaftEntry};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use skep_core::State;
use tokio::sync::{broadcast, watch};

use super::config::{Outcome, Proposal, Types};
use super::log_store::LogId;
use super::snapshot::{Head, Image, Membership, SnapshotMeta, SnapshotStore, decode_state};
use super::space::Space;
use super::types::{Applied, AppliedRef};

type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Image>;

/// The state and how far it is. Cheap to clone.
#[derive(Clone, Default)]
pub struct Published {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The membership as of that entry.
    pub membership: Membership,
    /// The state after it.
    pub state: State,
}

impl Published {
    pub(super) fn head(&self) -> Head {
        Head {
            last_log_id: self.applied,
            membership: self.membership.clone(),
        }
    }
}

/// Applies entries.
pub struct Machine {
    published: watch::Sender<Published>,
    steps: broadcast::Sender<AppliedRef>,
    snapshots: Arc<SnapshotStore>,
    space: Option<Arc<Space>>,
}

impl Machine {
    /// A machine with an empty state; openraft brings it forward from the snapshot and the log.
    pub fn new(
        published: watch::Sender<Published>,
        steps: broadcast::Sender<AppliedRef>,
        snapshots: Arc<SnapshotStore>,
    ) -> Self {
        Self {
            published,
            steps,
            snapshots,
            space: None,
        }
    }

    /// Snapshots wait for room instead of failing, which would end raft.
    pub fn waiting_for(self, space: Arc<Space>) -> Self {
        let space = Some(space);
        Self { space, ..self }
    }

    /// Applies an entry and publishes the result, before anyone is told that it is applied.
    fn apply_entry(&self, log_id: LogId, payload: Payload) -> Outcome {
        // Only the applier writes, so readers are not held up while a batch is applied.
        let mut next = self.published.borrow().clone();
        next.applied = Some(log_id);
        let mut applied = Ok(Vec::new());
        match payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                next.membership = Membership::new(Some(log_id), membership);
            }
            EntryPayload::Normal(Proposal(batch)) => applied = next.state.apply_batch(&batch),
        }
        let revision = next.state.revision();
        let moved = revision != self.published.borrow().state.revision();
        self.published.send_replace(next);
        let events = applied?;
        if moved {
            self.tell(events, false);
        }
        Ok(revision)
    }

    fn tell(&self, events: Vec<skep_core::Event>, whole: bool) {
        let state = self.published.borrow().state.clone();
        let applied = Applied {
            revision: state.revision(),
            events,
            state,
            whole,
        };
        // Nobody may be listening.
        drop(self.steps.send(Arc::new(applied)));
    }
}

type Payload = openraft::type_config::alias::PayloadOf<Types>;

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let published = self.published.borrow();
        Ok((published.applied, published.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(entry.log_id(), entry.payload);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let published = self.published.borrow().clone();
        Builder {
            published,
            snapshots: self.snapshots.clone(),
            space: self.space.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, image: Image) -> io::Result<()> {
        let ours = self.snapshots.clone();
        let (head, state) = match image {
            Image::Stored(store) => blocking(move || take(&store, &ours)).await?,
            Image::Received { part, state } => {
                let head = Head::from(meta);
                let saved = head.clone();
                let space = self.space.clone();
                let save = move || ours.adopt(&saved, &part);
                blocking(move || insist(space.as_deref(), save)).await?;
                (head, *state)
            }
        };
        self.published.send_replace(Published {
            applied: head.last_log_id,
            membership: head.membership,
            state,
        });
        self.tell(Vec::new(), true);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let stored = |head: Head| Snapshot {
            meta: head.meta(),
            snapshot: Image::Stored(self.snapshots.clone()),
        };
        Ok(self.snapshots.head().map(stored))
    }
}

/// Writes a snapshot of the state as it was when the builder was made, beside the applying.
pub struct Builder {
    published: Published,
    snapshots: Arc<SnapshotStore>,
    space: Option<Arc<Space>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (published, store) = (self.published.clone(), self.snapshots.clone());
        let head = published.head();
        let meta = head.meta();
        let space = self.space.clone();
        let save = move || store.save(&head, &published.state);
        blocking(move || insist(space.as_deref(), save)).await?;
        Ok(Snapshot {
            meta,
            snapshot: Image::Stored(self.snapshots.clone()),
        })
    }
}

/// Reads a snapshot from a file and, if that is not ours, keeps it.
fn take(store: &Arc<SnapshotStore>, ours: &Arc<SnapshotStore>) -> io::Result<(Head, State)> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the snapshot is gone");
    if !Arc::ptr_eq(store, ours) {
        let (head, mut encoded) = store.read()?.ok_or_else(missing)?;
        ours.copy(&head, &mut encoded)?;
    }
    let (head, encoded) = ours.read()?.ok_or_else(missing)?;
    Ok((head, decode_state(encoded)?))
}

fn insist(space: Option<&Space>, mut save: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    match space {
        Some(space) => space.insist(save),
        None => save(),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
