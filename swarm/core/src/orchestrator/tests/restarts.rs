//! When a task that ended is replaced, and when its replacement starts.

use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use crate::orchestrator::testing::Harness;
use crate::{MINUTE, SECOND};

fn service(policy: RestartPolicy) -> Harness {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 1, |spec| {
        spec.task_template.restart_policy = Some(policy)
    });
    harness.settle();
    harness
}

#[test]
fn conditions() {
    use RestartCondition::{Any, None, OnFailure, Unset};
    for (condition, end, again) in [
        (Unset, TaskState::Complete, true),
        (Any, TaskState::Complete, true),
        (Any, TaskState::Rejected, true),
        (OnFailure, TaskState::Complete, false),
        (OnFailure, TaskState::Failed, true),
        (OnFailure, TaskState::Rejected, true),
        (None, TaskState::Failed, false),
        (None, TaskState::Complete, false),
    ] {
        let mut harness = service(RestartPolicy {
            condition: condition.clone(),
            ..RestartPolicy::default()
        });
        let old = harness.wanted("web", 1);
        harness.report(&old.id, end);
        harness.pass(MINUTE);
        let running = harness.running("web").len();
        assert_eq!(running, usize::from(again), "{condition:?} after {end}");
        let old = harness.state.tasks().get(&old.id).unwrap();
        assert_eq!(
            old.desired_state,
            TaskState::Shutdown,
            "{condition:?} after {end}"
        );
        assert_eq!(old.status.state, end);
    }
}

#[test]
fn the_delay_is_five_seconds_unless_the_policy_says_otherwise() {
    for (delay, seconds) in [(None, 5), (Some(0), 0), (Some(20 * SECOND), 20)] {
        let mut harness = service(RestartPolicy {
            delay,
            ..RestartPolicy::default()
        });
        let old = harness.wanted("web", 1);
        harness.fail(&old.id);
        harness.settle();
        let new = harness.wanted("web", 1);
        assert_ne!(new.id, old.id, "the replacement is there at once");
        if seconds > 0 {
            assert_eq!(new.desired_state, TaskState::Ready);
            assert_eq!(new.status.state, TaskState::Ready, "prepared, not started");
            harness.pass(seconds * SECOND - 1);
            assert_eq!(harness.wanted("web", 1).desired_state, TaskState::Ready);
            harness.pass(1);
        }
        let new = harness.wanted("web", 1);
        assert_eq!(new.desired_state, TaskState::Running, "{delay:?}");
        assert_eq!(new.status.state, TaskState::Running);
        assert_eq!(new.start_gate, None);
    }
}

#[test]
fn a_replacement_that_fails_to_prepare_is_replaced_after_the_delay() {
    let mut harness = service(RestartPolicy::default());
    let old = harness.wanted("web", 1);
    harness.fail(&old.id);
    harness.plan();
    for _ in 0..3 {
        let new = harness.wanted("web", 1);
        harness.report(&new.id, TaskState::Rejected);
        harness.plan();
        assert_eq!(harness.wanted("web", 1).id, new.id, "no quick loop");
        harness.now = harness.now.plus(5 * SECOND);
        harness.plan();
        let newer = harness.wanted("web", 1);
        assert_ne!(newer.id, new.id);
        assert_eq!(newer.desired_state, TaskState::Ready);
        assert!(newer.start_gate.unwrap().not_before >= harness.now.plus(5 * SECOND));
    }
}

#[test]
fn attempts_are_counted_per_slot() {
    let policy = RestartPolicy {
        max_attempts: Some(2),
        delay: Some(SECOND),
        ..RestartPolicy::default()
    };
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 2, |spec| {
        spec.task_template.restart_policy = Some(policy.clone())
    });
    harness.settle();
    let mut started = 1;
    while let Some(task) = harness
        .running("web")
        .into_iter()
        .find(|task| task.slot == 1)
    {
        harness.fail(&task.id);
        harness.pass(10 * SECOND);
        started += usize::from(harness.running("web").iter().any(|task| task.slot == 1));
    }
    assert_eq!(started, 3, "the first and two more");
    harness.pass(10 * MINUTE);
    assert_eq!(harness.running("web").len(), 1, "the slot stays as it is");
    harness.fail(&harness.wanted("web", 2).id.clone());
    harness.pass(10 * SECOND);
    assert_eq!(
        harness.running("web").len(),
        1,
        "the other slot counts for itself"
    );
    harness.update("web", |spec| spec.task_template.force_update += 1);
    harness.pass(MINUTE);
    assert_eq!(harness.running("web").len(), 2, "an update begins anew");
}

#[test]
fn only_failures_within_the_window_count() {
    let policy = RestartPolicy {
        max_attempts: Some(1),
        window: Some(MINUTE),
        delay: Some(0),
        ..RestartPolicy::default()
    };
    let mut harness = service(policy);
    for _ in 0..4 {
        harness.fail(&harness.wanted("web", 1).id.clone());
        harness.pass(2 * MINUTE);
        assert_eq!(harness.running("web").len(), 1);
    }
    harness.fail(&harness.wanted("web", 1).id.clone());
    harness.pass(10 * SECOND);
    assert_eq!(harness.running("web").len(), 1);
    harness.fail(&harness.wanted("web", 1).id.clone());
    harness.pass(10 * MINUTE);
    assert_eq!(harness.running("web").len(), 0, "twice within a minute");
}

#[test]
fn a_new_leader_goes_on_waiting() {
    // The harness compares every plan with that of a new leader, so that it is enough to wait.
    let mut harness = service(RestartPolicy::default());
    harness.fail(&harness.wanted("web", 1).id.clone());
    harness.pass(3 * SECOND);
    assert_eq!(harness.wanted("web", 1).desired_state, TaskState::Ready);
    harness.pass(2 * SECOND);
    assert_eq!(harness.wanted("web", 1).desired_state, TaskState::Running);
}
