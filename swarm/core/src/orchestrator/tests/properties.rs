//! Properties that hold whatever happens in whatever order. Each plan in the harness is also held
//! against that of a leader that starts anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_api::node::{Availability, NodeState};
use skep_api::service::{FailureAction, UpdateConfig, UpdateOrder};
use skep_api::task::{RestartPolicy, TaskState};

use crate::object::{Service, Task};
use crate::orchestrator::declaring::uses;
use crate::orchestrator::iteration;
use crate::orchestrator::testing::{Harness, image, node};
use crate::task::is_live;
use crate::{MINUTE, SECOND};

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Two replicated, a global one and a job.
const SERVICES: [&str; 4] = ["a", "b", "g", "j"];

const TOTAL: u64 = 5;
const CONCURRENT: u64 = 2;

/// What may happen to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Scale(usize, u64),
    Image(usize, u8),
    Label(usize),
    Rollback(usize),
    Secret,
    Remove(usize),
    Availability(usize, Availability),
    Health(usize, NodeState),
    NodeLabel(usize, bool),
    Fail(prop::sample::Index),
    Complete(prop::sample::Index),
    Agents(u8),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let service = 0..SERVICES.len();
    let node = 0..NODES.len();
    let availability = prop::sample::select(vec![
        Availability::Active,
        Availability::Pause,
        Availability::Drain,
    ]);
    let health = prop::sample::select(vec![NodeState::Ready, NodeState::Down, NodeState::Unknown]);
    let step = prop_oneof![
        2 => (0usize..2, 0u64..7).prop_map(|(s, n)| Step::Scale(s, n)),
        3 => (service.clone(), 0u8..4).prop_map(|(s, n)| Step::Image(s, n)),
        1 => service.clone().prop_map(Step::Label),
        1 => service.clone().prop_map(Step::Rollback),
        1 => Just(Step::Secret),
        1 => service.prop_map(Step::Remove),
        2 => (node.clone(), availability).prop_map(|(n, a)| Step::Availability(n, a)),
        2 => (node.clone(), health).prop_map(|(n, h)| Step::Health(n, h)),
        1 => (node, any::<bool>()).prop_map(|(n, l)| Step::NodeLabel(n, l)),
        3 => any::<prop::sample::Index>().prop_map(Step::Fail),
        1 => any::<prop::sample::Index>().prop_map(Step::Complete),
        4 => (1u8..12).prop_map(Step::Agents),
        3 => (1i64..30).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..40)
}

fn create(harness: &mut Harness, name: &str) {
    let restart = Some(RestartPolicy {
        delay: Some(SECOND),
        ..RestartPolicy::default()
    });
    match name {
        "g" => {
            return harness.create_global(name, |spec| {
                image(spec, "v0");
                uses(spec, "key");
                spec.task_template.restart_policy = restart;
                let placement = spec.task_template.placement.get_or_insert_default();
                placement.constraints = vec!["node.labels.bad!=yes".into()];
            });
        }
        "j" => {
            return harness.create_job(name, (TOTAL, CONCURRENT), |spec| {
                image(spec, "v0");
                uses(spec, "key");
                spec.task_template.restart_policy = restart;
            });
        }
        _ => {}
    }
    harness.create(name, 3, |spec| {
        image(spec, "v0");
        uses(spec, "key");
        let placement = spec.task_template.placement.get_or_insert_default();
        placement.max_replicas = if name == "a" { 2 } else { 0 };
        if name == "b" {
            placement.constraints = vec!["node.labels.bad!=yes".into()];
        }
        spec.update_config = Some(UpdateConfig {
            failure_action: if name == "a" {
                FailureAction::Rollback
            } else {
                FailureAction::Pause
            },
            order: if name == "a" {
                UpdateOrder::StopFirst
            } else {
                UpdateOrder::StartFirst
            },
            delay: if name == "a" { 0 } else { 2 * SECOND },
            ..UpdateConfig::in_force()
        });
        spec.task_template.restart_policy = Some(RestartPolicy {
            delay: Some(3 * SECOND),
            ..RestartPolicy::default()
        });
    });
}

fn ends(harness: &mut Harness, which: &prop::sample::Index, state: TaskState) {
    let placed: Vec<_> = harness
        .state
        .tasks()
        .iter()
        .filter(|task| task.status.state >= TaskState::Assigned && !task.status.state.is_terminal())
        .map(|task| task.id.clone())
        .collect();
    if !placed.is_empty() {
        harness.report(which.get(&placed), state);
    }
}

fn apply(harness: &mut Harness, step: &Step) {
    let there =
        |harness: &Harness, index: usize| harness.state.services().get(SERVICES[index]).is_some();
    match step {
        Step::Scale(s, _) | Step::Image(s, _) | Step::Label(s) if !there(harness, *s) => {
            // Its name is free at once, its tasks may still be stopping; a new one has a new id.
        }
        Step::Scale(s, replicas) => harness.scale(SERVICES[*s], *replicas),
        Step::Image(s, n) => harness.update(SERVICES[*s], |spec| image(spec, &format!("v{n}"))),
        Step::Label(s) => harness.update(SERVICES[*s], |spec| {
            let count = spec.labels.len();
            spec.labels.insert(count.to_string(), String::new());
        }),
        Step::Rollback(s) => {
            let service = harness.state.services().get(SERVICES[*s]);
            if service.is_some_and(|service| service.previous_spec.is_some()) {
                harness.rollback(SERVICES[*s]);
            }
        }
        Step::Secret => harness.change_secret("key"),
        Step::Remove(s) if there(harness, *s) => harness.remove_service(SERVICES[*s]),
        Step::Remove(_) => {}
        Step::Availability(n, availability) => {
            harness.node(NODES[*n], |node| {
                node.spec.availability = availability.clone()
            });
        }
        Step::Health(n, health) => {
            harness.node(NODES[*n], |node| node.status.state = health.clone())
        }
        Step::NodeLabel(n, bad) => harness.node(NODES[*n], |node| {
            node.spec.labels.clear();
            if *bad {
                node.spec.labels.insert("bad".into(), "yes".into());
            }
        }),
        Step::Fail(which) => ends(harness, which, TaskState::Failed),
        Step::Complete(which) => ends(harness, which, TaskState::Complete),
        Step::Agents(reports) => harness.some_reports(*reports),
        Step::Pass(seconds) => harness.now = harness.now.plus(seconds * SECOND),
    }
}

fn replicas(service: &Service) -> u64 {
    let replicated = service.spec.mode.replicated.as_ref();
    replicated.and_then(|mode| mode.replicas).unwrap_or(1)
}

/// The node of a task that stands for its node.
fn global_node(task: &Task) -> Option<&str> {
    let global = task.slot == 0 && task.job_iteration.is_none();
    task.node_id.as_deref().filter(|_| global)
}

/// Never more tasks than replicas and slots, but for the second one of a start-first update;
/// never more than allowed on a node; none wanted on a node that is drained or down.
fn check(harness: &Harness) -> Result<(), TestCaseError> {
    for service in harness.state.services().iter() {
        let most = match &*service.id {
            "g" => NODES.len() as u64,
            "j" => CONCURRENT,
            _ => replicas(service),
        };
        let live: Vec<&Task> = harness
            .state
            .tasks_of_service(&service.id)
            .map(|task| &**task)
            .filter(|task| is_live(task))
            .collect();
        let mut slots: BTreeMap<(u64, Option<&str>), usize> = BTreeMap::new();
        let mut nodes: BTreeMap<&str, u64> = BTreeMap::new();
        for task in &live {
            *slots.entry((task.slot, global_node(task))).or_default() += 1;
            if let Some(node) = &task.node_id {
                *nodes.entry(node).or_default() += 1;
            }
        }
        let start_first = &*service.id == "b";
        prop_assert!(slots.len() as u64 <= most, "{slots:?} for {most} replicas");
        let most = if start_first { 2 } else { 1 };
        prop_assert!(slots.values().all(|tasks| *tasks <= most), "{slots:?}");
        let limit = if start_first { u64::MAX } else { 2 };
        let limit = if &*service.id == "g" { 1 } else { limit };
        prop_assert!(nodes.values().all(|tasks| *tasks <= limit), "{nodes:?}");
        for task in live.iter().filter(|task| task.node_id.is_some()) {
            let node = harness
                .state
                .nodes()
                .get(task.node_id.as_ref().unwrap())
                .unwrap();
            prop_assert!(node.spec.availability != Availability::Drain, "{task:?}");
            prop_assert!(node.status.state != NodeState::Down, "{task:?}");
        }
    }
    Ok(())
}

/// With all nodes well and time enough, everything runs as declared.
fn check_rest(harness: &Harness) -> Result<(), TestCaseError> {
    for service in harness.state.services().iter() {
        let replicas = match &*service.id {
            "g" => NODES.len() as u64,
            "j" => {
                let run = iteration(service);
                let tasks = harness.state.tasks_of_service("j");
                let done = tasks.filter(|task| {
                    task.status.state == TaskState::Complete && task.job_iteration == run
                });
                let slots: BTreeSet<u64> = done.map(|task| task.slot).collect();
                prop_assert_eq!(slots.len() as u64, TOTAL);
                0
            }
            _ => replicas(service),
        };
        let running = harness.running(&service.id);
        prop_assert_eq!(running.len() as u64, replicas, "{}", &service.id);
        prop_assert!(
            running
                .iter()
                .all(|task| task.status.state == TaskState::Running)
        );
        let (state, _) = harness.progress(&service.id);
        // Nobody ends the rollback of a job, as in the original.
        let at_rest = !["updating", "rollback_started"].contains(&state.as_str());
        prop_assert!(at_rest || service.job.is_some());
        if !state.ends_with("paused") {
            let wanted = &service.spec.task_template.container_spec;
            prop_assert!(
                running
                    .iter()
                    .all(|task| task.spec.container_spec == *wanted)
            );
            prop_assert!(running.iter().all(|task| task.roll == service.roll));
        }
    }
    for task in harness.state.tasks().iter() {
        let known = harness.state.services().get(&task.service_id).is_some();
        prop_assert!(known, "{task:?} is left over");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_at_every_step_and_everything_comes_to_rest(steps in steps()) {
        let mut harness = Harness::new(&NODES);
        harness.create_secret("key");
        for name in SERVICES {
            create(&mut harness, name);
        }
        for step in &steps {
            apply(&mut harness, step);
            harness.plan();
            check(&harness)?;
        }
        for id in NODES {
            harness.put(node(id));
        }
        for service in ["a", "b"] {
            if harness.state.services().get(service).is_some() {
                harness.scale(service, 5);
            }
        }
        harness.pass(10 * MINUTE);
        check(&harness)?;
        check_rest(&harness)?;
    }
}
