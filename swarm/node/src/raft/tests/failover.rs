//! Leaders that go away, come back, or only think that they lead.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, until, view, write};
use crate::raft::{Config, ProposeError};

fn impatient(config: &mut Config) {
    config.read_timeout = Duration::from_millis(800);
    config.propose_timeout = Duration::from_secs(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_neither_writes_nor_reads() {
    let cluster = Cluster::tuned(3, impatient).await;
    let old_id = cluster.leader_id().await;
    let old = cluster.members[&old_id].clone();
    write(&old).await.unwrap();
    cluster.net.cut(old_id);
    let new = cluster.leader().await;
    assert_eq!(write(&new).await, Ok(2));

    let refused = write(&old).await;
    let not_written = matches!(
        refused,
        Err(ProposeError::NotLeader(_) | ProposeError::Unknown(_))
    );
    assert!(not_written, "{refused:?}");
    old.read_barrier().await.unwrap_err();
    view(&old, "notice of the loss", |it| {
        !it.i_lead && it.leader.is_none()
    })
    .await;

    cluster.net.heal(old_id);
    until("the write on the old leader", || {
        (old.state().revision() >= 2).then_some(())
    })
    .await;
    old.read_barrier().await.unwrap();
    assert_eq!(write(&cluster.leader().await).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_returns_disturbs_nobody() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let term = leader.leadership().borrow().term;
    let follower = cluster.follower_id().await;
    cluster.net.cut(follower);
    let cut_off = cluster.members[&follower].clone();
    view(&cut_off, "notice of the silence", |it| it.leader.is_none()).await;
    let unreachable = |it: &crate::raft::Leadership| {
        it.member(follower)
            .is_some_and(|it| it.reachable == Some(false))
    };
    view(&leader, "unreachable follower", unreachable).await;
    // Several election time-outs.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(write(&leader).await, Ok(1));
    cluster.net.heal(follower);
    view(&cut_off, "leader again", |it| it.leader.is_some()).await;
    cut_off.read_barrier().await.unwrap();
    assert_eq!(cut_off.state().revision(), 1);
    let now = leader.leadership().borrow().clone();
    assert!(now.i_lead && now.term == term, "{now:?}");
    view(&leader, "reachable follower", |it| !unreachable(it)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_on_followers_see_what_was_acknowledged() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.members[&cluster.follower_id().await].clone();
    for _ in 0..50 {
        let revision = write(&leader).await.unwrap();
        follower.read_barrier().await.unwrap();
        assert!(follower.state().revision() >= revision);
    }
    let refused = write(&follower).await;
    let led_by = refused.map_err(|error| match error {
        ProposeError::NotLeader(leader) => leader.map(|leader| leader.raft_id),
        other => panic!("{other:?}"),
    });
    assert_eq!(led_by, Err(Some(cluster.leader_id().await)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_process_is_gone_is_replaced_before_its_lease_is_over() {
    // A lease so long that no other way would be quick enough.
    let patient = |config: &mut Config| {
        config.election_min = Duration::from_secs(5);
        config.election_max = Duration::from_secs(10);
    };
    let mut cluster = Cluster::tuned(3, patient).await;
    let old = cluster.leader_id().await;
    write(&cluster.leader().await).await.unwrap();
    let start = Instant::now();
    cluster.stop(old).await;
    let new = cluster.leader().await;
    assert_eq!(write(&new).await, Ok(2));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_at_once_is_replaced_or_leads_again_but_soon() {
    let patient = |config: &mut Config| {
        config.election_min = Duration::from_secs(5);
        config.election_max = Duration::from_secs(10);
    };
    let mut cluster = Cluster::tuned(3, patient).await;
    let old = cluster.leader_id().await;
    write(&cluster.leader().await).await.unwrap();
    let start = Instant::now();
    cluster.stop(old).await;
    // Its address answers again, but there is no leader there any more.
    cluster.start(old).await;
    let new = cluster.leader().await;
    assert_eq!(write(&new).await, Ok(2));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Prints how long writes fail after the leader is gone, and what calls cost:
/// `cargo nextest run -p skep-node raft::tests::failover::measure --no-capture --run-ignored all`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure() {
    for killed in [true, false] {
        let gaps = gaps(killed).await;
        println!("the leader is killed ({killed}) or cut off, to the next write: {gaps:?}");
    }
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.members[&cluster.follower_id().await].clone();
    let count = 500;
    let start = Instant::now();
    for _ in 0..count {
        write(&leader).await.unwrap();
    }
    println!("write: {:?}", start.elapsed() / count);
    for (name, raft) in [("leader", &leader), ("follower", &follower)] {
        let start = Instant::now();
        for _ in 0..count {
            raft.read_barrier().await.unwrap();
        }
        println!("read barrier on the {name}: {:?}", start.elapsed() / count);
    }
    let start = Instant::now();
    leader.step_down().await.unwrap();
    let led = start.elapsed();
    write(&cluster.leader().await).await.unwrap();
    println!(
        "planned hand-over: {led:?}, to the next write {:?}",
        start.elapsed()
    );
}

/// How long no write is accepted, and how much of that there was no leader.
async fn gaps(killed: bool) -> Vec<(Duration, Duration)> {
    let mut gaps = Vec::new();
    for _ in 0..10 {
        let mut cluster = Cluster::new(3).await;
        let old = cluster.leader_id().await;
        write(&cluster.leader().await).await.unwrap();
        let start = Instant::now();
        if killed {
            cluster.stop(old).await;
        } else {
            cluster.net.cut(old);
        }
        let new = cluster.leader().await;
        let elected = start.elapsed();
        write(&new).await.unwrap();
        gaps.push((start.elapsed(), elected));
        for id in 1..=3 {
            cluster.stop(id).await;
        }
    }
    gaps.sort();
    gaps
}
