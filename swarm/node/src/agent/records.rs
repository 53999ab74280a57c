//! What the worker wants remembered, one file a task. Never interprets a record; one that cannot be
//! read is left out, since the dispatcher tells again what the node has to do.

use std::io;
use std::path::{Path, PathBuf};

use skep_core::Id;
use skep_core::worker::Record;
use tracing::warn;

use crate::disk;

/// The directory of the records.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Opens or makes the directory below the agent's own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("tasks");
        disk::create_private_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Everything that is remembered.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some() {
                // What a crash left of a half-written file.
                continue;
            }
            match rmp_serde::from_slice(&std::fs::read(&path)?) {
                Ok(record) => records.push(record),
                Err(error) => warn!(path = %path.display(), %error, "left out a damaged record"),
            }
        }
        Ok(records)
    }

    /// Writes (`Some`) or deletes (`None`) records. Blocks on the disk.
    ///
    /// # Errors
    /// The first failure; the others are tried all the same.
    pub fn write(&self, changes: &[(Id, Option<Record>)]) -> io::Result<()> {
        let mut outcome = Ok(());
        for (task, record) in changes {
            let written = self.write_one(task, record.as_ref());
            if outcome.is_ok() {
                outcome = written;
            }
        }
        outcome
    }

    fn write_one(&self, task: &Id, record: Option<&Record>) -> io::Result<()> {
        // An id comes over the network: it must not lead out of the directory.
        if task.is_empty() || !task.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(io::Error::other("a task's id is not one"));
        }
        let path = self.dir.join(task.as_str());
        match record {
            Some(record) => {
                let bytes = rmp_serde::to_vec_named(record).map_err(io::Error::other)?;
                disk::write_atomic(&path, &bytes, 0o600)
            }
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_lead_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        for bad in ["", "..", "../x", "a/b"] {
            assert!(records.write(&[(bad.into(), None)]).is_err(), "{bad}");
        }
        records.write(&[("abc".into(), None)]).unwrap();
        std::fs::write(dir.path().join("tasks/abc"), b"damaged").unwrap();
        std::fs::write(dir.path().join("tasks/abc.tmp"), b"half").unwrap();
        assert!(records.load().unwrap().is_empty());
        records.forget().unwrap();
        assert!(records.load().is_err());
    }
}
