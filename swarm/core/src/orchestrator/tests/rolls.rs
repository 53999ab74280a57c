//! Secrets whose data changes in place: the services that use them are updated, and keep their specs.

use skep_api::service::{FailureAction, UpdateConfig, UpdateOrder};
use skep_api::task::TaskState;

use super::updates::{config, count, harness as plain, image_of};
use crate::MINUTE;
use crate::object::{Object, Service};
use crate::orchestrator::declaring::uses;
use crate::orchestrator::testing::{Harness, image};

fn harness(replicas: u64, config: UpdateConfig) -> Harness {
    let mut harness = plain(0, config);
    harness.create_secret("key");
    harness.update("web", |spec| uses(spec, "key"));
    harness.scale("web", replicas);
    harness.pass(MINUTE);
    harness
}

fn web(harness: &Harness) -> &Service {
    harness.state.services().get("web").unwrap()
}

/// How many tasks that are meant to run have this roll.
fn rolled(harness: &Harness, roll: u64) -> usize {
    let tasks = harness.running("web");
    tasks.iter().filter(|task| task.roll == roll).count()
}

#[test]
fn the_tasks_are_replaced_as_by_an_update_and_the_spec_stays() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut harness = harness(
            3,
            UpdateConfig {
                order,
                delay: MINUTE,
                ..config(1)
            },
        );
        let before = web(&harness).clone();
        harness.change_secret("key");
        harness.settle();
        assert_eq!(harness.progress("web").0, "updating");
        assert_eq!((rolled(&harness, 0), rolled(&harness, 1)), (2, 1));
        harness.pass(10 * MINUTE);
        assert_eq!((rolled(&harness, 0), rolled(&harness, 1)), (0, 3));
        let after = web(&harness);
        assert_eq!(
            harness.progress("web"),
            ("completed".into(), "update completed".into())
        );
        assert_eq!(
            (&after.spec, after.spec_version, &after.previous_spec),
            (&before.spec, before.spec_version, &before.previous_spec)
        );
        let revision = harness.state.revision();
        harness.pass(10 * MINUTE);
        assert_eq!(harness.state.revision(), revision, "once is enough");
    }
}

#[test]
fn what_does_not_use_it_and_what_runs_to_an_end_is_left_alone() {
    let mut harness = harness(1, config(1));
    harness.create("other", 2, |_| ());
    harness.create_global("all", |spec| uses(spec, "key"));
    harness.create_job("job", (2, 1), |spec| uses(spec, "key"));
    harness.pass(MINUTE);
    let tasks = |harness: &Harness, service: &str| {
        let tasks = harness.state.tasks_of_service(service);
        tasks.map(|task| task.id.clone()).collect::<Vec<_>>()
    };
    let (other, job) = (tasks(&harness, "other"), tasks(&harness, "job"));
    harness.change_secret("key");
    harness.pass(MINUTE);
    assert_eq!(tasks(&harness, "other"), other);
    assert_eq!(tasks(&harness, "job"), job, "it has run");
    let all = harness.running("all");
    assert!(all.len() == 3 && all.iter().all(|task| task.roll == 1));
    assert_eq!(harness.progress("all").0, "completed");
}

#[test]
fn newer_data_overtakes_a_roll() {
    let mut harness = harness(
        3,
        UpdateConfig {
            delay: MINUTE,
            ..config(1)
        },
    );
    harness.change_secret("key");
    harness.settle();
    harness.change_secret("key");
    harness.pass(10 * MINUTE);
    assert_eq!(rolled(&harness, 2), 3);
    assert_eq!(harness.progress("web").0, "completed");
    // An update of nothing, such as a second deploy of a stack, does not disturb it.
    harness.change_secret("key");
    harness.update("web", |_| ());
    harness.pass(10 * MINUTE);
    assert_eq!(rolled(&harness, 3), 3);
    assert_eq!(harness.progress("web").0, "completed");
}

/// Lets the first new task fail.
fn fail_new(harness: &mut Harness, roll: u64) {
    harness.settle();
    let new = harness.running("web").into_iter().find(|t| t.roll == roll);
    harness.fail(&new.unwrap().id);
    harness.plan();
}

#[test]
fn data_that_breaks_a_service_pauses_and_better_data_goes_on() {
    let mut harness = harness(
        2,
        UpdateConfig {
            failure_action: FailureAction::Rollback,
            delay: MINUTE,
            ..config(1)
        },
    );
    let before = web(&harness).spec.clone();
    assert!(web(&harness).previous_spec.is_some());
    harness.change_secret("key");
    fail_new(&mut harness, 1);
    let (state, message) = harness.progress("web");
    assert_eq!(state, "paused");
    assert!(message.starts_with("update paused due to failure"));
    harness.pass(10 * MINUTE);
    assert_eq!(web(&harness).spec, before, "there is nothing to return to");
    assert_eq!(rolled(&harness, 0), 1, "the other task is not touched");
    harness.change_secret("key");
    harness.pass(10 * MINUTE);
    assert_eq!(rolled(&harness, 2), 2);
    assert_eq!(harness.progress("web").0, "completed");
}

#[test]
fn an_update_that_is_rolled_back_takes_the_new_data_along() {
    let mut harness = harness(
        3,
        UpdateConfig {
            failure_action: FailureAction::Rollback,
            delay: MINUTE,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle();
    assert_eq!((count(&harness, "v1"), count(&harness, "v2")), (2, 1));
    harness.change_secret("key");
    fail_new(&mut harness, 1);
    assert_eq!(harness.progress("web").0, "rollback_started");
    harness.pass(10 * MINUTE);
    assert_eq!(harness.progress("web").0, "rollback_completed");
    assert_eq!((count(&harness, "v1"), rolled(&harness, 1)), (3, 3));
    let revision = harness.state.revision();
    harness.pass(10 * MINUTE);
    assert_eq!(
        harness.state.revision(),
        revision,
        "it does not begin again"
    );
}

#[test]
fn a_spec_that_may_come_back_gets_new_data_too() {
    let mut harness = harness(2, config(1));
    harness.update("web", |spec| {
        image(spec, "v2");
        let container = spec.task_template.container_spec.as_mut().unwrap();
        container.secrets.clear();
    });
    harness.settle_until_running("v2", 1);
    let new = harness.running("web").into_iter();
    let new = new.filter(|task| image_of(task) == "v2").last().unwrap();
    harness.fail(&new.id);
    harness.plan();
    assert_eq!(harness.progress("web").0, "paused");
    harness.change_secret("key");
    harness.plan();
    assert_eq!(
        harness.progress("web").0,
        "paused",
        "what it has has not changed"
    );
    harness.rollback("web");
    harness.pass(10 * MINUTE);
    assert_eq!((count(&harness, "v1"), rolled(&harness, 1)), (2, 2));
    assert_eq!(harness.tasks("web", TaskState::Running).len(), 2);
}

#[test]
fn there_is_no_way_back_to_a_spec_whose_secret_is_gone() {
    let mut harness = harness(
        2,
        UpdateConfig {
            failure_action: FailureAction::Rollback,
            delay: MINUTE,
            ..config(1)
        },
    );
    harness.update("web", |spec| {
        image(spec, "v2");
        let container = spec.task_template.container_spec.as_mut().unwrap();
        container.secrets.clear();
    });
    harness.settle();
    let key = harness.state.secrets().get("key").unwrap().clone();
    harness.remove(&Object::Secret(key));
    let new = harness.running("web").into_iter();
    let new = new.filter(|task| image_of(task) == "v2").last().unwrap();
    harness.fail(&new.id);
    harness.plan();
    assert_eq!(harness.progress("web").0, "paused");
    assert_eq!(image_of(&harness.running("web")[0]), "v1");
    assert!(web(&harness).previous_spec.is_some());
}
