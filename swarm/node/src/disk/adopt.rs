//! Putting another raft in the place of the one in a data directory, or everything into an empty
//! one: a crash at any moment leaves the old or the new. Never looks into what it moves.

use std::io;
use std::path::PathBuf;

use super::{DataDir, DiskError, LOCK, NodeState, RAFT, WIPING, at, files, write_atomic};

/// Where the new one is written.
pub(super) const NEXT: &str = "raft.next";
/// Lies there from when the new one is complete until it is in place; holds the new state file.
pub(super) const ADOPTING: &str = "adopting";

impl DataDir {
    /// An empty directory beside raft's, for another raft.
    ///
    /// # Errors
    /// What the disk said.
    pub fn next_raft(&self) -> Result<PathBuf, DiskError> {
        let path = self.path.join(NEXT);
        remove_dir(&path)?;
        files::create_private_dir(&path).map_err(|source| at(&path, source))?;
        Ok(path)
    }

    /// Puts the content of [`next_raft`](Self::next_raft) in raft's place, and this state in that
    /// of the state file. Neither the old raft nor the new one may be open.
    ///
    /// # Errors
    /// What the disk said. The next start finishes what has begun.
    pub fn adopt(&self, state: &NodeState) -> Result<(), DiskError> {
        let inside = self.path.join(NEXT).join(RAFT);
        files::sync_parent(&inside).map_err(|error| at(&inside, error))?;
        let marker = self.path.join(ADOPTING);
        let text = state.encode().map_err(|error| at(&marker, error))?;
        // From here on it is the new one that counts.
        write_atomic(&marker, &text, 0o600).map_err(|error| at(&marker, error))?;
        self.finish_adoption()
    }

    /// Whether nothing lies in the directory but its lock.
    ///
    /// # Errors
    /// What the disk said.
    pub fn is_empty(&self) -> Result<bool, DiskError> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| at(&self.path, error))?;
        for entry in entries {
            let name = entry.map_err(|error| at(&self.path, error))?.file_name();
            if name != LOCK {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills an empty directory. What `work` has written is gone if it fails, and after a crash in
    /// the middle.
    ///
    /// # Errors
    /// What `work` said, or the disk.
    pub fn fill<T, E: From<DiskError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let marker = self.path.join(WIPING);
        write_atomic(&marker, b"", 0o600).map_err(|error| at(&marker, error))?;
        match work() {
            Ok(done) => {
                std::fs::remove_file(&marker)
                    .and_then(|()| files::sync_parent(&marker))
                    .map_err(|error| at(&marker, error))?;
                Ok(done)
            }
            Err(error) => {
                self.wipe()?;
                Err(error)
            }
        }
    }

    /// Does what is left to do after a crash.
    pub(super) fn finish_adoption(&self) -> Result<(), DiskError> {
        let (marker, next) = (self.path.join(ADOPTING), self.path.join(NEXT));
        let text = match std::fs::read(&marker) {
            Ok(text) => text,
            // Not complete, so it never was the one that counts.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return remove_dir(&next),
            Err(error) => return Err(at(&marker, error)),
        };
        let state = NodeState::decode(&text).map_err(|reason| DiskError::Damaged {
            path: marker.clone(),
            reason,
        })?;
        if next.exists() {
            let raft = self.raft();
            remove_dir(&raft)?;
            files::rename(&next, &raft).map_err(|error| at(&raft, error))?;
        }
        self.save(&state)?;
        std::fs::remove_file(&marker).map_err(|error| at(&marker, error))?;
        files::sync_parent(&marker).map_err(|error| at(&marker, error))
    }
}

fn remove_dir(path: &PathBuf) -> Result<(), DiskError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory whose raft is "old", with a complete new one beside it.
    fn prepared() -> (tempfile::TempDir, NodeState) {
        let home = tempfile::tempdir().unwrap();
        let disk = DataDir::open(home.path()).unwrap();
        disk.save(&NodeState::default()).unwrap();
        files::create_private_dir(&disk.raft()).unwrap();
        std::fs::write(disk.raft().join("file"), "old").unwrap();
        std::fs::write(disk.next_raft().unwrap().join("file"), "new").unwrap();
        let state = NodeState {
            raft_id: 7,
            ..NodeState::default()
        };
        (home, state)
    }

    fn found(home: &tempfile::TempDir) -> (String, u64, Vec<String>) {
        let disk = DataDir::open(home.path()).unwrap();
        let raft = std::fs::read_to_string(disk.raft().join("file")).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        (raft, disk.load().unwrap().unwrap().raft_id, names)
    }

    fn names() -> Vec<String> {
        ["raft", "skepd.lock", "state.json"]
            .map(String::from)
            .to_vec()
    }

    #[test]
    fn the_new_one_takes_the_old_ones_place() {
        let (home, state) = prepared();
        DataDir::open(home.path()).unwrap();
        assert_eq!(found(&home), ("old".into(), 0, names()), "not complete");

        let (home, state_again) = prepared();
        assert_eq!(state, state_again);
        let disk = DataDir::open(home.path()).unwrap();
        std::fs::write(disk.next_raft().unwrap().join("file"), "new").unwrap();
        disk.adopt(&state).unwrap();
        drop(disk);
        assert_eq!(found(&home), ("new".into(), 7, names()));
    }

    #[test]
    fn a_crash_leaves_one_or_the_other() {
        // How far it had come: the marker, then the old one gone, then the new one in place, then
        // the state file too.
        for step in 1..=4 {
            let (home, state) = prepared();
            let at = |name: &str| home.path().join(name);
            std::fs::write(at(ADOPTING), state.encode().unwrap()).unwrap();
            if step > 1 {
                std::fs::remove_dir_all(at(RAFT)).unwrap();
            }
            if step > 2 {
                std::fs::rename(at(NEXT), at(RAFT)).unwrap();
            }
            if step > 3 {
                std::fs::write(at("state.json"), state.encode().unwrap()).unwrap();
            }
            assert_eq!(found(&home), ("new".into(), 7, names()), "step {step}");
        }
    }
}
