//! Whose something of a network namespace is that there can be only once, such as the mesh with its
//! ports and rules: daemons may share a namespace, and one of them has it. The others wait until
//! that one is gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

/// How long a data plane that has ended may take to let go, and how often to look.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// The right to something of this namespace, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Owner {
    /// `None` if somebody else has it.
    pub(crate) fn become_one(what: &str) -> io::Result<Option<Self>> {
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let path = PathBuf::from(format!("/run/skep-{what}-{namespace}.lock"));
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path)?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, error)) => return Err(error.into()),
        };
        // The one before may have removed the file while this one opened it.
        let is_same = fs::metadata(&path).is_ok_and(|there| {
            lock.metadata()
                .is_ok_and(|it| (it.dev(), it.ino()) == (there.dev(), there.ino()))
        });
        Ok(is_same.then_some(Self { path, _lock: lock }))
    }
}

/// The right, for whoever cleans up after a data plane that has just ended: threads of that one may
/// still be letting go. `None` if somebody else keeps it.
pub(crate) async fn after_the_end(what: &str) -> io::Result<Option<Owner>> {
    let begun = Instant::now();
    loop {
        match Owner::become_one(what)? {
            None if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            owner => return Ok(owner),
        }
    }
}

/// Whether a right is ours: held already, or free and taken now.
pub(crate) fn holds(held: &mut Option<Owner>, what: &str) -> io::Result<bool> {
    if held.is_none() {
        *held = Owner::become_one(what)?;
    }
    Ok(held.is_some())
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A file that stays does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_it() {
        // In a directory that only root may write to.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let first = Owner::become_one("test").unwrap();
        assert!(first.is_some());
        assert!(Owner::become_one("test").unwrap().is_none());
        assert!(Owner::become_one("other-test").unwrap().is_some());
        drop(first);
        assert!(Owner::become_one("test").unwrap().is_some());
    }
}
