//! Disks that stall and disks that are full, and what the members of a cluster make of them.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, until, view, write};
use crate::raft::{Config, Leadership, ProposeError, Raft, ReadError};

const STALL: Duration = Duration::from_secs(2);

/// The terms that a member sees while something happens to the cluster; more than one would mean
/// an election.
async fn terms_during(raft: &Raft, how_long: Duration) -> Vec<u64> {
    let mut leadership = raft.leadership();
    let mut terms = vec![leadership.borrow_and_update().term];
    let end = tokio::time::Instant::now() + how_long;
    while let Ok(Ok(())) = tokio::time::timeout_at(end, leadership.changed()).await {
        let now = leadership.borrow_and_update();
        if now.leader.is_none() || terms.last() != Some(&now.term) {
            terms.push(now.term);
        }
    }
    terms
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_stalls_goes_on_leading() {
    let cluster = Cluster::new(3).await;
    let id = cluster.leader_id().await;
    let leader = cluster.leader().await;
    write(&leader).await.unwrap();
    cluster.net.stall_disk(id, true);
    // A majority of other disks is enough.
    assert_eq!(write(&leader).await, Ok(2));
    assert_eq!(terms_during(&leader, STALL).await.len(), 1);
    leader.read_barrier().await.unwrap();
    cluster.net.stall_disk(id, false);
    assert_eq!(write(&leader).await, Ok(3));
    assert!(leader.leadership().borrow().i_lead);
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_whose_disks_stall_still_answer_and_reads_go_on() {
    let cluster = Cluster::new(3).await;
    let id = cluster.leader_id().await;
    let leader = cluster.leader().await;
    write(&leader).await.unwrap();
    let followers: Vec<u64> = cluster
        .members
        .keys()
        .copied()
        .filter(|it| *it != id)
        .collect();
    for follower in &followers {
        cluster.net.stall_disk(*follower, true);
    }
    let start = Instant::now();
    let writer = leader.clone();
    let waiting = tokio::spawn(async move { write(&writer).await });
    // Longer than the lease and than the time after which a silent member counts as gone.
    assert_eq!(terms_during(&leader, STALL).await.len(), 1);
    assert!(!waiting.is_finished(), "written without a majority");
    leader.read_barrier().await.unwrap();
    let view = leader.leadership().borrow().clone();
    let reachable = view.members.iter().all(|it| it.reachable == Some(true));
    assert!(view.i_lead && reachable, "{view:?}");
    for follower in followers {
        cluster.net.stall_disk(follower, false);
    }
    assert_eq!(waiting.await.unwrap(), Ok(2));
    assert!(start.elapsed() >= STALL);
}

fn impatient(config: &mut Config) {
    config.propose_timeout = Duration::from_secs(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_hands_over_and_comes_back() {
    let mut cluster = Cluster::tuned(3, impatient).await;
    let full = cluster.leader_id().await;
    let old = cluster.members[&full].clone();
    write(&old).await.unwrap();
    cluster.net.fill_disk(full, true);
    // The first write meets the full disk; the majority has it nevertheless.
    assert_eq!(write(&old).await, Ok(2));
    let others = |it: &Leadership| it.leader.as_ref().is_some_and(|it| it.raft_id != full);
    view(&old, "another leader", others).await;
    let new_id = cluster.leader_id().await;
    assert_ne!(new_id, full);
    let new = cluster.members[&new_id].clone();
    for expected in 3..=10 {
        assert_eq!(write(&new).await, Ok(expected));
    }
    // Reads go on wherever there is room.
    let other = cluster
        .members
        .iter()
        .find(|(id, _)| **id != full && **id != new_id);
    let other = other.unwrap().1;
    other.read_barrier().await.unwrap();
    assert_eq!(other.state().revision(), 10);
    let why = old.space().borrow().clone().unwrap();
    assert!(
        why.contains("is full") && why.contains("free some space"),
        "{why}"
    );

    cluster.net.fill_disk(full, false);
    until("room", || old.space().borrow().is_none().then_some(())).await;
    // It counts again: with one of the others gone, a majority needs it.
    let gone = *cluster
        .members
        .keys()
        .find(|id| **id != full && **id != new_id)
        .unwrap();
    cluster.stop(gone).await;
    assert_eq!(write(&cluster.leader().await).await, Ok(11));
    // And what was written meanwhile is on its disk.
    let cluster = cluster.crash_all().await;
    cluster.leader().await.read_barrier().await.unwrap();
    assert_eq!(cluster.leader().await.state().revision(), 11);
}

fn forgetful(config: &mut Config) {
    (config.snapshot_interval, config.keep_entries) = (20, 5);
    config.read_timeout = Duration::from_secs(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lags_for_want_of_room_says_so() {
    let cluster = Cluster::tuned(3, forgetful).await;
    let (id, leader) = (cluster.leader_id().await, cluster.leader().await);
    let (full, lagging) = cluster.members.iter().find(|(it, _)| **it != id).unwrap();
    cluster.net.fill_disk(*full, true);
    write(&leader).await.unwrap();
    until("notice", || lagging.space().borrow().clone()).await;
    // What it has in memory, it tells.
    lagging.read_barrier().await.unwrap();
    // What it lacks now comes in a snapshot only, which has to be written down first.
    cluster.net.cut(*full);
    let lacks = leader.metrics().last_log_index.unwrap();
    for _ in 0..100 {
        write(&leader).await.unwrap();
    }
    until("purge", || {
        let purged = leader.metrics().purged;
        purged
            .is_some_and(|purged| purged.index > lacks)
            .then_some(())
    })
    .await;
    cluster.net.heal(*full);
    view(lagging, "the leader", |it| it.leader.is_some()).await;
    let read = lagging.read_barrier().await;
    assert!(
        matches!(&read, Err(ReadError::NoSpace(why)) if why.contains("is full")),
        "{read:?}"
    );
    // Without a leader, that is what is wrong.
    cluster.net.cut(*full);
    let read = lagging.read_barrier().await;
    let cut_off = matches!(&read, Err(ReadError::NoLeader | ReadError::Timeout(_)));
    assert!(cut_off, "{read:?}");
    cluster.net.heal(*full);
    cluster.net.fill_disk(*full, false);
    until("room", || lagging.space().borrow().is_none().then_some(())).await;
    lagging.read_barrier().await.unwrap();
    assert_eq!(lagging.state().revision(), leader.state().revision());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_manager_with_a_full_disk_says_so_and_goes_on_reading() {
    let cluster = Cluster::tuned(1, impatient).await;
    let leader = cluster.leader().await;
    write(&leader).await.unwrap();
    cluster.net.fill_disk(1, true);
    let first = write(&leader).await;
    assert!(
        matches!(&first, Err(ProposeError::Unknown(why)) if why.contains("is full")),
        "{first:?}"
    );
    let second = write(&leader).await;
    assert!(
        matches!(&second, Err(ProposeError::NoSpace(why)) if why.contains("is full")),
        "{second:?}"
    );
    leader.read_barrier().await.unwrap();
    assert!(leader.leadership().borrow().i_lead);
    cluster.net.fill_disk(1, false);
    // The first is written after all, as its answer said that it might be.
    until("the first write", || {
        (leader.state().revision() == 2).then_some(())
    })
    .await;
    until("room", || leader.space().borrow().is_none().then_some(())).await;
    assert_eq!(write(&leader).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_with_a_full_disk_can_be_stopped() {
    let mut cluster = Cluster::tuned(1, impatient).await;
    let leader = cluster.leader().await;
    write(&leader).await.unwrap();
    cluster.net.fill_disk(1, true);
    write(&leader).await.unwrap_err();
    drop(leader);
    let stopped = tokio::time::timeout(Duration::from_secs(5), cluster.stop(1)).await;
    stopped.unwrap();
    cluster.net.fill_disk(1, false);
    let again = cluster.start(1).await;
    view(&again, "leader", |it| it.i_lead).await;
    // What was acknowledged is there; what was not may be missing.
    assert!(again.state().revision() >= 1);
}
