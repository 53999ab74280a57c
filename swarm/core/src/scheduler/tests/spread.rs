//! Which of the nodes that will do is the best.

use skep_api::service::ServiceSpec;
use skep_api::task::{PlacementPreference, SpreadOver};

use super::placement;
use crate::orchestrator::testing::Harness;
use crate::{MINUTE, SECOND};

#[test]
fn fewest_of_the_service_then_fewest_then_the_first() {
    let mut harness = Harness::new(&["n1", "n2", "n3"]);
    harness.create("a", 1, |_| {});
    harness.settle();
    harness.create("b", 1, |_| {});
    harness.settle();
    harness.create("a2", 3, |_| {});
    harness.settle();
    assert_eq!(harness.spread("a"), [("n1".into(), 1)]);
    assert_eq!(
        harness.spread("b"),
        [("n2".into(), 1)],
        "fewest tasks at all"
    );
    assert_eq!(harness.spread("a2").len(), 3, "fewest of its own");
    assert_eq!(harness.wanted("a2", 1).node_id.as_deref(), Some("n3"));
}

#[test]
fn a_node_where_tasks_keep_failing_comes_last() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("other", 9, |spec| {
        placement(spec).constraints = vec!["node.id==n2".into()]
    });
    harness.create("web", 1, |_| {});
    harness.settle();
    let mut nodes = Vec::new();
    for _ in 0..8 {
        let task = harness.wanted("web", 1);
        nodes.push(task.node_id.clone().unwrap().to_string());
        if nodes.last().is_some_and(|node| node == "n2") {
            break;
        }
        harness.fail(&task.id);
        harness.pass(10 * SECOND);
    }
    assert_eq!(nodes.last().unwrap(), "n2", "the fuller node that works");
    assert!(nodes.len() >= 4, "only after several failures: {nodes:?}");
    harness.create("new", 1, |_| {});
    harness.settle();
    assert_eq!(
        harness.wanted("new", 1).node_id.as_deref(),
        Some("n1"),
        "others do not mind"
    );
    harness.pass(6 * MINUTE);
    harness.fail(&harness.wanted("web", 1).id.clone());
    harness.pass(10 * SECOND);
    assert_eq!(
        harness.wanted("web", 1).node_id.as_deref(),
        Some("n1"),
        "it is forgotten"
    );
}

fn spread_over(spec: &mut ServiceSpec, descriptors: &[&str]) {
    let preference = |descriptor: &&str| PlacementPreference {
        spread: Some(SpreadOver {
            spread_descriptor: (*descriptor).to_owned(),
        }),
    };
    placement(spec).preferences = descriptors.iter().map(preference).collect();
}

/// Two nodes in zone a, four in zone b, one without a zone.
fn zones() -> Harness {
    let mut harness = Harness::new(&["n1", "n2", "n3", "n4", "n5", "n6", "n7"]);
    for (id, zone, rack) in [
        ("n1", "a", "1"),
        ("n2", "a", "2"),
        ("n3", "b", "1"),
        ("n4", "b", "1"),
        ("n5", "b", "1"),
        ("n6", "b", "2"),
    ] {
        harness.node(id, |node| {
            node.spec.labels.insert("zone".into(), zone.into());
            let engine = &mut node.description.as_mut().unwrap().engine;
            engine.labels.insert("rack".into(), rack.into());
        });
    }
    harness
}

fn on(harness: &Harness, nodes: &[&str]) -> usize {
    let tasks = harness.running("web");
    tasks
        .iter()
        .filter(|task| nodes.contains(&task.node_id.as_deref().unwrap()))
        .count()
}

#[test]
fn preferences_spread_by_labels() {
    let mut harness = zones();
    harness.create("web", 12, |spec| spread_over(spec, &["node.labels.zone"]));
    harness.settle();
    let zones: [&[&str]; 3] = [&["n1", "n2"], &["n3", "n4", "n5", "n6"], &["n7"]];
    assert_eq!(zones.map(|nodes| on(&harness, nodes)), [4, 4, 4]);
    assert_eq!(
        ["n1", "n2", "n3", "n6"].map(|node| on(&harness, &[node])),
        [2, 2, 1, 1]
    );

    let mut harness = self::zones();
    harness.create("web", 12, |spec| {
        placement(spec).constraints = vec!["node.id!=n7".into()];
        spread_over(spec, &["node.ip", "node.labels.zone", "engine.labels.rack"]);
    });
    harness.settle();
    assert_eq!(on(&harness, &["n1"]), 3);
    assert_eq!(on(&harness, &["n6"]), 3, "one rack of two in the zone");
    assert_eq!(on(&harness, &["n3", "n4", "n5"]), 3);
}

#[test]
fn a_full_branch_leaves_the_rest_to_the_others() {
    let mut harness = zones();
    harness.create("web", 12, |spec| {
        spread_over(spec, &["node.labels.zone"]);
        placement(spec).max_replicas = 2;
    });
    harness.settle();
    assert_eq!(on(&harness, &["n7"]), 2);
    assert_eq!(on(&harness, &["n1", "n2"]), 4);
    assert_eq!(on(&harness, &["n3", "n4", "n5", "n6"]), 6);
}
