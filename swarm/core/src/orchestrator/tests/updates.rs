//! Rolling updates and rollbacks: order, parallelism, delays, failures, texts.

use skep_api::service::{UpdateConfig, UpdateOrder};
use skep_api::task::{RestartPolicy, TaskState};

use crate::object::Task;
use crate::orchestrator::testing::{Harness, image};
use crate::{MINUTE, SECOND};

pub(super) fn config(parallelism: u64) -> UpdateConfig {
    UpdateConfig {
        parallelism,
        ..UpdateConfig::in_force()
    }
}

pub(super) fn harness(replicas: u64, config: UpdateConfig) -> Harness {
    let mut harness = Harness::new(&["n1", "n2", "n3"]);
    harness.create("web", replicas, |spec| {
        image(spec, "v1");
        spec.update_config = Some(config.clone());
        spec.rollback_config = Some(config);
        spec.task_template.restart_policy = Some(RestartPolicy {
            delay: Some(SECOND),
            ..RestartPolicy::default()
        });
    });
    harness.settle();
    harness
}

pub(super) fn image_of(task: &Task) -> &str {
    &task.spec.container_spec.as_ref().unwrap().image
}

/// How many wanted tasks have an image.
pub(super) fn count(harness: &Harness, wanted: &str) -> usize {
    let tasks = harness.state.tasks_of_service("web");
    tasks
        .filter(|t| t.desired_state <= TaskState::Running && image_of(t) == wanted)
        .count()
}

pub(super) fn fresh(harness: &Harness, wanted: &str) -> Vec<Task> {
    harness
        .running("web")
        .into_iter()
        .filter(|task| image_of(task) == wanted)
        .collect()
}

#[test]
fn stop_first_one_at_a_time() {
    let mut harness = harness(3, config(1));
    harness.update("web", |spec| image(spec, "v2"));
    harness.plan();
    assert_eq!(
        harness.progress("web"),
        ("updating".into(), "update in progress".into())
    );
    let started = harness
        .state
        .services()
        .get("web")
        .unwrap()
        .update_status
        .clone()
        .unwrap();
    assert_eq!(started.started_at, Some(harness.now));
    // One slot: the new one is prepared, the old one has not stopped yet.
    assert_eq!((count(&harness, "v1"), count(&harness, "v2")), (2, 1));
    let old = harness.tasks("web", TaskState::Shutdown);
    assert_eq!(old.len(), 1);
    assert_eq!(
        harness.wanted("web", old[0].slot).desired_state,
        TaskState::Ready
    );
    harness.report(&old[0].id, TaskState::Shutdown);
    harness.plan();
    let new = harness.wanted("web", old[0].slot);
    assert_eq!(new.desired_state, TaskState::Running);
    assert_eq!(
        count(&harness, "v2"),
        1,
        "the next waits for this one to run"
    );
    harness.settle();
    assert_eq!((count(&harness, "v1"), count(&harness, "v2")), (0, 3));
    assert_eq!(harness.progress("web").0, "updating", "the last is watched");
    harness.pass(5 * SECOND);
    assert_eq!(
        harness.progress("web"),
        ("completed".into(), "update completed".into())
    );
    let status = harness
        .state
        .services()
        .get("web")
        .unwrap()
        .update_status
        .clone()
        .unwrap();
    assert_eq!(status.completed_at, Some(harness.now));
}

#[test]
fn parallelism() {
    for (parallelism, at_once) in [(1, 1), (2, 2), (4, 4), (9, 5), (0, 5)] {
        let mut harness = harness(5, config(parallelism));
        harness.update("web", |spec| image(spec, "v2"));
        harness.plan();
        assert_eq!(count(&harness, "v2"), at_once, "{parallelism}");
        harness.pass(MINUTE);
        assert_eq!(count(&harness, "v2"), 5);
        assert_eq!(harness.progress("web").0, "completed");
    }
}

#[test]
fn the_delay_passes_between_slots() {
    let delay = 10 * SECOND;
    let mut harness = harness(3, UpdateConfig { delay, ..config(1) });
    harness.update("web", |spec| image(spec, "v2"));
    for done in 1..=3 {
        harness.settle();
        assert_eq!(count(&harness, "v2"), done);
        harness.pass(delay - 1);
        assert_eq!(count(&harness, "v2"), done);
        harness.pass(1);
    }
    assert_eq!(
        harness.progress("web").0,
        "updating",
        "watched for longer than the delay"
    );
    harness.pass(MINUTE);
    assert_eq!(harness.progress("web").0, "completed");
}

#[test]
fn start_first_keeps_the_old_one_until_the_new_one_runs() {
    let mut harness = harness(
        2,
        UpdateConfig {
            order: UpdateOrder::StartFirst,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.plan();
    assert_eq!((count(&harness, "v1"), count(&harness, "v2")), (2, 1));
    let new = fresh(&harness, "v2");
    harness.report(&new[0].id, TaskState::Running);
    harness.plan();
    assert_eq!(harness.tasks("web", TaskState::Shutdown).len(), 1);
    harness.pass(MINUTE);
    assert_eq!((count(&harness, "v1"), count(&harness, "v2")), (0, 2));
    assert_eq!(harness.progress("web").0, "completed");
}

#[test]
fn what_restarts_tasks_and_what_does_not() {
    let edit = |what: &'static str| {
        move |spec: &mut skep_api::service::ServiceSpec| match what {
            "label" => drop(spec.labels.insert("a".into(), "b".into())),
            "update config" => spec.update_config = Some(config(7)),
            "placement that fits" => {
                let placement = spec.task_template.placement.get_or_insert_default();
                placement.constraints = vec!["node.id!=n9".into()];
            }
            "placement that does not fit" => {
                let placement = spec.task_template.placement.get_or_insert_default();
                placement.constraints = vec!["node.id==n1".into()];
            }
            "force" => spec.task_template.force_update += 1,
            other => image(spec, other),
        }
    };
    for (what, replaced) in [
        ("label", 0),
        ("update config", 0),
        ("placement that fits", 0),
        ("placement that does not fit", 2),
        ("force", 3),
        ("v2", 3),
    ] {
        let mut harness = harness(3, config(1));
        let before: Vec<_> = harness
            .running("web")
            .iter()
            .map(|t| t.id.clone())
            .collect();
        harness.update("web", edit(what));
        harness.pass(MINUTE);
        let after = harness.running("web");
        let new = after
            .iter()
            .filter(|task| !before.contains(&task.id))
            .count();
        assert_eq!(new, replaced, "{what}");
        let expected = if replaced == 0 { "" } else { "completed" };
        assert_eq!(harness.progress("web").0, expected, "{what}");
    }
}

#[test]
fn a_new_update_takes_over() {
    let mut harness = harness(
        4,
        UpdateConfig {
            delay: MINUTE,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle();
    assert_eq!((count(&harness, "v1"), count(&harness, "v2")), (3, 1));
    harness.update("web", |spec| {
        image(spec, "v3");
        spec.update_config = Some(config(0));
    });
    harness.pass(MINUTE);
    assert_eq!(count(&harness, "v3"), 4);
    assert_eq!(harness.progress("web").0, "completed");
    harness.rollback("web");
    harness.pass(10 * MINUTE);
    assert_eq!(count(&harness, "v2"), 4, "the spec before the last");
    assert_eq!(harness.progress("web").0, "rollback_completed");
    harness.rollback("web");
    harness.pass(10 * MINUTE);
    assert_eq!(count(&harness, "v3"), 4, "rolling back twice leads back");
}

#[test]
fn an_update_whose_tasks_find_no_node_goes_on_updating() {
    let mut harness = harness(2, config(1));
    harness.update("web", |spec| {
        let placement = spec.task_template.placement.get_or_insert_default();
        placement.constraints = vec!["node.id==nowhere".into()];
        image(spec, "v2");
    });
    harness.pass(10 * MINUTE);
    assert_eq!(harness.progress("web").0, "updating");
    assert_eq!(count(&harness, "v1"), 1, "the other slot is not touched");
    harness.update("web", |spec| {
        spec.task_template.placement = None;
        image(spec, "v3");
    });
    harness.pass(MINUTE);
    assert_eq!(harness.progress("web").0, "completed");
    assert_eq!(count(&harness, "v3"), 2);
}

#[test]
fn slots_that_ended_for_good_are_updated_too() {
    let mut harness = harness(2, config(1));
    harness.update("web", |spec| {
        let condition = skep_api::task::RestartCondition::None;
        spec.task_template.restart_policy = Some(RestartPolicy {
            condition,
            ..RestartPolicy::default()
        });
    });
    harness.pass(MINUTE);
    for task in harness.running("web") {
        harness.fail(&task.id);
    }
    harness.pass(MINUTE);
    assert_eq!(harness.running("web").len(), 0);
    harness.update("web", |spec| image(spec, "v2"));
    harness.plan();
    assert_eq!(count(&harness, "v2"), 1, "one at a time, as the others");
    harness.pass(MINUTE);
    assert_eq!(count(&harness, "v2"), 2);
    assert_eq!(harness.progress("web").0, "completed");
}

#[test]
fn of_the_labels_only_those_that_change_the_container_restart() {
    let mut harness = harness(1, config(1));
    let before = harness.wanted("web", 1).id;
    harness.node("n1", |node| {
        node.spec
            .labels
            .insert("skep.allow-privileged".into(), "true".into());
    });
    harness.update("web", |spec| {
        drop(spec.labels.insert("a".into(), "b".into()))
    });
    harness.settle();
    assert_eq!(harness.wanted("web", 1).id, before);
    harness.update("web", |spec| {
        spec.labels.insert("skep.privileged".into(), "true".into());
    });
    harness.settle();
    let after = harness.wanted("web", 1);
    assert_ne!(after.id, before);
    assert_eq!(after.node_id.as_deref(), Some("n1"));
    // A node that takes the permission back does not keep the task.
    harness.node("n1", |node| node.spec.labels.clear());
    harness.settle();
    assert_eq!(harness.wanted("web", 1).node_id, None);
}

#[test]
fn other_ports_restart() {
    let mut harness = harness(1, config(1));
    let before = harness.wanted("web", 1).id;
    let endpoint = r#"{"Ports":[{"TargetPort":80,"PublishMode":"host"}]}"#;
    harness.update("web", |spec| {
        spec.endpoint_spec = Some(serde_json::from_str(endpoint).unwrap());
    });
    harness.settle();
    let after = harness.wanted("web", 1);
    assert_ne!(after.id, before);
    assert_eq!(after.endpoint.unwrap().ports.len(), 1);
}
