//! Which nodes a task may have, and what it says when it may have none.

use skep_api::network::{NetworkAttachmentConfig, NetworkSpec};
use skep_api::node::{Availability, NodeState, PluginDescription};
use skep_api::service::ServiceSpec;
use skep_api::task::{Platform, TaskState};

use super::{give, placement, reserve, why};
use crate::SECOND;
use crate::network::driver;
use crate::object::{Meta, NetworkObject, Node};
use crate::orchestrator::testing::{Harness, node};

#[test]
fn a_task_that_gets_a_node_says_so() {
    let mut harness = Harness::new(&[]);
    harness.create("web", 1, |_| {});
    harness.plan();
    let task = harness.wanted("web", 1);
    assert_eq!(
        (task.status.state, task.node_id),
        (TaskState::Pending, None)
    );
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!(task.status.err, "no suitable node");
    harness.now = harness.now.plus(SECOND);
    harness.put(node("n1"));
    harness.plan();
    let task = harness.wanted("web", 1);
    assert_eq!(task.status.state, TaskState::Assigned);
    assert_eq!(task.node_id.as_deref(), Some("n1"));
    assert_eq!(task.status.message, "scheduler assigned task to node");
    assert_eq!(task.status.err, "");
    assert_eq!(task.status.timestamp, harness.now);
}

#[test]
fn explanations() {
    type Edit = fn(&mut ServiceSpec);
    type Nodes = fn(&mut Node);
    let cases: [(Edit, Nodes, &str, &str); 9] = [
        (
            |spec| {
                spec.labels.insert("skep.privileged".into(), "true".into());
            },
            |_| {},
            "node label skep.allow-privileged missing on 1 node",
            "node label skep.allow-privileged missing on 2 nodes",
        ),
        (
            |_| {},
            |node| node.spec.availability = Availability::Drain,
            "1 node not available for new tasks",
            "2 nodes not available for new tasks",
        ),
        (
            |_| {},
            |node| node.status.state = NodeState::Unknown,
            "1 node not available for new tasks",
            "2 nodes not available for new tasks",
        ),
        (
            |spec| reserve(spec, 0, 1),
            |_| {},
            "insufficient resources on 1 node",
            "insufficient resources on 2 nodes",
        ),
        (
            |spec| {
                let driver = skep_api::go::Driver {
                    name: "nfs".into(),
                    ..Default::default()
                };
                let options = skep_api::container::VolumeOptions {
                    driver_config: Some(driver),
                    ..Default::default()
                };
                let mount = skep_api::container::Mount {
                    kind: skep_api::container::MountType::Volume,
                    volume_options: Some(options),
                    ..Default::default()
                };
                spec.task_template
                    .container_spec
                    .get_or_insert_default()
                    .mounts = vec![mount];
            },
            |_| {},
            "missing plugin on 1 node",
            "missing plugin on 2 nodes",
        ),
        (
            |spec| placement(spec).constraints = vec!["node.id==x".into()],
            |_| {},
            "scheduling constraints not satisfied on 1 node",
            "scheduling constraints not satisfied on 2 nodes",
        ),
        (
            |spec| {
                placement(spec).platforms = vec![Platform {
                    architecture: "arm64".into(),
                    os: "linux".into(),
                }];
            },
            |_| {},
            "unsupported platform on 1 node",
            "unsupported platform on 2 nodes",
        ),
        (
            |spec| {
                // Not available comes before everything else.
                placement(spec).constraints = vec!["node.id==x".into()];
                reserve(spec, 1, 0);
            },
            |node| node.spec.availability = Availability::Pause,
            "1 node not available for new tasks",
            "2 nodes not available for new tasks",
        ),
        (
            |spec| {
                // Resources come before constraints.
                placement(spec).constraints = vec!["node.id==x".into()];
                reserve(spec, 1, 0);
            },
            |_| {},
            "insufficient resources on 1 node",
            "insufficient resources on 2 nodes",
        ),
    ];
    for (spec, edit, one, two) in cases {
        let mut harness = Harness::new(&["n1"]);
        harness.node("n1", edit);
        harness.create("web", 1, spec);
        harness.plan();
        assert_eq!(why(&harness, "web"), format!("no suitable node ({one})"));
        let mut second = node("n2");
        edit(&mut second);
        harness.put(second);
        harness.plan();
        assert_eq!(why(&harness, "web"), format!("no suitable node ({two})"));
    }
}

#[test]
fn several_reasons_come_most_frequent_first() {
    let mut harness = Harness::new(&["n1", "n2", "n3", "n4"]);
    harness.drain("n2");
    for id in ["n1", "n3"] {
        harness.node(id, |node| {
            drop(node.spec.labels.insert("a".into(), "b".into()))
        });
    }
    harness.node("n4", |node| give(node, 0, 100));
    harness.create("web", 1, |spec| {
        placement(spec).constraints = vec!["node.labels.a==b".into()];
        reserve(spec, 0, 50);
    });
    harness.plan();
    let expected = "no suitable node (insufficient resources on 2 nodes; \
                    1 node not available for new tasks; \
                    scheduling constraints not satisfied on 1 node)";
    assert_eq!(why(&harness, "web"), expected);
}

#[test]
fn an_explanation_is_written_once() {
    let mut harness = Harness::new(&["n1"]);
    harness.drain("n1");
    harness.create("web", 300, |_| {});
    harness.plan();
    let revision = harness.state.revision();
    harness.node("n1", |node| {
        drop(node.spec.labels.insert("a".into(), "b".into()))
    });
    harness.plan();
    assert_eq!(
        harness.state.revision(),
        revision + 1,
        "only the node was written"
    );
    assert!(
        harness
            .running("web")
            .iter()
            .all(|task| !task.status.err.is_empty())
    );
}

#[test]
fn max_replicas_per_node() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 5, |spec| placement(spec).max_replicas = 2);
    harness.settle();
    assert_eq!(
        harness.spread("web"),
        [("-".into(), 1), ("n1".into(), 2), ("n2".into(), 2)]
    );
    let waiting = harness
        .running("web")
        .into_iter()
        .find(|task| task.node_id.is_none())
        .unwrap();
    assert_eq!(
        waiting.status.err,
        "no suitable node (max replicas per node limit exceed)"
    );
    harness.put(node("n3"));
    harness.settle();
    assert_eq!(
        harness
            .running("web")
            .iter()
            .filter(|task| task.node_id.is_none())
            .count(),
        0
    );
}

#[test]
fn reservations_are_not_overbooked_and_freed_when_the_task_has_stopped() {
    let mut harness = Harness::new(&["n1"]);
    harness.node("n1", |node| give(node, 0, 100));
    harness.create("a", 1, |spec| reserve(spec, 0, 60));
    harness.settle();
    harness.create("b", 1, |spec| reserve(spec, 0, 60));
    harness.settle();
    let expected = "no suitable node (insufficient resources on 1 node)";
    assert_eq!(why(&harness, "b"), expected);
    harness.remove_service("a");
    harness.plan();
    assert_eq!(
        why(&harness, "b"),
        expected,
        "what still stops has its memory"
    );
    harness.settle();
    assert_eq!(harness.wanted("b", 1).status.state, TaskState::Running);
}

#[test]
fn platforms_and_plugins() {
    let mut harness = Harness::new(&["n1"]);
    harness.node("n1", |node| {
        let description = node.description.as_mut().unwrap();
        description.platform = Platform {
            architecture: "x86_64".into(),
            os: "linux".into(),
        };
        let plugin = PluginDescription {
            kind: "Log".into(),
            name: "json-file".into(),
        };
        description.engine.plugins = vec![plugin];
    });
    let platform = |architecture: &str, os: &str| Platform {
        architecture: architecture.into(),
        os: os.into(),
    };
    for (name, wanted, fits) in [
        ("same", platform("x86_64", "linux"), true),
        ("alias", platform("amd64", "linux"), true),
        ("any", platform("", ""), true),
        ("any-os", platform("amd64", ""), true),
        ("arm", platform("arm64", "linux"), false),
        ("windows", platform("amd64", "windows"), false),
    ] {
        harness.create(name, 1, |spec| placement(spec).platforms = vec![wanted]);
        harness.settle();
        assert_eq!(harness.wanted(name, 1).node_id.is_some(), fits, "{name}");
    }
    for (name, fits) in [("json-file", true), ("none", true), ("gelf", false)] {
        harness.create(name, 1, |spec| {
            let driver = skep_api::go::Driver {
                name: name.into(),
                ..Default::default()
            };
            spec.task_template.log_driver = Some(driver);
        });
        harness.settle();
        assert_eq!(harness.wanted(name, 1).node_id.is_some(), fits, "{name}");
    }
}

#[test]
fn the_driver_of_a_network_is_wanted_on_the_node() {
    let mut harness = Harness::new(&["n1", "n2"]);
    let networks = [("lan", "macvlan", false), ("host", "host", true)];
    for (id, name, predefined) in networks {
        let mut spec = NetworkSpec {
            name: id.into(),
            ..NetworkSpec::default()
        };
        if predefined {
            let label = crate::network::PREDEFINED.to_owned();
            spec.labels.insert(label, "true".to_owned());
        }
        harness.put(NetworkObject {
            id: id.into(),
            meta: Meta::default(),
            spec,
            driver_state: Some(driver(name, Default::default())),
            ipam: None,
            keys: Vec::new(),
        });
        harness.create(id, 1, |spec| {
            spec.task_template.networks = vec![NetworkAttachmentConfig {
                target: id.into(),
                ..NetworkAttachmentConfig::default()
            }];
        });
    }
    harness.settle();
    let expected = "no suitable node (missing plugin on 2 nodes)";
    assert_eq!(why(&harness, "lan"), expected);
    assert_eq!(why(&harness, "host"), "", "every engine has it");
    harness.node("n2", |node| {
        let description = node.description.as_mut().unwrap();
        description.engine.plugins = vec![PluginDescription {
            kind: "Network".into(),
            name: "macvlan".into(),
        }];
    });
    harness.settle();
    let node = harness.wanted("lan", 1).node_id;
    assert_eq!(node.as_deref(), Some("n2"));
}
