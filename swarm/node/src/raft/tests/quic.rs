//! The same cluster over real QUIC on loopback.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::cluster::{until, write};
use crate::pki::{DEFAULT_LEAF_VALIDITY, Identity, KeyRequest, Leaf, Role, RootCa};
use crate::quic::{Endpoint, Handler, Incoming, OpenGate};
use crate::raft::{Config, Member, QuicTransport, Raft, serve};

/// Hands streams to a member that is started after its endpoint.
#[derive(Default)]
struct Door(OnceLock<Raft>);

struct Doorman(Arc<Door>);

impl Handler for Doorman {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let door = self.0.clone();
        Box::pin(async move {
            match door.0.get() {
                Some(raft) => serve(raft, incoming).await,
                None => incoming.stream.refuse("not yet").await,
            }
        })
    }
}

struct Host {
    endpoint: Endpoint,
    raft: Raft,
    member: Member,
}

async fn host(root: &RootCa, dir: &TempDir, id: u64) -> Host {
    let node_id = format!("node{id}");
    let request = KeyRequest::fresh().unwrap();
    let leaf = Leaf {
        node_id: &node_id,
        role: Role::Manager,
        cluster_id: "c",
    };
    let cert = root
        .sign(
            &request.csr_pem,
            &leaf,
            DEFAULT_LEAF_VALIDITY,
            SystemTime::now(),
        )
        .unwrap();
    let identity = Identity::new(&root.cert_pem, &cert, request.key_pem).unwrap();
    let endpoint = Endpoint::bind(Some(([127, 0, 0, 1], 0).into()), Arc::new(OpenGate)).unwrap();
    endpoint.set_identity(Arc::new(identity)).unwrap();
    let door = Arc::new(Door::default());
    endpoint.serve(Arc::new(Doorman(door.clone())));
    let addr = endpoint.local_addr().unwrap().to_string();
    let keys = crate::disk::Keys::generate().unwrap();
    let config = Config::new(dir.path().join(&node_id), id, keys);
    let transport = Arc::new(QuicTransport::new(endpoint.clone()));
    let raft = Raft::start(config, transport).await.unwrap();
    drop(door.0.set(raft.clone()));
    Host {
        endpoint,
        raft,
        member: Member {
            raft_id: id,
            node_id: node_id.as_str().into(),
            addr,
        },
    }
}

async fn three(root: &RootCa, dir: &TempDir) -> Vec<Host> {
    let mut hosts = Vec::new();
    for id in 1..=3 {
        hosts.push(host(root, dir, id).await);
    }
    hosts[0]
        .raft
        .initialize(hosts[0].member.clone())
        .await
        .unwrap();
    for other in &hosts[1..] {
        hosts[0]
            .raft
            .add_learner(other.member.clone())
            .await
            .unwrap();
        hosts[0]
            .raft
            .promote_voter(other.member.raft_id)
            .await
            .unwrap();
    }
    hosts
}

/// The place of the leader among these.
async fn leader(hosts: &[Host]) -> usize {
    until("a leader", || {
        hosts
            .iter()
            .position(|it| it.raft.leadership().borrow().i_lead)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_over_quic() {
    let root = RootCa::create(SystemTime::now()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut hosts = three(&root, &dir).await;
    let at = leader(&hosts).await;
    for expected in 1..=20 {
        assert_eq!(write(&hosts[at].raft).await, Ok(expected));
    }
    for host in &hosts {
        host.raft.read_barrier().await.unwrap();
        assert_eq!(host.raft.state().revision(), 20);
    }
    let lost = hosts.remove(at);
    lost.endpoint.shutdown("killed").await;
    let at = leader(&hosts).await;
    assert_eq!(write(&hosts[at].raft).await, Ok(21));
    hosts[1 - at].raft.read_barrier().await.unwrap();
    assert_eq!(hosts[1 - at].raft.state().revision(), 21);
}

/// Prints what calls cost and how long a failover takes over QUIC.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_quic() {
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let root = RootCa::create(SystemTime::now()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut hosts = three(&root, &dir).await;
        let at = leader(&hosts).await;
        let (count, start) = (300, Instant::now());
        for _ in 0..count {
            write(&hosts[at].raft).await.unwrap();
        }
        let writes = start.elapsed() / count;
        let (follower, start) = (&hosts[(at + 1) % 3], Instant::now());
        for _ in 0..count {
            follower.raft.read_barrier().await.unwrap();
        }
        println!(
            "write {writes:?}, read barrier on a follower {:?}",
            start.elapsed() / count
        );
        let lost = hosts.remove(at);
        let start = Instant::now();
        // A black hole: nobody is told.
        std::mem::drop(lost.endpoint.shutdown("killed"));
        lost.raft.shutdown().await;
        let at = leader(&hosts).await;
        write(&hosts[at].raft).await.unwrap();
        gaps.push(start.elapsed());
    }
    gaps.sort();
    println!("loss of the leader to the next write over QUIC: {gaps:?}");
    assert!(gaps[0] < Duration::from_secs(20));
}
