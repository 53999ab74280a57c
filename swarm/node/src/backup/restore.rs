//! Fills an empty data directory from a backup. Trusts nothing in the archive: only known paths are
//! written, and a checksum that is wrong leaves the directory as empty as it was.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::{FileSum, MANIFEST, Manifest, Summer, VERSION};
use crate::disk::{self, DataDir, DiskError};

/// What a backup may hold: files of the data directory, and directories with files in them.
const FILES: [&str; 2] = ["state.json", "keys"];
const DIRS: [&str; 2] = ["certificates", "raft"];
/// Without these a node is no manager.
const NEEDED: [&str; 3] = ["state.json", "keys", "raft/snapshot"];
/// Largest manifest that is read.
const MAX_MANIFEST: u64 = 1 << 20;

/// Why a backup was not restored. The directory is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the directory already.
    #[error("{0} is not empty; restore into a new directory, or move what is in it away")]
    NotEmpty(PathBuf),
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The archive cannot be used.
    #[error("this is no whole backup of skepd: {0}")]
    Damaged(String),
    /// Something could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Restores a backup into `dir`, which is created if it is missing and must be empty otherwise. The
/// node that starts on it takes part in nothing until `docker swarm init --force-new-cluster`.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(archive: impl Read, dir: &Path) -> Result<Manifest, RestoreError> {
    // Locked first: a daemon that runs there must not see half of it.
    let disk = DataDir::open(dir)?;
    if !disk.is_empty()? {
        return Err(RestoreError::NotEmpty(dir.to_owned()));
    }
    disk.fill(|| unpack(archive, dir))
}

fn unpack(archive: impl Read, dir: &Path) -> Result<Manifest, RestoreError> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().map_err(|error| unreadable(&error))?;
    let mut manifest: Option<Manifest> = None;
    let mut seen = BTreeSet::new();
    for entry in entries {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let name = entry.path().map_err(|error| unreadable(&error))?;
        let name = name.to_string_lossy().into_owned();
        if entry.header().entry_type() != EntryType::Regular {
            return Err(damaged(format!("{name:?} is no file")));
        }
        let Some(manifest) = &manifest else {
            manifest = Some(read_manifest(&name, entry)?);
            continue;
        };
        let listed = manifest.files.iter().find(|sum| sum.name == name);
        let sum = listed.ok_or_else(|| damaged(format!("{name:?} is not in its list")))?;
        if !seen.insert(name.clone()) {
            return Err(damaged(format!("{name:?} is in it twice")));
        }
        write_part(&mut entry, sum, dir)?;
    }
    let manifest = manifest.ok_or_else(|| damaged("it is empty".to_owned()))?;
    let missing = manifest.files.iter().find(|sum| !seen.contains(&sum.name));
    if let Some(missing) = missing {
        return Err(damaged(format!("{} is missing", missing.name)));
    }
    if let Some(needed) = NEEDED.iter().find(|name| !seen.contains(**name)) {
        return Err(damaged(format!("{needed} is missing")));
    }
    for name in DIRS {
        sync_dir(&dir.join(name))?;
    }
    sync_dir(dir)?;
    Ok(manifest)
}

fn read_manifest(name: &str, entry: impl Read) -> Result<Manifest, RestoreError> {
    if name != MANIFEST {
        return Err(damaged(format!("it begins with {name:?}, not {MANIFEST}")));
    }
    let mut text = Vec::new();
    entry.take(MAX_MANIFEST).read_to_end(&mut text)?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("{MANIFEST} cannot be read: {error}")))?;
    if manifest.version > VERSION {
        let version = manifest.version;
        return Err(damaged(format!(
            "its version {version} is of a newer skepd"
        )));
    }
    Ok(manifest)
}

fn write_part(entry: &mut impl Read, sum: &FileSum, dir: &Path) -> Result<(), RestoreError> {
    let name = &sum.name;
    let parts: Vec<&str> = name.split('/').collect();
    let known = match parts.as_slice() {
        [file] => FILES.contains(file),
        [dir, file] => DIRS.contains(dir) && !matches!(*file, "" | "." | ".."),
        _ => false,
    };
    if !known {
        return Err(damaged(format!("{name:?} does not belong into one")));
    }
    let path = dir.join(name);
    if let (2, Some(parent)) = (parts.len(), path.parent()) {
        disk::create_private_dir(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut both = Both(options.open(&path)?, Summer::default());
    let size = io::copy(&mut entry.take(sum.size), &mut both)?;
    let Both(file, summer) = both;
    file.sync_all()?;
    if size != sum.size || summer.finish() != sum.sha256 {
        return Err(damaged(format!("the checksum of {name} is wrong")));
    }
    Ok(())
}

/// Writes to a file and sums up.
struct Both(File, Summer);

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        let (done, _) = bytes.split_at_checked(written).unwrap_or((bytes, &[]));
        self.1.write_all(done)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(dir) => dir.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn damaged(why: String) -> RestoreError {
    RestoreError::Damaged(why)
}

fn unreadable(error: &io::Error) -> RestoreError {
    damaged(error.to_string())
}
