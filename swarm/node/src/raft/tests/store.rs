//! The log store and the state machine against openraft's conformance suite, and damage.

use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::{broadcast, watch};

use crate::disk::Keys;
use crate::raft::config::Types;
use crate::raft::log_store::{Entry, LogId, LogStore, Vote};
use crate::raft::machine::{Machine, Published};
use crate::raft::snapshot::SnapshotStore;

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), openraft::StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let codec = Arc::new(Keys::generate().unwrap());
        let log = LogStore::open(&dir.path().join("log.redb"), codec.clone()).unwrap();
        let snapshots = SnapshotStore::open(&dir.path().join("snapshot"), codec).unwrap();
        let (published, _) = watch::channel(Published::default());
        let (steps, _) = broadcast::channel(16);
        Ok((
            dir,
            log,
            Machine::new(published, steps, Arc::new(snapshots)),
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_to_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

fn open(dir: &Path, fresh: bool) -> std::io::Result<LogStore> {
    let path = dir.join("key");
    if fresh {
        std::fs::write(&path, [1; 32])?;
    }
    let key = std::fs::read(&path)?.try_into().unwrap();
    let codec = Arc::new(Keys::from_bytes(key)?);
    LogStore::open(&dir.join("log.redb"), codec)
}

fn blank(index: u64) -> Entry {
    Entry::new_blank(LogId::new(1.into(), index))
}

#[tokio::test]
async fn entries_survive_a_restart_and_are_not_legible() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), true).unwrap();
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    log.blocking_append((0..100).map(blank)).await.unwrap();
    log.close();
    let mut log = open(dir.path(), false).unwrap();
    let entries = log.try_get_log_entries(0..1000).await.unwrap();
    assert_eq!(entries.len(), 100);
    assert_eq!(log.limited_get_log_entries(98, 100).await.unwrap().len(), 2);
    log.close();
    let file = std::fs::read(dir.path().join("log.redb")).unwrap();
    assert!(!file.windows(5).any(|window| window == b"Blank"));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path(), true).unwrap();
    let error = open(dir.path(), false).err().unwrap().to_string();
    assert!(error.contains("log.redb"), "{error}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), true).unwrap();
    log.blocking_append((0..3).map(blank)).await.unwrap();
    log.close();
    std::fs::write(dir.path().join("key"), [7u8; 32]).unwrap();
    let error = open(dir.path(), false).err().unwrap().to_string();
    assert!(
        error.contains("log.redb") && error.contains("log entry 0"),
        "{error}"
    );
}

#[tokio::test]
async fn a_torn_file_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), true).unwrap();
    log.blocking_append((0..2000).map(blank)).await.unwrap();
    log.close();
    let path = dir.path().join("log.redb");
    let mut file = std::fs::read(&path).unwrap();
    // Every page after the header, so that pages in use are surely among them.
    for byte in file.iter_mut().skip(8192).step_by(97) {
        *byte ^= 0x55;
    }
    std::fs::write(&path, file).unwrap();
    let error = open(dir.path(), false).err().unwrap().to_string();
    assert!(error.contains("log.redb"), "{error}");
}
