//! Among the nodes that will do, the best: spread over the preferences first, then away from where
//! the task keeps failing, then where fewest tasks are. Never looks at what a node may run.

use std::collections::BTreeMap;

use super::filter::Filters;
use super::nodes::{Load, Nodes};
use crate::id::Id;
use crate::object::{Node, Task};

/// A node where a task of this kind failed so often lately comes last.
const MANY_FAILURES: usize = 5;

/// The best node for a task; `None` if none will do.
pub(super) fn choose(nodes: &Nodes, filters: &Filters<'_>, task: &Task) -> Option<Id> {
    let suitable: Vec<&Load> = nodes
        .0
        .values()
        .filter(|load| filters.refuse(load).is_none())
        .collect();
    let preferences = task
        .spec
        .placement
        .as_ref()
        .map_or(&[][..], |p| &p.preferences);
    let descriptors = preferences.iter().filter_map(|preference| {
        let spread = preference.spread.as_ref()?;
        Label::parse(&spread.spread_descriptor)
    });
    let mut candidates = suitable;
    let mut pool: Vec<&Load> = nodes.0.values().collect();
    for label in descriptors {
        candidates = emptiest_branch(candidates, &label, &pool, task);
        let Some(branch) = candidates.first().map(|load| label.value(&load.node)) else {
            break;
        };
        pool.retain(|load| label.value(&load.node) == branch);
    }
    let best = candidates.into_iter().min_by_key(|load| rank(load, task));
    best.map(|load| load.node.id.clone())
}

/// Lower is better; the id decides between equals, so that every replica of a plan agrees.
fn rank(load: &Load, task: &Task) -> (usize, usize, usize, Id) {
    let failures = load.failures(task);
    let failures = if failures >= MANY_FAILURES {
        failures
    } else {
        0
    };
    (
        failures,
        load.of_service(&task.service_id),
        load.tasks,
        load.node.id.clone(),
    )
}

/// The candidates of the branch of a preference in which fewest tasks of the service are, nodes of
/// the pool that are not candidates included. A node without the label is in a branch of its own.
fn emptiest_branch<'a>(
    candidates: Vec<&'a Load>,
    label: &Label<'_>,
    pool: &[&Load],
    task: &Task,
) -> Vec<&'a Load> {
    let mut branches: BTreeMap<&str, Vec<&'a Load>> = BTreeMap::new();
    for load in candidates {
        branches
            .entry(label.value(&load.node))
            .or_default()
            .push(load);
    }
    let tasks = |value: &str| -> usize {
        let branch = pool.iter().filter(|load| label.value(&load.node) == value);
        branch.map(|load| load.of_service(&task.service_id)).sum()
    };
    let best = branches.into_iter().min_by_key(|(value, _)| tasks(value));
    best.map(|(_, branch)| branch).unwrap_or_default()
}

/// A label that a preference spreads over.
enum Label<'a> {
    Node(&'a str),
    Engine(&'a str),
}

impl<'a> Label<'a> {
    /// Reads `node.labels.X` or `engine.labels.X`; anything else is no preference, as in swarmkit.
    fn parse(descriptor: &'a str) -> Option<Self> {
        let after = |prefix: &str| {
            let head = descriptor.get(..prefix.len())?;
            head.eq_ignore_ascii_case(prefix)
                .then(|| descriptor.get(prefix.len()..))?
        };
        after("node.labels.")
            .map(Label::Node)
            .or_else(|| after("engine.labels.").map(Label::Engine))
    }

    fn value<'n>(&self, node: &'n Node) -> &'n str {
        let found = match self {
            Label::Node(key) => node.spec.labels.get(*key),
            Label::Engine(key) => {
                let engine = node
                    .description
                    .as_ref()
                    .map(|description| &description.engine);
                engine.and_then(|engine| engine.labels.get(*key))
            }
        };
        found.map_or("", String::as_str)
    }
}
