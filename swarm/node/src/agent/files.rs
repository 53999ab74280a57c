//! Secrets and configs of tasks as files that are in memory alone: a tmpfs a task, below the data
//! directory, bound into the task's container and gone with the task. Nothing is ever written
//! where no tmpfs is mounted. Never decides which files a task gets.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde_json::{Value, json};
use skep_core::Id;
use skep_core::task_files::TaskFile;
use skep_core::worker::{EngineOp, OpError};
use tracing::warn;

use super::records;
use crate::disk;

/// The directory of the files, below the agent's own.
const FILES: &str = "files";
/// How large the files of one task may be together.
const OPTIONS: &str = "mode=0700,size=64m";

/// The files of this node's tasks.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Opens or makes the directory below the agent's own. Files of tasks that are not known any
    /// more are dropped.
    ///
    /// # Errors
    /// When it cannot be made or listed.
    pub fn open(dir: &Path, known: &[Id]) -> io::Result<Self> {
        let dir = dir.join(FILES);
        disk::create_private_dir(&dir)?;
        let files = Self { dir };
        for entry in fs::read_dir(&files.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !known.iter().any(|id| id.as_str() == name) {
                take_away(&path);
            }
        }
        Ok(files)
    }

    /// Writes what a container is to find, and binds it into the body that makes the container.
    /// Other operations are left as they are. Blocks.
    ///
    /// # Errors
    /// In words, without the content of any file.
    pub fn prepare(&self, op: EngineOp) -> Result<EngineOp, OpError> {
        let EngineOp::Create {
            name,
            task,
            mut body,
            files,
        } = op
        else {
            return Ok(op);
        };
        if !files.is_empty() {
            let binds = self.write(&task, &files).map_err(|error| {
                OpError::Failed(format!(
                    "could not make the task's secrets and configs: {error}"
                ))
            })?;
            bind(&mut body, binds);
        }
        Ok(EngineOp::Create {
            name,
            task,
            body,
            files: Vec::new(),
        })
    }

    fn write(&self, task: &Id, files: &[TaskFile]) -> io::Result<Vec<Value>> {
        let dir = records::path(&self.dir, task)?;
        disk::create_private_dir(&dir)?;
        if !is_in_memory(&dir)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("tmpfs"), &dir, Some("tmpfs"), flags, Some(OPTIONS))?;
        }
        let mut binds = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let path = dir.join(number.to_string());
            write_one(&path, file)?;
            binds.push(json!({
                "Type": "bind",
                "Source": path.to_string_lossy(),
                "Target": file.target,
                "ReadOnly": true,
            }));
        }
        Ok(binds)
    }

    /// The task has ended, or is gone: its files are, too. A container that still runs keeps what
    /// is bound into it.
    pub fn forget(&self, task: &Id) {
        if let Ok(dir) = records::path(&self.dir, task)
            && dir.exists()
        {
            take_away(&dir);
        }
    }
}

/// Takes the files of all tasks away: the node leaves its swarm.
pub fn forget_all(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir.join(FILES)) else {
        return;
    };
    entries.flatten().for_each(|entry| take_away(&entry.path()));
}

fn write_one(path: &Path, file: &TaskFile) -> io::Result<()> {
    // A second attempt finds what the first has left, perhaps without the right to write to it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    out.write_all(&file.data)?;
    chown(path, Some(file.uid), Some(file.gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode))
}

fn is_in_memory(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    // A directory on a tmpfs that is not the task's own would not be gone with the task.
    let own = fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev();
    Ok(own && statfs(dir)?.filesystem_type() == TMPFS_MAGIC)
}

fn take_away(dir: &Path) {
    if is_in_memory(dir).unwrap_or(false)
        && let Err(error) = umount2(dir, MntFlags::MNT_DETACH)
    {
        warn!(dir = %dir.display(), %error, "could not take away the files of a task");
    }
    if let Err(error) = fs::remove_dir(dir) {
        warn!(dir = %dir.display(), %error, "could not remove the directory of a task's files");
    }
}

fn bind(body: &mut Value, binds: Vec<Value>) {
    let mounts = body
        .as_object_mut()
        .map(|body| body.entry("HostConfig").or_insert_with(|| json!({})))
        .and_then(Value::as_object_mut)
        .map(|host| host.entry("Mounts").or_insert_with(|| json!([])))
        .and_then(Value::as_array_mut);
    if let Some(mounts) = mounts {
        mounts.extend(binds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(files: Vec<TaskFile>) -> EngineOp {
        EngineOp::Create {
            name: "web.1.t1".to_owned(),
            task: "t1".into(),
            body: Box::new(json!({"Image": "a", "HostConfig": {"Mounts": [{"Target": "/data"}]}})),
            files,
        }
    }

    fn file(data: &str) -> TaskFile {
        TaskFile {
            target: "/run/secrets/key".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            data: data.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn files_are_in_memory_and_go_with_their_task() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path(), &[]).unwrap();
        let prepared = match files.prepare(create(vec![file("top")])) {
            Ok(prepared) => prepared,
            Err(OpError::Failed(why)) if why.contains("EPERM") => return, // nobody may mount here
            Err(why) => panic!("{why:?}"),
        };
        let EngineOp::Create {
            body, files: left, ..
        } = prepared
        else {
            panic!("{prepared:?}")
        };
        assert!(left.is_empty());
        let bound = &body["HostConfig"]["Mounts"][1];
        assert_eq!(bound["Target"], "/run/secrets/key");
        assert_eq!(bound["ReadOnly"], true);
        let path = PathBuf::from(bound["Source"].as_str().unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"top");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o400
        );
        assert!(is_in_memory(path.parent().unwrap()).unwrap());
        // A second attempt, and a restart that still knows the task.
        files.prepare(create(vec![file("new")])).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        Files::open(dir.path(), &["t1".into()]).unwrap();
        assert!(path.exists());
        files.forget(&"t1".into());
        assert!(!path.parent().unwrap().exists());
        files.prepare(create(vec![file("top")])).unwrap();
        Files::open(dir.path(), &[]).unwrap();
        assert!(!path.parent().unwrap().exists(), "a stray is cleared away");
    }
}
