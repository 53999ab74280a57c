//! How many tasks there are, in which slots, on which nodes.

use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use crate::orchestrator::testing::Harness;
use crate::{MINUTE, SECOND};

fn slots(harness: &Harness, service: &str) -> Vec<u64> {
    harness
        .running(service)
        .iter()
        .map(|task| task.slot)
        .collect()
}

#[test]
fn a_new_service_fills_its_slots_and_spreads() {
    let mut harness = Harness::new(&["n1", "n2", "n3"]);
    harness.create("web", 6, |_| {});
    harness.settle();
    assert_eq!(slots(&harness, "web"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        harness.spread("web"),
        [("n1".into(), 2), ("n2".into(), 2), ("n3".into(), 2)]
    );
    assert!(
        harness
            .running("web")
            .iter()
            .all(|task| task.status.state == TaskState::Running)
    );
    harness.scale("web", 9);
    harness.settle();
    assert_eq!(
        harness.spread("web"),
        [("n1".into(), 3), ("n2".into(), 3), ("n3".into(), 3)]
    );
    harness.scale("web", 2);
    harness.settle();
    assert_eq!(harness.running("web").len(), 2);
    assert_eq!(
        harness.spread("web").len(),
        2,
        "what is left is spread, too"
    );
    assert_eq!(
        harness.state.tasks().len(),
        2,
        "no history of slots that are gone"
    );
}

#[test]
fn more_tasks_than_a_plan_holds() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 450, |_| {});
    harness.plan();
    assert_eq!(
        harness.spread("web"),
        [("n1".into(), 225), ("n2".into(), 225)]
    );
    harness.remove_service("web");
    harness.plan();
    assert_eq!(harness.tasks("web", TaskState::Remove).len(), 450);
}

#[test]
fn scaling_up_fills_the_lowest_free_slots() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 4, |_| {});
    harness.settle();
    // The slots on n2 do not run, so they go first.
    harness.down("n2");
    for task in harness.running("web") {
        if task.node_id.as_deref() == Some("n1") {
            continue;
        }
        assert!([2, 4].contains(&task.slot));
    }
    harness.node("n1", |node| {
        node.spec.availability = skep_api::node::Availability::Pause
    });
    harness.settle();
    harness.scale("web", 2);
    harness.settle();
    assert_eq!(slots(&harness, "web"), [1, 3]);
    harness.node("n1", |node| {
        node.spec.availability = skep_api::node::Availability::Active
    });
    harness.scale("web", 4);
    harness.settle();
    assert_eq!(slots(&harness, "web"), [1, 2, 3, 4]);
}

#[test]
fn scaling_down_takes_from_the_fullest_node() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 3, |_| {});
    harness.settle();
    harness.put(crate::orchestrator::testing::node("n2"));
    harness.scale("web", 4);
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 3), ("n2".into(), 1)]);
    harness.scale("web", 2);
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 1), ("n2".into(), 1)]);
}

#[test]
fn removing_a_service_removes_its_tasks() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 2, |_| {});
    harness.settle();
    harness.remove_service("web");
    harness.plan();
    assert_eq!(
        harness.tasks("web", TaskState::Remove).len(),
        2,
        "until the agent has stopped them"
    );
    harness.settle();
    assert!(harness.state.tasks().is_empty());
}

#[test]
fn tasks_without_a_node_are_removed_at_once() {
    let mut harness = Harness::new(&[]);
    harness.create("web", 3, |_| {});
    harness.plan();
    assert_eq!(harness.state.tasks().len(), 3);
    harness.scale("web", 1);
    harness.plan();
    assert_eq!(harness.state.tasks().len(), 1);
    harness.remove_service("web");
    harness.plan();
    assert!(harness.state.tasks().is_empty());
}

#[test]
fn tasks_leave_nodes_that_are_down_drained_or_removed_and_do_not_return() {
    for way in ["down", "drain", "remove"] {
        let mut harness = Harness::new(&["n1", "n2"]);
        harness.create("web", 4, |_| {});
        harness.settle();
        match way {
            "down" => harness.down("n1"),
            "drain" => harness.drain("n1"),
            _ => harness.remove_node("n1"),
        }
        harness.settle();
        assert_eq!(harness.spread("web"), [("n2".into(), 4)], "{way}, at once");
        assert_eq!(slots(&harness, "web"), [1, 2, 3, 4], "{way}");
        let old = harness.tasks("web", TaskState::Shutdown);
        assert_eq!(old.len(), 2, "{way}");
        if way != "remove" {
            harness.put(crate::orchestrator::testing::node("n1"));
            harness.pass(2 * MINUTE);
            assert_eq!(
                harness.spread("web"),
                [("n2".into(), 4)],
                "{way}: nothing is rebalanced"
            );
        }
    }
}

#[test]
fn a_paused_node_keeps_what_it_has() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 2, |_| {});
    harness.settle();
    harness.node("n1", |node| {
        node.spec.availability = skep_api::node::Availability::Pause
    });
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 1), ("n2".into(), 1)]);
    harness.scale("web", 4);
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 1), ("n2".into(), 3)]);
}

#[test]
fn on_a_drained_node_the_old_task_stops_before_the_new_one_starts() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 1, |_| {});
    harness.settle();
    let old = harness.wanted("web", 1);
    harness.drain(old.node_id.as_ref().unwrap());
    harness.plan();
    let new = harness.wanted("web", 1);
    assert_eq!(new.desired_state, TaskState::Ready);
    assert!(new.node_id.is_some(), "it is prepared meanwhile");
    harness.report(&old.id, TaskState::Shutdown);
    harness.plan();
    assert_eq!(harness.wanted("web", 1).desired_state, TaskState::Running);
}

#[test]
fn a_task_that_does_not_stop_is_waited_for_one_minute() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 1, |_| {});
    harness.settle();
    harness.drain("n1");
    harness.plan();
    harness.now = harness.now.plus(59 * SECOND);
    harness.plan();
    assert_eq!(harness.wanted("web", 1).desired_state, TaskState::Ready);
    harness.now = harness.now.plus(SECOND);
    harness.plan();
    assert_eq!(harness.wanted("web", 1).desired_state, TaskState::Running);
}

#[test]
fn scaling_leaves_alone_what_ended_for_good() {
    let mut harness = Harness::new(&["n1"]);
    let policy = RestartPolicy {
        condition: RestartCondition::None,
        ..RestartPolicy::default()
    };
    harness.create("once", 2, |spec| {
        spec.task_template.restart_policy = Some(policy)
    });
    harness.settle();
    for task in harness.running("once") {
        harness.report(&task.id, TaskState::Complete);
    }
    harness.settle();
    assert!(harness.running("once").is_empty());
    harness.scale("once", 3);
    harness.settle();
    assert_eq!(
        slots(&harness, "once"),
        [3],
        "the others have done their work"
    );
    harness.update("once", |spec| {
        drop(spec.labels.insert("a".into(), "b".into()))
    });
    harness.settle();
    assert_eq!(slots(&harness, "once"), [3]);
}
