//! Calls, sessions and raw bytes between nodes that trust each other.

use std::time::Duration;

use skep_node::pki::Role::{Manager, Worker};
use skep_node::quic::{CallError, Endpoint, OpenGate, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Answer, Ask, Cluster, SOON};

#[tokio::test]
async fn a_call_names_its_caller() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    for service in [Service::Raft, Service::Control, Service::Ca] {
        let answer = a.ask(&b, service).await.unwrap();
        assert_eq!(
            answer,
            Answer {
                text: "hello".into(),
                from: Some("a".into())
            }
        );
    }
    let answer: Answer = a
        .endpoint
        .call(
            &b.addr,
            Service::Control,
            Some("b"),
            SOON,
            &Ask { text: "x".into() },
        )
        .await
        .unwrap();
    assert_eq!(answer.text, "x");
}

#[tokio::test]
async fn many_callers_share_one_connection() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    let calls = (0..100).map(|n| {
        let (endpoint, addr) = (a.endpoint.clone(), b.addr.clone());
        tokio::spawn(async move {
            let text = n.to_string().repeat(n);
            let ask = Ask { text: text.clone() };
            let answer = endpoint
                .call::<_, Answer>(&addr, Service::Raft, None, SOON, &ask)
                .await;
            assert_eq!(answer.unwrap().text, text);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(a.endpoint.links("b").len(), 1);
    assert_eq!(b.endpoint.links("a").len(), 1);
}

#[tokio::test]
async fn large_frames_pass_and_larger_ones_do_not() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    let large = "x".repeat(15 << 20);
    let answer = a.ask_at(&b.addr, Service::Control, &large).await.unwrap();
    assert_eq!(answer.text.len(), large.len());
    let error = a
        .ask_at(&b.addr, Service::Control, &"x".repeat(17 << 20))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::NotSent(text) if text.contains("larger than")),
        "{error}"
    );
    // The answer is too large: the request was executed, so it must not look refused.
    let error = a.ask_at(&b.addr, Service::Ca, "much").await.unwrap_err();
    assert!(
        matches!(&error, CallError::Broken(text) if text.contains("larger than")),
        "{error}"
    );
}

#[tokio::test]
async fn the_kinds_of_failure() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    let error = a
        .ask_at(&b.addr, Service::Control, "refuse")
        .await
        .unwrap_err();
    assert_eq!(error, CallError::Refused("no such thing".into()));
    let error = a
        .ask_at(&b.addr, Service::Control, "drop")
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error}");
    let ask = Ask {
        text: "sleep".into(),
    };
    let short = Duration::from_millis(200);
    let slow = a
        .endpoint
        .call::<_, Answer>(&b.addr, Service::Control, None, short, &ask)
        .await;
    assert!(matches!(slow, Err(CallError::Broken(_))), "{slow:?}");
    let other = a
        .endpoint
        .call::<_, Answer>(&b.addr, Service::Raft, Some("z"), SOON, &ask)
        .await;
    assert!(matches!(other, Err(CallError::NotSent(_))), "{other:?}");
    // Something that is no Ask at all.
    let strange = a
        .endpoint
        .call::<_, Answer>(&b.addr, Service::Raft, None, SOON, &7)
        .await;
    assert!(matches!(strange, Err(CallError::Refused(_))), "{strange:?}");
}

#[tokio::test]
async fn sessions_go_on_for_as_long_as_both_like() {
    let cluster = Cluster::new("c");
    let (w, m) = (cluster.node("w", Worker), cluster.node("m", Manager));
    let (link, mut sender, mut receiver) = w
        .endpoint
        .open(&m.addr, Service::Dispatch, Some("m"))
        .await
        .unwrap();
    assert_eq!(link.peer().unwrap().node_id, "m");
    for n in 0..50 {
        sender
            .send(&Ask {
                text: n.to_string(),
            })
            .await
            .unwrap();
        let answer: Answer = receiver.recv().await.unwrap().unwrap();
        assert_eq!(
            answer,
            Answer {
                text: n.to_string(),
                from: Some("w".into())
            }
        );
    }
    sender.finish();
    assert!(receiver.recv::<Answer>().await.unwrap().is_none());
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let cluster = Cluster::new("c");
    let (w, m) = (cluster.node("w", Worker), cluster.node("m", Manager));
    let (_, mut sender, mut receiver) = w
        .endpoint
        .open(&m.addr, Service::Dispatch, None)
        .await
        .unwrap();
    let text = "y".repeat(1 << 20);
    sender.send(&Ask { text: text.clone() }).await.unwrap();
    let answer = loop {
        let attempt = receiver.recv::<Answer>();
        match tokio::time::timeout(Duration::from_micros(200), attempt).await {
            Ok(answer) => break answer.unwrap().unwrap(),
            Err(_) => continue,
        }
    };
    assert_eq!(answer.text, text);
}

#[tokio::test]
async fn bytes_with_half_close() {
    let cluster = Cluster::new("c");
    let (m, w) = (cluster.node("m", Manager), cluster.node("w", Worker));
    let mut bytes = m
        .endpoint
        .open_bytes(&w.addr, Service::Http, Some("w"))
        .await
        .unwrap();
    bytes.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    bytes.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    bytes.read_to_end(&mut echoed).await.unwrap();
    assert_eq!(echoed, b"GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn a_manager_reaches_a_worker_over_the_workers_own_connection() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    // A worker that listens nowhere.
    let w = Endpoint::bind(None, std::sync::Arc::new(OpenGate)).unwrap();
    w.set_identity(cluster.identity("w", Worker)).unwrap();
    w.serve(std::sync::Arc::new(crate::harness::Echo));
    let (_, mut sender, mut receiver) = w.open(&m.addr, Service::Dispatch, None).await.unwrap();
    sender
        .send(&Ask {
            text: "here".into(),
        })
        .await
        .unwrap();
    receiver.recv::<Answer>().await.unwrap().unwrap();
    let link = m.endpoint.links("w").pop().unwrap();
    assert!(!link.dialled());
    let mut bytes = link.open_bytes(Service::Http).await.unwrap();
    bytes.write_all(b"ping").await.unwrap();
    bytes.shutdown().await.unwrap();
    let mut echoed = String::new();
    bytes.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "ping");
}
