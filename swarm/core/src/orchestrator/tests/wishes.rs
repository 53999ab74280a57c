//! What labels ask for: restarts that back off, start order, tasks that move to nodes that join.

use skep_api::node::{Availability, NodeState};
use skep_api::service::{FailureAction, ServiceSpec, UpdateConfig};
use skep_api::task::{RestartPolicy, TaskState};

use crate::orchestrator::testing::{Harness, node};
use crate::{MINUTE, SECOND};

fn label(spec: &mut ServiceSpec, label: &str, value: &str) {
    spec.labels.insert(label.to_owned(), value.to_owned());
}

/// How long the slot's next task waits after the one that runs now has failed.
fn pause_after_failure(harness: &mut Harness) -> i64 {
    let old = harness.wanted("web", 1);
    let failed_at = harness.now;
    harness.fail(&old.id);
    harness.settle();
    let gate = harness.wanted("web", 1).start_gate.unwrap();
    let pause = gate.not_before.since(failed_at);
    harness.pass(pause);
    assert_eq!(harness.wanted("web", 1).status.state, TaskState::Running);
    pause / SECOND
}

#[test]
fn a_crash_loop_backs_off_and_a_steady_task_ends_it() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 1, |spec| {
        label(spec, "skep.restart.max-delay", "30s");
        spec.task_template.restart_policy = Some(RestartPolicy {
            delay: Some(5 * SECOND),
            ..RestartPolicy::default()
        });
    });
    harness.settle();
    let pauses: Vec<i64> = (0..9).map(|_| pause_after_failure(&mut harness)).collect();
    assert_eq!(pauses, [5, 10, 20, 30, 30, 30, 30, 30, 30]);
    harness.pass(10 * MINUTE);
    let pauses: Vec<i64> = (0..3).map(|_| pause_after_failure(&mut harness)).collect();
    assert_eq!(
        pauses,
        [5, 5, 10],
        "the one that ended the loop does not count"
    );
    harness.update("web", |spec| spec.task_template.force_update = 1);
    harness.pass(MINUTE);
    assert_eq!(
        pause_after_failure(&mut harness),
        5,
        "a new version starts anew"
    );
}

#[test]
fn without_the_label_the_delay_stays() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 1, |_| ());
    harness.settle();
    let pauses: Vec<i64> = (0..4).map(|_| pause_after_failure(&mut harness)).collect();
    assert_eq!(pauses, [5, 5, 5, 5]);
}

#[test]
fn a_service_starts_once_what_it_waits_for_is_there() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 2, |spec| {
        label(spec, "skep.depends-on", "db:healthy");
        label(spec, "com.docker.stack.namespace", "shop");
    });
    harness.pass(5 * MINUTE);
    let waits = |harness: &Harness| {
        let tasks = harness.tasks("web", TaskState::Ready);
        tasks
            .iter()
            .all(|task| task.status.state == TaskState::Ready)
            && tasks.len() == 2
    };
    assert!(
        waits(&harness),
        "there is no db, and the tasks are prepared"
    );
    harness.create("shop_db", 1, |_| ());
    harness.plan();
    assert!(waits(&harness), "it does not run yet");
    harness.settle();
    assert_eq!(harness.running("web").len(), 2);
    // One that runs is left alone when what it waited for goes; the next one waits again.
    harness.scale("shop_db", 0);
    harness.pass(MINUTE);
    assert_eq!(harness.running("web").len(), 2);
    let old = harness.wanted("web", 1);
    harness.fail(&old.id);
    harness.pass(MINUTE);
    assert_eq!(harness.running("web").len(), 1);
    harness.scale("shop_db", 1);
    harness.settle();
    assert_eq!(harness.running("web").len(), 2);
}

fn spreads(spec: &mut ServiceSpec) {
    label(spec, "skep.rebalance", "true");
    spec.update_config = Some(UpdateConfig {
        parallelism: 1,
        monitor: SECOND,
        ..UpdateConfig::in_force()
    });
}

fn counts(harness: &Harness, service: &str) -> Vec<usize> {
    harness
        .spread(service)
        .into_iter()
        .map(|(_, n)| n)
        .collect()
}

#[test]
fn tasks_move_to_a_node_that_joins_at_the_pace_of_updates() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 6, spreads);
    harness.create("still", 6, |_| ());
    harness.pass(MINUTE);
    assert_eq!(counts(&harness, "web"), [3, 3]);
    let mut joined = node("n3");
    joined.status.since = harness.now;
    harness.put(joined);
    harness.pass(4 * SECOND);
    assert_eq!(counts(&harness, "web"), [3, 3], "it may go again");
    harness.pass(SECOND);
    assert_eq!(harness.progress("web").0, "updating");
    let moving = harness.running("web").iter().filter(|t| t.moving).count();
    assert!(moving <= 2, "one at a time, and two in all");
    harness.pass(MINUTE);
    assert_eq!(counts(&harness, "web"), [2, 2, 2]);
    assert_eq!(harness.progress("web").0, "completed");
    assert_eq!(counts(&harness, "still"), [3, 3], "it did not ask");
    let before = harness.state.revision();
    harness.pass(10 * MINUTE);
    assert_eq!(harness.state.revision(), before, "once is enough");
}

#[test]
fn nothing_moves_without_need_or_where_nothing_fits() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 2, spreads);
    harness.create("tied", 4, |spec| {
        spreads(spec);
        spec.task_template.placement = Some(skep_api::task::Placement {
            constraints: vec!["node.id!=n3".to_owned()],
            ..Default::default()
        });
    });
    harness.pass(MINUTE);
    let before: Vec<_> = harness.running("web").into_iter().map(|t| t.id).collect();
    let mut joined = node("n3");
    joined.status.since = harness.now;
    joined.spec.availability = Availability::Pause;
    harness.put(joined);
    harness.pass(MINUTE);
    let now = |harness: &Harness, service: &str| -> Vec<_> {
        harness.running(service).into_iter().map(|t| t.id).collect()
    };
    assert_eq!(now(&harness, "web"), before, "it is paused");
    let tied = now(&harness, "tied");
    let at = harness.now;
    harness.node("n3", |node| {
        node.spec.availability = Availability::Active;
        node.active_since = at;
    });
    harness.pass(MINUTE);
    assert_eq!(now(&harness, "tied"), tied, "its constraints keep it away");
    assert_eq!(
        now(&harness, "web"),
        before,
        "1, 1 and 0 is as good as it gets"
    );
    harness.node("n3", |node| node.status.state = NodeState::Down);
    harness.pass(MINUTE);
}

#[test]
fn a_move_that_fails_is_paused_and_never_rolls_back() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 2, spreads);
    harness.settle();
    harness.update("web", |spec| {
        spec.task_template.force_update = 1;
        if let Some(config) = &mut spec.update_config {
            config.failure_action = FailureAction::Rollback;
        }
    });
    harness.pass(MINUTE);
    let mut joined = node("n2");
    joined.status.since = harness.now;
    harness.put(joined);
    harness.pass(5 * SECOND);
    let new = harness
        .running("web")
        .into_iter()
        .find(|task| task.of_update && !task.moving && task.node_id.as_deref() == Some("n2"));
    harness.fail(&new.unwrap().id);
    harness.pass(SECOND);
    assert_eq!(harness.progress("web").0, "paused");
    let service = harness.state.service_named("web").unwrap();
    assert_eq!(
        service.spec.task_template.force_update, 1,
        "the spec is the same"
    );
}
