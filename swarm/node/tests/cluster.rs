//! Whole nodes in one process, over real QUIC on the loopback, with engines of nothing but maps.

// Helpers of tests may state what they expect, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/host.rs"]
mod host;
#[path = "support/engine.rs"]
#[allow(dead_code)]
mod map;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use host::{Host, create, ready, services, tokens, until};
use skep_api::cluster::{InitRequest, JoinRequest, LocalNodeState};
use skep_api::node::NodeState;
use skep_api::{Kind, Secret};
use skep_core::Id;
use skep_node::pki::{JoinToken, RootCa};
use skep_node::{Happening, Happenings, Node, Status};
use tokio::runtime::Runtime;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_founds_works_restarts_and_leaves() {
    let host = Host::new();
    let node = host.start().await;
    assert_eq!(node.status().state, LocalNodeState::Inactive);
    assert!(node.view().await.is_err());
    assert_eq!(
        node.leave(true).await.unwrap_err().message,
        "This node is not part of a swarm"
    );

    let id = host.init(&node).await.unwrap();
    assert_eq!(node.status().node_id, Some(id.clone()));
    let again = host.init(&node).await.unwrap_err();
    assert!(
        again
            .message
            .starts_with("This node is already part of a swarm."),
        "{again:?}"
    );
    create(&node, "web", 2).await;
    until("two containers", async || host.containers() == 2).await;

    node.stop().await;
    drop(node);
    let node = host.start().await;
    assert_eq!(node.status().node_id, Some(id));
    until("the cluster is back", async || node.view().await.is_ok()).await;
    assert_eq!(services(&node.view().await.unwrap()), 1);
    until("the node is ready again", async || {
        ready(&node.view().await.unwrap()) == 1
    })
    .await;
    assert_eq!(
        host.engine.0.lock().unwrap().made,
        2,
        "running containers are adopted"
    );

    let refused = node.leave(false).await.unwrap_err();
    assert!(
        refused.message.contains("Removing the last manager"),
        "{refused:?}"
    );
    node.leave(true).await.unwrap();
    assert_eq!(node.status().state, LocalNodeState::Inactive);
    assert_eq!((host.containers(), host.left_behind()), (0, vec![]));
    host.init(&node).await.unwrap();
    assert_eq!(services(&node.view().await.unwrap()), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_init_leaves_nothing() {
    let host = Host::new();
    let node = host.start().await;
    let taken = UdpSocket::bind(&host.addr).unwrap();
    let error = host.init(&node).await.unwrap_err();
    let expected = format!(
        "could not listen at udp {}: bind: address already in use",
        host.addr
    );
    assert_eq!((error.kind, error.message), (Kind::System, expected));
    assert_eq!(node.status().state, LocalNodeState::Inactive);
    assert_eq!(host.left_behind(), Vec::<String>::new());
    drop(taken);

    let mut hasty = InitRequest {
        listen_addr: host.addr.clone(),
        advertise_addr: host.addr.clone(),
        ..Default::default()
    };
    hasty.spec.ca_config.node_cert_expiry = 1000;
    let error = node.init(hasty).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (
            Kind::System,
            "error updating cluster settings: rpc error: code = InvalidArgument desc = minimum \
             certificate expiry time is: 1h0m0s"
        )
    );
    assert_eq!(host.left_behind(), Vec::<String>::new());

    // What a daemon that was killed in the middle of an init leaves is not taken for its own.
    std::fs::create_dir(host.dir.path().join("raft")).unwrap();
    std::fs::write(host.dir.path().join("raft/log.redb"), b"of another swarm").unwrap();
    host.init(&node).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_half_done_move() {
    let host = Host::new();
    let node = host.start().await;
    let impatient = tokio::time::timeout(Duration::from_millis(1), host.init(&node)).await;
    assert!(impatient.is_err());
    until("the node is in its swarm", async || {
        node.view().await.is_ok()
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_membership_can_be_left() {
    let host = Host::new();
    let node = host.start().await;
    host.init(&node).await.unwrap();
    create(&node, "web", 1).await;
    until("a container", async || host.containers() == 1).await;
    node.stop().await;
    drop(node);
    std::fs::write(host.dir.path().join("raft/log.redb"), b"damaged").unwrap();

    let node = host.start().await;
    assert_eq!(node.status().state, LocalNodeState::Error);
    assert!(!node.status().error.is_empty());
    node.leave(true).await.unwrap();
    assert_eq!((host.containers(), host.left_behind()), (0, vec![]));
    host.init(&node).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_node_tells_where_it_goes() {
    let (silent, host) = (Host::new(), Host::new());
    // Takes every datagram and answers none.
    let _socket = UdpSocket::bind(&silent.addr).unwrap();
    let root = RootCa::create(SystemTime::now()).unwrap();
    let token = Secret(JoinToken::generate(&root).unwrap().to_string());
    let node = host.start().await;
    // One address is given, the other is found out by the way there.
    for advertise in [host.addr.clone(), String::new()] {
        let request = JoinRequest {
            listen_addr: host.addr.clone(),
            advertise_addr: advertise,
            remote_addrs: vec![silent.addr.clone()],
            join_token: token.clone(),
            ..JoinRequest::default()
        };
        let joiner = node.clone();
        let joining = tokio::spawn(async move { joiner.join(request).await });
        let expected = Status {
            state: LocalNodeState::Pending,
            node_addr: "127.0.0.1".into(),
            managers: vec![("".into(), silent.addr.clone())],
            ..Status::default()
        };
        until("on its way", async || node.status() == expected).await;
        joining.await.unwrap().unwrap_err();
        assert_eq!(node.status().state, LocalNodeState::Inactive);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_join_leaves_nothing() {
    let (first, second) = (Host::new(), Host::new());
    let (founder, joiner) = (first.start().await, second.start().await);
    first.init(&founder).await.unwrap();
    let (worker, _) = tokens(&founder).await;
    // Any other last character than the one that it has.
    let other = if worker.ends_with('x') { 'y' } else { 'x' };
    let forged = Secret(format!("{}{other}", &worker[..worker.len() - 1]));
    for token in ["nonsense".into(), forged] {
        let error = second.join(&joiner, &first, token).await.unwrap_err();
        assert!(!error.message.is_empty());
        assert_eq!(joiner.status().state, LocalNodeState::Inactive);
        assert_eq!(second.left_behind(), Vec::<String>::new());
    }
    second.join(&joiner, &first, worker).await.unwrap();
    let refused = joiner.view().await.err().unwrap();
    assert!(
        refused
            .message
            .contains("Worker nodes can't be used to view"),
        "{refused:?}"
    );
    joiner.leave(false).await.unwrap();
    assert_eq!(second.left_behind(), Vec::<String>::new());
    founder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_survive_the_leaders_stop_and_their_own() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let mut nodes = Vec::new();
    for host in &hosts {
        nodes.push(host.start().await);
    }
    hosts[0].init(&nodes[0]).await.unwrap();
    let (_, manager) = tokens(&nodes[0]).await;
    for index in [1, 2] {
        hosts[index]
            .join(&nodes[index], &hosts[0], manager.clone())
            .await
            .unwrap();
        assert!(nodes[index].status().control_available);
    }
    create(&nodes[2], "one", 3).await;
    let view = nodes[1].view().await.unwrap();
    assert_eq!(
        (services(&view), view.members.len(), ready(&view)),
        (1, 3, 3)
    );

    nodes[0].stop().await;
    nodes.remove(0);
    create(&nodes[0], "two", 1).await;
    assert_eq!(services(&nodes[1].view().await.unwrap()), 2);

    for node in nodes {
        node.stop().await;
    }
    let mut nodes = Vec::new();
    for host in &hosts {
        nodes.push(host.start().await);
    }
    for node in &nodes {
        until("everybody is back", async || {
            node.view()
                .await
                .is_ok_and(|view| services(&view) == 2 && ready(&view) == 3)
        })
        .await;
    }
    nodes[1].leave(true).await.unwrap();
    let view = nodes[2].view().await.unwrap();
    assert_eq!(view.members.len(), 2, "{:?}", view.members);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_catches_up_with_a_leader_that_joined_while_it_was_away() {
    let hosts = [Host::new(), Host::new(), Host::new(), Host::new()];
    let mut nodes = Vec::new();
    for host in &hosts {
        nodes.push(host.start().await);
    }
    hosts[0].init(&nodes[0]).await.unwrap();
    let (_, token) = tokens(&nodes[0]).await;
    for index in [1, 2] {
        let joined = hosts[index].join(&nodes[index], &hosts[0], token.clone());
        joined.await.unwrap();
    }
    let away = nodes.remove(2);
    away.stop().await;
    drop(away);
    hosts[3].join(&nodes[2], &hosts[0], token).await.unwrap();
    let newcomer = nodes[2].status().node_id.unwrap();
    let led_by_newcomer = async || {
        let view = nodes[2].view().await.unwrap();
        view.members
            .iter()
            .any(|member| member.leader && member.node == newcomer)
    };
    until("the newcomer leads", async || {
        if !led_by_newcomer().await {
            nodes[0].hand_over().await;
            nodes[1].hand_over().await;
        }
        led_by_newcomer().await
    })
    .await;
    create(&nodes[0], "web", 1).await;

    let back = hosts[2].start().await;
    until("it has caught up", async || {
        back.view().await.is_ok_and(|view| services(&view) == 1)
    })
    .await;
    for node in [&back, &nodes[0], &nodes[1], &nodes[2]] {
        node.stop().await;
    }
}

/// Waits until it is told that a manager does not answer the leader.
async fn loss_of(manager: Id, mut happenings: Happenings) {
    loop {
        if let Happening::Reachability { node, reachable } = happenings.next().await {
            assert!(node.id == manager && !reachable, "{} {reachable}", node.id);
            return;
        }
    }
}

/// Each daemon has a runtime of its own; dropping that is as sudden as `kill -9` for its peers.
#[test]
fn nobody_is_called_down_when_the_leader_is_killed() {
    let runtime = || Runtime::new().unwrap();
    let hosts = [Host::new(), Host::new(), Host::new(), Host::new()];
    let daemons: Vec<(Runtime, Node)> = hosts
        .iter()
        .map(|host| {
            let runtime = runtime();
            let node = runtime.block_on(host.start());
            (runtime, node)
        })
        .collect();
    let run = |index: usize| &daemons[index];
    let (worker, manager) = run(0).0.block_on(async {
        hosts[0].init(&run(0).1).await.unwrap();
        tokens(&run(0).1).await
    });
    for (index, token) in [(1, &manager), (2, &manager), (3, &worker)] {
        let joined = hosts[index].join(&run(index).1, &hosts[0], token.clone());
        run(index).0.block_on(joined).unwrap();
    }
    let leader_id = run(0).1.status().node_id.unwrap();
    let told = [1, 2].map(|index| {
        let (runtime, node) = run(index);
        runtime.spawn(loss_of(
            leader_id.clone(),
            node.happenings(Arc::new(|| true)),
        ))
    });
    // Long enough that each has asked the leader whom it can reach.
    std::thread::sleep(Duration::from_millis(1500));
    let mut daemons = daemons.into_iter();
    let (leader, node) = daemons.next().unwrap();
    leader.shutdown_background();
    let killed = Instant::now();
    drop(node);
    let daemons: Vec<(Runtime, Node)> = daemons.collect();
    let (runtime, survivor) = &daemons[0];
    runtime.block_on(async {
        create(survivor, "web", 1).await;
        println!("a write after {:?}", killed.elapsed());
        // Longer than the new leader's grace for nodes that have not registered with it.
        while killed.elapsed() < Duration::from_secs(6) {
            let view = survivor.view().await.unwrap();
            for node in view
                .state
                .nodes()
                .iter()
                .filter(|node| node.id != leader_id)
            {
                let state = &node.status.state;
                assert_eq!(
                    *state,
                    NodeState::Ready,
                    "{} after {:?}",
                    node.id,
                    killed.elapsed()
                );
            }
            // A pause between two looks.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Whether they lead now or not.
        for told in told {
            let told = tokio::time::timeout(Duration::from_secs(10), told).await;
            told.expect("the loss of a manager is told").unwrap();
        }
    });
    for (runtime, node) in daemons {
        runtime.block_on(node.stop());
    }
}
