//! Autolock with whole nodes in one process, and what their data directories show.

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

use std::path::{Path, PathBuf};

use host::{Host, create, services, tokens, until, web};
use skep_api::cluster::{InitRequest, LocalNodeState};
use skep_api::{Error, Kind, Secret};
use skep_core::command::{Command, Reply};
use skep_node::Node;

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please \
                      use \"docker swarm unlock\" to unlock it.";

async fn found_locked(host: &Host, node: &Node) {
    let request = InitRequest {
        listen_addr: host.addr.clone(),
        advertise_addr: host.addr.clone(),
        auto_lock_managers: true,
        ..Default::default()
    };
    node.init(request).await.unwrap();
}

async fn unlock_key(node: &Node) -> Option<Secret> {
    let state = node.view().await.unwrap().state;
    state.cluster().unwrap().unlock_key.clone()
}

async fn update(node: &Node, auto_lock: bool, rotate: bool) {
    let state = node.view().await.unwrap().state;
    let cluster = state.cluster().unwrap();
    let mut spec = cluster.spec.clone();
    spec.encryption_config.auto_lock_managers = auto_lock;
    let command = Command::UpdateCluster {
        version: cluster.meta.version,
        spec: Box::new(spec),
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: rotate,
        new_root: None,
    };
    node.execute(command).await.unwrap();
}

/// What a restart now would find: the content of the file with the keys.
fn key_file(host: &Host) -> Vec<u8> {
    std::fs::read(host.dir.path().join("keys")).unwrap()
}

async fn restart(host: &Host, node: Node) -> Node {
    node.stop().await;
    drop(node);
    host.start().await
}

fn text(outcome: Result<(), Error>) -> (Kind, String) {
    let error = outcome.unwrap_err();
    (error.kind, error.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_manager_waits_for_its_key() {
    let host = Host::new();
    let node = host.start().await;
    let none = text(node.unlock("SWMKEY-1-AAAA".into()).await);
    assert_eq!(none.0, Kind::Unavailable);
    assert!(
        none.1.contains("This node is not a swarm manager. Use"),
        "{none:?}"
    );
    found_locked(&host, &node).await;
    let key = unlock_key(&node).await.unwrap();
    create(&node, "web", 2).await;
    until("two containers", async || host.containers() == 2).await;
    let id = node.status().node_id;
    let unlocked = (Kind::Conflict, "swarm is not locked".to_owned());
    assert_eq!(text(node.unlock(key.clone()).await), unlocked);

    let node = restart(&host, node).await;
    assert_eq!(node.status().state, LocalNodeState::Locked);
    let refused = node.view().await.err().unwrap();
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (Kind::Unavailable, LOCKED)
    );
    assert_eq!(node.execute(web("b", 1)).await.unwrap_err().message, LOCKED);
    let again = host.init(&node).await.unwrap_err().message;
    assert!(
        again.starts_with("This node is already part of a swarm."),
        "{again}"
    );
    let refused = text(node.leave(false).await);
    assert!(
        refused.1.starts_with("Swarm is encrypted and locked."),
        "{refused:?}"
    );
    assert_eq!(host.containers(), 2, "containers go on");
    for (wrong, kind, expected) in [
        ("nonsense", Kind::InvalidParameter, "invalid key string"),
        (
            "SWMKEY-1-AAAA",
            Kind::Unauthorized,
            "swarm could not be unlocked: invalid key provided",
        ),
    ] {
        assert_eq!(
            text(node.unlock(wrong.into()).await),
            (kind, expected.to_owned())
        );
        assert_eq!(node.status().state, LocalNodeState::Locked);
    }

    // Two at once do no harm: one of them unlocks, the other finds it done.
    let (one, other) = tokio::join!(node.unlock(key.clone()), node.unlock(key.clone()));
    assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    assert_eq!(node.status().node_id, id);
    until("the cluster is back", async || node.view().await.is_ok()).await;
    assert_eq!(services(&node.view().await.unwrap()), 1);
    assert_eq!(unlock_key(&node).await, Some(key));
    assert_eq!(
        host.engine.0.lock().unwrap().made,
        2,
        "containers are adopted"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_follow_every_update() {
    let host = Host::new();
    let node = host.start().await;
    host.init(&node).await.unwrap();
    assert_eq!(unlock_key(&node).await, None);
    let rewrapped = async |node: &Node, auto_lock, rotate| {
        let before = key_file(&host);
        update(node, auto_lock, rotate).await;
        until("the keys are wrapped anew", async || {
            key_file(&host) != before
        })
        .await;
        unlock_key(node).await
    };

    let first = rewrapped(&node, true, false).await.unwrap();
    let second = rewrapped(&node, true, true).await.unwrap();
    assert_ne!(first, second);
    let node = restart(&host, node).await;
    assert_eq!(text(node.unlock(first.clone()).await).0, Kind::Unauthorized);
    node.unlock(second.clone()).await.unwrap();
    until("the cluster is back", async || node.view().await.is_ok()).await;

    // Once more locked and unlocked, and an update that touches something else.
    let before = key_file(&host);
    update(&node, true, false).await;
    assert_eq!(unlock_key(&node).await, Some(second.clone()));
    assert!(key_file(&host) == before);

    assert_eq!(rewrapped(&node, false, true).await, None);
    let node = restart(&host, node).await;
    until("it is not locked", async || node.view().await.is_ok()).await;
    let third = rewrapped(&node, true, false).await.unwrap();
    assert!(third != first && third != second);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_that_join_are_locked_and_workers_are_not() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let mut nodes = Vec::new();
    for host in &hosts {
        nodes.push(host.start().await);
    }
    found_locked(&hosts[0], &nodes[0]).await;
    let key = unlock_key(&nodes[0]).await.unwrap();
    let (worker, manager) = tokens(&nodes[0]).await;
    hosts[1]
        .join(&nodes[1], &hosts[0], worker.clone())
        .await
        .unwrap();
    let plain = key_file(&hosts[1]);
    hosts[2].join(&nodes[2], &hosts[0], manager).await.unwrap();
    // A wrapped file is larger by the salt and the seal.
    until("the manager's keys are wrapped", async || {
        key_file(&hosts[2]).len() > plain.len()
    })
    .await;
    assert_eq!(key_file(&hosts[1]), plain);
    let last = nodes.pop().unwrap();
    let last = restart(&hosts[2], last).await;
    assert_eq!(last.status().state, LocalNodeState::Locked);
    last.unlock(key).await.unwrap();
    until("it is a manager again", async || last.view().await.is_ok()).await;

    let second = nodes.pop().unwrap();
    let second = restart(&hosts[1], second).await;
    assert_eq!(second.status().state, LocalNodeState::Active);
    let refused = text(second.unlock("SWMKEY-1-AAAA".into()).await);
    assert!(
        refused.1.contains("Worker nodes can't be used"),
        "{refused:?}"
    );
    for node in [last, second, nodes.pop().unwrap()] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_node_can_be_made_to_leave() {
    let host = Host::new();
    let node = host.start().await;
    found_locked(&host, &node).await;
    create(&node, "web", 2).await;
    until("two containers", async || host.containers() == 2).await;
    let node = restart(&host, node).await;
    assert_eq!(node.status().state, LocalNodeState::Locked);
    node.leave(true).await.unwrap();
    assert_eq!(node.status().state, LocalNodeState::Inactive);
    assert_eq!((host.containers(), host.left_behind()), (0, vec![]));
    host.init(&node).await.unwrap();
    assert_eq!(unlock_key(&node).await, None);
    node.stop().await;
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Fails if a file below the directory holds one of these texts.
fn assert_hidden(dir: &Path, secrets: &[String]) -> usize {
    let mut found = Vec::new();
    files(dir, &mut found);
    for path in &found {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            // A file that was about to take its place took it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        for secret in secrets {
            let shown = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!shown, "{} shows {:.12}…", path.display(), secret);
        }
    }
    found.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_directories_show_no_secret() {
    let (first, second) = (Host::new(), Host::new());
    let (founder, worker) = (first.start().await, second.start().await);
    first.init(&founder).await.unwrap();
    let (token, _) = tokens(&founder).await;
    second.join(&worker, &first, token).await.unwrap();
    let mut command = web("web", 4);
    if let Command::CreateService {
        spec,
        registry_auth,
    } = &mut command
    {
        let container = spec.task_template.container_spec.as_mut().unwrap();
        container.env = vec!["PASSWORD=correct-horse-battery".into()];
        *registry_auth = Some("login-of-the-registry".into());
    }
    assert!(matches!(
        founder.execute(command).await.unwrap(),
        Reply::Created(_)
    ));
    until("both hosts work", async || {
        first.containers() + second.containers() == 4 && second.containers() > 0
    })
    .await;
    update(&founder, true, false).await;

    let state = founder.view().await.unwrap().state;
    let cluster = state.cluster().unwrap();
    let pem = cluster.root_ca.key_pem.clone().unwrap();
    let mut secrets: Vec<String> = [
        "correct-horse-battery",
        "login-of-the-registry",
        "PRIVATE KEY",
        "SWMKEY-1-",
        &*cluster.join_tokens.worker,
        &*cluster.join_tokens.manager,
        &cluster.join_tokens.manager[cluster.join_tokens.manager.len() - 25..],
        &cluster.unlock_key.as_ref().unwrap()["SWMKEY-1-".len()..],
    ]
    .map(str::to_owned)
    .into();
    // The middle of the authority's key, however it may be framed.
    secrets.push(pem.lines().nth(1).unwrap().to_owned());
    assert!(assert_hidden(first.dir.path(), &secrets) > 5);
    assert!(assert_hidden(second.dir.path(), &secrets) > 5);
    founder.stop().await;
    worker.stop().await;
    assert_hidden(first.dir.path(), &secrets);
    assert_hidden(second.dir.path(), &secrets);
}
