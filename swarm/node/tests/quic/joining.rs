//! A joiner trusts nothing but the digest in its token.

use std::sync::Arc;

use skep_node::pki::Identity;
use skep_node::pki::Role::{Manager, Worker};
use skep_node::quic::{CallError, Endpoint, OpenGate, Service};

use crate::harness::{Answer, Ask, Cluster, Node, SOON};

fn joiner() -> Endpoint {
    Endpoint::bind(None, Arc::new(OpenGate)).unwrap()
}

#[tokio::test]
async fn the_tokens_digest_proves_the_manager() {
    let cluster = Cluster::new("c");
    let m = cluster.node("m", Manager);
    let joiner = joiner();
    let (link, root) = joiner
        .dial_joining(&m.addr, &cluster.token(), SOON)
        .await
        .unwrap();
    assert_eq!(root, cluster.root.cert_pem);
    let peer = link.peer().unwrap();
    assert_eq!(
        (peer.node_id.as_str(), peer.cluster_id.as_str()),
        ("m", "c")
    );
    let ask = Ask {
        text: "my csr".into(),
    };
    let answer: Answer = link.call(Service::Ca, SOON, &ask).await.unwrap();
    assert_eq!(
        answer,
        Answer {
            text: "my csr".into(),
            from: None
        }
    );
}

#[tokio::test]
async fn another_clusters_token_is_refused_in_dockerds_words() {
    let (ours, theirs) = (Cluster::new("ours"), Cluster::new("theirs"));
    let m = ours.node("m", Manager);
    let token = theirs.token();
    let error = joiner()
        .dial_joining(&m.addr, &token, SOON)
        .await
        .unwrap_err();
    let hex: String = token
        .digest()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = format!("remote CA does not match fingerprint. Expected: {hex}");
    assert_eq!(error, CallError::Refused(expected));
}

#[tokio::test]
async fn showing_the_right_root_is_not_enough() {
    let (ours, theirs) = (Cluster::new("ours"), Cluster::new("theirs"));
    // The man in the middle knows our root (it is public) but holds no certificate under it.
    let theirs = theirs.identity("mitm", Manager);
    let forged = Identity::new(
        &ours.root.cert_pem,
        &theirs.cert_pem,
        theirs.key_pem.clone(),
    )
    .unwrap();
    let mitm = Node::listen(Arc::new(forged), Arc::new(OpenGate));
    let error = joiner()
        .dial_joining(&mitm.addr, &ours.token(), SOON)
        .await
        .unwrap_err();
    let CallError::Refused(text) = &error else {
        panic!("{error:?}")
    };
    assert!(text.contains("not of this cluster"), "{text}");
    // Nor does a worker of the right cluster do.
    let w = ours.node("w", Worker);
    let error = joiner()
        .dial_joining(&w.addr, &ours.token(), SOON)
        .await
        .unwrap_err();
    assert!(matches!(&error, CallError::Refused(text) if text.contains("not a manager")));
}

#[tokio::test]
async fn nobody_there() {
    let cluster = Cluster::new("c");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let error = joiner()
        .dial_joining(&addr, &cluster.token(), SOON)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::NotSent(text) if text.contains(&addr)),
        "{error:?}"
    );
    let error = joiner()
        .dial_joining("no.such.host.invalid:1", &cluster.token(), SOON)
        .await;
    assert!(matches!(&error, Err(CallError::NotSent(text)) if text.contains("resolve")));
}

#[tokio::test]
async fn a_crowd_of_joiners_does_not_lock_out_the_members() {
    let cluster = Cluster::new("c");
    let (m, n) = (cluster.node("m", Manager), cluster.node("n", Manager));
    let joiner = joiner();
    let dials = (0..100).map(|_| {
        let (joiner, addr, token) = (joiner.clone(), m.addr.clone(), cluster.token());
        tokio::spawn(async move { joiner.dial_joining(&addr, &token, SOON).await })
    });
    let mut held = Vec::new();
    for dial in dials.collect::<Vec<_>>() {
        match dial.await.unwrap() {
            Ok(joined) => held.push(joined),
            Err(CallError::NotSent(text)) => assert!(!text.is_empty()),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(held.len(), 64);
    assert_eq!(m.endpoint.links("").len(), 64);
    n.ask(&m, Service::Raft).await.unwrap();
}
