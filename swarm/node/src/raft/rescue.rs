//! A raft of one out of what another raft has left on this disk: the snapshot and the whole log,
//! entries that are not known to be committed included. Writes a new directory beside the old one,
//! whose files it opens as a start would: that may finish a purge, make the log's file smaller,
//! clear half-written snapshots away and create files that are missing, but never changes what an
//! entry, the vote or the snapshot says. Taking the old one's place is the caller's business.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::entry::{EntryPayload, RaftEntry};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use skep_core::{Batch, State};

use super::codec::Codec;
use super::config::{Peer, Proposal};
use super::handle::Raft;
use super::log_store::{LogId, LogStore, Vote};
use super::machine::blocking;
use super::snapshot::{Head, Membership, SnapshotStore, decode_state};
use super::types::Member;
use crate::disk::Keys;

const LOG: &str = "log.redb";
const SNAPSHOT: &str = "snapshot";

/// The newest state on a disk.
pub struct Rescued {
    /// Snapshot and log together.
    pub state: State,
    last: LogId,
    term: u64,
    codec: Arc<dyn Codec>,
}

impl Rescued {
    /// Reads a directory that no raft has open. Entries at the log's end may be of a leader that
    /// had not yet got a majority for them: the original keeps those too, and so nothing that
    /// anybody was promised is lost.
    ///
    /// # Errors
    /// Damage, in words that name the file; a directory without anything.
    pub async fn read(dir: &Path, keys: Keys) -> io::Result<Self> {
        let codec: Arc<dyn Codec> = Arc::new(keys);
        let (log, snapshot) = (dir.join(LOG), dir.join(SNAPSHOT));
        let sealed = codec.clone();
        let opened = blocking(move || {
            let codec = sealed;
            let image = SnapshotStore::open(&snapshot, codec.clone())?.read()?;
            let image = match image {
                Some((head, encoded)) => Some((head, decode_state(encoded)?)),
                None => None,
            };
            Ok((image, LogStore::open(&log, codec)?))
        });
        let (image, mut log) = opened.await?;
        let read = replay(image, &mut log).await;
        // Blocks, but the next one to open it must not find it open.
        log.close();
        let (state, last, term) = read?;
        Ok(Self {
            state,
            last,
            term,
            codec,
        })
    }

    /// Applies one more batch, as if it were the last entry of the log.
    ///
    /// # Errors
    /// The store's refusal.
    pub fn amend(&mut self, batch: &Batch) -> io::Result<()> {
        self.state.apply_batch(batch).map_err(io::Error::other)?;
        self.term += 1;
        self.last = LogId::new_term_index(self.term, self.last.index + 1);
        Ok(())
    }

    /// Writes a directory from which a raft starts whose only member is `me`. Its term is higher
    /// than any that was seen here. On disk when it returns.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn write(self, dir: &Path, me: &Member) -> io::Result<()> {
        let members = BTreeMap::from([(me.raft_id, Peer::from(me))]);
        let voters = vec![BTreeSet::from([me.raft_id])];
        let membership = openraft::Membership::new(voters, members).map_err(io::Error::other)?;
        let head = Head {
            last_log_id: Some(self.last),
            membership: Membership::new(Some(self.last), membership),
        };
        let (log, snapshot) = (dir.join(LOG), dir.join(SNAPSHOT));
        let (state, codec) = (self.state, self.codec);
        let written = blocking(move || {
            let store = SnapshotStore::open(&snapshot, codec.clone())?;
            store.save(&head, &state)?;
            LogStore::open(&log, codec)
        });
        let mut log = written.await?;
        let saved = log.save_vote(&Vote::new(self.term, me.raft_id)).await;
        log.close();
        saved
    }
}

impl Raft {
    /// Writes a snapshot of the state as it is here now to a file of its own, sealed as ours is.
    /// Returns that state.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn copy_snapshot(&self, path: &Path) -> io::Result<State> {
        let (published, codec) = (self.published(), self.inner.codec.clone());
        let path = path.to_owned();
        blocking(move || {
            let store = SnapshotStore::open(&path, codec)?;
            store.save(&published.head(), &published.state)?;
            Ok(published.state)
        })
        .await
    }
}

/// Brings a snapshot forward by the log.
async fn replay(
    image: Option<(Head, State)>,
    log: &mut LogStore,
) -> io::Result<(State, LogId, u64)> {
    let (mut last, mut state) = match image {
        Some((head, state)) => (head.last_log_id, state),
        None => (None, State::default()),
    };
    let end = log
        .get_log_state()
        .await?
        .last_log_id
        .map_or(0, |last| last.index + 1);
    loop {
        let next = last.map_or(0, |last| last.index + 1);
        if next >= end {
            break;
        }
        let entries = log.limited_get_log_entries(next, end).await?;
        if entries.first().map(|entry| entry.log_id().index) != Some(next) {
            let text = format!("log entry {next} is missing; restore the node from a backup");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        for entry in entries {
            last = Some(entry.log_id());
            if let EntryPayload::Normal(Proposal(batch)) = entry.payload {
                // A refused batch left no trace when it was applied either.
                drop(state.apply_batch(&batch));
            }
        }
    }
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    let Some(last) = last else {
        let text = "there is neither a log nor a snapshot on this disk";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    };
    let term = voted.max(last.leader_id.term);
    Ok((state, last, term))
}
