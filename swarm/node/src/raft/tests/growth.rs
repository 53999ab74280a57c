//! The log does not grow without bound, however much is written.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use skep_core::Change;
use skep_core::object::{Cluster as ClusterObject, JoinTokens, Object};

use super::cluster::{Cluster, empty_batch, tx, until, write};
use crate::raft::{Config, Raft};

fn frequent(config: &mut Config) {
    config.snapshot_interval = 500;
    config.keep_entries = 50;
}

fn dir_size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// Of this process, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// As the leader does it: several transactions in one batch.
async fn write_many(raft: &Raft, count: u64) {
    let base = raft.state().revision();
    let mut batch = empty_batch(base);
    batch.txs = vec![tx(); usize::try_from(count).unwrap()];
    assert_eq!(raft.propose(batch).await, Ok(base + count));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_leave_a_short_log() {
    let cluster = Cluster::tuned(1, frequent).await;
    let leader = cluster.leader().await;
    let mut largest = 0;
    for round in 0..6 {
        for _ in 0..500 {
            write_many(&leader, 3).await;
        }
        largest = largest.max(dir_size(&cluster.home(1)));
        if round == 1 {
            // From here on nothing is larger than it was.
            largest = largest.max(8 << 20);
        }
    }
    assert!(largest <= 8 << 20, "{largest}");
    until("purge", || {
        let purged = leader.metrics().purged?;
        (purged.index > 2000).then_some(())
    })
    .await;
}

/// A cluster whose spec asks for this.
fn spec(leader: &Raft, change: impl FnOnce(&mut ClusterObject)) -> skep_core::Batch {
    let mut cluster = match leader.state().cluster() {
        Some(cluster) => (**cluster).clone(),
        None => new_cluster(),
    };
    change(&mut cluster);
    let object = Object::Cluster(Arc::new(cluster));
    let change = match leader.state().cluster() {
        Some(_) => Change::Update(object),
        None => Change::Create(object),
    };
    let mut batch = empty_batch(leader.state().revision());
    batch.txs[0].changes = vec![change];
    batch
}

fn new_cluster() -> ClusterObject {
    ClusterObject {
        id: "c".into(),
        meta: Default::default(),
        spec: Default::default(),
        root_ca: Default::default(),
        join_tokens: JoinTokens {
            worker: "w".into(),
            manager: "m".into(),
        },
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        unlock_key: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spec_says_how_often_snapshots_are_made_and_how_many_are_kept() {
    let cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    let asked = spec(&leader, |cluster| {
        cluster.spec.raft.snapshot_interval = 100;
        cluster.spec.raft.keep_old_snapshots = Some(2);
        cluster.spec.raft.log_entries_for_slow_followers = 10;
    });
    leader.propose(asked).await.unwrap();
    let old = || {
        let files = std::fs::read_dir(cluster.home(1)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("snapshot-")).count()
    };
    let mut snapshot = 0;
    for _ in 0..5 {
        for _ in 0..110 {
            write(&leader).await.unwrap();
        }
        snapshot = until("a snapshot", || {
            let now = leader.metrics().snapshot?.index;
            (now >= snapshot + 100).then_some(now)
        })
        .await;
    }
    assert_eq!(old(), 2);
    until("purge", || {
        let purged = leader.metrics().purged?.index;
        (purged + 10 == snapshot).then_some(())
    })
    .await;
    let none = spec(&leader, |cluster| {
        cluster.spec.raft.keep_old_snapshots = Some(0)
    });
    leader.propose(none).await.unwrap();
    until("removal of the old ones", || (old() == 0).then_some(())).await;
}

/// Prints what the files and the process weigh along a million writes:
/// `cargo nextest run -p skep-node --lib raft::tests::growth::a_million --run-ignored all --no-capture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_million_writes() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let start = Instant::now();
    for step in 1..=20 {
        for _ in 0..1000 {
            write_many(&leader, 50).await;
        }
        let sizes: Vec<u64> = (1..=3)
            .map(|id| dir_size(&cluster.home(id)) >> 10)
            .collect();
        let writes = step * 50_000;
        println!(
            "{writes} writes after {:?}: directories {sizes:?} KiB, all three in {} MiB of memory",
            start.elapsed(),
            memory() >> 10
        );
    }
}

/// Many objects, about 50 MB of them encoded.
async fn fill(leader: &Raft) {
    for object in 0..100 {
        let base = leader.state().revision();
        let mut batch = empty_batch(base);
        batch.txs[0].changes = vec![Change::Create(Object::Node(Arc::new(large_node(object))))];
        leader.propose(batch).await.unwrap();
    }
}

fn large_node(number: u64) -> skep_core::object::Node {
    let mut node = skep_core::object::Node {
        id: format!("node{number}").into(),
        meta: Default::default(),
        spec: Default::default(),
        description: None,
        status: Default::default(),
        role: skep_core::object::Role::Worker,
        manager: None,
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    };
    node.status.message = "x".repeat(500_000);
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_snapshot_reaches_a_new_member_and_holds_up_nobody() {
    let mut cluster = Cluster::tuned(2, frequent).await;
    let leader = cluster.leader().await;
    let term = leader.leadership().borrow().term;
    fill(&leader).await;
    leader.inner.core.trigger().snapshot().await.unwrap();
    until("a purged log", || {
        leader.metrics().snapshot.filter(|it| it.index >= 100)?;
        (leader.metrics().purged?.index > 0).then_some(())
    })
    .await;
    let before = memory();
    cluster.start(3).await;
    let writer = leader.clone();
    let writing = tokio::spawn(async move {
        let mut slowest = std::time::Duration::ZERO;
        for _ in 0..100 {
            let start = Instant::now();
            write(&writer).await.unwrap();
            slowest = slowest.max(start.elapsed());
        }
        slowest
    });
    let start = Instant::now();
    cluster.join(3).await;
    let took = start.elapsed();
    let slowest = writing.await.unwrap();
    let new = cluster.members[&3].clone();
    new.read_barrier().await.unwrap();
    assert_eq!(new.state().nodes().len(), 100);
    assert_eq!(leader.leadership().borrow().term, term);
    let grown = memory().saturating_sub(before) >> 10;
    println!("50 MB joined after {took:?}, slowest write {slowest:?}, {grown} MiB more memory");
}
