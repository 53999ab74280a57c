//! Certificates that change under live connections.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skep_node::pki::Role::{Manager, Worker};
use skep_node::quic::{Endpoint, OpenGate, Service};
use tokio::time::timeout;

use crate::harness::{Answer, Ask, Cluster, Echo, Node, SOON};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_renewal_drops_no_connection() {
    let cluster = Cluster::new("c");
    let (w, m) = (cluster.node("w", Worker), cluster.node("m", Manager));
    let (old, mut sender, mut receiver) = w
        .endpoint
        .open(&m.addr, Service::Dispatch, None)
        .await
        .unwrap();
    sender
        .send(&Ask {
            text: "before".into(),
        })
        .await
        .unwrap();
    receiver.recv::<Answer>().await.unwrap().unwrap();
    let now = SystemTime::now();
    m.endpoint
        .set_identity(cluster.identity_at("m", Manager, now, DAY))
        .unwrap();
    w.endpoint
        .set_identity(cluster.identity_at("w", Worker, now, DAY))
        .unwrap();
    sender
        .send(&Ask {
            text: "after".into(),
        })
        .await
        .unwrap();
    let answer: Answer = receiver.recv().await.unwrap().unwrap();
    assert_eq!(answer.text, "after");
    assert!(old.is_open());
    // A new connection shows the new certificates on both sides.
    w.ask(&m, Service::Ca).await.unwrap();
    let ends = |node: &Node, peer: &str, service| {
        let links = node.endpoint.links(peer);
        let link = links.iter().find(|link| link.service() == service).unwrap();
        link.peer().unwrap().not_after.duration_since(now).unwrap()
    };
    assert!(ends(&w, "m", Service::Ca) <= DAY && ends(&w, "m", Service::Dispatch) > DAY);
    assert!(ends(&m, "w", Service::Ca) <= DAY && ends(&m, "w", Service::Dispatch) > DAY);
}

#[tokio::test]
async fn a_root_that_is_trusted_no_more_takes_its_connections_along() {
    let (old, new) = (Cluster::new("c"), Cluster::new("c"));
    let (a, b) = (old.node("a", Manager), old.node("b", Manager));
    a.ask(&b, Service::Raft).await.unwrap();
    // Both roots in between, as in a rotation: nothing is dropped.
    let both = format!("{}{}", old.root.cert_pem, new.root.cert_pem);
    for (node, id) in [(&a, "a"), (&b, "b")] {
        let identity = new.identity(id, Manager).with_roots(&both).unwrap();
        node.endpoint.set_identity(Arc::new(identity)).unwrap();
    }
    let stood = b.endpoint.links("a").pop().unwrap();
    a.ask(&b, Service::Raft).await.unwrap();
    assert!(stood.is_open() && b.endpoint.links("a").pop().unwrap().same(&stood));
    // Only b has heard that the rotation is over: it has accepted that connection by the old root.
    b.endpoint.set_identity(new.identity("b", Manager)).unwrap();
    timeout(3 * SOON, stood.closed()).await.unwrap();
    a.endpoint.closed("b").await;
    a.ask(&b, Service::Raft).await.unwrap();
}

#[tokio::test]
async fn a_promotion_replaces_the_old_connections() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    let w = Endpoint::bind(None, Arc::new(OpenGate)).unwrap();
    w.serve(Arc::new(Echo));
    w.set_identity(cluster.identity("w", Worker)).unwrap();
    let ask = Ask { text: "x".into() };
    w.call::<_, Answer>(&m.addr, Service::Ca, None, SOON, &ask)
        .await
        .unwrap();
    let old = w.links("m").pop().unwrap();
    w.listen_on(([127, 0, 0, 1], 0).into()).unwrap();
    w.set_identity(cluster.identity("w", Manager)).unwrap();
    w.call::<_, Answer>(&m.addr, Service::Raft, None, SOON, &ask)
        .await
        .unwrap();
    // It can be dialled now.
    let addr = w.local_addr().unwrap().to_string();
    m.ask_at(&addr, Service::Raft, "x").await.unwrap();
    tokio::time::timeout(SOON, old.closed())
        .await
        .expect("the worker's connection should end");
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    let now = SystemTime::now();
    let brief = cluster.identity_at("brief", Manager, now, Duration::from_secs(2));
    let brief = Node::listen(brief, Arc::new(OpenGate));
    brief.ask(&m, Service::Raft).await.unwrap();
    let link = brief.endpoint.links("m").pop().unwrap();
    let closed = tokio::time::timeout(SOON, link.closed()).await.unwrap();
    assert!(closed.contains("expired"), "{closed}");
}

#[tokio::test]
async fn shutdown_says_goodbye_and_frees_the_port() {
    let cluster = Cluster::new("c");
    let (a, b) = (cluster.node("a", Manager), cluster.node("b", Manager));
    a.ask(&b, Service::Raft).await.unwrap();
    let link = a.endpoint.links("b").pop().unwrap();
    let taken = Endpoint::bind(Some(b.socket), Arc::new(OpenGate)).unwrap_err();
    assert!(
        taken.to_string().contains("address already in use"),
        "{taken}"
    );
    b.endpoint.shutdown("leaving").await;
    let before = Instant::now();
    assert_eq!(link.closed().await, "leaving");
    assert!(before.elapsed() < Duration::from_millis(500));
    assert!(b.ask(&a, Service::Raft).await.is_err());
    let again = Endpoint::bind(Some(b.socket), Arc::new(OpenGate)).unwrap();
    again.set_identity(cluster.identity("b", Manager)).unwrap();
    again.serve(Arc::new(Echo));
    a.ask(&b, Service::Raft).await.unwrap();
}
