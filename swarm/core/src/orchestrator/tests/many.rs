//! Services of many tasks: what happens to one task costs the same however many others there are, and
//! more than fits into one plan is planned as by a leader that starts anew.

use std::sync::Arc;

use skep_api::service::{ReplicatedJob, UpdateConfig, UpdateOrder};
use skep_api::task::{RestartPolicy, TaskState};

use crate::SECOND;
use crate::id::Id;
use crate::object::{Object, Service, Task};
use crate::orchestrator::slots::Place;
use crate::orchestrator::testing::{Harness, image};
use crate::orchestrator::{Made, create};
use crate::store::{Author, Change};

const NODES: usize = 20;

fn cluster() -> Harness {
    let names: Vec<String> = (10..10 + NODES).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Harness::new(&names)
}

/// A service whose tasks all run, spread over the nodes. Not held against a new leader.
fn running(tasks: u64) -> Harness {
    let mut harness = cluster();
    harness.held = false;
    harness.create("web", tasks, |spec| {
        image(spec, "v1");
        spec.task_template.restart_policy = Some(RestartPolicy {
            delay: Some(SECOND),
            ..RestartPolicy::default()
        });
    });
    let service: Arc<Service> = harness.state.services().get("web").unwrap().clone();
    let nodes: Vec<Id> = harness.state.nodes().iter().map(|n| n.id.clone()).collect();
    let task = |slot: u64| {
        let place = Place::Slot(slot);
        let made = create(
            &service,
            &place,
            None,
            Made::ToFill,
            harness.now,
            &mut harness.ids,
        );
        let Change::Create(Object::Task(mut task)) = made else {
            panic!("{made:?} makes no task");
        };
        let new = Arc::make_mut(&mut task);
        new.node_id = Some(nodes[slot as usize % NODES].clone());
        new.status.state = TaskState::Running;
        new.running_since = Some(harness.now);
        Change::Create(Object::Task(task))
    };
    let all = (1..=tasks).map(task).collect();
    harness.write(Author::Orchestrator, all);
    harness.plan();
    harness
}

/// Every node reports at once what becomes of the tasks that it has.
fn everyone_reports(harness: &mut Harness) {
    loop {
        let due: Vec<(Id, TaskState)> = harness
            .state
            .tasks()
            .iter()
            .filter_map(|task| Some((task.id.clone(), harness.next_report(task)?)))
            .collect();
        if due.is_empty() {
            return;
        }
        for (task, state) in due {
            harness.report(&task, state);
        }
        harness.plan();
    }
}

/// How many objects all parts of a leader look at while `what` happens to a service of so many
/// tasks, until there is nothing left to do.
fn reads(tasks: u64, prepare: &dyn Fn(&mut Harness), what: &dyn Fn(&mut Harness)) -> usize {
    let mut harness = running(tasks);
    prepare(&mut harness);
    harness.plan();
    harness.reads = 0;
    what(&mut harness);
    harness.plan();
    harness.reads
}

fn costs_the_same(prepare: &dyn Fn(&mut Harness), what: &dyn Fn(&mut Harness), most: usize) {
    let (few, many) = (reads(100, prepare, what), reads(10_000, prepare, what));
    assert_eq!(few, many, "in a service of 100 tasks, and of 10,000");
    assert!(
        (1..=most).contains(&few),
        "{few} objects are looked at, not up to {most}"
    );
}

#[test]
fn a_task_that_fails_costs_the_same_among_any_number_of_others() {
    let fail = |harness: &mut Harness, slot: u64| {
        let task = harness.wanted("web", slot);
        harness.fail(&task.id);
        harness.plan();
        harness.now = harness.now.plus(SECOND);
        harness.plan();
        let again = harness.wanted("web", slot);
        assert_ne!(again.id, task.id);
        harness.report(&again.id, TaskState::Running);
    };
    // The scheduler counts what is where once, when it first has something to place.
    costs_the_same(
        &|harness| fail(harness, 20),
        &|harness| fail(harness, 50),
        150,
    );
}

#[test]
fn history_goes_at_the_same_cost_from_among_any_number_of_others() {
    let fail = |harness: &mut Harness| {
        let task = harness.wanted("web", 50);
        harness.fail(&task.id);
        harness.plan();
        harness.now = harness.now.plus(SECOND);
        harness.plan();
    };
    let twice = |harness: &mut Harness| (0..7).for_each(|_| fail(harness));
    let once_more = |harness: &mut Harness| {
        let before = harness.state.tasks().len();
        fail(harness);
        assert_eq!(harness.state.tasks().len(), before, "the oldest one goes");
    };
    costs_the_same(&twice, &once_more, 200);
}

#[test]
fn a_step_of_an_update_costs_the_same_among_any_number_of_others() {
    let begin = |order: UpdateOrder| {
        move |harness: &mut Harness| {
            harness.update("web", |spec| {
                image(spec, "v2");
                spec.update_config = Some(UpdateConfig {
                    order: order.clone(),
                    ..UpdateConfig::in_force()
                });
            });
            // The first ones are done with when it is measured.
            harness.settle_until_running("v2", 3);
        }
    };
    let step = |harness: &mut Harness| harness.settle_until_running("v2", 4);
    costs_the_same(&begin(UpdateOrder::StopFirst), &step, 250);
    costs_the_same(&begin(UpdateOrder::StartFirst), &step, 250);
}

/// Each plan is held against that of a leader that starts anew, here also those that are cut.
#[test]
fn what_does_not_fit_into_one_plan_follows() {
    let mut harness = cluster();
    harness.create("web", 450, |spec| image(spec, "v1"));
    harness.plan();
    everyone_reports(&mut harness);
    assert_eq!(harness.running("web").len(), 450);

    for node in [
        "n10", "n11", "n12", "n13", "n14", "n15", "n16", "n17", "n18", "n19",
    ] {
        harness.drain(node);
    }
    harness.plan();
    everyone_reports(&mut harness);
    assert!(
        harness
            .spread("web")
            .iter()
            .all(|(node, _)| &**node >= "n20")
    );

    harness.update("web", |spec| {
        image(spec, "v2");
        spec.update_config = Some(UpdateConfig {
            parallelism: 0,
            ..UpdateConfig::in_force()
        });
    });
    harness.plan();
    everyone_reports(&mut harness);
    harness.pass(10 * SECOND);
    assert_eq!(harness.progress("web").0, "completed");
    assert_eq!(harness.running("web").len(), 450);

    harness.scale("web", 3);
    harness.plan();
    assert_eq!(harness.running("web").len(), 3);
    harness.scale("web", 500);
    harness.plan();
    everyone_reports(&mut harness);
    assert_eq!(harness.running("web").len(), 500);
    harness.remove_service("web");
    harness.plan();
    everyone_reports(&mut harness);
    assert!(harness.state.tasks().is_empty());
}

#[test]
fn a_job_that_does_not_fit_into_one_plan_follows() {
    let mut harness = cluster();
    harness.create_job("job", (450, 450), |spec| image(spec, "v1"));
    harness.plan();
    everyone_reports(&mut harness);
    let run = |harness: &Harness, iteration: u64| {
        let done = |task: &&Arc<Task>| {
            task.status.state == TaskState::Complete && task.job_iteration == Some(iteration)
        };
        harness.state.tasks().iter().filter(done).count()
    };
    assert_eq!(run(&harness, 0), 450);
    harness.update("job", |spec| {
        spec.mode.replicated_job = Some(ReplicatedJob {
            max_concurrent: Some(300),
            total_completions: Some(400),
        });
    });
    harness.plan();
    everyone_reports(&mut harness);
    assert_eq!(run(&harness, 1), 400);
}
