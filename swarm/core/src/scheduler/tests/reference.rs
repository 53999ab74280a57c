//! The scheduler chooses as one would that compares all nodes for every task.

use proptest::prelude::*;
use skep_api::task::TaskState;

use super::{give, placement, reserve};
use crate::Author;
use crate::allocator::Allocator;
use crate::id::Id;
use crate::object::{Object, Task};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::testing::Harness;
use crate::reconcile::Reconciler;
use crate::scheduler::failures::Failures;
use crate::scheduler::filter::Filters;
use crate::scheduler::nodes::Nodes;
use crate::scheduler::spread::rank;
use crate::scheduler::{Scheduler, assigned, waits};
use crate::{Change, SECOND};

/// Nodes for all tasks that wait, by looking at every node for each.
fn slowly(harness: &Harness) -> Vec<(Id, Id)> {
    let (view, now) = (&harness.state, harness.now);
    let (mut nodes, failures) = (Nodes::of(view), Failures::of(view));
    let mut tasks: Vec<_> = view.tasks().iter().filter(|task| waits(task)).collect();
    tasks.sort_by_key(|t| (t.service_id.clone(), t.spec_version, t.slot, t.id.clone()));
    let mut placed = Vec::new();
    for task in tasks {
        let filters = Filters::of(view, task, nodes.rest(now));
        let failed = failures.lately(view, task, now);
        let best = nodes
            .iter()
            .filter(|load| filters.refuse(load).is_none())
            .map(|load| {
                let failures = failed.get(&load.node.id).copied().unwrap_or(0);
                rank(load, task, failures)
            })
            .min();
        if let Some((.., node)) = best {
            nodes.occupy(&assigned(task, &node, now));
            placed.push((task.id.clone(), node));
        }
    }
    placed
}

fn quickly(harness: &Harness) -> Vec<(Id, Id)> {
    let mut scheduler = Scheduler::default();
    scheduler.mark_all(&harness.state);
    let plan = scheduler.plan(&harness.state, harness.now, &mut harness.ids.clone());
    let given = |change: &Change| match change {
        Change::Update(Object::Task(task)) if task.status.state == TaskState::Assigned => {
            Some((task.id.clone(), task.node_id.clone()?))
        }
        _ => None,
    };
    plan.changes.iter().filter_map(given).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn choices_are_those_of_a_full_comparison(
        memory in prop::collection::vec(0i64..400, 2..6),
        before in prop::collection::vec((1u64..6, 0i64..60), 0..4),
        after in prop::collection::vec((1u64..8, 0i64..60, 0u64..3, any::<bool>()), 1..5),
        failing in 0usize..12,
        flaps in prop::collection::vec(any::<bool>(), 6),
    ) {
        let names: Vec<String> = (0..memory.len()).map(|index| format!("n{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut harness = Harness::new(&names);
        let now = harness.now;
        for ((name, memory), flaps) in names.iter().zip(&memory).zip(&flaps) {
            harness.node(name, |node| {
                give(node, 0, *memory);
                node.spec.labels.insert("even".into(), (memory % 2).to_string());
                if *flaps {
                    (node.status.since, node.status.flaps) = (now, 2);
                }
            });
        }
        for (index, (replicas, bytes)) in before.iter().enumerate() {
            harness.create(&format!("b{index}"), *replicas, |spec| reserve(spec, 0, *bytes));
        }
        harness.settle();
        for _ in 0..failing {
            let runs = |task: &&std::sync::Arc<Task>| task.status.state == TaskState::Running;
            let id = harness.state.tasks().iter().find(runs).map(|task| task.id.clone());
            if let Some(id) = id {
                harness.fail(&id);
                harness.pass(6 * SECOND);
            }
        }
        for (index, (replicas, bytes, most, even)) in after.iter().enumerate() {
            harness.create(&format!("a{index}"), *replicas, |spec| {
                reserve(spec, 0, *bytes);
                placement(spec).max_replicas = *most;
                if *even {
                    placement(spec).constraints = vec!["node.labels.even==0".into()];
                }
            });
        }
        let parts: [(Author, &mut dyn Reconciler); 2] = [
            (Author::Orchestrator, &mut Orchestrator::default()),
            (Author::Allocator, &mut Allocator::default()),
        ];
        for (author, part) in parts {
            part.mark_all(&harness.state);
            let plan = part.plan(&harness.state, harness.now, &mut harness.ids);
            if !plan.changes.is_empty() {
                harness.write(author, plan.changes);
            }
        }
        prop_assert_eq!(quickly(&harness), slowly(&harness));
    }
}
