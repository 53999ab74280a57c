//! Damaged files and killed processes: what was acknowledged is there, or the node refuses loudly.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};

use skep_core::store::Reject;

use super::cluster::{Chance, Cluster, keys};
use crate::raft::ProposeError;
use crate::raft::log_store::{Entry, LogId, LogStore, Vote};
use crate::raft::snapshot::{Head, Membership, SnapshotStore};

const FILES: [&str; 3] = ["log.redb", "snapshot", "vote"];
const ENTRIES: u64 = 300;
/// Two chunks.
const STATE: usize = 600_000;

fn blank(index: u64) -> Entry {
    Entry::new_blank(LogId::new(1.into(), index))
}

/// A log, a vote and a snapshot.
async fn prepare(dir: &Path) {
    let codec = Arc::new(keys());
    let mut log = LogStore::open(&dir.join(FILES[0]), codec.clone()).unwrap();
    log.save_vote(&Vote::new(1, 7)).await.unwrap();
    for start in (0..ENTRIES).step_by(10) {
        let entries = (start..start + 10).map(blank);
        log.blocking_append(entries).await.unwrap();
    }
    log.close();
    let head = Head {
        last_log_id: Some(LogId::new(1.into(), 99)),
        membership: Membership::default(),
    };
    let snapshots = SnapshotStore::open(&dir.join(FILES[1]), codec).unwrap();
    snapshots.copy(&head, &mut &vec![7; STATE][..]).unwrap();
}

/// Everything that was acknowledged, or the refusal.
async fn check(dir: &Path) -> std::io::Result<()> {
    let codec = Arc::new(keys());
    let opened = || -> std::io::Result<_> {
        let read = SnapshotStore::open(&dir.join(FILES[1]), codec.clone())?.read()?;
        let snapshot = read.map(|(head, mut encoded)| {
            let mut state = Vec::new();
            encoded.read_to_end(&mut state).unwrap();
            (head, state)
        });
        Ok((
            snapshot,
            LogStore::open(&dir.join(FILES[0]), codec.clone())?,
        ))
    };
    let (snapshot, mut log) = opened()?;
    let (head, state) = snapshot.expect("the snapshot was lost silently");
    assert_eq!(head.last_log_id, Some(LogId::new(1.into(), 99)));
    assert!(state == vec![7; STATE]);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(1, 7)));
    let entries = log.try_get_log_entries(0..u64::MAX).await.unwrap();
    log.close();
    let expected: Vec<Entry> = (0..ENTRIES).map(blank).collect();
    assert!(entries == expected, "{} entries", entries.len());
    Ok(())
}

fn damage(chance: &mut Chance, path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let at = chance.below(bytes.len());
    let what = match chance.below(4) {
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeroes at {at}")
        }
        2 => {
            for _ in 0..16 {
                let at = chance.below(bytes.len());
                bytes[at] ^= 1 << chance.below(8);
            }
            "16 bits".to_owned()
        }
        _ => {
            bytes[at] ^= 1 << chance.below(8);
            format!("a bit at {at}")
        }
    };
    std::fs::write(path, bytes).unwrap();
    what
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_refused_by_name_or_harmless() {
    let original = tempfile::tempdir().unwrap();
    prepare(original.path()).await;
    let (mut harmless, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut chance = Chance::new(seed);
        let dir = tempfile::tempdir().unwrap();
        for file in FILES {
            std::fs::copy(original.path().join(file), dir.path().join(file)).unwrap();
        }
        let file = FILES[chance.below(FILES.len())];
        let path = dir.path().join(file);
        let what = damage(&mut chance, &path);
        let handle = tokio::runtime::Handle::current();
        let checked = tokio::task::block_in_place(|| {
            catch_unwind(AssertUnwindSafe(|| handle.block_on(check(dir.path()))))
        });
        match checked {
            Ok(Ok(())) => harmless += 1,
            Ok(Err(error)) => {
                refused += 1;
                let text = error.to_string();
                let named = text.contains(path.to_str().unwrap());
                let advice = text.contains("restore it from a backup");
                assert!(named && advice, "seed {seed}, {file}: {what}: {text}");
            }
            Err(_) => panic!("seed {seed}: {file}: {what}"),
        }
    }
    assert!(harmless > 20 && refused > 100, "{harmless}, {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_are_missed() {
    for file in ["vote", "log.redb"] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).await;
        std::fs::remove_file(dir.path().join(file)).unwrap();
        let refused = check(dir.path()).await.unwrap_err().to_string();
        assert!(refused.contains("restore it from a backup"), "{refused}");
    }
}

/// Writes until it is killed, and says what is acknowledged. Run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of another test"]
async fn child() {
    let Ok(dir) = std::env::var("SKEP_CHILD_DIR") else {
        return;
    };
    let mut log = LogStore::open(&Path::new(&dir).join(FILES[0]), Arc::new(keys())).unwrap();
    let mut next = log.last().map_or(0, |last| last.index + 1);
    for term in 1.. {
        log.save_vote(&Vote::new(term, next)).await.unwrap();
        for _ in 0..20 {
            log.blocking_append((next..next + 5).map(blank))
                .await
                .unwrap();
            next += 5;
            println!("acked {} {term}", next - 1);
            std::io::stdout().flush().unwrap();
        }
        if next.is_multiple_of(500) {
            log.purge(LogId::new(1.into(), next - 200)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..8_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "raft::tests::damage::child"])
            .args(["--ignored", "--nocapture"])
            .env("SKEP_CHILD_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acked = None;
        let mut chance = Chance::new(round);
        let mut left = 3 + chance.below(60);
        for line in lines {
            let line = line.unwrap();
            if let Some((_, numbers)) = line.split_once("acked ") {
                acked = Some(numbers.to_owned());
                left = left.saturating_sub(1);
                if left == 0 {
                    // SIGKILL. What it says after this, it says before it dies.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let acked = acked.expect("the child has acknowledged something");
        let (index, term) = acked.split_once(' ').unwrap();
        let (index, term): (u64, u64) = (index.parse().unwrap(), term.parse().unwrap());
        let mut log = LogStore::open(&dir.path().join(FILES[0]), Arc::new(keys())).unwrap();
        assert!(log.last().unwrap().index >= index, "round {round}");
        let vote = log.read_vote().await.unwrap().unwrap();
        assert!(vote.leader_id.term >= term, "round {round}: {vote:?}");
        let entries = log.try_get_log_entries(0..u64::MAX).await.unwrap();
        assert!(entries.last().unwrap().log_id().index >= index);
        log.close();
    }
}

/// A file system of 40 MiB in a mount namespace of a child's own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of another test"]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var("SKEP_CHILD_DIR") else {
        return;
    };
    let mut cluster = Cluster::in_dir(Path::new(&dir));
    cluster.start(1).await;
    let raft = cluster.members[&1].clone();
    raft.initialize(super::cluster::member(1)).await.unwrap();
    for _ in 0..20 {
        super::cluster::write(&raft).await.unwrap();
    }
    // Somebody else fills the disk to the last byte.
    let hog = Path::new(&dir).join("hog");
    let mut file = std::fs::File::create(&hog).unwrap();
    while file.write_all(&[1; 1 << 16]).is_ok() {}
    while file.write_all(&[1; 512]).is_ok() {}
    super::cluster::until("notice", || raft.space().borrow().clone()).await;
    let refused = super::cluster::write(&raft).await.unwrap_err().to_string();
    assert!(refused.contains("is full"), "{refused}");
    raft.read_barrier().await.unwrap();
    let revision = raft.state().revision();
    drop(file);
    std::fs::remove_file(&hog).unwrap();
    let room = || raft.space().borrow().is_none().then_some(());
    super::cluster::until("room", room).await;
    assert_eq!(super::cluster::write(&raft).await, Ok(revision + 1));

    // The same without a warning: the disk is full in the middle of writes.
    let writer = raft.clone();
    let writing = tokio::spawn(async move {
        let mut acked = 0;
        for _ in 0..3000 {
            match super::cluster::write(&writer).await {
                Ok(revision) => acked = revision,
                Err(_) => break,
            }
        }
        acked
    });
    let mut file = std::fs::File::create(&hog).unwrap();
    while file.write_all(&[1; 1 << 16]).is_ok() {}
    while file.write_all(&[1; 512]).is_ok() {}
    let acked = writing.await.unwrap();
    raft.read_barrier().await.unwrap();
    drop(file);
    std::fs::remove_file(&hog).unwrap();
    super::cluster::until("room", room).await;
    super::cluster::until("a write", || {
        (raft.state().revision() >= acked).then_some(())
    })
    .await;
    // The write whose outcome nobody was told may come in at any moment, and then goes first.
    let mut written = super::cluster::write(&raft).await;
    while written == Err(ProposeError::Rejected(Reject::OutOfSequence)) {
        written = super::cluster::write(&raft).await;
    }
    written.unwrap();
    let acked = raft.state().revision();
    drop(raft);
    cluster.stop(1).await;
    let again = cluster.start(1).await;
    again.read_barrier().await.unwrap();
    assert_eq!(again.state().revision(), acked);
    println!("survived the full disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_disk_that_is_full_stops_writes_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=40m skep {0} && exec {1} --exact --ignored --nocapture \
         raft::tests::damage::child_on_a_small_disk",
        dir.path().display(),
        exe.display()
    );
    let child = tokio::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .env("SKEP_CHILD_DIR", dir.path())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), child).await;
    let output = output.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if complained.contains("unshare failed") || complained.contains("must be superuser") {
        eprintln!("skipped: this needs root ({complained})");
        return;
    }
    assert!(
        said.contains("survived the full disk"),
        "{said}\n{complained}"
    );
}
