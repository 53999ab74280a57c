//! One manager that goes on without the others, and backups: whole nodes in one process.

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

use std::path::Path;
use std::process::Command as Process;

use host::{Host, create, ready, services, tokens, until, web};
use skep_api::cluster::{InitRequest, LocalNodeState};
use skep_api::node::{NodeState, Role as WishedRole};
use skep_core::{Id, State};
use skep_node::{Node, backup};
use swarm::{Daemon, force};

async fn state(node: &Node) -> State {
    node.view().await.unwrap().state
}

#[test]
fn the_last_manager_goes_on_with_everything() {
    let hosts = [(); 5].map(|()| Host::new());
    let mut daemons: Vec<Daemon> = hosts.iter().map(Daemon::start).collect();
    let fifth = daemons.pop().unwrap();
    let worker = daemons.pop().unwrap();
    daemons[0].run(hosts[0].init(&daemons[0].node)).unwrap();
    let (worker_token, manager_token) = daemons[0].run(tokens(&daemons[0].node));
    for index in [1, 2] {
        let node = &daemons[index].node;
        let joined = hosts[index].join(node, &hosts[0], manager_token.clone());
        daemons[index].run(joined).unwrap();
    }
    let joined = hosts[3].join(&worker.node, &hosts[0], worker_token);
    worker.run(joined).unwrap();
    let survivor = daemons.remove(1);
    let id = survivor.node.status().node_id.unwrap();
    let before = survivor.run(async {
        create(&survivor.node, "web", 4).await;
        until("a container on every host", async || {
            hosts[..4].iter().all(|host| host.containers() == 1)
        })
        .await;
        state(&survivor.node).await
    });
    let lost: Vec<Id> = daemons
        .iter()
        .map(|it| it.node.status().node_id.unwrap())
        .collect();
    // The first will come back, which one that was killed in this process could not.
    daemons[0].run(daemons[0].node.stop());
    for daemon in daemons {
        daemon.kill();
    }

    let forced = survivor.run(force(&hosts[1], &survivor.node)).unwrap();
    assert_eq!(forced, id);
    let view = survivor.run(survivor.node.view()).unwrap();
    assert_eq!(view.members.len(), 1, "{:?}", view.members);
    let (old, new) = (before.cluster().unwrap(), view.state.cluster().unwrap());
    assert_eq!(
        (&old.id, &old.join_tokens, &old.root_ca),
        (&new.id, &new.join_tokens, &new.root_ca)
    );
    assert_eq!(services(&view), 1);
    for node in view
        .state
        .nodes()
        .iter()
        .filter(|node| lost.contains(&node.id))
    {
        assert!(node.manager.is_none());
        assert_eq!(
            (&node.spec.role, &node.status.state),
            (&WishedRole::Worker, &NodeState::Down)
        );
        assert!(
            node.status.message.contains("--force-new-cluster"),
            "{node:?}"
        );
    }
    survivor.run(until("two nodes run all tasks", async || {
        hosts[1].containers() == 2 && hosts[3].containers() == 2
    }));
    // One each for what the lost ones ran; what ran here went on.
    assert_eq!(hosts[1].engine.0.lock().unwrap().made, 2);
    assert_eq!(hosts[3].engine.0.lock().unwrap().made, 2);
    assert_eq!(
        survivor.run(async { ready(&survivor.node.view().await.unwrap()) }),
        2
    );

    // A lost one that comes back knows less than it believes and takes nothing over.
    let back = Daemon::start(&hosts[0]);
    assert_ne!(back.node.status().state, LocalNodeState::Error);
    let joined = hosts[4].join(&fifth.node, &hosts[1], manager_token);
    fifth.run(joined).unwrap();
    fifth.run(create(&fifth.node, "after", 1));
    let view = survivor.run(survivor.node.view()).unwrap();
    assert_eq!((view.members.len(), services(&view)), (2, 2));
    let leads: Vec<&Id> = view
        .members
        .iter()
        .filter(|it| it.leader)
        .map(|it| &it.node)
        .collect();
    assert_eq!(leads, [&id]);
    for daemon in [back, worker, fifth, survivor] {
        daemon.run(daemon.node.stop());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forcing_a_node_in_no_swarm_founds_one_and_a_worker_is_refused() {
    let (first, second) = (Host::new(), Host::new());
    let (founder, worker) = (first.start().await, second.start().await);
    force(&first, &founder).await.unwrap();
    assert_eq!(services(&founder.view().await.unwrap()), 0);
    let (token, _) = tokens(&founder).await;
    second.join(&worker, &first, token).await.unwrap();
    let refused = force(&second, &worker).await.unwrap_err();
    assert!(
        refused.message.contains("Worker nodes can't be used"),
        "{refused:?}"
    );
    assert_eq!(worker.status().state, LocalNodeState::Active);

    // A bad address is refused before anything is stopped; settings that are named change.
    create(&founder, "web", 1).await;
    let mut request = InitRequest {
        listen_addr: first.addr.clone(),
        advertise_addr: "nope0".into(),
        force_new_cluster: true,
        ..Default::default()
    };
    let refused = founder.init(request.clone()).await.unwrap_err();
    assert!(refused.message.contains("advertise address"), "{refused:?}");
    assert_eq!(services(&founder.view().await.unwrap()), 1);
    request.advertise_addr = String::new();
    request.spec.orchestration.task_history_retention_limit = Some(2);
    founder.init(request).await.unwrap();
    let state = state(&founder).await;
    let cluster = state.cluster().unwrap();
    assert_eq!(
        cluster.spec.orchestration.task_history_retention_limit,
        Some(2)
    );
    until("the worker is back", async || {
        founder.view().await.is_ok_and(|view| ready(&view) == 2)
    })
    .await;
    worker.stop().await;
    founder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_that_could_not_be_resumed_can_be_forced() {
    let host = Host::new();
    let node = host.start().await;
    host.init(&node).await.unwrap();
    create(&node, "web", 1).await;
    node.stop().await;
    drop(node);
    let taken = std::net::UdpSocket::bind(&host.addr).unwrap();
    let node = host.start().await;
    assert_eq!(node.status().state, LocalNodeState::Error);
    // Still taken: the node stays as it is, and can try again.
    let refused = force(&host, &node).await.unwrap_err();
    assert!(
        refused.message.contains("address already in use"),
        "{refused:?}"
    );
    drop(taken);
    force(&host, &node).await.unwrap();
    assert_eq!(services(&node.view().await.unwrap()), 1);
    node.stop().await;
}

async fn backed_up(node: &Node) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut pieces = node.backup().await.unwrap();
    while let Some(piece) = pieces.recv().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    archive
}

#[test]
fn a_backup_without_a_quorum_brings_everything_back() {
    let hosts = [Host::new(), Host::new()];
    let [first, second] = [0, 1].map(|index| Daemon::start(&hosts[index]));
    first.run(hosts[0].init(&first.node)).unwrap();
    let (_, token) = first.run(tokens(&first.node));
    second
        .run(hosts[1].join(&second.node, &hosts[0], token))
        .unwrap();
    first.run(create(&first.node, "web", 2));
    let id = first.node.status().node_id;
    second.kill();
    let archive = first.run(backed_up(&first.node));
    first.run(first.node.leave(true)).unwrap();
    assert_eq!(hosts[0].left_behind(), Vec::<String>::new());
    first.run(first.node.stop());
    first.kill();

    let manifest = backup::restore(archive.as_slice(), hosts[0].dir.path()).unwrap();
    assert_eq!(Some(Id::from(manifest.node_id.as_str())), id);
    let again = backup::restore(archive.as_slice(), hosts[0].dir.path()).unwrap_err();
    assert!(again.to_string().contains("is not empty"), "{again}");

    let back = Daemon::start(&hosts[0]);
    assert_eq!(back.node.status().state, LocalNodeState::Error);
    let said = back.node.status().error;
    assert!(
        said.contains("docker swarm init --force-new-cluster"),
        "{said}"
    );
    assert!(back.run(back.node.view()).is_err());
    back.run(async {
        assert_eq!(Some(force(&hosts[0], &back.node).await.unwrap()), id);
        assert_eq!(services(&back.node.view().await.unwrap()), 1);
        until("its tasks run", async || hosts[0].containers() == 2).await;
        back.node.stop().await;
    });
    back.kill();
    let again = Daemon::start(&hosts[0]);
    assert_eq!(again.node.status().state, LocalNodeState::Active);
    again.run(again.node.stop());
}

fn copy(from: &Path, to: &Path) {
    let copied = Process::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_stopped_managers_directory_works() {
    let host = Host::new();
    let node = host.start().await;
    host.init(&node).await.unwrap();
    create(&node, "web", 1).await;
    node.stop().await;
    drop(node);
    let mut copied = Host::new();
    copied.addr.clone_from(&host.addr);
    copy(host.dir.path(), copied.dir.path());
    let node = copied.start().await;
    until("it leads", async || node.view().await.is_ok()).await;
    assert_eq!(services(&node.view().await.unwrap()), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_copy_of_a_running_manager_is_whole_or_refused() {
    let host = Host::new();
    let node = host.start().await;
    host.init(&node).await.unwrap();
    for round in 0..5 {
        for number in 0..20 {
            create(&node, &format!("web{round}-{number}"), 0).await;
        }
        let known = services(&node.view().await.unwrap());
        let mut copied = Host::new();
        let writing = tokio::spawn({
            let node = node.clone();
            async move {
                for number in 0..50 {
                    let name = format!("late{round}-{number}");
                    drop(node.execute(web(&name, 0)).await);
                }
            }
        });
        copy(host.dir.path(), copied.dir.path());
        writing.await.unwrap();
        // It must not meet the one that goes on; forced, it is one of its own in any case.
        copied.addr = Host::new().addr;
        let lock = copied.dir.path().join("skepd.lock");
        drop(std::fs::remove_file(lock));
        match backup_of_raw_copy(&copied).await {
            Ok(found) => assert!(found >= known, "silently lost: {found} of {known}"),
            Err(why) => {
                println!("refused: {why}");
                assert!(!why.is_empty());
            }
        }
    }
    node.stop().await;
}

/// Services that a raw copy has once it was forced, or why it could not be.
async fn backup_of_raw_copy(copied: &Host) -> Result<usize, String> {
    let taken = std::net::UdpSocket::bind(&copied.addr).unwrap();
    let node = copied.start().await;
    drop(taken);
    let forced = force(copied, &node).await;
    let found = match forced {
        Ok(_) => Ok(services(&node.view().await.unwrap())),
        Err(error) => Err(error.message),
    };
    node.stop().await;
    found
}
