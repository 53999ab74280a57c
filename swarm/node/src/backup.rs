//! Backups of a manager: everything that makes it one, as a tar that is written while it runs. What
//! is sealed on disk stays sealed in it, and what is wrapped with the unlock key stays wrapped.
//! Never asks another manager, so it works without a quorum too.

mod restore;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use skep_api::Error;
use skep_core::Timestamp;
use tar::{Builder, EntryType, Header};
use tokio::sync::{Semaphore, mpsc};

use crate::disk::{self, DataDir, NodeState};
use crate::node::Node;
use crate::raft::Raft;
use crate::system;

pub use restore::{RestoreError, restore};

/// The archive's first entry.
const MANIFEST: &str = "skep-backup.json";
/// The layout that this code writes. A larger number is of a newer skepd.
const VERSION: u32 = 1;
/// Backups at a time: each holds a thread for as long as its reader takes.
static PLACES: Semaphore = Semaphore::const_new(2);
/// Pieces of the archive that may wait for a slow reader, and the bytes of each.
const PIECES: usize = 4;
const PIECE: usize = 64 << 10;

/// What a backup says of itself, and how its parts can be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of the archive.
    pub version: u32,
    /// The version of skepd that made it.
    pub skepd: String,
    /// When.
    pub created_at: Timestamp,
    /// The node it is of.
    pub node_id: String,
    /// The swarm it is of.
    pub cluster_id: String,
    /// How far the swarm had come: a count of transactions.
    pub revision: u64,
    /// All other entries, in their order.
    pub files: Vec<FileSum>,
}

/// One file of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its path below the data directory.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A file of a backup that is open and will not change any more.
struct Part {
    name: String,
    content: Box<dyn Content>,
}

trait Content: Read + Seek + Send {}
impl<T: Read + Seek + Send> Content for T {}

impl Node {
    /// A backup of this manager as it is now, as a tar in pieces; the reader sets the pace. The
    /// state in it is the one that this manager knows, with or without a quorum.
    ///
    /// # Errors
    /// dockerd's texts on a node that is no manager; what is wrong with the disk. An error after
    /// that is the last piece.
    pub async fn backup(&self) -> Result<mpsc::Receiver<io::Result<Bytes>>, Error> {
        let manager = self.manager()?;
        let place = PLACES.try_acquire().map_err(|_| {
            Error::unavailable("backups are being made already; try again when they are done")
        })?;
        // Nothing may be moved into or out of a swarm while its files are gathered.
        let moving = self.0.moving.lock().await;
        let gathered = gather(&self.0.disk, &manager.raft).await;
        drop(moving);
        let (manifest, parts) = gathered.map_err(|error| Error::system(error.to_string()))?;
        let (pieces, archive) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let writer = BufWriter::with_capacity(PIECE, Pieces(pieces.clone()));
            if let Err(error) = pack(writer, &manifest, parts) {
                // The reader may be what is gone.
                drop(pieces.blocking_send(Err(error)));
            }
        });
        Ok(archive)
    }
}

/// Opens everything that belongs into a backup. Small files are read at once.
async fn gather(disk: &DataDir, raft: &Raft) -> io::Result<(Manifest, Vec<Part>)> {
    let scratch = Scratch::new(disk.backup())?;
    let path = scratch.0.join("snapshot");
    let state = raft.copy_snapshot(&path).await?;
    let snapshot = File::open(&path)?;
    // Whoever holds it open reads on.
    drop(scratch);
    let stored = disk.load().map_err(io::Error::other)?;
    let stored = stored.ok_or_else(|| io::Error::other("the state file is gone"))?;
    let marked = NodeState {
        restored: true,
        ..stored.clone()
    };
    let mut parts = vec![Part::of("state.json", marked.encode()?)];
    let keys = fs::read(disk.keys_file())?;
    parts.push(Part::of("keys", keys));
    for (name, bytes) in steady_files(&disk.certificates())? {
        parts.push(Part::of(&format!("certificates/{name}"), bytes));
    }
    parts.push(Part {
        name: "raft/snapshot".to_owned(),
        content: Box::new(snapshot),
    });
    // A large state takes its time, and raft's heartbeats are not to wait for it.
    let summed = tokio::task::spawn_blocking(move || {
        let files = parts.iter_mut().map(Part::sum).collect::<io::Result<_>>();
        files.map(|files| (files, parts))
    });
    let (files, parts) = summed.await.map_err(io::Error::other)??;
    let cluster_id = state.cluster().map(|cluster| cluster.id.to_string());
    let manifest = Manifest {
        version: VERSION,
        skepd: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: system::now(),
        node_id: stored.node_id,
        cluster_id: cluster_id.unwrap_or_default(),
        revision: state.revision(),
        files,
    };
    Ok((manifest, parts))
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        disk::create_private_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next backup tries again.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The regular files of a directory by name, as they were at one moment: a certificate and its key
/// are two files, and are renewed while the node runs.
fn steady_files(dir: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut before = files(dir)?;
    for _ in 0..10 {
        let again = files(dir)?;
        if again == before {
            return Ok(again);
        }
        before = again;
    }
    Err(io::Error::other("the certificates change all the time"))
}

fn files(dir: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".tmp") || !entry.file_type()?.is_file() {
            continue;
        }
        match fs::read(entry.path()) {
            Ok(bytes) => found.push((name, bytes)),
            // Renamed meanwhile; the second look will differ.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

impl Part {
    fn of(name: &str, bytes: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            content: Box::new(io::Cursor::new(bytes)),
        }
    }

    /// Reads it to its end and goes back to its start.
    fn sum(&mut self) -> io::Result<FileSum> {
        let mut summer = Summer::default();
        let size = io::copy(&mut self.content, &mut summer)?;
        self.content.seek(SeekFrom::Start(0))?;
        Ok(FileSum {
            name: self.name.clone(),
            size,
            sha256: summer.finish(),
        })
    }
}

/// Writes the archive: the manifest, then every file.
fn pack(writer: impl Write, manifest: &Manifest, parts: Vec<Part>) -> io::Result<()> {
    let mut archive = Builder::new(writer);
    let seconds = manifest.created_at.nanos() / 1_000_000_000;
    let mtime = u64::try_from(seconds).unwrap_or(0);
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    let mut header = header(text.len() as u64, mtime);
    archive.append_data(&mut header, MANIFEST, text.as_slice())?;
    for (part, sum) in parts.into_iter().zip(&manifest.files) {
        let mut header = self::header(sum.size, mtime);
        archive.append_data(&mut header, &sum.name, part.content.take(sum.size))?;
    }
    archive.into_inner()?.flush()
}

fn header(size: u64, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(mtime);
    header
}

/// Sends what is written, and waits while the reader is behind.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sums up what is written to it.
struct Summer(Context);

impl Default for Summer {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Summer {
    fn finish(self) -> String {
        let digits = |byte: &u8| format!("{byte:02x}");
        self.0.finish().as_ref().iter().map(digits).collect()
    }
}

impl Write for Summer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
