//! Certificates of whole nodes over real QUIC: expiry and the way back, rotations of the root, an
//! authority outside of the swarm.

// Helpers of tests may state what they expect, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/host.rs"]
#[allow(dead_code)]
mod host;
#[path = "support/engine.rs"]
#[allow(dead_code)]
mod map;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use authority::Authority;
use host::{Host, create, ready, tokens, until};
use skep_api::Error;
use skep_api::cluster::{ExternalCa, LocalNodeState, Spec};
use skep_core::command::{Command, Reply};
use skep_core::object::{Cluster, Role};
use skep_core::{Id, wire};
use skep_node::Node;
use skep_node::pki::{KeyRequest, Leaf, RootCa};

const HOUR: Duration = Duration::from_secs(3600);

async fn cluster(node: &Node) -> Cluster {
    let state = node.view().await.unwrap().state;
    state.cluster().unwrap().as_ref().clone()
}

/// Puts a certificate in the place of a stopped node's that expired a day ago.
async fn expire(host: &Host, through: &Node, id: &Id, role: Role) {
    let cluster = cluster(through).await;
    let a_day_ago = SystemTime::now() - 24 * HOUR;
    replace(host, &cluster, id, role, a_day_ago);
}

/// Puts a certificate in the place of a stopped node's that ends at this time.
fn replace(host: &Host, cluster: &Cluster, id: &Id, role: Role, ends: SystemTime) {
    let root = RootCa {
        cert_pem: cluster.root_ca.cert_pem.clone(),
        key_pem: cluster.root_ca.key_pem.clone(),
    };
    let request = KeyRequest::fresh().unwrap();
    let leaf = Leaf {
        node_id: id,
        role,
        cluster_id: &cluster.id,
    };
    let cert = root.sign(&request.csr_pem, &leaf, 24 * HOUR, ends - 24 * HOUR);
    let dir = host.dir.path().join("certificates");
    std::fs::write(dir.join("swarm-node.crt"), cert.unwrap()).unwrap();
    std::fs::write(dir.join("swarm-node.key"), request.key_pem.as_bytes()).unwrap();
}

async fn expired(host: &Host) -> Node {
    let node = host.start().await;
    let status = node.status();
    assert_eq!(status.state, LocalNodeState::Error);
    assert_eq!(
        status.error,
        "Swarm certificates have expired. To replace them, leave the swarm and join again."
    );
    assert_eq!(node.view().await.err().unwrap().message, status.error);
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_past_its_expiry_comes_back() {
    let (a, b, c, d) = (Host::new(), Host::new(), Host::new(), Host::new());
    let first = a.start().await;
    a.init(&first).await.unwrap();
    let (worker, manager) = tokens(&first).await;
    let (second, third, fourth) = (b.start().await, c.start().await, d.start().await);
    b.join(&second, &a, worker.clone()).await.unwrap();
    c.join(&third, &a, manager.clone()).await.unwrap();
    // Two of three managers are needed to let anybody in.
    d.join(&fourth, &a, manager.clone()).await.unwrap();
    create(&first, "web", 4).await;
    until("tasks on every node", async || {
        [&a, &b, &c].iter().all(|host| host.containers() == 1)
    })
    .await;
    let ids = [&second, &third].map(|node| node.status().node_id.unwrap());
    let slept = [(&b, second, Role::Worker), (&c, third, Role::Manager)];
    for ((host, node, role), (id, token)) in
        slept.into_iter().zip(ids.iter().zip([&worker, &manager]))
    {
        node.stop().await;
        drop(node);
        expire(host, &first, id, role).await;
        let node = expired(host).await;

        let forged = format!("{}0000000000000000000000000", &token[..token.len() - 25]);
        let refused = host.join(&node, &a, forged.into()).await.unwrap_err();
        assert!(
            refused.message.contains("A valid join token is necessary"),
            "{refused:?}"
        );
        assert_eq!(node.status().state, LocalNodeState::Error, "as before");
        if role == Role::Manager {
            let refused = host.join(&node, &a, worker.clone()).await.unwrap_err();
            assert!(
                refused.message.contains("A valid join token"),
                "{refused:?}"
            );
        }
        host.join(&node, &a, token.clone()).await.unwrap();
        assert_eq!(node.status().node_id.as_ref(), Some(id));
        until("every node is ready", async || {
            ready(&first.view().await.unwrap()) == 4
        })
        .await;
        assert_eq!(first.view().await.unwrap().state.nodes().len(), 4);
        let made = host.engine.0.lock().unwrap().made;
        assert_eq!((host.containers(), made), (1, 1), "its task is untouched");
        if role == Role::Manager {
            until("it answers as a manager", async || {
                node.view().await.is_ok()
            })
            .await;
        }
        node.stop().await;
    }

    // One that was removed meanwhile is nobody any more.
    expire(&b, &first, &ids[0], Role::Worker).await;
    first
        .execute(Command::RemoveNode {
            id: ids[0].clone(),
            force: true,
        })
        .await
        .unwrap();
    let node = expired(&b).await;
    let refused = b.join(&node, &a, worker).await.unwrap_err();
    assert!(
        refused.message.contains("A valid join token is necessary"),
        "{refused:?}"
    );
    node.leave(false).await.unwrap();
    assert_eq!((b.containers(), b.left_behind()), (0, vec![]));
    fourth.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_may_end_while_no_manager_is_there_to_renew_it() {
    let (a, b) = (Host::new(), Host::new());
    let first = a.start().await;
    a.init(&first).await.unwrap();
    let (worker, _) = tokens(&first).await;
    let second = b.start().await;
    b.join(&second, &a, worker.clone()).await.unwrap();
    let id = second.status().node_id.unwrap();
    let known = cluster(&first).await;
    second.stop().await;
    first.stop().await;
    drop((first, second));
    let soon = SystemTime::now() + Duration::from_secs(5);
    replace(&b, &known, &id, Role::Worker, soon);
    let second = b.start().await;
    assert_eq!(second.status().state, LocalNodeState::Active);
    until("the node sees that it has expired", async || {
        second.status().state == LocalNodeState::Error
    })
    .await;
    assert!(SystemTime::now() > soon);
    assert!(second.status().error.contains("certificates have expired"));
    let first = a.start().await;
    until("the manager leads", async || first.view().await.is_ok()).await;
    b.join(&second, &a, worker).await.unwrap();
    assert_eq!(second.status().node_id, Some(id));
    first.stop().await;
    second.stop().await;
}

/// Changes the spec as `docker swarm ca` does: reads it, changes it, sends it back.
async fn update(node: &Node, change: impl Fn(&mut Spec)) -> Result<Reply, Error> {
    let shown = wire::cluster_info(&cluster(node).await);
    let mut spec = shown.spec;
    change(&mut spec);
    node.execute(Command::UpdateCluster {
        version: shown.version.index,
        spec: Box::new(spec),
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: false,
        new_root: None,
    })
    .await
}

/// Waits until the rotation is over and every node shows what the cluster shows, as the CLI does.
async fn rotated(node: &Node, nodes: usize) {
    until("every node has a certificate of the new root", async || {
        let Ok(view) = node.view().await else {
            return false;
        };
        let shown = wire::cluster_info(view.state.cluster().unwrap());
        let same = |node: &std::sync::Arc<skep_core::object::Node>| {
            let description = node.description.as_ref();
            description.is_some_and(|description| description.tls_info == shown.tls_info)
        };
        !shown.root_rotation_in_progress
            && view.state.nodes().iter().filter(|node| same(node)).count() == nodes
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_rotates_and_the_tokens_with_it() {
    let (a, b, c, d) = (Host::new(), Host::new(), Host::new(), Host::new());
    let first = a.start().await;
    a.init(&first).await.unwrap();
    let (worker, manager) = tokens(&first).await;
    let (second, third) = (b.start().await, c.start().await);
    b.join(&second, &a, manager).await.unwrap();
    c.join(&third, &a, worker.clone()).await.unwrap();
    create(&first, "web", 3).await;
    let old = cluster(&first).await.root_ca;

    // A node that is away holds it up; one that joins meanwhile is let in by the old token.
    third.stop().await;
    drop(third);
    update(&first, |spec| spec.ca_config.force_rotate += 1)
        .await
        .unwrap();
    let during = cluster(&first).await;
    assert!(during.root_ca.rotation.is_some());
    assert_eq!(during.root_ca.cert_pem, old.cert_pem);
    let fourth = d.start().await;
    d.join(&fourth, &b, worker.clone()).await.unwrap();
    until("the others have renewed", async || {
        let view = first.view().await.unwrap();
        let next = wire::cluster_info(view.state.cluster().unwrap()).tls_info;
        let renewed = |node: &&std::sync::Arc<skep_core::object::Node>| {
            let info = node.description.as_ref().map(|it| &it.tls_info);
            info.is_some_and(|info| info.cert_issuer_public_key == next.cert_issuer_public_key)
        };
        view.state.nodes().iter().filter(renewed).count() == 3
    })
    .await;
    assert!(cluster(&first).await.root_ca.rotation.is_some(), "held up");
    let third = c.start().await;
    rotated(&first, 4).await;
    let new = cluster(&first).await;
    assert_ne!(new.root_ca.cert_pem, old.cert_pem);
    let (fresh, _) = tokens(&first).await;
    assert_ne!(
        fresh.rsplit_once('-').unwrap().0,
        worker.rsplit_once('-').unwrap().0
    );

    // The old token knows the old root only; the new one lets in.
    fourth.leave(true).await.unwrap();
    let refused = d.join(&fourth, &a, worker).await.unwrap_err();
    assert!(
        refused
            .message
            .contains("remote CA does not match fingerprint"),
        "{refused:?}"
    );
    d.join(&fourth, &a, fresh).await.unwrap();
    for node in [first, second, third, fourth] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_outside_signs() {
    let (a, b, c) = (Host::new(), Host::new(), Host::new());
    let first = a.start().await;
    a.init(&first).await.unwrap();
    let inside = cluster(&first).await.root_ca;
    let authority = Authority::start(&inside.cert_pem).await;
    let external = |authority: &Authority, url: String| ExternalCa {
        protocol: "cfssl".into(),
        url,
        ca_cert: authority.root.cert_pem.clone(),
        ..ExternalCa::default()
    };
    let outward = |url: String| {
        let (authority, external) = (&authority, external(&authority, url));
        move |spec: &mut Spec| {
            spec.ca_config.signing_ca_cert = authority.root.cert_pem.clone();
            spec.ca_config.external_cas = vec![external.clone()];
        }
    };
    // Nobody there, and no TLS.
    let dead = "https://127.0.0.1:1/sign".to_owned();
    let plain = authority.url().replace("https", "http");
    for url in [dead.clone(), plain] {
        let refused = update(&first, outward(url)).await.unwrap_err();
        assert_eq!(
            refused.message,
            "rpc error: code = InvalidArgument desc = there must be at least one valid, reachable \
             external CA corresponding to the desired CA certificate"
        );
    }
    update(&first, outward(authority.url())).await.unwrap();
    rotated(&first, 1).await;
    let outside = cluster(&first).await.root_ca;
    assert_eq!(
        (outside.cert_pem.as_str(), outside.key_pem),
        (&*authority.root.cert_pem, None)
    );

    // One that is dead is passed over.
    let both = vec![
        external(&authority, dead),
        external(&authority, authority.url()),
    ];
    update(&first, |spec| spec.ca_config.external_cas = both.clone())
        .await
        .unwrap();
    let signed = authority.leaves.load(Ordering::Relaxed);
    let (worker, manager) = tokens(&first).await;
    let (second, third) = (b.start().await, c.start().await);
    b.join(&second, &a, worker).await.unwrap();
    c.join(&third, &a, manager).await.unwrap();
    assert!(authority.leaves.load(Ordering::Relaxed) >= signed + 2);

    // Back to a root of the swarm's own, which the authority certifies.
    update(&first, |spec| spec.ca_config.force_rotate += 1)
        .await
        .unwrap();
    assert_eq!(authority.crosses.load(Ordering::Relaxed), 1);
    rotated(&first, 3).await;
    assert!(cluster(&first).await.root_ca.key_pem.is_some());
    authority.stop();
    for node in [first, second, third] {
        node.stop().await;
    }
}
