//! Global services: which nodes have a task, what happens to them, updates node by node.

use skep_api::node::{Availability, NodeState};
use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use super::updates::{config, image_of};
use crate::MINUTE;
use crate::SECOND;
use crate::orchestrator::testing::{Harness, image, node};

fn harness() -> Harness {
    let mut harness = Harness::new(&["n1", "n2", "n3"]);
    harness.create_global("web", |spec| {
        image(spec, "v1");
        spec.update_config = Some(config(1));
        spec.rollback_config = Some(config(0));
    });
    harness.settle();
    harness
}

fn nodes(harness: &Harness) -> Vec<String> {
    harness
        .spread("web")
        .into_iter()
        .map(|(node, tasks)| {
            assert_eq!(tasks, 1, "tasks on {node}");
            node
        })
        .collect()
}

fn images(harness: &Harness, wanted: &str) -> Vec<String> {
    let tasks = harness.running("web").into_iter();
    let mut nodes: Vec<String> = tasks
        .filter(|task| image_of(task) == wanted)
        .map(|task| task.node_id.unwrap().to_string())
        .collect();
    nodes.sort();
    nodes
}

#[test]
fn every_node_has_one_and_so_has_one_that_joins() {
    let mut harness = harness();
    assert_eq!(nodes(&harness), ["n1", "n2", "n3"]);
    harness.put(node("n4"));
    harness.settle();
    assert_eq!(nodes(&harness), ["n1", "n2", "n3", "n4"]);
    let task = &harness.running("web")[0];
    let name = format!("web.{}.{}", task.node_id.as_ref().unwrap(), task.id);
    assert_eq!((task.slot, task.name()), (0, name));
}

#[test]
fn the_scheduler_confirms_and_explains_without_a_wrapper() {
    let mut harness = Harness::new(&["n1"]);
    harness.node("n1", |node| node.status.state = NodeState::Unknown);
    harness.create_global("web", |spec| image(spec, "v1"));
    harness.plan();
    let task = &harness.running("web")[0];
    assert_eq!(task.status.state, TaskState::Pending);
    assert_eq!(task.status.err, "1 node not available for new tasks");
    harness.node("n1", |node| node.status.state = NodeState::Ready);
    harness.plan();
    let task = &harness.running("web")[0];
    assert_eq!(task.status.state, TaskState::Assigned);
    let confirmed = "scheduler confirmed task can run on preassigned node";
    assert_eq!(task.status.message, confirmed);
    assert_eq!(task.status.err, "");
}

#[test]
fn drained_and_lost_nodes_have_none_and_get_it_back() {
    let mut harness = harness();
    harness.drain("n1");
    harness.down("n2");
    harness.settle();
    assert_eq!(nodes(&harness), ["n3"]);
    for id in ["n1", "n2"] {
        harness.put(node(id));
    }
    harness.settle();
    assert_eq!(nodes(&harness), ["n1", "n2", "n3"]);
    harness.remove_node("n2");
    harness.settle();
    assert_eq!(nodes(&harness), ["n1", "n3"]);
    let gone = |task: &&std::sync::Arc<crate::object::Task>| task.node_id.as_deref() == Some("n2");
    assert_eq!(harness.state.tasks().iter().filter(gone).count(), 0);
}

#[test]
fn a_paused_node_keeps_its_task_but_gets_no_other() {
    let mut harness = harness();
    harness.node("n1", |node| node.spec.availability = Availability::Pause);
    harness.settle();
    assert_eq!(nodes(&harness), ["n1", "n2", "n3"]);
    let task = harness.running("web")[0].clone();
    harness.fail(&task.id);
    harness.pass(MINUTE);
    assert_eq!(nodes(&harness), ["n2", "n3"]);
    harness.put(node("n1"));
    harness.settle();
    assert_eq!(nodes(&harness), ["n1", "n2", "n3"]);
}

#[test]
fn constraints_say_where_at_once() {
    let mut harness = harness();
    harness.node("n2", |node| {
        node.spec.labels.insert("ssd".into(), "yes".into());
    });
    harness.update("web", |spec| {
        let placement = spec.task_template.placement.get_or_insert_default();
        placement.constraints = vec!["node.labels.ssd==yes".into()];
    });
    let kept = harness.running("web")[1].id.clone();
    harness.settle();
    assert_eq!(nodes(&harness), ["n2"]);
    assert_eq!(harness.running("web")[0].id, kept);
    harness.node("n3", |node| {
        node.spec.labels.insert("ssd".into(), "yes".into());
    });
    harness.settle();
    assert_eq!(nodes(&harness), ["n2", "n3"]);
    harness.put(node("n2"));
    harness.settle();
    assert_eq!(nodes(&harness), ["n3"]);
}

#[test]
fn restarts_are_counted_by_node() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create_global("web", |spec| {
        spec.task_template.restart_policy = Some(RestartPolicy {
            condition: RestartCondition::OnFailure,
            max_attempts: Some(1),
            delay: Some(SECOND),
            ..RestartPolicy::default()
        });
    });
    harness.settle();
    for left in [2, 1] {
        let running = harness.running("web");
        assert_eq!(running.len(), 2);
        let task = running.iter().find(|t| t.node_id.as_deref() == Some("n1"));
        harness.fail(&task.unwrap().id.clone());
        harness.pass(MINUTE);
        assert_eq!(harness.running("web").len(), left);
    }
    // Nothing brings it back but an update.
    harness.node("n1", |node| node.spec.availability = Availability::Pause);
    harness.settle();
    harness.put(node("n1"));
    harness.pass(MINUTE);
    assert_eq!(nodes(&harness), ["n2"]);
    harness.update("web", |spec| image(spec, "v2"));
    harness.pass(MINUTE);
    assert_eq!(nodes(&harness), ["n1", "n2"]);
}

#[test]
fn history_is_kept_by_node() {
    let mut harness = harness();
    for version in 0..8 {
        harness.update("web", |spec| image(spec, &format!("w{version}")));
        harness.pass(MINUTE);
    }
    assert_eq!(harness.state.tasks_of_service("web").count(), 15);
}

#[test]
fn updates_go_node_by_node_and_back() {
    let mut harness = harness();
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle_until_running("v2", 1);
    // The next one goes as soon as the first is there.
    assert_eq!(images(&harness, "v1").len(), 1);
    assert_eq!(harness.progress("web").0, "updating");
    harness.pass(MINUTE);
    assert_eq!(images(&harness, "v2"), ["n1", "n2", "n3"]);
    assert_eq!(harness.progress("web").1, "update completed");
    harness.rollback("web");
    harness.pass(MINUTE);
    assert_eq!(images(&harness, "v1"), ["n1", "n2", "n3"]);
    assert_eq!(harness.progress("web").1, "rollback completed");
}

#[test]
fn a_failing_update_pauses() {
    let mut harness = harness();
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle_until_running("v2", 1);
    let task = harness.running("web");
    let bad = task.iter().find(|t| image_of(t) == "v2").unwrap();
    let bad = bad.id.clone();
    harness.fail(&bad);
    harness.pass(MINUTE);
    let text = format!("update paused due to failure or early termination of task {bad}");
    assert_eq!(harness.progress("web"), ("paused".into(), text));
    assert_eq!(images(&harness, "v1").len(), 1);
}

#[test]
fn an_update_that_missed_a_paused_node_comes_to_it_later() {
    let mut harness = harness();
    harness.node("n1", |node| node.spec.availability = Availability::Pause);
    harness.update("web", |spec| image(spec, "v2"));
    harness.pass(MINUTE);
    assert_eq!(harness.progress("web").0, "completed");
    assert_eq!(images(&harness, "v1"), ["n1"]);
    harness.put(node("n1"));
    harness.pass(MINUTE);
    assert_eq!(images(&harness, "v2"), ["n1", "n2", "n3"]);
    assert_eq!(harness.progress("web").0, "completed");
}

#[test]
fn tasks_of_a_removed_service_go() {
    let mut harness = harness();
    harness.remove_service("web");
    harness.settle();
    assert!(harness.state.tasks().is_empty());
}

#[test]
fn updates_of_one_moment_come_to_an_end() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create_global("g", |spec| image(spec, "v0"));
    harness.plan();
    for version in ["v1", "v0", "v1"] {
        harness.update("g", |spec| image(spec, version));
        harness.plan();
    }
    // Back to a version of the spec that tasks of this very moment have been made for.
    harness.rollback("g");
    harness.pass(MINUTE);
    let running = harness.running("g");
    assert_eq!(running.len(), 2);
    let images = running
        .iter()
        .map(|task| &task.spec.container_spec.as_ref().unwrap().image);
    assert!(images.into_iter().all(|image| image == "v0"));
    assert_eq!(harness.progress("g").0, "rollback_completed");
}
