//! Nodes that came and went too often get no tasks for a while.

use super::why;
use crate::SECOND;
use crate::orchestrator::testing::Harness;

/// A harness in which `n2` came back for the second time, just now.
fn with_flapper() -> Harness {
    let mut harness = Harness::new(&["n1", "n2"]);
    let now = harness.now;
    harness.node("n2", |node| {
        (node.status.since, node.status.flaps) = (now, 2);
    });
    harness
}

#[test]
fn a_node_that_came_back_again_has_to_stay_first() {
    let mut harness = with_flapper();
    harness.create("web", 3, |_| ());
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".to_owned(), 3)]);
    harness.pass(10 * SECOND);
    harness.scale("web", 4);
    harness.settle();
    let both = [("n1".to_owned(), 3), ("n2".to_owned(), 1)];
    assert_eq!(harness.spread("web"), both);
}

#[test]
fn tasks_wait_for_it_if_no_other_suits_and_get_it_in_time() {
    let mut harness = with_flapper();
    let only = |spec: &mut skep_api::service::ServiceSpec| {
        super::placement(spec).constraints = vec!["node.id==n2".to_owned()];
    };
    harness.create("web", 1, only);
    harness.pass(10 * SECOND - 1);
    let text = "no suitable node (1 node not available for new tasks; \
                scheduling constraints not satisfied on 1 node)";
    assert_eq!(why(&harness, "web"), text);
    harness.pass(1);
    assert_eq!(harness.spread("web"), [("n2".to_owned(), 1)]);
}

#[test]
fn a_node_that_rests_is_better_than_none() {
    let mut harness = with_flapper();
    harness.down("n1");
    harness.create("web", 1, |_| ());
    harness.settle();
    assert_eq!(harness.spread("web"), [("n2".to_owned(), 1)]);
}
