//! Whether there is room on the disk for the log. Measures and remembers; never decides what is
//! done about it and never writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

/// Room that must be left, in bytes, so that votes, snapshots and the log's own housekeeping go on.
const LOW: u64 = 8 << 20;
/// Once it was missing, so much must be free before writes go on: no flapping at the edge.
const ENOUGH: u64 = 16 << 20;

/// Between two attempts to write a snapshot on a full disk.
const PAUSE: Duration = Duration::from_millis(250);

/// The room below one directory. Clones of the receiver see every change.
pub struct Space {
    dir: PathBuf,
    /// Why there is no room; `None` if there is.
    full: watch::Sender<Option<String>>,
    /// A write has failed, whatever the file system says of its free space (quotas).
    failed: std::sync::Mutex<bool>,
    least: (u64, u64),
    /// Nobody is to wait any more.
    given_up: AtomicBool,
}

impl Space {
    /// Of the file system that `dir` is on.
    pub fn new(dir: &Path) -> Self {
        let total = statvfs(dir).map_or(u64::MAX, |it| bytes(it.blocks(), it.fragment_size()));
        // Never more than a part of a tiny disk, on which the rest may well be enough.
        let least = (LOW.min(total / 8), ENOUGH.min(total / 4));
        Self {
            dir: dir.to_owned(),
            full: watch::Sender::new(None),
            failed: std::sync::Mutex::new(false),
            least,
            given_up: AtomicBool::new(false),
        }
    }

    /// Ends every wait for room: raft stops.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    /// Does something that writes, again and again for as long as the disk is full. Blocks.
    ///
    /// # Errors
    /// Of `work`, for another reason or after everybody has given up.
    pub fn insist<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match work() {
                Err(error) if no_space(&error) && !self.given_up.load(Ordering::SeqCst) => {
                    std::thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// Follows the state.
    pub fn watch(&self) -> watch::Receiver<Option<String>> {
        self.full.subscribe()
    }

    /// Why nothing can be written, for people; `None` if there is room.
    pub fn full(&self) -> Option<String> {
        self.full.borrow().clone()
    }

    /// A write has failed for want of space, or (`None`) has worked.
    pub fn report(&self, failed: Option<&io::Error>) {
        let mut before = self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *before != failed.is_some() {
            *before = failed.is_some();
            drop(before);
            self.measure();
        }
    }

    /// Looks at the file system. Blocks if that does.
    pub fn measure(&self) {
        let failed = *self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Ok(found) = statvfs(&self.dir) else {
            return;
        };
        let free = bytes(found.blocks_available(), found.fragment_size());
        self.full.send_if_modified(|full| {
            let least = if full.is_some() {
                self.least.1
            } else {
                self.least.0
            };
            let now = (failed || free < least).then(|| self.text(free));
            let changed = now.is_some() != full.is_some();
            match (&now, changed) {
                (Some(text), true) => tracing::error!("{text}"),
                (None, true) => tracing::info!("there is room for the log again"),
                _ => {}
            }
            *full = now;
            changed
        });
    }

    fn text(&self, free: u64) -> String {
        format!(
            "the disk of this manager is full: {} MiB are left for {}, at least {} MiB are needed; \
             free some space there (docker system prune), and writes go on by themselves",
            free >> 20,
            self.dir.display(),
            (self.least.1 >> 20).max(1),
        )
    }
}

fn bytes(blocks: u64, size: u64) -> u64 {
    blocks.saturating_mul(size)
}

/// Whether an error is for want of space.
pub fn no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
