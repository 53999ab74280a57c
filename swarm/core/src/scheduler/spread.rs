//! Among the nodes that will do, the best: spread over the preferences first, then away from where
//! such tasks keep failing, then where fewest tasks are. Never looks at what a node may run.

use std::collections::{BTreeMap, BTreeSet};

use super::load::Load;
use crate::id::Id;
use crate::object::{Node, Task};

/// Lower is better: failures if they are many, tasks of the service, tasks. The id decides between
/// equals, so that the same state always gives the same plan.
pub(super) type Rank = (usize, usize, usize, Id);

/// Nodes that may take a task, in branches by the labels that tasks are to be spread over. A node
/// without the label is in a branch of its own.
#[derive(Default)]
pub(super) struct Branch {
    /// Tasks of the service below, on nodes that may not take another one, too.
    tasks: usize,
    /// How many nodes below may take a task.
    open: usize,
    branches: BTreeMap<String, Branch>,
    nodes: BTreeSet<Rank>,
}

impl Branch {
    /// Counts what a node has of the service.
    pub fn count(&mut self, path: &[String], tasks: usize) {
        self.tasks += tasks;
        if let [value, rest @ ..] = path {
            self.branches
                .entry(value.clone())
                .or_default()
                .count(rest, tasks);
        }
    }

    /// Adds a node that may take a task.
    pub fn open(&mut self, path: &[String], rank: Rank) {
        self.open += 1;
        match path {
            [value, rest @ ..] => self
                .branches
                .entry(value.clone())
                .or_default()
                .open(rest, rank),
            [] => drop(self.nodes.insert(rank)),
        }
    }

    /// Takes the best node out and counts the task that it gets.
    pub fn take(&mut self) -> Option<Id> {
        if self.open == 0 {
            return None;
        }
        self.open -= 1;
        self.tasks += 1;
        let open = self.branches.values_mut().filter(|branch| branch.open > 0);
        match open.min_by_key(|branch| branch.tasks) {
            Some(branch) => branch.take(),
            None => self.nodes.pop_first().map(|(.., id)| id),
        }
    }
}

/// How good a node is for a task, given how often such tasks failed there too often lately.
pub(super) fn rank(load: &Load, task: &Task, failures: usize) -> Rank {
    let of_service = load.of_service(&task.service_id);
    (failures, of_service, load.tasks, load.node.id.clone())
}

/// A label that a preference spreads over.
pub(super) enum Label {
    Node(String),
    Engine(String),
}

impl Label {
    /// The labels that a task's placement names, outermost first. Other preferences than
    /// `node.labels.X` and `engine.labels.X` do not count, as in swarmkit.
    pub fn of(task: &Task) -> Vec<Self> {
        let placement = task.spec.placement.as_ref();
        let preferences = placement.map_or(&[][..], |placement| &placement.preferences);
        let spreads = preferences
            .iter()
            .filter_map(|preference| preference.spread.as_ref());
        spreads
            .filter_map(|spread| Self::parse(&spread.spread_descriptor))
            .collect()
    }

    fn parse(descriptor: &str) -> Option<Self> {
        let after = |prefix: &str| {
            let head = descriptor.get(..prefix.len())?;
            let name = descriptor.get(prefix.len()..)?;
            (head.eq_ignore_ascii_case(prefix) && !name.is_empty()).then(|| name.to_owned())
        };
        let node = after("node.labels.").map(Label::Node);
        node.or_else(|| after("engine.labels.").map(Label::Engine))
    }

    /// What a node has under this label; empty if it has none.
    pub fn value(&self, node: &Node) -> String {
        let found = match self {
            Label::Node(key) => node.spec.labels.get(key),
            Label::Engine(key) => {
                let engine = node
                    .description
                    .as_ref()
                    .map(|description| &description.engine);
                engine.and_then(|engine| engine.labels.get(key))
            }
        };
        found.cloned().unwrap_or_default()
    }
}
