//! Locked swarms that change roles, are restored or lose managers, whole nodes in one process.

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

use host::{Host, create, ready, services, tokens, until};
use skep_api::cluster::{InitRequest, LocalNodeState};
use skep_api::node::Role;
use skep_api::{Kind, Secret};
use skep_core::command::Command;
use skep_node::{Node, backup};
use swarm::{force, id, is_worker, managers, restart, set_role, stop};

async fn found_locked(host: &Host, node: &Node) -> Secret {
    let request = InitRequest {
        listen_addr: host.addr.clone(),
        advertise_addr: host.addr.clone(),
        auto_lock_managers: true,
        ..Default::default()
    };
    node.init(request).await.unwrap();
    let state = node.view().await.unwrap().state;
    state.cluster().unwrap().unlock_key.clone().unwrap()
}

/// Whether a restart would find locked keys: the file is larger then, by a salt and a seal.
fn wrapped(host: &Host) -> bool {
    let file = std::fs::read(host.dir.path().join("keys")).unwrap();
    assert!(!(140..170).contains(&file.len()), "{}", file.len());
    file.len() > 150
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_follow_roles() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let [a, b, c] = [0, 1, 2].map(|index| hosts[index].start());
    let (first, second, third) = (a.await, b.await, c.await);
    let key = found_locked(&hosts[0], &first).await;
    let (worker, manager) = tokens(&first).await;
    hosts[1].join(&second, &hosts[0], worker).await.unwrap();
    hosts[2].join(&third, &hosts[0], manager).await.unwrap();
    let node = id(&second);
    assert!(wrapped(&hosts[0]) && !wrapped(&hosts[1]));
    until("the manager that joined is wrapped", async || {
        wrapped(&hosts[2])
    })
    .await;
    create(&first, "web", 3).await;
    until("a container on every host", async || {
        hosts.iter().all(|host| host.containers() == 1)
    })
    .await;

    set_role(&first, &node, Role::Manager).await.unwrap();
    until("it is a manager", async || managers(&second, 3).await).await;
    until("the promoted one is wrapped", async || wrapped(&hosts[1])).await;
    set_role(&first, &id(&third), Role::Worker).await.unwrap();
    until("it is a worker", async || {
        is_worker(&third) && managers(&first, 2).await
    })
    .await;
    // What the leader has said comes before the turn.
    until("the demoted one is unwrapped", async || !wrapped(&hosts[2])).await;
    let third = restart(&hosts[2], third).await;
    assert!(is_worker(&third), "{:?}", third.status());
    let second = restart(&hosts[1], second).await;
    assert_eq!(second.status().state, LocalNodeState::Locked);
    second.unlock(key.clone()).await.unwrap();
    until("both managers answer", async || {
        managers(&first, 2).await && managers(&second, 2).await
    })
    .await;
    assert_eq!(id(&second), node);

    // And back: the first is demoted by the second, which is then the only one that is locked.
    set_role(&second, &id(&first), Role::Worker).await.unwrap();
    until("one manager is left", async || {
        is_worker(&first) && managers(&second, 1).await && !wrapped(&hosts[0])
    })
    .await;
    let (first, second) = (
        restart(&hosts[0], first).await,
        restart(&hosts[1], second).await,
    );
    assert!(is_worker(&first), "{:?}", first.status());
    assert_eq!(second.status().state, LocalNodeState::Locked);
    second.unlock(key).await.unwrap();
    until("all are ready", async || {
        second.view().await.is_ok_and(|view| ready(&view) == 3)
    })
    .await;
    let made = hosts
        .iter()
        .map(|host| host.engine.0.lock().unwrap().made)
        .sum::<u32>();
    assert_eq!(made, 3, "containers go on");
    stop([second, third, first]).await;
}

/// It cannot know of its demotion before its keys are open.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_manager_that_was_demoted_meanwhile_unlocks_into_a_worker() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let [a, b, c] = [0, 1, 2].map(|index| hosts[index].start());
    let (first, second, third) = (a.await, b.await, c.await);
    let key = found_locked(&hosts[0], &first).await;
    let (_, manager) = tokens(&first).await;
    for (host, node) in [(&hosts[1], &second), (&hosts[2], &third)] {
        host.join(node, &hosts[0], manager.clone()).await.unwrap();
        until("it is wrapped", async || wrapped(host)).await;
    }
    let whom = id(&third);
    third.stop().await;
    drop(third);
    set_role(&first, &whom, Role::Worker).await.unwrap();
    until("raft has let go", async || managers(&first, 2).await).await;
    let third = hosts[2].start().await;
    assert_eq!(third.status().state, LocalNodeState::Locked);
    third.unlock(key.clone()).await.unwrap();
    until("it is a worker without a log or a lock", async || {
        let log = hosts[2].left_behind().contains(&"raft".to_owned());
        is_worker(&third) && !log && !wrapped(&hosts[2])
    })
    .await;
    // One that was removed meanwhile is told so, and can leave.
    let whom = id(&second);
    second.stop().await;
    drop(second);
    force(&hosts[0], &first).await.unwrap();
    let remove = Command::RemoveNode {
        id: whom,
        force: true,
    };
    first.execute(remove).await.unwrap();
    let second = hosts[1].start().await;
    second.unlock(key).await.unwrap();
    until("it knows", async || {
        second.status().error.ends_with("was removed from swarm")
    })
    .await;
    second.leave(true).await.unwrap();
    assert_eq!(hosts[1].left_behind(), Vec::<String>::new());
    stop([first, second, third]).await;
}

async fn backed_up(node: &Node) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut pieces = node.backup().await.unwrap();
    while let Some(piece) = pieces.recv().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    archive
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_locked_manager_needs_its_key() {
    let host = Host::new();
    let node = host.start().await;
    let key = found_locked(&host, &node).await;
    create(&node, "web", 2).await;
    let before = node.view().await.unwrap().state;
    let archive = backed_up(&node).await;
    node.leave(true).await.unwrap();
    assert_eq!(host.left_behind(), Vec::<String>::new());
    node.stop().await;
    drop(node);

    backup::restore(archive.as_slice(), host.dir.path()).unwrap();
    let node = host.start().await;
    assert_eq!(node.status().state, LocalNodeState::Locked);
    let refused = force(&host, &node).await.unwrap_err();
    assert!(
        refused.message.contains("needs to be unlocked"),
        "{refused:?}"
    );
    let wrong = node.unlock("SWMKEY-1-AAAA".into()).await.unwrap_err();
    assert_eq!(wrong.kind, Kind::Unauthorized);
    // The key is right, and what is to be done next is what the status says.
    node.unlock(key.clone()).await.unwrap();
    let status = node.status();
    assert_eq!(status.state, LocalNodeState::Error);
    assert!(
        status
            .error
            .contains("docker swarm init --force-new-cluster"),
        "{status:?}"
    );
    assert!(node.view().await.is_err());

    force(&host, &node).await.unwrap();
    let after = node.view().await.unwrap().state;
    assert_eq!(services(&node.view().await.unwrap()), 1);
    let (old, new) = (before.cluster().unwrap(), after.cluster().unwrap());
    assert_eq!(
        (&old.id, &old.join_tokens, &old.root_ca, &old.unlock_key),
        (&new.id, &new.join_tokens, &new.root_ca, &new.unlock_key)
    );
    until("its tasks run", async || host.containers() == 2).await;
    let node = restart(&host, node).await;
    assert_eq!(node.status().state, LocalNodeState::Locked);
    node.unlock(key).await.unwrap();
    until("it answers", async || node.view().await.is_ok()).await;
    assert_eq!(services(&node.view().await.unwrap()), 1);
    node.stop().await;
}
