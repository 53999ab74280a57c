//! Whose the mesh of a network namespace is: daemons may share one, and only one of them can have
//! its ports and rules. The others wait until it is gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

/// The right to the mesh of this namespace, until it is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Owner {
    /// `None` if somebody else has it.
    pub(super) fn become_one() -> io::Result<Option<Self>> {
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let path = PathBuf::from(format!("/run/skep-mesh-{namespace}.lock"));
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
        let first = Owner::become_one().unwrap();
        assert!(first.is_some());
        assert!(Owner::become_one().unwrap().is_none());
        drop(first);
        assert!(Owner::become_one().unwrap().is_some());
    }
}
