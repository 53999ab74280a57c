//! Snapshots on disk: one file with the state as of one log entry, sealed and replaced atomically.
//! Never decides when to make one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use skep_core::State;

use super::chunks::{ChunkReader, ChunkWriter, read_frame, write_frame};
use super::codec::{Codec, named};
use super::config::Types;
use super::log_store::LogId;
use super::vote::damaged;
use crate::disk;

pub(super) type Membership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// Starts the file; the number is the format's version.
const MAGIC: &[u8; 8] = b"skepsn\x002";

/// Old snapshots are called so, with the index of their last entry.
const OLD: &str = "snapshot-";
/// Snapshots that are not whole yet.
const PART: &str = "snapshot.part";

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
        /// The file that it is in.
        part: PathBuf,
        /// The same.
        state: Box<State>,
    },
}

/// A snapshot's state as it is read.
pub type Reader = ChunkReader<BufReader<File>>;

/// A snapshot on its way into a file of its own.
pub struct Part {
    path: PathBuf,
    writer: ChunkWriter<BufWriter<File>>,
}

impl Part {
    /// Adds a piece of the encoded state. Blocks for the disk.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// Makes it durable and gives the file's name.
    pub fn finish(self) -> io::Result<PathBuf> {
        let file = self.writer.finish()?;
        file.into_inner()
            .map_err(|error| error.into_error())?
            .sync_all()?;
        Ok(self.path)
    }
}

/// Decodes a state, piece by piece. The decoder's own text is left out: it may quote the state.
pub fn decode_state(encoded: impl Read) -> io::Result<State> {
    rmp_serde::from_read(encoded)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not the state of a swarm"))
}

/// The snapshot's file.
pub struct SnapshotStore {
    path: PathBuf,
    codec: Arc<dyn Codec>,
    /// What the file holds; locked while it is replaced.
    current: Mutex<Option<Head>>,
    keep_old: AtomicU64,
    /// Counts parts, each of which has a file of its own.
    parts: AtomicU64,
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
            parts: AtomicU64::new(0),
        };
        store.sweep();
        if let Some((head, mut state)) = store.read()? {
            // To the end, so that damage shows before anybody relies on it.
            while state.chunk().map_err(|_| store.damaged())?.is_some() {}
            store.current = Mutex::new(Some(head));
        }
        Ok(store)
    }

    /// Removes what a crash has left half written.
    fn sweep(&self) {
        let listed = self.path.parent().map(fs::read_dir);
        for file in listed.into_iter().flatten().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(PART) {
                drop(fs::remove_file(file.path()));
            }
        }
    }

    /// What the current snapshot is of.
    pub fn head(&self) -> Option<Head> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the snapshot, unless the one that is there is newer. Blocks for the disk.
    pub fn save(&self, head: &Head, state: &State) -> io::Result<()> {
        let encode = || {
            let mut part = self.part(head)?;
            let encoded = rmp_serde::encode::write_named(&mut part.writer, state);
            // The encoder hides what the disk has said.
            encoded.map_err(|error| io::Error::new(part.writer.failed(), error.to_string()))?;
            part.finish()
        };
        self.adopt(head, &encode().map_err(|error| self.at(&error))?)
    }

    /// The same with bytes that are encoded already.
    pub fn copy(&self, head: &Head, from: &mut impl Read) -> io::Result<()> {
        let mut copy = || {
            let mut part = self.part(head)?;
            io::copy(from, &mut part.writer)?;
            part.finish()
        };
        self.adopt(head, &copy().map_err(|error| self.at(&error))?)
    }

    /// A file for a snapshot that comes in pieces. Not the snapshot before [`Self::adopt`].
    pub fn part(&self, head: &Head) -> io::Result<Part> {
        let number = self.parts.fetch_add(1, Ordering::SeqCst);
        let path = self.path.with_file_name(format!("{PART}{number}"));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC)?;
        let plain = rmp_serde::to_vec_named(head).map_err(io::Error::other)?;
        write_frame(&mut file, &self.codec.seal(b"snapshot head", plain)?)?;
        let writer = ChunkWriter::new(file, self.codec.clone(), state_label(head));
        Ok(Part { path, writer })
    }

    /// Makes a finished part the snapshot, unless the one that is there is newer.
    pub fn adopt(&self, head: &Head, part: &Path) -> io::Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = |current: &Head| current.last_log_id > head.last_log_id;
        if current.as_ref().is_some_and(newer) {
            return fs::remove_file(part);
        }
        self.retire(current.as_ref());
        disk::rename(part, &self.path).map_err(|error| self.at(&error))?;
        *current = Some(head.clone());
        Ok(())
    }

    /// Names the file in an error that keeps its kind.
    fn at(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
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

    /// The current snapshot, its state still encoded and on disk. It stays readable when it is
    /// replaced meanwhile.
    pub fn read(&self) -> io::Result<Option<(Head, Reader)>> {
        match File::open(&self.path) {
            Ok(file) => self.read_file(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&self.path, &error)),
        }
    }

    /// The state in a finished part.
    pub fn read_part(&self, part: &Path) -> io::Result<State> {
        let (_, reader) = self.read_file(File::open(part)?)?;
        decode_state(reader)
    }

    fn read_file(&self, file: File) -> io::Result<(Head, Reader)> {
        let mut file = BufReader::new(file);
        let mut parse = || {
            let mut magic = [0; MAGIC.len()];
            file.read_exact(&mut magic).ok()?;
            if magic != *MAGIC {
                return None;
            }
            let sealed = read_frame(&mut file).ok()?;
            let plain = self.codec.open(b"snapshot head", &sealed)?;
            rmp_serde::from_slice::<Head>(&plain).ok()
        };
        let head = parse().ok_or_else(|| self.damaged())?;
        let label = state_label(&head);
        Ok((head, ChunkReader::new(file, self.codec.clone(), label)))
    }

    fn damaged(&self) -> io::Error {
        damaged(&self.path, "the snapshot cannot be read")
    }
}

/// Binds a sealed state to its head.
fn state_label(head: &Head) -> Vec<u8> {
    format!("snapshot state {:?}", head.last_log_id.map(|id| id.index)).into_bytes()
}
