//! Nodes as the scheduler sees them: what runs on each, what is left, what failed lately. Made
//! anew for each plan; never written back.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::id::Id;
use crate::object::{Node, Task};
use crate::store::State;
use crate::{MINUTE, Nanos, Timestamp, task};

/// Failures are forgotten after this long.
const MEMORY: Nanos = 5 * MINUTE;

/// A node with what is known of its load.
pub(super) struct Load {
    /// The node itself.
    pub node: Arc<Node>,
    /// Live tasks on it.
    pub tasks: usize,
    /// Live tasks by service.
    pub by_service: BTreeMap<Id, usize>,
    /// Billionths of CPUs that are not reserved; negative when overbooked.
    pub nano_cpus: i64,
    /// Bytes that are not reserved.
    pub memory: i64,
    /// Failures in the last five minutes by service and version of its spec.
    failures: BTreeMap<(Id, u64), usize>,
}

impl Load {
    /// Live tasks of a service.
    pub fn of_service(&self, service: &Id) -> usize {
        self.by_service.get(service).copied().unwrap_or(0)
    }

    /// How often tasks of this kind failed here lately.
    pub fn failures(&self, task: &Task) -> usize {
        let kind = (task.service_id.clone(), task.spec_version);
        self.failures.get(&kind).copied().unwrap_or(0)
    }

    fn take(&mut self, task: &Task) {
        let (cpus, memory) = task.reserved();
        self.tasks += 1;
        *self.by_service.entry(task.service_id.clone()).or_default() += 1;
        self.nano_cpus = self.nano_cpus.saturating_sub(cpus);
        self.memory = self.memory.saturating_sub(memory);
    }
}

/// All nodes.
pub(super) struct Nodes(pub BTreeMap<Id, Load>);

impl Nodes {
    /// The load as the state has it.
    pub fn of(view: &State, now: Timestamp) -> Self {
        let loads = view
            .nodes()
            .iter()
            .map(|node| (node.id.clone(), empty(node)));
        let mut nodes = Self(loads.collect());
        for task in view.tasks().iter() {
            let Some(load) = task.node_id.as_ref().and_then(|node| nodes.0.get_mut(node)) else {
                continue;
            };
            if task::is_live(task) {
                load.take(task);
            } else if failed_lately(task, now) {
                let kind = (task.service_id.clone(), task.spec_version);
                *load.failures.entry(kind).or_default() += 1;
            }
        }
        nodes
    }

    /// Counts a task that has just been given to a node.
    pub fn occupy(&mut self, node: &Id, task: &Task) {
        if let Some(load) = self.0.get_mut(node) {
            load.take(task);
        }
    }
}

fn empty(node: &Arc<Node>) -> Load {
    let resources = node
        .description
        .as_ref()
        .map(|description| &description.resources);
    Load {
        node: node.clone(),
        tasks: 0,
        by_service: BTreeMap::new(),
        nano_cpus: resources.map_or(0, |resources| resources.nano_cpus),
        memory: resources.map_or(0, |resources| resources.memory_bytes),
        failures: BTreeMap::new(),
    }
}

fn failed_lately(task: &Task, now: Timestamp) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
        && now.since(task.status.timestamp) < MEMORY
}
