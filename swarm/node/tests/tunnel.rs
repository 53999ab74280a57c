//! The way from any manager to the engine of any node, with whole nodes in one process and engines
//! of a few bytes.

// Helpers of tests may state what they expect, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/host.rs"]
#[allow(dead_code)]
mod host;
#[path = "support/engine.rs"]
#[allow(dead_code)]
mod map;
#[path = "support/swarm.rs"]
#[allow(dead_code)]
mod swarm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host::{Host, ready, tokens, until};
use skep_api::Kind;
use skep_api::node::Role;
use skep_core::Id;
use skep_node::Node;
use skep_node::engine::EngineStream;
use swarm::{Daemon, id, is_worker, managers, set_role, stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What may be under way between an engine and a client that does not read.
const UNDER_WAY: u64 = 4 << 20;

/// An engine that does what the first byte of a connection says.
struct Api {
    /// Bytes that it got rid of by flooding.
    flooded: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Api {
    fn start(host: &Host, name: &'static str) -> Self {
        let path = host.dir.path().join("engine.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        host.engine.0.lock().unwrap().api = path;
        let flooded = Arc::<AtomicU64>::default();
        let counter = flooded.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, name, counter.clone()));
            }
        });
        Self { flooded, task }
    }
}

async fn serve(mut stream: UnixStream, name: &str, flooded: Arc<AtomicU64>) -> Option<()> {
    match stream.read_u8().await.ok()? {
        b'n' => stream.write_all(name.as_bytes()).await.ok(),
        b'e' => {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.ok().map(drop)
        }
        // Ends its own direction first, and says elsewhere what it read afterwards.
        b'c' => {
            stream.write_all(b"bye").await.ok()?;
            stream.shutdown().await.ok()?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok()?;
            flooded.fetch_add(rest.len() as u64, Ordering::Relaxed);
            Some(())
        }
        b'f' => loop {
            let count = stream.write(&[b'x'; 16 << 10]).await.ok()?;
            flooded.fetch_add(count as u64, Ordering::Relaxed);
        },
        _ => None,
    }
}

async fn said(mut stream: EngineStream) -> std::io::Result<String> {
    stream.write_all(b"n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

async fn name_of(from: &Node, node: &Id) -> String {
    said(from.engine_of(node).await.unwrap()).await.unwrap()
}

/// A node that has another role now may end what came by its old connections.
async fn is_found(from: &Node, node: &Id, name: &str) {
    until("the way to its engine", async || {
        match from.engine_of(node).await {
            Ok(stream) => said(stream).await.is_ok_and(|it| it == name),
            Err(_) => false,
        }
    })
    .await;
}

/// Two managers and a worker, each with its engine.
async fn three(hosts: &[Host; 3]) -> (Vec<Node>, Vec<Api>) {
    let names = ["leader", "follower", "worker"];
    let apis = hosts.iter().zip(names);
    let apis = apis.map(|(host, name)| Api::start(host, name)).collect();
    let nodes = swarm::swarm(hosts, 2).await;
    until("all are ready", async || {
        nodes[0].view().await.is_ok_and(|view| ready(&view) == 3)
    })
    .await;
    (nodes, apis)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manager_reaches_every_engine() {
    let hosts = [(); 3].map(|()| Host::new());
    let (nodes, apis) = three(&hosts).await;
    for from in &nodes[..2] {
        for (to, name) in nodes.iter().zip(["leader", "follower", "worker"]) {
            assert_eq!(name_of(from, &id(to)).await, name);
        }
        let error = from.engine_of(&"nobody".into()).await.err().unwrap();
        assert_eq!(error.kind, Kind::NotFound);
    }
    let error = nodes[2].engine_of(&id(&nodes[0])).await.err().unwrap();
    assert!(error.message.contains("Worker nodes can't"), "{error:?}");
    let worker = id(&nodes[2]);
    for from in &nodes[..2] {
        carries_much(from, &worker).await;
        closes_by_halves(from, &worker, &apis[2]).await;
        stands_back_for_a_slow_reader(from, &worker, &apis[2]).await;
    }
    // The session is on the same connection as those that nobody read.
    assert_eq!(ready(&nodes[0].view().await.unwrap()), 3);
    says_that_the_engine_is_down(&nodes, &hosts[2], &apis[2]).await;
    stop(nodes).await;
}

async fn carries_much(from: &Node, node: &Id) {
    let mut stream = from.engine_of(node).await.unwrap();
    stream.write_all(b"e").await.unwrap();
    let sent: Vec<u8> = (0..12_000_000_u32).map(|n| (n / 7) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.unwrap();
    writing.await.unwrap();
    assert!(got == expected, "{} bytes came back", got.len());
}

async fn closes_by_halves(from: &Node, node: &Id, api: &Api) {
    api.flooded.store(0, Ordering::Relaxed);
    let mut stream = from.engine_of(node).await.unwrap();
    stream.write_all(b"c").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "bye");
    // The other direction goes on.
    stream.write_all(b"and more").await.unwrap();
    stream.shutdown().await.unwrap();
    until("the engine has the rest", async || {
        api.flooded.load(Ordering::Relaxed) == 8
    })
    .await;
}

async fn stands_back_for_a_slow_reader(from: &Node, node: &Id, api: &Api) {
    api.flooded.store(0, Ordering::Relaxed);
    const READERS: u64 = 24;
    let mut stalled = Vec::new();
    for _ in 0..READERS {
        let mut stream = from.engine_of(node).await.unwrap();
        stream.write_all(b"f").await.unwrap();
        stalled.push(stream);
    }
    let mut last = 0;
    until("the engine cannot write any more", async || {
        // A stall shows only in that nothing moves for a while.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = api.flooded.load(Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    assert!(last < READERS * UNDER_WAY, "{last} bytes are under way");
    // They hold nobody else up.
    assert_eq!(name_of(from, node).await, "worker");
    // What is read makes room for more.
    let mut buffer = vec![0; 1 << 20];
    for stream in &mut stalled {
        stream.read_exact(&mut buffer).await.unwrap();
    }
}

async fn says_that_the_engine_is_down(nodes: &[Node], host: &Host, api: &Api) {
    api.task.abort();
    let socket = host.engine.0.lock().unwrap().api.clone();
    std::fs::remove_file(&socket).unwrap();
    let worker = id(&nodes[2]);
    for from in &nodes[..2] {
        let start = Instant::now();
        let error = from.engine_of(&worker).await.err().unwrap();
        assert_eq!(error.kind, Kind::Unavailable);
        for part in [worker.as_str(), "host", "engine.sock"] {
            assert!(error.message.contains(part), "{part}: {error:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_is_found_again_when_another_manager_leads() {
    let hosts = [(); 3].map(|()| Host::new());
    let (nodes, _apis) = three(&hosts).await;
    let worker = id(&nodes[2]);
    set_role(&nodes[1], &worker, Role::Manager).await.unwrap();
    until("three managers", async || managers(&nodes[1], 3).await).await;
    set_role(&nodes[1], &worker, Role::Worker).await.unwrap();
    until("it is a worker", async || is_worker(&nodes[2])).await;
    // What the worker offered as a manager it still offers.
    is_found(&nodes[1], &worker, "worker").await;
    // The leader becomes a worker: the follower leads.
    let old = id(&nodes[0]);
    set_role(&nodes[1], &old, Role::Worker).await.unwrap();
    until("the leader is a worker", async || is_worker(&nodes[0])).await;
    for (node, name) in [(&worker, "worker"), (&old, "leader")] {
        is_found(&nodes[1], node, name).await;
    }
    stop(nodes).await;
}

#[test]
fn a_node_that_dies_ends_its_streams_within_seconds() {
    let hosts = [(); 2].map(|()| Host::new());
    let daemons: Vec<Daemon> = hosts.iter().map(Daemon::start).collect();
    let (manager, worker) = (&daemons[0], &daemons[1]);
    manager.run(hosts[0].init(&manager.node)).unwrap();
    let (token, _) = manager.run(tokens(&manager.node));
    let _api = worker.run(async { Api::start(&hosts[1], "worker") });
    let joined = hosts[1].join(&worker.node, &hosts[0], token);
    worker.run(joined).unwrap();
    let node = id(&worker.node);
    let mut stream = manager.run(manager.node.engine_of(&node)).unwrap();
    manager.run(async {
        stream.write_all(b"e?").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'?');
    });
    let mut daemons = daemons.into_iter();
    let manager = daemons.next().unwrap();
    daemons.next().unwrap().kill();
    let start = Instant::now();
    manager.run(stream.read_u8()).unwrap_err();
    let error = manager.run(manager.node.engine_of(&node)).err().unwrap();
    assert!(error.message.contains(node.as_str()), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(8));
    manager.run(manager.node.stop());
}
