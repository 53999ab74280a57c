//! What is acknowledged survives, and members that lag catch up.

use std::time::Duration;

use super::cluster::{Cluster, empty_batch, until, write};
use crate::raft::{Config, ProposeError, Raft};

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_survives_the_crash_of_everyone() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    for expected in 1..=20 {
        assert_eq!(write(&leader).await, Ok(expected));
    }
    let cluster = cluster.crash_all().await;
    let leader = cluster.leader().await;
    assert_eq!(leader.state().revision(), 20);
    assert_eq!(write(&leader).await, Ok(21));
    for raft in cluster.members.values() {
        assert!(raft.is_initialized().await);
        raft.read_barrier().await.unwrap();
        assert_eq!(raft.state().revision(), 21);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_on_another_revision_is_rejected_and_leaves_no_trace() {
    let cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    let mut steps = leader.subscribe();
    assert_eq!(write(&leader).await, Ok(1));
    let stale = leader.propose(empty_batch(0)).await;
    assert!(matches!(stale, Err(ProposeError::Rejected(_))), "{stale:?}");
    assert_eq!(write(&leader).await, Ok(2));
    let seen = [
        steps.recv().await.unwrap().revision,
        steps.recv().await.unwrap().revision,
    ];
    assert_eq!(seen, [1, 2]);
}

fn frequent_snapshots(config: &mut Config) {
    config.snapshot_interval = 50;
    config.keep_entries = 5;
}

async fn snapshot_behind(raft: &Raft, index: u64) {
    until("snapshot and purge", || {
        raft.metrics()
            .purged
            .is_some_and(|purged| purged.index >= index)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_missed_too_much_gets_a_snapshot() {
    let mut cluster = Cluster::tuned(3, frequent_snapshots).await;
    let follower = cluster.follower_id().await;
    cluster.stop(follower).await;
    let leader = cluster.leader().await;
    for _ in 0..200 {
        write(&leader).await.unwrap();
    }
    snapshot_behind(&leader, 100).await;
    let raft = cluster.start(follower).await;
    let mut steps = raft.subscribe();
    raft.read_barrier().await.unwrap();
    assert_eq!(raft.state().revision(), 200);
    assert!(steps.recv().await.unwrap().whole);
    until("notice of the snapshot", || {
        let snapshot = raft.metrics().snapshot?;
        (snapshot.index >= 100).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_continues_from_snapshot_and_log() {
    let mut cluster = Cluster::tuned(1, frequent_snapshots).await;
    let leader = cluster.leader().await;
    for _ in 0..130 {
        write(&leader).await.unwrap();
    }
    snapshot_behind(&leader, 50).await;
    drop(leader);
    cluster.stop(1).await;
    let raft = cluster.start(1).await;
    assert!(raft.is_initialized().await);
    raft.read_barrier().await.unwrap();
    assert_eq!(raft.state().revision(), 130);
    cluster.leader().await;
    assert_eq!(write(&raft).await, Ok(131));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_member_says_so() {
    let cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    leader.shutdown().await;
    let refused = leader.propose(empty_batch(0)).await;
    assert!(matches!(refused, Err(ProposeError::Down(_))), "{refused:?}");
    assert!(leader.read_barrier().await.is_err());
    tokio::time::timeout(Duration::from_secs(5), async {
        let mut leadership = leader.leadership();
        while leadership.borrow_and_update().i_lead {
            leadership.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
}
