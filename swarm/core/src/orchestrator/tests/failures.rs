//! Updates whose tasks fail: pausing, turning back, going on; and what counts as a failure.

use skep_api::service::{FailureAction, UpdateConfig};
use skep_api::task::TaskState;

use super::updates::{config, count, fresh, harness, image_of};
use crate::orchestrator::testing::image;
use crate::{MINUTE, SECOND};

#[test]
fn a_failure_pauses_the_update() {
    let mut harness = harness(
        3,
        UpdateConfig {
            delay: SECOND,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle_until_running("v2", 1);
    let failed = fresh(&harness, "v2").remove(0);
    harness.fail(&failed.id);
    harness.pass(MINUTE);
    let text = format!(
        "update paused due to failure or early termination of task {}",
        failed.id
    );
    assert_eq!(harness.progress("web"), ("paused".into(), text));
    assert_eq!(count(&harness, "v1"), 2, "the others are as they were");
    harness.update("web", |spec| image(spec, "v3"));
    harness.pass(MINUTE);
    assert_eq!(count(&harness, "v3"), 3, "the next update goes through");
    assert_eq!(harness.progress("web").0, "completed");
}

#[test]
fn a_failure_turns_back() {
    let action = FailureAction::Rollback;
    let mut harness = harness(
        3,
        UpdateConfig {
            failure_action: action,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle_until_running("v2", 1);
    let failed = fresh(&harness, "v2").remove(0);
    harness.fail(&failed.id);
    harness.plan();
    let because = format!("due to failure or early termination of task {}", failed.id);
    assert_eq!(
        harness.progress("web"),
        (
            "rollback_started".into(),
            format!("update rolled back {because}")
        )
    );
    assert_eq!(
        harness.state.services().get("web").unwrap().previous_spec,
        None
    );
    harness.pass(MINUTE);
    assert_eq!(count(&harness, "v1"), 3);
    assert_eq!(
        harness.progress("web"),
        ("rollback_completed".into(), "rollback completed".into())
    );
}

#[test]
fn a_rollback_that_fails_is_paused_and_not_rolled_back() {
    for (action, words) in [
        (FailureAction::Rollback, "rollback"),
        (FailureAction::Pause, "update"),
    ] {
        let mut harness = harness(
            3,
            UpdateConfig {
                failure_action: action,
                ..config(1)
            },
        );
        harness.update("web", |spec| image(spec, "v2"));
        harness.pass(MINUTE);
        harness.rollback("web");
        harness.settle_until_running("v1", 1);
        assert_eq!(
            harness.progress("web"),
            (
                "rollback_started".into(),
                "manually requested rollback".into()
            )
        );
        let failed = fresh(&harness, "v1").remove(0);
        harness.fail(&failed.id);
        harness.pass(MINUTE);
        let text = format!(
            "{words} paused due to failure or early termination of task {}",
            failed.id
        );
        assert_eq!(harness.progress("web"), ("rollback_paused".into(), text));
    }
}

#[test]
fn failures_up_to_the_ratio_and_late_ones_are_endured() {
    let mut harness = harness(
        4,
        UpdateConfig {
            max_failure_ratio: 0.25,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle_until_running("v2", 1);
    harness.fail(&fresh(&harness, "v2").remove(0).id.clone());
    harness.pass(MINUTE);
    assert_eq!(harness.progress("web").0, "completed", "one of four");

    let delay = 20 * SECOND;
    let mut harness = self::harness(
        2,
        UpdateConfig {
            delay,
            monitor: 5 * SECOND,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle();
    harness.pass(SECOND);
    let monitor = delay + SECOND;
    harness.pass(monitor);
    let first = fresh(&harness, "v2").remove(0);
    assert!(harness.now.since(first.running_since.unwrap()) > monitor);
    harness.fail(&first.id);
    harness.pass(2 * MINUTE);
    assert_eq!(
        harness.progress("web").0,
        "completed",
        "a late failure is not the update's"
    );
}

#[test]
fn the_same_slot_failing_again_counts_once() {
    let mut harness = harness(
        4,
        UpdateConfig {
            max_failure_ratio: 0.25,
            ..config(4)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    harness.settle();
    for _ in 0..3 {
        let task = harness.wanted("web", 1);
        harness.fail(&task.id);
        harness.pass(SECOND);
    }
    assert_eq!(harness.progress("web").0, "updating", "one of four slots");
    let task = harness.wanted("web", 2);
    harness.fail(&task.id);
    harness.plan();
    assert_eq!(harness.progress("web").0, "paused", "two of four");
}

#[test]
fn continue_goes_through_all_slots_whatever_fails() {
    let action = FailureAction::Continue;
    let mut harness = harness(
        3,
        UpdateConfig {
            failure_action: action,
            ..config(1)
        },
    );
    harness.update("web", |spec| image(spec, "v2"));
    for _ in 0..400 {
        harness.plan();
        let bad = harness.state.tasks_of_service("web").find(|task| {
            task.desired_state == TaskState::Running
                && image_of(task) == "v2"
                && task.status.state == TaskState::Assigned
        });
        match bad.map(|task| task.id.clone()) {
            Some(bad) => harness.report(&bad, TaskState::Rejected),
            None => {
                harness.stop_unwanted();
                harness.now = harness.now.plus(SECOND);
            }
        }
    }
    assert_eq!(count(&harness, "v1"), 0);
    assert_eq!(harness.progress("web").0, "completed");
}
