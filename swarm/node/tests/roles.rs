//! Nodes that change their role while they run: promoted, demoted, killed in between.

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

use std::net::UdpSocket;
use std::time::Duration;

use host::{Host, create, services, tokens, until};
use skep_api::cluster::LocalNodeState;
use skep_api::node::Role;
use skep_core::Id;
use skep_core::command::Command;
use swarm::{id, is_worker, managers, set_role, stop, swarm};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_promoted_demoted_and_promoted_again() {
    let hosts = [Host::new(), Host::new()];
    let nodes = swarm(&hosts, 1).await;
    create(&nodes[0], "web", 4).await;
    until("containers on both", async || {
        hosts[0].containers() + hosts[1].containers() == 4
    })
    .await;
    let second = id(&nodes[1]);
    for round in 0..2 {
        set_role(&nodes[0], &second, Role::Manager).await.unwrap();
        until("it is a manager", async || managers(&nodes[1], 2).await).await;
        assert_eq!(
            services(&nodes[1].view().await.unwrap()),
            1,
            "round {round}"
        );
        assert_eq!(id(&nodes[1]), second);
        assert!(nodes[1].status().control_available);
        // It carries out what it is asked, its own demotion for example.
        set_role(&nodes[1], &second, Role::Worker).await.unwrap();
        until("it is a worker", async || {
            is_worker(&nodes[1]) && managers(&nodes[0], 1).await
        })
        .await;
        let refused = nodes[1].view().await.err().unwrap();
        assert!(
            refused.message.contains("Worker nodes can't"),
            "{refused:?}"
        );
        until("it has no log", async || {
            !hosts[1].left_behind().contains(&"raft".to_owned())
        })
        .await;
    }
    let made: Vec<u32> = hosts
        .iter()
        .map(|host| host.engine.0.lock().unwrap().made)
        .collect();
    assert_eq!(made.iter().sum::<u32>(), 4, "containers go on: {made:?}");
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_demoted_and_the_last_manager_is_not() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let nodes = swarm(&hosts, 3).await;
    let ids: Vec<Id> = nodes.iter().map(id).collect();
    // The leader asks for its own demotion.
    set_role(&nodes[0], &ids[0], Role::Worker).await.unwrap();
    until("the leader is a worker", async || {
        is_worker(&nodes[0]) && managers(&nodes[1], 2).await
    })
    .await;
    create(&nodes[2], "web", 1).await;
    // Two at once: the second is the last that is to be a manager.
    set_role(&nodes[1], &ids[1], Role::Worker).await.unwrap();
    let refused = set_role(&nodes[2], &ids[2], Role::Worker)
        .await
        .unwrap_err();
    assert!(
        refused
            .message
            .contains("attempting to demote the last manager of the swarm"),
        "{refused:?}"
    );
    until("one manager is left", async || {
        is_worker(&nodes[1]) && managers(&nodes[2], 1).await
    })
    .await;
    for whom in [0, 1] {
        set_role(&nodes[2], &ids[whom], Role::Manager)
            .await
            .unwrap();
    }
    for node in &nodes {
        until("all are managers", async || managers(node, 3).await).await;
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_are_demoted_at_once() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let nodes = swarm(&hosts, 3).await;
    for whom in [0, 1] {
        set_role(&nodes[2], &id(&nodes[whom]), Role::Worker)
            .await
            .unwrap();
    }
    until("one manager is left", async || {
        is_worker(&nodes[0]) && is_worker(&nodes[1]) && managers(&nodes[2], 1).await
    })
    .await;
    create(&nodes[2], "web", 1).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_changes_while_a_node_is_away_is_taken_on_when_it_returns() {
    let hosts = [Host::new(), Host::new(), Host::new(), Host::new()];
    let mut nodes = swarm(&hosts, 3).await;
    let (worker, manager) = (id(&nodes[3]), id(&nodes[2]));
    stop(nodes.drain(2..)).await;
    set_role(&nodes[0], &worker, Role::Manager).await.unwrap();
    set_role(&nodes[0], &manager, Role::Worker).await.unwrap();
    until("raft has let go", async || managers(&nodes[0], 2).await).await;
    for host in &hosts[2..] {
        nodes.push(host.start().await);
    }
    until("the demoted one is a worker", async || is_worker(&nodes[2])).await;
    until("the promoted one is a manager", async || {
        managers(&nodes[3], 3).await
    })
    .await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_told_so() {
    let hosts = [Host::new(), Host::new()];
    let nodes = swarm(&hosts, 1).await;
    let node = id(&nodes[1]);
    let force = true;
    let remove = Command::RemoveNode { id: node, force };
    nodes[0].execute(remove).await.unwrap();
    until("it knows", async || {
        nodes[1].status().error.ends_with("was removed from swarm")
    })
    .await;
    until("it may come again once it has left", async || {
        nodes[1].leave(false).await.is_ok()
    })
    .await;
    let (worker, _) = tokens(&nodes[0]).await;
    hosts[1].join(&nodes[1], &hosts[0], worker).await.unwrap();
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_cannot_listen_leaves_no_row_behind() {
    let hosts = [Host::new(), Host::new()];
    let nodes = swarm(&hosts[..1], 1).await;
    let node = hosts[1].start().await;
    let (_, manager) = tokens(&nodes[0]).await;
    let taken = UdpSocket::bind(&hosts[1].addr).unwrap();
    let joined = hosts[1].join(&node, &hosts[0], manager.clone()).await;
    let error = joined.unwrap_err().message;
    assert!(error.contains("address already in use"), "{error}");
    assert_eq!(node.status().state, LocalNodeState::Inactive);
    let rows = async || nodes[0].view().await.unwrap().state.nodes().len();
    assert_eq!(rows().await, 1);
    drop(taken);
    hosts[1].join(&node, &hosts[0], manager).await.unwrap();
    assert_eq!(rows().await, 2);
    node.stop().await;
    stop(nodes).await;
}

/// A worker whose port is taken stays one until the port is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_waits_for_the_port() {
    let hosts = [Host::new(), Host::new()];
    let nodes = swarm(&hosts, 1).await;
    let taken = UdpSocket::bind(&hosts[1].addr).unwrap();
    let node = id(&nodes[1]);
    set_role(&nodes[0], &node, Role::Manager).await.unwrap();
    // Long enough for a turn, which takes some tenths of a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(is_worker(&nodes[1]));
    drop(taken);
    until("it is a manager", async || managers(&nodes[1], 2).await).await;
    stop(nodes).await;
}

/// What a daemon that is killed in a turn leaves; killing whole daemons is for hosts' tests.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_turn_leaves_does_no_harm() {
    let hosts = [Host::new(), Host::new()];
    let mut nodes = swarm(&hosts, 1).await;
    let node = id(&nodes[1]);
    let raft = hosts[1].dir.path().join("raft");
    let leave_a_log = || {
        std::fs::create_dir(&raft).unwrap();
        std::fs::write(raft.join("log.redb"), b"of a manager that was").unwrap();
    };
    // Killed after the certificate of a worker was saved and before the log was swept.
    nodes.remove(1).stop().await;
    leave_a_log();
    let back = hosts[1].start().await;
    assert!(is_worker(&back) && !raft.exists());
    // Killed before the certificate of a manager was saved: the next turn is from the beginning.
    leave_a_log();
    set_role(&nodes[0], &node, Role::Manager).await.unwrap();
    until("it is a manager", async || managers(&back, 2).await).await;
    back.stop().await;
    stop(nodes).await;
}
