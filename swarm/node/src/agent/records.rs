//! What the worker wants remembered, one sealed file a task: its spec may hold secrets. Never
//! interprets a record; one that cannot be read is left out, since the dispatcher tells again what
//! the node has to do.

use std::io;
use std::path::{Path, PathBuf};

use skep_core::Id;
use skep_core::worker::Record;
use tracing::warn;

use crate::disk::{self, Keys};

/// The directory of the records, below the agent's own.
const TASKS: &str = "tasks";

/// The records, and what they are sealed with.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
    keys: Keys,
}

impl Records {
    /// Opens or makes the directory below the agent's own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path, keys: Keys) -> io::Result<Self> {
        let dir = dir.join(TASKS);
        disk::create_private_dir(&dir)?;
        Ok(Self { dir, keys })
    }

    /// Everything that is remembered. What an older layout has left legible is sealed.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some() {
                // What a crash left of a half-written file, which an older layout left legible.
                std::fs::remove_file(&path)?;
                continue;
            }
            match self.read(&path, &std::fs::read(&path)?) {
                Ok(record) => records.push(record),
                Err(error) => warn!(path = %path.display(), %error, "left out a damaged record"),
            }
        }
        Ok(records)
    }

    fn read(&self, path: &Path, bytes: &[u8]) -> io::Result<Record> {
        let sealed = disk::is_sealed(bytes);
        let plain = match sealed {
            true => self.keys.open(&label(path), bytes).ok_or_else(|| {
                io::Error::other("it cannot be opened with the keys of this node")
            })?,
            false => bytes.to_vec(),
        };
        let record = rmp_serde::from_slice(&plain).map_err(io::Error::other)?;
        if !sealed {
            self.store(path, plain)?;
        }
        Ok(record)
    }

    fn store(&self, path: &Path, plain: Vec<u8>) -> io::Result<()> {
        let sealed = self.keys.seal(&label(path), plain)?;
        disk::write_atomic(path, &sealed, 0o600)
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
        let path = path(&self.dir, task)?;
        match record {
            Some(record) => {
                let bytes = rmp_serde::to_vec_named(record).map_err(io::Error::other)?;
                self.store(&path, bytes)
            }
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}

/// What lies under a task's id in a directory.
///
/// # Errors
/// When the id, which comes over the network, might lead out of the directory.
pub fn path(dir: &Path, task: &Id) -> io::Result<PathBuf> {
    if task.is_empty() || !task.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(io::Error::other("a task's id is not one"));
    }
    Ok(dir.join(task.as_str()))
}

/// Forgets every record below the agent's directory, legible or not.
///
/// # Errors
/// When the directory cannot be removed.
pub fn forget(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir.join(TASKS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A record is bound to its task: it cannot be put in another one's place.
fn label(path: &Path) -> Vec<u8> {
    let task = path.file_name().unwrap_or_default();
    [b"task ", task.as_encoded_bytes()].concat()
}

#[cfg(test)]
mod tests {

    use skep_api::Secret;
    use skep_api::container::ContainerSpec;
    use skep_api::task::{TaskSpec, TaskStatus};
    use skep_core::object::Task;

    use super::*;

    const ENV: &str = "PASSWORD=of-the-database";
    const LOGIN: &str = "credentials-of-the-registry";

    fn records(dir: &Path, keys: &Keys) -> Records {
        Records::open(dir, keys.clone()).unwrap()
    }

    fn record() -> Record {
        let container = ContainerSpec {
            env: vec![ENV.into()],
            ..Default::default()
        };
        let task = Task {
            spec_version: 1,
            service_id: "s1".into(),
            service_name: "web".into(),
            slot: 1,
            registry_auth: Some(Secret::from(LOGIN)),
            ..Task::new(
                "t1".into(),
                TaskSpec {
                    container_spec: Some(container),
                    ..Default::default()
                },
            )
        };
        Record {
            task,
            status: TaskStatus::default(),
            container: None,
        }
    }

    fn legible(path: &Path) -> bool {
        let bytes = std::fs::read(path).unwrap();
        let holds = |text: &str| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        holds(ENV) || holds(LOGIN)
    }

    #[test]
    fn records_are_kept_and_not_legible() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        let (ours, path) = (records(dir.path(), &keys), dir.path().join("tasks/t1"));
        ours.write(&[("t1".into(), Some(record()))]).unwrap();
        assert!(!legible(&path));
        assert_eq!(records(dir.path(), &keys).load().unwrap(), [record()]);
        let others = records(dir.path(), &Keys::generate().unwrap());
        assert!(others.load().unwrap().is_empty());
        // One task's record is not another's.
        std::fs::rename(&path, dir.path().join("tasks/t2")).unwrap();
        assert!(ours.load().unwrap().is_empty());

        // As skepd wrote it before there were keys.
        std::fs::write(&path, rmp_serde::to_vec_named(&record()).unwrap()).unwrap();
        assert!(legible(&path));
        assert_eq!(ours.load().unwrap(), [record()]);
        assert!(!legible(&path));
        assert_eq!(ours.load().unwrap(), [record()]);
    }

    #[test]
    fn ids_do_not_lead_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(dir.path(), &Keys::generate().unwrap());
        for bad in ["", "..", "../x", "a/b"] {
            assert!(records.write(&[(bad.into(), None)]).is_err(), "{bad}");
        }
        records.write(&[("abc".into(), None)]).unwrap();
        std::fs::write(dir.path().join("tasks/abc"), b"damaged").unwrap();
        std::fs::write(dir.path().join("tasks/abc.tmp"), b"half").unwrap();
        assert!(records.load().unwrap().is_empty());
        assert!(!dir.path().join("tasks/abc.tmp").exists());
        forget(dir.path()).unwrap();
        assert!(records.load().is_err());
        forget(dir.path()).unwrap();
    }
}
