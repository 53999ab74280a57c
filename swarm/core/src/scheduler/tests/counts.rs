//! What plans rest on: counts that follow the store, and the best node for each task of a batch.

use proptest::prelude::*;

use super::{placement, reserve};
use crate::object::{Node, Task};
use crate::orchestrator::testing::{Harness, node};
use crate::reconcile::Reconciler;
use crate::scheduler::Scheduler;
use crate::scheduler::nodes::Nodes;
use crate::{Change, SECOND};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The best node is taken each time, as if all were compared for every task.
    #[test]
    fn batches_are_as_good_as_one_by_one(
        loads in prop::collection::vec(0usize..5, 1..8),
        replicas in 1u64..30,
        max_replicas in 0u64..5,
    ) {
        let names: Vec<String> = (0..loads.len()).map(|index| format!("n{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut harness = Harness::new(&names);
        for (name, load) in names.iter().zip(&loads) {
            harness.create(&format!("on-{name}"), *load as u64, |spec| {
                placement(spec).constraints = vec![format!("node.id=={name}")];
            });
        }
        harness.plan();
        harness.create("web", replicas, |spec| placement(spec).max_replicas = max_replicas);
        harness.plan();
        let mut counts: Vec<(usize, usize, usize)> =
            loads.iter().enumerate().map(|(index, load)| (0, *load, index)).collect();
        for _ in 0..replicas {
            let open = counts.iter_mut().filter(|(own, ..)| {
                max_replicas == 0 || (*own as u64) < max_replicas
            });
            if let Some(best) = open.min() {
                best.0 += 1;
                best.1 += 1;
            }
        }
        for (own, _, index) in counts {
            let found = harness.spread("web").iter().find(|(node, _)| node == names[index]).map(|n| n.1);
            prop_assert_eq!(found.unwrap_or(0), own, "on {}", names[index]);
        }
    }

    /// What the scheduler counted event by event is what a new one counts at once.
    #[test]
    fn counts_follow_the_store(steps in prop::collection::vec((0usize..6, 0u64..6), 1..30)) {
        let mut harness = Harness::new(&["n1", "n2", "n3"]);
        let mut scheduler = Scheduler::default();
        scheduler.mark_all(&harness.state);
        let mut seen = harness.state.clone();
        for (what, number) in steps {
            match what {
                0 => harness.put(node(&format!("n{number}"))),
                1 if harness.state.services().get("web").is_none() => {
                    harness.create("web", number, |spec| reserve(spec, 0, 0));
                }
                1 => harness.scale("web", number),
                2 => if harness.state.nodes().get("n2").is_some() { harness.remove_node("n2") },
                3 => harness.some_reports(number as u8),
                4 => {
                    let ends = |task: &&std::sync::Arc<Task>| {
                        task.node_id.is_some() && !task.status.state.is_terminal()
                    };
                    let id = harness.state.tasks().iter().find(ends).map(|task| task.id.clone());
                    if let Some(id) = id {
                        harness.fail(&id);
                    }
                }
                _ => harness.pass(number as i64 * SECOND),
            }
            let nodes = Nodes::of(&seen);
            if let Some(nodes) = follow(nodes, &seen, &harness.state) {
                prop_assert_eq!(nodes, Nodes::of(&harness.state));
            }
            seen = harness.state.clone();
        }
    }
}

/// Follows all differences between two states as events.
fn follow(mut nodes: Nodes, old: &crate::State, new: &crate::State) -> Option<Nodes> {
    use crate::object::Object;
    let mut events = Vec::new();
    for node in old.nodes().iter().chain(new.nodes().iter()) {
        let (before, after) = (old.nodes().get(&node.id), new.nodes().get(&node.id));
        if before != after {
            let object = |node: Option<&std::sync::Arc<Node>>| node.cloned().map(Object::Node);
            events.push(crate::Event {
                before: object(before),
                after: object(after),
            });
        }
    }
    let mut ids: Vec<_> = old
        .tasks()
        .iter()
        .chain(new.tasks().iter())
        .map(|t| t.id.clone())
        .collect();
    ids.sort();
    ids.dedup();
    for id in ids {
        let (before, after) = (old.tasks().get(&id), new.tasks().get(&id));
        if before != after {
            let object = |task: Option<&std::sync::Arc<Task>>| task.cloned().map(Object::Task);
            events.push(crate::Event {
                before: object(before),
                after: object(after),
            });
        }
    }
    for event in &events {
        nodes = nodes.follow(event, new)?;
    }
    Some(nodes)
}

#[test]
fn a_plan_that_is_not_written_leaves_no_trace() {
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.drain("n1");
    harness.drain("n2");
    harness.create("web", 4, |_| {});
    harness.plan();
    harness.put(node("n1"));
    let mut scheduler = Scheduler::default();
    scheduler.mark_all(&harness.state);
    let first = scheduler.plan(&harness.state, harness.now, &mut harness.ids.clone());
    assert_eq!(first.changes.len(), 4);
    assert!(
        first
            .changes
            .iter()
            .all(|change| matches!(change, Change::Update(_)))
    );
    let nodes = scheduler.nodes.as_ref().unwrap();
    assert_ne!(*nodes, Nodes::of(&harness.state));
    scheduler.look_at_all();
    let again = scheduler.plan(&harness.state, harness.now, &mut harness.ids.clone());
    assert_eq!(again.changes, first.changes);
}
