//! Jobs: how many run, which end, when they run again.

use std::collections::BTreeSet;

use skep_api::node::Availability;
use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use crate::MINUTE;
use crate::SECOND;
use crate::object::Task;
use crate::orchestrator::testing::{Harness, image, node};
use crate::task::is_live;

fn live(harness: &Harness) -> Vec<Task> {
    let mut live: Vec<Task> = harness
        .state
        .tasks_of_service("job")
        .filter(|task| is_live(task))
        .map(|task| Task::clone(task))
        .collect();
    live.sort_by_key(|task| (task.slot, task.node_id.clone()));
    live
}

/// Slots or nodes that were completed in a run.
fn completed(harness: &Harness, run: u64) -> BTreeSet<String> {
    let tasks = harness.state.tasks_of_service("job");
    tasks
        .filter(|t| t.status.state == TaskState::Complete && t.job_iteration == Some(run))
        .map(|t| {
            if t.slot > 0 {
                t.slot.to_string()
            } else {
                t.place()
            }
        })
        .collect()
}

fn run_all(harness: &mut Harness) {
    let running = |harness: &Harness| {
        let mut live = live(harness).into_iter();
        live.find(|task| task.status.state < TaskState::Running && task.node_id.is_some())
    };
    harness.plan();
    while let Some(task) = running(harness) {
        harness.report(&task.id, TaskState::Running);
        harness.plan();
    }
}

#[test]
fn so_many_at_a_time_until_all_have_ended() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create_job("job", (5, 2), |spec| image(spec, "v1"));
    for ended in 0..5 {
        run_all(&mut harness);
        let live = live(&harness);
        assert_eq!(live.len(), 2.min(5 - ended), "after {ended}");
        assert!(live.iter().all(|t| t.desired_state == TaskState::Complete));
        assert!(live.iter().all(|t| t.job_iteration == Some(0)));
        assert_eq!(live[0].slot, ended as u64);
        harness.report(&live[0].id, TaskState::Complete);
    }
    harness.pass(MINUTE);
    assert!(live(&harness).is_empty());
    assert_eq!(completed(&harness, 0).len(), 5);
    assert_eq!(harness.state.tasks().len(), 5);
}

#[test]
fn what_fails_is_tried_again_in_its_slot() {
    let mut harness = Harness::new(&["n1"]);
    harness.create_job("job", (1, 1), |spec| {
        spec.task_template.restart_policy = Some(RestartPolicy {
            delay: Some(2 * SECOND),
            max_attempts: Some(1),
            ..RestartPolicy::default()
        });
    });
    run_all(&mut harness);
    harness.fail(&live(&harness)[0].id.clone());
    harness.plan();
    let again = live(&harness)[0].clone();
    assert_eq!((again.slot, again.desired_state), (0, TaskState::Ready));
    harness.now = harness.now.plus(2 * SECOND);
    run_all(&mut harness);
    assert_eq!(live(&harness)[0].desired_state, TaskState::Complete);
    harness.fail(&again.id);
    harness.pass(MINUTE);
    // No attempts are left, and none are made behind the policy's back.
    assert_eq!(harness.state.tasks().len(), 2);
    assert!(live(&harness).is_empty());
}

#[test]
fn a_policy_that_never_restarts_holds_up_no_other_slot() {
    let mut harness = Harness::new(&["n1"]);
    harness.create_job("job", (3, 1), |spec| {
        spec.task_template.restart_policy = Some(RestartPolicy {
            condition: RestartCondition::None,
            ..RestartPolicy::default()
        });
    });
    run_all(&mut harness);
    harness.fail(&live(&harness)[0].id.clone());
    harness.pass(MINUTE);
    assert_eq!(completed(&harness, 0).len(), 2);
}

#[test]
fn a_change_of_the_spec_runs_it_again() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create_job("job", (3, 3), |spec| image(spec, "v1"));
    run_all(&mut harness);
    harness.report(&live(&harness)[0].id.clone(), TaskState::Complete);
    harness.update("job", |spec| spec.task_template.force_update += 1);
    harness.plan();
    let removed = harness.tasks("job", TaskState::Remove);
    assert_eq!(removed.len(), 2);
    // The new ones wait for the old ones, slot by slot.
    assert_eq!(harness.tasks("job", TaskState::Ready).len(), 2);
    assert_eq!(live(&harness).len(), 3);
    harness.pass(MINUTE);
    assert_eq!(completed(&harness, 1).len(), 3);
    assert_eq!(completed(&harness, 0).len(), 1);
    // Earlier runs are history, which has its limit.
    for _ in 0..10 {
        harness.update("job", |spec| spec.task_template.force_update += 1);
        harness.pass(MINUTE);
    }
    assert_eq!(completed(&harness, 11).len(), 3);
    assert_eq!(harness.state.tasks().len(), 15);
}

#[test]
fn a_lost_node_does_not_stop_it() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create_job("job", (2, 2), |spec| image(spec, "v1"));
    run_all(&mut harness);
    harness.down("n1");
    harness.plan();
    assert_eq!(harness.spread("job"), []);
    assert!(
        live(&harness)
            .iter()
            .all(|task| task.node_id.as_deref() == Some("n2"))
    );
    // The one that was thought lost comes back and has ended: once is enough.
    harness.put(node("n1"));
    let lost = harness.tasks("job", TaskState::Shutdown)[0].clone();
    harness.report(&lost.id, TaskState::Complete);
    harness.plan();
    assert_eq!(live(&harness).len(), 1);
}

#[test]
fn a_job_of_all_nodes_runs_once_on_each_also_later() {
    let mut harness = Harness::new(&["n1", "n2", "n3"]);
    harness.node("n2", |node| node.spec.availability = Availability::Pause);
    harness.drain("n3");
    harness.create_global_job("job", |spec| image(spec, "v1"));
    harness.pass(MINUTE);
    assert_eq!(
        completed(&harness, 0).into_iter().collect::<Vec<_>>(),
        ["n1"]
    );
    harness.put(node("n2"));
    harness.put(node("n4"));
    harness.pass(MINUTE);
    assert_eq!(completed(&harness, 0).len(), 3);
    harness.drain("n1");
    harness.put(node("n1"));
    harness.pass(MINUTE);
    assert_eq!(harness.state.tasks().len(), 3);
    harness.update("job", |spec| spec.task_template.force_update += 1);
    harness.pass(MINUTE);
    assert_eq!(completed(&harness, 1).len(), 3);
    assert_eq!(harness.state.tasks().len(), 3);
}

#[test]
fn tasks_of_a_removed_job_go() {
    let mut harness = Harness::new(&["n1"]);
    harness.create_job("job", (3, 1), |spec| image(spec, "v1"));
    harness.some_reports(3);
    harness.remove_service("job");
    harness.settle();
    assert!(harness.state.tasks().is_empty());
}

#[test]
fn a_job_with_a_clock_runs_when_its_time_has_come() {
    let mut harness = Harness::new(&["n1"]);
    harness.create_job("job", (1, 1), |spec| {
        image(spec, "v1");
        let label = ("skep.cron".to_owned(), "*/5 * * * *".to_owned());
        spec.labels.extend([label]);
    });
    // It is 00:16:40.
    harness.pass(3 * MINUTE);
    assert!(live(&harness).is_empty(), "not when it is created");
    harness.pass(20 * SECOND);
    assert_eq!(completed(&harness, 1).len(), 1, "00:20:00");
    harness.pass(4 * MINUTE);
    let run = |harness: &Harness| {
        let job = &harness.state.service_named("job").unwrap().job;
        job.as_ref().unwrap().job_iteration.index
    };
    assert_eq!(run(&harness), 1, "00:24:00");
    // From here on the work takes longer than the time between two runs.
    harness.now = harness.now.plus(MINUTE);
    run_all(&mut harness);
    assert_eq!(run(&harness), 2, "00:25:00");
    harness.now = harness.now.plus(6 * MINUTE);
    harness.plan();
    assert_eq!(run(&harness), 2, "one run at a time");
    let busy = live(&harness);
    harness.report(&busy[0].id, TaskState::Complete);
    harness.plan();
    assert_eq!(run(&harness), 3, "it was due at 00:30:00");
}
