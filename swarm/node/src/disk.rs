//! The data directory: its layout, its lock, its keys, the node's own state file. Never interprets
//! what raft or the worker keep below it.

mod adopt;
mod files;
mod keyring;
mod seal;
mod state;
mod unlock_key;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyring::{KEYS, Ring};

pub use files::{create_private_dir, rename, write_atomic};
pub use keyring::UnlockError;
pub use seal::{Keys, is_sealed};
pub use state::NodeState;

const LOCK: &str = "skepd.lock";
/// How long a daemon waits for the end of the one before it.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(20);
const STATE: &str = "state.json";
/// Lies there from the beginning of a wipe to its end, so that a crash cannot leave half a member.
const WIPING: &str = "wiping";
/// A backup that is being gathered; of no use after a crash.
const BACKUP: &str = "backup.tmp";
const CERTIFICATES: &str = "certificates";
const RAFT: &str = "raft";
const WORKER: &str = "worker";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file or directory refused.
    #[error("{path}: {source}")]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two daemons would destroy each other's state.
    #[error(
        "the data directory {path} is in use by another skepd{owner}; give each its own --data-dir"
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// ` (pid N)` if it is known.
        owner: String,
    },
    /// The keys are wrapped with the unlock key, which nobody has brought yet.
    #[error("the keys of this node are locked; unlock it with the swarm's unlock key")]
    Locked,
    /// The state file or the key file cannot be read. The content is never quoted.
    #[error(
        "{path} is damaged ({reason}); restore it from a backup, or move {path} away and let the \
         node join again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and in which way.
        reason: String,
    },
}

/// The data directory, locked for this process as long as a clone lives.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
    keyring: Arc<Ring>,
}

impl DataDir {
    /// Opens or creates the directory (mode 0700) and locks it. Blocks for up to 3 s while another
    /// process has it.
    pub fn open(path: &Path) -> Result<DataDir, DiskError> {
        create_private_dir(path).map_err(|source| at(path, source))?;
        let dir = DataDir {
            path: path.to_owned(),
            _lock: Arc::new(lock(path)?),
            keyring: Arc::default(),
        };
        if dir.path.join(WIPING).exists() {
            dir.wipe()?;
        }
        dir.finish_adoption()?;
        Ok(dir)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where swarm-root-ca.crt, swarm-node.crt and swarm-node.key lie.
    pub fn certificates(&self) -> PathBuf {
        self.path.join(CERTIFICATES)
    }

    /// The file that holds the data key, wrapped or not.
    pub fn keys_file(&self) -> PathBuf {
        self.path.join(KEYS)
    }

    /// Where a backup is gathered.
    pub fn backup(&self) -> PathBuf {
        self.path.join(BACKUP)
    }

    /// The raft module's own.
    pub fn raft(&self) -> PathBuf {
        self.path.join(RAFT)
    }

    /// The agent's own.
    pub fn worker(&self) -> PathBuf {
        self.path.join(WORKER)
    }

    /// The node's state; `None` if it never was in a swarm.
    pub fn load(&self) -> Result<Option<NodeState>, DiskError> {
        let path = self.path.join(STATE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, error)),
        };
        let state = NodeState::decode(&text);
        state
            .map(Some)
            .map_err(|reason| DiskError::Damaged { path, reason })
    }

    /// Replaces the node's state, durably.
    pub fn save(&self, state: &NodeState) -> Result<(), DiskError> {
        let path = self.path.join(STATE);
        let text = state.encode().map_err(|error| at(&path, error))?;
        write_atomic(&path, &text, 0o600).map_err(|error| at(&path, error))
    }

    /// Forgets the swarm: keys, certificates, raft, worker and state. The directory, its lock and
    /// files that are not ours stay. A wipe that a crash interrupts is finished by the next `open`.
    pub fn wipe(&self) -> Result<(), DiskError> {
        let marker = self.path.join(WIPING);
        write_atomic(&marker, b"", 0o600).map_err(|error| at(&marker, error))?;
        self.keyring.forget();
        // Without the keys the rest is noise, whatever becomes of it.
        for name in [
            BACKUP,
            KEYS,
            STATE,
            CERTIFICATES,
            RAFT,
            WORKER,
            adopt::NEXT,
            adopt::ADOPTING,
        ] {
            let path = self.path.join(name);
            let removed = match path.symlink_metadata() {
                Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
                Ok(_) => std::fs::remove_file(&path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&path, error));
                }
                _ => {}
            }
        }
        files::sync_parent(&marker).map_err(|error| at(&marker, error))?;
        std::fs::remove_file(&marker).map_err(|error| at(&marker, error))
    }
}

/// Takes the lock; the file tells the next one who holds it.
fn lock(dir: &Path) -> Result<File, DiskError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(&path).map_err(|error| at(&path, error))?;
    // A daemon that was killed keeps its lock until the last of its threads is back from the disk.
    let end = Instant::now() + LOCK_PATIENCE;
    let mut locked = file.try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < end {
        std::thread::sleep(LOCK_RETRY);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Without the number the message still says what to do.
            let _ = file.take(20).read_to_string(&mut pid);
            let owner = match pid.trim().parse::<u32>() {
                Ok(pid) => format!(" (pid {pid})"),
                Err(_) => String::new(),
            };
            return Err(DiskError::InUse {
                path: dir.to_owned(),
                owner,
            });
        }
        Err(TryLockError::Error(error)) => return Err(at(&path, error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| at(&path, error))?;
    Ok(file)
}

fn at(path: &Path, source: io::Error) -> DiskError {
    DiskError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
