//! Clusters in one process: real files in a temporary directory, links that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skep_core::{Author, Batch, Change, Timestamp, Tx};
use tempfile::TempDir;

use crate::disk::Keys;
use crate::raft::codec::Codec;
use crate::raft::{Config, Leadership, Member, Raft, Request, Response, Transport, TransportError};

/// The wires between the members of one cluster.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    members: BTreeMap<u64, Raft>,
    cut: BTreeSet<u64>,
    disks: BTreeMap<u64, Arc<Fault>>,
    called: BTreeMap<u64, String>,
}

/// What is wrong with a member's disk.
#[derive(Default)]
struct Fault {
    /// Everything that is written waits until this is over.
    stalled: AtomicBool,
    /// Writes of the log fail for want of space; votes are written in place and do not.
    full: AtomicBool,
}

/// Every commit seals something, so that is where disks are made slow or full.
struct FaultyDisk {
    sealer: Arc<dyn Codec>,
    fault: Arc<Fault>,
}

impl Codec for FaultyDisk {
    fn seal(&self, label: &[u8], plain: Vec<u8>) -> std::io::Result<Vec<u8>> {
        while self.fault.stalled.load(Ordering::SeqCst) {
            // The stalled disk itself: what the test is about.
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.fault.full.load(Ordering::SeqCst) && !label.starts_with(b"vote") {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.sealer.seal(label, plain)
    }

    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.sealer.open(label, sealed)
    }
}

/// What every member's disk is sealed with.
pub fn keys() -> Keys {
    Keys::from_bytes([1; 32]).unwrap()
}

impl Net {
    /// Takes a member off the net.
    pub fn cut(&self, id: u64) {
        self.0.lock().unwrap().cut.insert(id);
    }

    /// The address at which a member was called last.
    pub fn last_called(&self, id: u64) -> Option<String> {
        self.0.lock().unwrap().called.get(&id).cloned()
    }

    /// Makes a member's disk stop, or go on.
    pub fn stall_disk(&self, id: u64, stalled: bool) {
        self.fault(id).stalled.store(stalled, Ordering::SeqCst);
    }

    /// Makes a member's disk full, or not.
    pub fn fill_disk(&self, id: u64, full: bool) {
        self.fault(id).full.store(full, Ordering::SeqCst);
    }

    fn fault(&self, id: u64) -> Arc<Fault> {
        self.0.lock().unwrap().disks.entry(id).or_default().clone()
    }

    pub fn heal(&self, id: u64) {
        self.0.lock().unwrap().cut.remove(&id);
    }

    pub fn attach(&self, id: u64, raft: Raft) {
        self.0.lock().unwrap().members.insert(id, raft);
    }

    /// Forgets a member, as if its process were gone.
    pub fn detach(&self, id: u64) -> Option<Raft> {
        self.0.lock().unwrap().members.remove(&id)
    }

    fn connects(&self, from: u64, to: u64) -> Option<Raft> {
        let wires = self.0.lock().unwrap();
        let open = !wires.cut.contains(&from) && !wires.cut.contains(&to);
        wires.members.get(&to).filter(|_| open).cloned()
    }
}

/// One member's end of the wires. Messages really are encoded and decoded.
struct Wire {
    net: Net,
    from: u64,
}

impl Transport for Wire {
    fn call(
        &self,
        to: &Member,
        request: Request,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (net, from) = (self.net.clone(), self.from);
        net.0
            .lock()
            .unwrap()
            .called
            .insert(to.raft_id, to.addr.clone());
        let to = to.raft_id;
        async move {
            let gone = || TransportError::Unreachable(format!("no wire to {to}"));
            let raft = net.connects(from, to).ok_or_else(gone)?;
            let request = rmp_serde::to_vec_named(&request).unwrap();
            let request = rmp_serde::from_slice(&request).unwrap();
            let answer = raft.handle(&format!("node{from}"), request).await;
            drop(raft);
            net.connects(from, to).ok_or_else(gone)?;
            let answer = answer.ok_or_else(|| TransportError::Broken("no answer".into()))?;
            let answer = rmp_serde::to_vec_named(&answer).unwrap();
            Ok(rmp_serde::from_slice(&answer).unwrap())
        }
        .boxed()
    }

    /// The host says so, if it can be reached.
    fn is_dead(&self, to: &Member) -> BoxFuture<'static, bool> {
        let wires = self.net.0.lock().unwrap();
        let reached = !wires.cut.contains(&self.from) && !wires.cut.contains(&to.raft_id);
        let dead = reached && !wires.members.contains_key(&to.raft_id);
        Box::pin(std::future::ready(dead))
    }
}

/// A cluster; members 1 to n.
pub struct Cluster {
    pub dir: TempDir,
    pub net: Net,
    pub members: BTreeMap<u64, Raft>,
    tune: fn(&mut Config),
}

pub fn member(id: u64) -> Member {
    Member {
        raft_id: id,
        node_id: format!("node{id}").into(),
        addr: format!("10.0.0.{id}:2377"),
    }
}

impl Cluster {
    /// Voters 1 to `size`, with a leader.
    pub async fn new(size: u64) -> Self {
        Self::tuned(size, |_| {}).await
    }

    /// Without members yet; their files are below this directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            dir: tempfile::tempdir_in(dir).unwrap(),
            net: Net::default(),
            members: BTreeMap::new(),
            tune: |_| {},
        }
    }

    pub async fn tuned(size: u64, tune: fn(&mut Config)) -> Self {
        let mut cluster = Self::in_dir(&std::env::temp_dir());
        cluster.tune = tune;
        for id in 1..=size {
            cluster.start(id).await;
        }
        cluster.members[&1].initialize(member(1)).await.unwrap();
        for id in 2..=size {
            cluster.join(id).await;
        }
        cluster
    }

    pub fn home(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub async fn start(&mut self, id: u64) -> Raft {
        let raft = self.start_in(&self.home(id), id).await;
        self.members.insert(id, raft.clone());
        raft
    }

    pub async fn start_in(&self, home: &Path, id: u64) -> Raft {
        let mut config = Config::new(home, id, keys());
        (self.tune)(&mut config);
        let wire = Arc::new(Wire {
            net: self.net.clone(),
            from: id,
        });
        let fault = self.net.fault(id);
        let wrap = |sealer: Keys| -> Arc<dyn Codec> {
            let sealer = Arc::new(sealer);
            Arc::new(FaultyDisk { sealer, fault })
        };
        let raft = Raft::start_sealed(config, wire, wrap).await.unwrap();
        self.net.attach(id, raft.clone());
        raft
    }

    /// The leader adds a started member as a voter.
    pub async fn join(&self, id: u64) {
        let leader = self.leader().await;
        leader.add_learner(member(id)).await.unwrap();
        leader.promote_voter(id).await.unwrap();
    }

    /// What is on the disks now becomes the past of a new cluster, as after `kill -9` of everyone.
    pub async fn crash_all(mut self) -> Self {
        let after = tempfile::tempdir().unwrap();
        for id in self.members.keys() {
            let home = after.path().join(id.to_string());
            std::fs::create_dir(&home).unwrap();
            for file in std::fs::read_dir(self.home(*id)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), home.join(file.file_name())).unwrap();
            }
        }
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            self.stop(id).await;
        }
        let net = Net::default();
        let mut next = Self {
            dir: after,
            net,
            members: BTreeMap::new(),
            tune: self.tune,
        };
        for id in self
            .members
            .keys()
            .copied()
            .chain(1..=3)
            .collect::<BTreeSet<_>>()
        {
            next.start(id).await;
        }
        next
    }

    pub async fn stop(&mut self, id: u64) {
        self.net.detach(id);
        if let Some(raft) = self.members.remove(&id) {
            raft.shutdown().await;
        }
    }

    /// Waits for a member that leads, among those that are not cut off.
    pub async fn leader(&self) -> Raft {
        let id = self.leader_id().await;
        self.members[&id].clone()
    }

    pub async fn leader_id(&self) -> u64 {
        let cut = |id: &u64| self.net.0.lock().unwrap().cut.contains(id);
        until("a leader", || {
            let leads = |raft: &Raft| raft.leadership().borrow().i_lead;
            let found = self
                .members
                .iter()
                .find(|(id, raft)| !cut(id) && leads(raft));
            found.map(|(id, _)| *id)
        })
        .await
    }

    /// Some member that does not lead.
    pub async fn follower_id(&self) -> u64 {
        let leader = self.leader_id().await;
        *self.members.keys().find(|id| **id != leader).unwrap()
    }
}

/// Waits for a condition, at most 20 s.
pub async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "still no {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn view(raft: &Raft, what: &str, check: impl Fn(&Leadership) -> bool) -> Leadership {
    let mut leadership = raft.leadership();
    let found = tokio::time::timeout(Duration::from_secs(20), leadership.wait_for(|it| check(it)));
    found
        .await
        .unwrap_or_else(|_| panic!("still no {what}"))
        .unwrap()
        .clone()
}

/// A batch on top of a revision that changes nothing but the revision.
pub fn empty_batch(base: u64) -> Batch {
    Batch {
        base,
        txs: vec![tx()],
    }
}

/// A transaction that changes nothing.
pub fn tx() -> Tx {
    Tx {
        author: Author::Control,
        at: Timestamp::default(),
        changes: Vec::<Change>::new(),
    }
}

/// Numbers that look random and are the same in every run.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end
    }
}

/// Writes on top of what this member has.
pub async fn write(raft: &Raft) -> Result<u64, crate::raft::ProposeError> {
    raft.propose(empty_batch(raft.state().revision())).await
}
