//! Members that were given up or removed and come back, whoever guesses tokens, and authorities of
//! one's own from the beginning: whole nodes in one process.

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

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use host::{Host, create, ready, services, tokens, until};
use serde::de::IgnoredAny;
use skep_api::cluster::{CaConfig, ExternalCa, InitRequest, LocalNodeState};
use skep_api::node::{NodeState, Role};
use skep_core::Id;
use skep_core::command::Command;
use skep_core::object::Cluster;
use skep_core::worker::ContainerState;
use skep_node::Node;
use skep_node::disk::DataDir;
use skep_node::pki::{self, Identity, KeyRequest, Leaf, RootCa};
use skep_node::quic::{CallError, Endpoint, OpenGate, Service};
use swarm::{Daemon, force, id, is_worker, managers, restart, set_role, stop};

fn running(host: &Host) -> usize {
    let shelf = host.engine.0.lock().unwrap();
    let containers = shelf.containers.values();
    let running = containers.filter(|it| it.state == ContainerState::Running);
    running.count()
}

/// Those that were given up come back one by one, each with a raft in which it was a manager.
#[test]
fn managers_that_were_given_up_come_back_as_workers() {
    let hosts = [(); 3].map(|()| Host::new());
    let daemons: Vec<Daemon> = hosts.iter().map(Daemon::start).collect();
    daemons[0].run(hosts[0].init(&daemons[0].node)).unwrap();
    let (_, token) = daemons[0].run(tokens(&daemons[0].node));
    for index in [1, 2] {
        let node = &daemons[index].node;
        let joined = hosts[index].join(node, &hosts[0], token.clone());
        daemons[index].run(joined).unwrap();
    }
    let ids: Vec<Id> = daemons.iter().map(|it| id(&it.node)).collect();
    daemons[1].run(async {
        create(&daemons[1].node, "web", 3).await;
        until("a container on every host", async || {
            hosts.iter().all(|host| host.containers() == 1)
        })
        .await;
    });
    let mut daemons = daemons.into_iter();
    let lost = [daemons.next().unwrap(), daemons.next_back().unwrap()];
    let survivor = daemons.next().unwrap();
    // The one that led and one that followed.
    for daemon in lost {
        daemon.run(daemon.node.stop());
        daemon.kill();
    }
    survivor.run(force(&hosts[1], &survivor.node)).unwrap();
    for index in [0, 2] {
        let back = Daemon::start(&hosts[index]);
        survivor.run(until("it is a worker that is ready", async || {
            let view = survivor.node.view().await.unwrap();
            let row = view.state.nodes().get(&ids[index]).unwrap();
            is_worker(&back.node) && row.status.state == NodeState::Ready
        }));
        assert_eq!(id(&back.node), ids[index]);
        survivor.run(until("its old log is gone", async || {
            !hosts[index].left_behind().contains(&"raft".to_owned())
        }));
        // Its task was replaced when it was given up: nothing runs twice.
        survivor.run(until("its old container has been stopped", async || {
            (running(&hosts[index]), running(&hosts[1])) == (0, 3)
        }));
        // It can be a manager of the new raft like any other worker.
        survivor
            .run(set_role(&survivor.node, &ids[index], Role::Manager))
            .unwrap();
        let count = if index == 0 { 2 } else { 3 };
        survivor.run(until("it is a manager", async || {
            managers(&back.node, count).await
        }));
        // Kept: dropping a runtime in the middle of a test is a crash.
        std::mem::forget(back);
    }
    survivor.run(survivor.node.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_tokens_waits_and_members_do_not() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let nodes = swarm::swarm(&hosts[..2], 1).await;
    let guesser = hosts[2].start().await;
    let (token, _) = tokens(&nodes[0]).await;
    let forged = format!("{}0000000000000000000000000", &token[..token.len() - 25]);
    for attempt in 0..10 {
        let refused = hosts[2]
            .join(&guesser, &hosts[0], forged.clone().into())
            .await
            .unwrap_err();
        assert!(
            refused.message.contains("A valid join token is necessary"),
            "{attempt}: {refused:?}"
        );
    }
    let start = Instant::now();
    let refused = hosts[2]
        .join(&guesser, &hosts[0], token.clone())
        .await
        .unwrap_err();
    assert!(
        refused
            .message
            .contains("too many attempts to join from this address have failed; wait "),
        "{refused:?}"
    );
    assert_eq!(guesser.status().state, LocalNodeState::Inactive);
    // A member from the same address renews its certificate meanwhile, to become a manager.
    set_role(&nodes[0], &id(&nodes[1]), Role::Manager)
        .await
        .unwrap();
    until("it is a manager", async || managers(&nodes[1], 2).await).await;
    assert!(start.elapsed() < Duration::from_secs(5), "too slow to tell");
    let refused = hosts[2].join(&guesser, &hosts[0], token.clone()).await;
    assert!(refused.is_err(), "still waiting");

    until("the right token lets in again", async || {
        hosts[2]
            .join(&guesser, &hosts[0], token.clone())
            .await
            .is_ok()
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(10));
    until("all are ready", async || {
        ready(&nodes[0].view().await.unwrap()) == 3
    })
    .await;
    guesser.stop().await;
    stop(nodes).await;
}

/// A node's certificate that was issued so long ago, and the identity it makes.
fn manager_since(cluster: &Cluster, node_id: &str, age: Duration) -> Arc<Identity> {
    let root = RootCa {
        cert_pem: cluster.root_ca.cert_pem.clone(),
        key_pem: cluster.root_ca.key_pem.clone(),
    };
    let request = KeyRequest::fresh().unwrap();
    let leaf = Leaf {
        node_id,
        role: pki::Role::Manager,
        cluster_id: &cluster.id,
    };
    let (day, then) = (Duration::from_secs(24 * 3600), SystemTime::now() - age);
    let cert = root.sign(&request.csr_pem, &leaf, day, then).unwrap();
    Arc::new(Identity::new(&root.cert_pem, &cert, request.key_pem).unwrap())
}

/// What a manager answers to a message of raft, sent with this certificate.
async fn raft_message(identity: &Arc<Identity>, to: &Host, raft_id: u64) -> Result<(), CallError> {
    let endpoint = Endpoint::bind(None, Arc::new(OpenGate)).unwrap();
    endpoint.set_identity(identity.clone()).unwrap();
    let message = serde_json::json!({ "to": raft_id, "message": "Leads" });
    let soon = Duration::from_secs(5);
    let answer: Result<IgnoredAny, CallError> = endpoint
        .call(&to.addr, Service::Raft, None, soon, &message)
        .await;
    endpoint.shutdown("asked").await;
    answer.map(drop)
}

/// Its raft counts it among the members, theirs does not: they do not listen, leader or none.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_manager_that_comes_back_is_not_heard() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let mut nodes = swarm::swarm(&hosts, 3).await;
    let gone = nodes.pop().unwrap();
    let whom = id(&gone);
    let state = nodes[0].view().await.unwrap().state;
    let cluster = state.cluster().unwrap().as_ref().clone();
    let row = state.nodes().get(&id(&nodes[0])).unwrap();
    let raft_id = row.manager.as_ref().unwrap().raft_id;
    let identity = manager_since(&cluster, &whom, Duration::from_secs(3600));
    raft_message(&identity, &hosts[0], raft_id).await.unwrap();

    gone.stop().await;
    drop(gone);
    set_role(&nodes[0], &whom, Role::Worker).await.unwrap();
    until("raft has let go", async || managers(&nodes[0], 2).await).await;
    let remove = Command::RemoveNode {
        id: whom.clone(),
        force: true,
    };
    nodes[0].execute(remove).await.unwrap();
    let leader = async || {
        let members = nodes[0].view().await.unwrap().members;
        let leads = members.iter().find(|member| member.leader);
        leads.map(|member| member.node.clone())
    };
    let before = leader().await;
    let told = async |gone: &Node| {
        until("it knows", async || {
            gone.status().error.ends_with("was removed from swarm")
        })
        .await;
        let refused = raft_message(&identity, &hosts[0], raft_id).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("was removed from swarm"), "{text}");
    };
    let gone = hosts[2].start().await;
    told(&gone).await;
    create(&nodes[0], "web", 1).await;
    assert_eq!(leader().await, before);
    gone.stop().await;
    drop(gone);

    // Without a quorum nobody could tell a manager of others that have joined.
    nodes.pop().unwrap().stop().await;
    // The answer would come after 20 s, as the original's.
    let leaderless = async || {
        let second = Duration::from_secs(1);
        tokio::time::timeout(second, nodes[0].view()).await.is_err()
    };
    until("there is no leader", leaderless).await;
    let newer = manager_since(&cluster, "newer", Duration::ZERO);
    until("a newer manager would be heard", async || {
        raft_message(&newer, &hosts[0], raft_id).await.is_ok()
    })
    .await;
    let gone = hosts[2].start().await;
    told(&gone).await;
    assert!(leaderless().await);
    nodes.push(hosts[1].start().await);
    until("two are the swarm", async || managers(&nodes[1], 2).await).await;
    assert_eq!(services(&nodes[1].view().await.unwrap()), 1);
    gone.stop().await;
    stop(nodes).await;
}

type Change = fn(&mut CaConfig);

/// Its own root signs whatever else is named, and nothing is left of an init that is refused.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_authority_may_come_with_init() {
    let hosts = [Host::new(), Host::new()];
    let [first, second] = [0, 1].map(|index| hosts[index].start());
    let (first, second) = (first.await, second.await);
    let elsewhere = RootCa::create(SystemTime::now()).unwrap();
    let hour = 3_600_000_000_000;
    let init = async |change: Change| {
        let mut request = InitRequest {
            listen_addr: hosts[0].addr.clone(),
            advertise_addr: hosts[0].addr.clone(),
            ..Default::default()
        };
        request.spec.ca_config.node_cert_expiry = hour;
        request.spec.ca_config.external_cas = vec![ExternalCa {
            protocol: "cfssl".into(),
            url: "https://127.0.0.1:1/sign".into(),
            ca_cert: elsewhere.cert_pem.clone(),
            ..ExternalCa::default()
        }];
        change(&mut request.spec.ca_config);
        first.init(request).await.map_err(|error| error.message)
    };
    let refused: [(Change, &str); 3] = [
        (
            |ca| ca.node_cert_expiry = 1,
            "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
        ),
        (
            |ca| ca.external_cas[0].protocol = "acme".into(),
            "invalid protocol: \"acme\"",
        ),
        (
            |ca| ca.signing_ca_cert = "PEM".into(),
            "a signing CA certificate of one's own at init is not supported by this version of skep",
        ),
    ];
    for (change, text) in refused {
        let text = format!("error updating cluster settings: {text}");
        assert_eq!(init(change).await.unwrap_err(), text);
        assert_eq!(first.status().state, LocalNodeState::Inactive);
        assert_eq!(hosts[0].left_behind(), Vec::<String>::new());
    }
    init(|_| ()).await.unwrap();
    let (worker, _) = tokens(&first).await;
    hosts[1].join(&second, &hosts[0], worker).await.unwrap();
    let state = first.view().await.unwrap().state;
    let config = &state.cluster().unwrap().spec.ca_config;
    assert_eq!(
        (config.node_cert_expiry, config.external_cas.len()),
        (hour, 1)
    );
    stop([first, second]).await;
    for host in &hosts {
        let identity = Identity::load(&DataDir::open(host.dir.path()).unwrap());
        let identity = identity.unwrap().unwrap();
        let life = identity.not_after - Duration::from_secs(3601);
        assert!(life < SystemTime::now(), "{:?}", identity.not_after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_whose_certificate_has_expired_can_be_forced() {
    let hosts = [Host::new(), Host::new()];
    let nodes = swarm::swarm(&hosts, 2).await;
    create(&nodes[0], "web", 2).await;
    until("a container on each", async || {
        hosts.iter().all(|host| host.containers() == 1)
    })
    .await;
    let state = nodes[0].view().await.unwrap().state;
    let (cluster, whom) = (state.cluster().unwrap(), id(&nodes[0]));
    let two_days = Duration::from_secs(48 * 3600);
    let old = manager_since(cluster, &whom, two_days);
    stop(nodes).await;
    let disk = DataDir::open(hosts[0].dir.path()).unwrap();
    old.save(&disk).unwrap();
    drop(disk);

    let node = hosts[0].start().await;
    assert!(
        node.status().error.contains("certificates have expired"),
        "{:?}",
        node.status()
    );
    assert_eq!(force(&hosts[0], &node).await.unwrap(), whom);
    assert_eq!(services(&node.view().await.unwrap()), 1);
    until("all tasks are here", async || hosts[0].containers() == 2).await;
    assert_eq!(hosts[0].engine.0.lock().unwrap().made, 2, "one went on");
    let node = restart(&hosts[0], node).await;
    until("it answers", async || node.view().await.is_ok()).await;
    // The other one's has not expired: it comes back by itself.
    let other = hosts[1].start().await;
    until("it is a worker", async || {
        is_worker(&other) && ready(&node.view().await.unwrap()) == 2
    })
    .await;
    stop([node, other]).await;
}
