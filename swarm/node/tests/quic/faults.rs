//! Dead addresses, black holes, garbage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use skep_node::pki::Identity;
use skep_node::pki::Role::Manager;
use skep_node::quic::{CallError, Endpoint, OpenGate, Service};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

use crate::harness::{Answer, Ask, Cluster, Echo, SOON};

#[tokio::test]
async fn a_dead_address_fails_quickly_and_safely() {
    let cluster = Cluster::new("c");
    let a = cluster.node("a", Manager);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let ask = Ask { text: "x".into() };
    for (timeout, at_most) in [(200, 600), (20_000, 2500)] {
        let before = Instant::now();
        let timeout = Duration::from_millis(timeout);
        let error = a
            .endpoint
            .call::<_, Answer>(&addr, Service::Raft, None, timeout, &ask)
            .await;
        let Err(CallError::NotSent(text)) = &error else {
            panic!("{error:?}")
        };
        assert!(text.contains(&addr) && text.contains("firewall"), "{text}");
        assert!(
            before.elapsed() < Duration::from_millis(at_most),
            "{:?}",
            before.elapsed()
        );
    }
}

#[tokio::test]
async fn a_dial_outlives_an_impatient_caller() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    let ask = Ask { text: "x".into() };
    // Heartbeats have time-outs shorter than a handshake on a slow network.
    let hasty = Duration::from_micros(1);
    let error = a
        .endpoint
        .call::<_, Answer>(&b.addr, Service::Raft, None, hasty, &ask)
        .await;
    // Whether the request got out in that moment is chance.
    assert!(error.is_err(), "{error:?}");
    let connected = async {
        while a.endpoint.links("b").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, connected).await.unwrap();
}

/// A daemon with a runtime of its own: dropping that is as sudden as `kill -9` for its peers.
fn daemon(socket: SocketAddr, identity: &Arc<Identity>) -> (Runtime, Endpoint) {
    let runtime = Runtime::new().unwrap();
    let inside = runtime.enter();
    let endpoint = Endpoint::bind_as(Some(socket), Arc::new(OpenGate), identity).unwrap();
    endpoint.set_identity(identity.clone()).unwrap();
    endpoint.serve(Arc::new(Echo));
    drop(inside);
    (runtime, endpoint)
}

#[test]
fn peers_of_a_killed_daemon_hear_of_it_once_it_is_back() {
    let cluster = Cluster::new("c");
    let identity = cluster.identity("b", Manager);
    let (runtime, b) = daemon(([127, 0, 0, 1], 0).into(), &identity);
    let socket = b.local_addr().unwrap();
    let here = Runtime::new().unwrap();
    let link = here.block_on(async {
        let a = cluster.node("a", Manager);
        a.ask_at(&socket.to_string(), Service::Control, "x")
            .await
            .unwrap();
        a.endpoint.links("b").pop().unwrap()
    });
    runtime.shutdown_timeout(SOON);
    drop(b);
    let _back = daemon(socket, &identity);
    let back = Instant::now();
    let why = here.block_on(async { tokio::time::timeout(SOON, link.closed()).await });
    assert_eq!(why.unwrap(), "the node restarted");
    // With the next keepalive, rather than after a time of silence.
    assert!(
        back.elapsed() < Duration::from_secs(1),
        "{:?}",
        back.elapsed()
    );
}

#[tokio::test]
async fn a_black_hole_is_noticed_within_two_seconds() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    let proxy = Proxy::before(b.socket).await;
    a.ask_at(&proxy.addr, Service::Control, "x").await.unwrap();
    let link = a.endpoint.links("b").pop().unwrap();
    // A working connection with nothing to say is left alone.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(link.is_open());
    let pending = {
        let (endpoint, addr) = (a.endpoint.clone(), proxy.addr.clone());
        let ask = Ask {
            text: "sleep".into(),
        };
        tokio::spawn(async move {
            let long = Duration::from_secs(30);
            endpoint
                .call::<_, Answer>(&addr, Service::Control, None, long, &ask)
                .await
        })
    };
    // So that the call is on its way; too little would only make the test easier.
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.swallow.store(true, Ordering::SeqCst);
    let before = Instant::now();
    let (here, there, call) = tokio::join!(link.closed(), b.endpoint.closed("a"), pending);
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "{:?}",
        before.elapsed()
    );
    assert!(here.contains("no answer"), "{here}");
    let () = there;
    let error = call.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error:?}");
    // And it heals by itself.
    proxy.swallow.store(false, Ordering::SeqCst);
    a.ask_at(&proxy.addr, Service::Control, "x").await.unwrap();
}

#[tokio::test]
async fn garbage_does_no_harm() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    for n in 0..3000usize {
        let datagram: Vec<u8> = (0..n % 1400)
            .map(|at| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                // Every other one looks like the first packet of a connection.
                if at == 0 && n % 2 == 0 {
                    0xc3
                } else {
                    noise as u8
                }
            })
            .collect();
        socket.send_to(&datagram, b.socket).await.unwrap();
        if n % 500 == 0 {
            a.ask(&b, Service::Raft).await.unwrap();
        }
    }
    a.ask(&b, Service::Control).await.unwrap();
}

/// A UDP relay for one client that can start to swallow everything.
struct Proxy {
    addr: String,
    swallow: Arc<AtomicBool>,
}

impl Proxy {
    async fn before(server: SocketAddr) -> Proxy {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(server).await.unwrap();
        let addr = front.local_addr().unwrap().to_string();
        let swallow = Arc::new(AtomicBool::new(false));
        let swallowing = swallow.clone();
        tokio::spawn(async move {
            let (mut there, mut here) = ([0; 2048], [0; 2048]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((size, from)) = front.recv_from(&mut there) => {
                        client = Some(from);
                        if !swallowing.load(Ordering::SeqCst) {
                            let _ = back.send(&there[..size]).await;
                        }
                    }
                    Ok(size) = back.recv(&mut here) => {
                        if let (Some(client), false) = (client, swallowing.load(Ordering::SeqCst)) {
                            let _ = front.send_to(&here[..size], client).await;
                        }
                    }
                }
            }
        });
        Proxy { addr, swallow }
    }
}

#[tokio::test]
async fn stalled_handshakes_do_not_lock_out_the_members() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    // Genuine first packets whose senders never hear the answer: more than the server lets in
    // without a proof of address.
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = cluster.node("stranger", Manager);
    let addr = sink.local_addr().unwrap();
    let dials: Vec<_> = (0..150)
        .map(|_| tokio::spawn(crate::harness::rogue(addr, None, b"skep/raft/1")))
        .collect();
    let mut packet = [0; 2048];
    for _ in 0..150 {
        let (size, _) = sink.recv_from(&mut packet).await.unwrap();
        sink.send_to(&packet[..size], b.socket).await.unwrap();
    }
    let before = Instant::now();
    a.ask(&b, Service::Raft).await.unwrap();
    stranger.ask(&b, Service::Control).await.unwrap();
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    dials.iter().for_each(|dial| dial.abort());
}
