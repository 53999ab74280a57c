//! Who is not let in, and how they learn it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use skep_node::pki::Role::{Manager, Worker};
use skep_node::quic::{CallError, OpenGate, Service};

use crate::harness::{Cluster, Node, Removed, rogue, verdict};

#[tokio::test]
async fn a_worker_cannot_use_a_managers_services() {
    let cluster = Cluster::new("c");
    let (w, m) = (cluster.node("w", Worker), cluster.node("m", Manager));
    for service in [Service::Raft, Service::Control] {
        let error = w.ask(&m, service).await.unwrap_err();
        let CallError::Refused(text) = &error else {
            panic!("{error:?}")
        };
        assert!(text.contains("node w is not a manager"), "{text}");
    }
    assert!(
        w.endpoint
            .open_bytes(&m.addr, Service::Http, None)
            .await
            .is_err()
    );
    assert!(w.ask(&m, Service::Ca).await.is_ok());
}

#[tokio::test]
async fn a_stream_cannot_change_the_service_of_its_connection() {
    let cluster = Cluster::new("c");
    let (w, m) = (cluster.node("w", Worker), cluster.node("m", Manager));
    let (link, ..) = w
        .endpoint
        .open(&m.addr, Service::Dispatch, None)
        .await
        .unwrap();
    for service in [Service::Raft, Service::Control, Service::Http] {
        let (_, mut receiver) = link.open(service).await.unwrap();
        let error = receiver.recv::<u8>().await.unwrap_err();
        assert!(matches!(error, CallError::Refused(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_worker_cannot_play_the_manager() {
    let cluster = Cluster::new("c");
    let (w, m) = (cluster.node("w", Worker), cluster.node("m", Manager));
    for service in [Service::Raft, Service::Control, Service::Ca] {
        let error = m.ask(&w, service).await.unwrap_err();
        let CallError::NotSent(text) = &error else {
            panic!("{error:?}")
        };
        assert!(text.contains("swarm-worker"), "{text}");
    }
    assert!(
        w.endpoint
            .open(&w.addr, Service::Dispatch, None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn another_clusters_nodes_are_strangers_in_both_directions() {
    let (ours, theirs) = (Cluster::new("ours"), Cluster::new("theirs"));
    let (a, b) = (ours.node("a", Manager), theirs.node("b", Manager));
    // The dialler does not trust what answers.
    let error = a.ask(&b, Service::Raft).await.unwrap_err();
    assert!(
        matches!(&error, CallError::NotSent(text) if text.contains("another cluster")),
        "{error}"
    );
    // The one that answers does not trust the dialler.
    let foreign = theirs.identity("a", Manager);
    for service in [b"skep/raft/1".as_slice(), b"skep/ca/1", b"skep/dispatch/1"] {
        let text = verdict(rogue(a.socket, Some(&foreign), service).await).await;
        assert!(text.contains("crypto"), "{text}");
    }
    assert!(a.endpoint.links("a").is_empty());
}

#[tokio::test]
async fn the_same_root_does_not_make_the_same_cluster() {
    let ours = Cluster::new("ours");
    let theirs = Cluster {
        root: ours.root.clone(),
        id: "theirs",
    };
    let (a, b) = (ours.node("a", Manager), theirs.node("b", Manager));
    let error = a.ask(&b, Service::Raft).await.unwrap_err();
    assert!(
        matches!(&error, CallError::NotSent(text) if text.contains("cluster")),
        "{error}"
    );
    let foreign = theirs.identity("x", Manager);
    let text = verdict(rogue(a.socket, Some(&foreign), b"skep/raft/1").await).await;
    assert!(text.contains("crypto"), "{text}");
}

#[tokio::test]
async fn without_a_certificate_only_the_ca_is_open() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    for alpn in [
        b"skep/raft/1".as_slice(),
        b"skep/control/1",
        b"skep/dispatch/1",
        b"skep/http/1",
    ] {
        let text = verdict(rogue(m.socket, None, alpn).await).await;
        assert!(text.contains("needs a node certificate"), "{text}");
    }
    let connection = rogue(m.socket, None, b"skep/ca/1").await.unwrap();
    let mut greeting = connection.accept_uni().await.unwrap();
    let pem = greeting.read_to_end(1 << 16).await.unwrap();
    assert_eq!(pem, cluster.root.cert_pem.as_bytes());
    let text = verdict(rogue(m.socket, None, b"h3").await).await;
    assert!(text.contains("crypto"), "{text}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_its_reason() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    let long_ago = SystemTime::now() - Duration::from_secs(100 * 24 * 3600);
    let validity = Duration::from_secs(90 * 24 * 3600);
    let old = cluster.identity_at("old", Manager, long_ago, validity);
    let old = Node::listen(old, Arc::new(OpenGate));
    let error = old.ask(&m, Service::Raft).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Refused(text) if text.contains("expired")),
        "{error:?}"
    );
    let error = m.ask(&old, Service::Raft).await.unwrap_err();
    assert!(
        matches!(&error, CallError::NotSent(text) if text.contains("has expired")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_stays_out() {
    let cluster = Cluster::new("c");
    let gate = Arc::new(Removed::default());
    let m = cluster.node_with("m", Manager, gate.clone());
    let removed = cluster.node("removed", Manager);
    removed.ask(&m, Service::Control).await.unwrap();
    gate.0.store(true, Ordering::SeqCst);
    // The connection stands, its streams are refused.
    let error = removed.ask(&m, Service::Control).await.unwrap_err();
    assert_eq!(
        error,
        CallError::Refused("node removed was removed from the swarm".into())
    );
    let link = removed.endpoint.links("m").pop().unwrap();
    m.endpoint.close_peer("removed", "removed from the swarm");
    assert_eq!(link.closed().await, "removed from the swarm");
    m.endpoint.closed("removed").await;
    let error = removed.ask(&m, Service::Raft).await.unwrap_err();
    let CallError::Refused(text) = &error else {
        panic!("{error:?}")
    };
    assert!(text.contains("was removed from the swarm"), "{text}");
}

#[tokio::test]
async fn an_oversize_frame_is_refused_before_it_is_read() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    let evil = cluster.identity("evil", Manager);
    let connection = rogue(m.socket, Some(&evil), b"skep/control/1")
        .await
        .unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&[2, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3])
        .await
        .unwrap();
    let answer = recv.read_to_end(4096).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("larger than the 16777216"), "{text}");
    assert_eq!(answer[0], 1);
}
