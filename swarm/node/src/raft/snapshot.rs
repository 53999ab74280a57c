//! Snapshots on disk: one file with the state as of one log entry, sealed and replaced atomically.
//! Never decides when to make one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skep_core::State;

use super::codec::{Codec, named};
use super::config::Types;
use super::log_store::LogId;
use crate::disk;

pub(super) type Membership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// Starts the file; the number is the format's version.
const MAGIC: &[u8; 8] = b"skepsn\x001";

/// Old snapshots are called so, with the index of their last entry.
const OLD: &str = "snapshot-";

/// What a snapshot is of, as it is written and sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The last entry in it.
    pub last_log_id: Option<LogId>,
    /// The membership as of that entry.
    pub membership: Membership,
}

impl Head {
    /// As openraft has it.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last_log_id,
            last_membership: self.membership.clone(),
        }
    }
}

impl From<&SnapshotMeta> for Head {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last_log_id: meta.last_log_id,
            membership: meta.last_membership.clone(),
        }
    }
}

/// A snapshot's content.
pub enum Image {
    /// In the file; read when it is needed, so that asking for it costs nothing.
    Stored(Arc<SnapshotStore>),
    /// Received from the leader, decoded already.
    Received {
        /// As it was sent: the encoded state.
        bytes: Bytes,
        /// The same.
        state: State,
    },
}

/// Encodes a state for a snapshot.
pub fn encode_state(state: &State) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(state).map_err(io::Error::other)
}

/// The opposite of [`encode_state`]. The decoder's own text is left out: it may quote the state.
pub fn decode_state(bytes: &[u8]) -> io::Result<State> {
    rmp_serde::from_slice(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not the state of a swarm"))
}

/// The snapshot's file.
pub struct SnapshotStore {
    path: PathBuf,
    codec: Arc<dyn Codec>,
    /// What the file holds; locked while it is replaced.
    current: Mutex<Option<Head>>,
    keep_old: AtomicU64,
}

impl SnapshotStore {
    /// Opens the file, if there is one.
    ///
    /// # Errors
    /// A file that is damaged or sealed with another key; names it.
    pub fn open(path: &Path, codec: Arc<dyn Codec>) -> io::Result<Self> {
        let mut store = Self {
            path: path.to_owned(),
            codec,
            current: Mutex::new(None),
            keep_old: AtomicU64::new(0),
        };
        let current = store.read()?.map(|(head, _)| head);
        store.current = Mutex::new(current);
        Ok(store)
    }

    /// What the current snapshot is of.
    pub fn head(&self) -> Option<Head> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the snapshot, unless the one that is there is newer. Blocks for the disk.
    pub fn save(&self, head: &Head, state: Vec<u8>) -> io::Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|current| current.last_log_id > head.last_log_id)
        {
            return Ok(());
        }
        let plain = rmp_serde::to_vec_named(head).map_err(io::Error::other)?;
        let sealed_head = self.codec.seal(b"snapshot head", plain)?;
        let sealed_state = self.codec.seal(&state_label(head), state)?;
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&(sealed_head.len() as u32).to_be_bytes());
        file.extend_from_slice(&sealed_head);
        file.extend_from_slice(&sealed_state);
        self.retire(current.as_ref());
        disk::write_atomic(&self.path, &file, 0o600).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })?;
        *current = Some(head.clone());
        Ok(())
    }

    /// How many snapshots to keep beside the current one (Docker's `KeepOldSnapshots`).
    pub fn keep_old(&self, count: u64) {
        if self.keep_old.swap(count, Ordering::SeqCst) != count {
            self.retire(None);
        }
    }

    /// Gives the current snapshot a name of its own, if old ones are kept, and removes those that
    /// are too many. What fails is only said: nobody needs an old snapshot to go on.
    fn retire(&self, current: Option<&Head>) {
        let keep = self.keep_old.load(Ordering::SeqCst);
        let name = |index: u64| self.path.with_file_name(format!("{OLD}{index:020}"));
        if let Some(last) = current
            .and_then(|head| head.last_log_id)
            .filter(|_| keep > 0)
            && let Err(error) = fs::hard_link(&self.path, name(last.index))
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(%error, "could not keep an old snapshot");
        }
        let mut old = self.old();
        old.sort_unstable();
        let too_many = old
            .len()
            .saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        for index in old.into_iter().take(too_many) {
            if let Err(error) = fs::remove_file(name(index)) {
                tracing::warn!(%error, "could not remove an old snapshot");
            }
        }
    }

    /// The last entries of the old snapshots that are there.
    pub(super) fn old(&self) -> Vec<u64> {
        let listed = self.path.parent().map(fs::read_dir);
        let Some(Ok(listed)) = listed else {
            return Vec::new();
        };
        let index = |file: fs::DirEntry| file.file_name().to_str()?.strip_prefix(OLD)?.parse().ok();
        listed.flatten().filter_map(index).collect()
    }

    /// The current snapshot with the encoded state. Blocks for the disk.
    pub fn read(&self) -> io::Result<Option<(Head, Vec<u8>)>> {
        let file = match fs::read(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&self.path, &error)),
        };
        let damaged = || {
            let text = "the snapshot is damaged or belongs to another key; restore it from a \
                        backup, or let this node leave the swarm and join again";
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {text}", self.path.display()),
            )
        };
        self.parse(&file).map(Some).ok_or_else(damaged)
    }

    fn parse(&self, file: &[u8]) -> Option<(Head, Vec<u8>)> {
        let (length, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        let (head, state) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let head: Head = rmp_serde::from_slice(&self.codec.open(b"snapshot head", head)?).ok()?;
        let state = self.codec.open(&state_label(&head), state)?;
        Some((head, state))
    }
}

/// Binds a sealed state to its head.
fn state_label(head: &Head) -> Vec<u8> {
    format!("snapshot state {:?}", head.last_log_id.map(|id| id.index)).into_bytes()
}
