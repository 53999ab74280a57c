//! One node as the scheduler sees it: what is on it and what is left. Follows nothing by itself and
//! chooses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::node::{Availability, NodeState};
use skep_api::task::GenericResource;

use super::claims::{HostPort, Taken};
use crate::Timestamp;
use crate::dispatcher::flapping;
use crate::id::Id;
use crate::object::{Node, Task};
use crate::task;

/// A node with what is known of its load.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Load {
    /// The node itself.
    pub node: Arc<Node>,
    /// Tasks on it that are meant to run.
    pub tasks: usize,
    /// The same by service; never 0.
    by_service: BTreeMap<Id, usize>,
    /// Billionths of CPUs reserved, also by what is still stopping.
    nano_cpus: i64,
    /// Bytes reserved, likewise.
    memory: i64,
    /// Everything else that is taken, likewise.
    taken: Taken,
}

impl Load {
    pub(super) fn empty(node: &Arc<Node>) -> Self {
        Self {
            node: node.clone(),
            tasks: 0,
            by_service: BTreeMap::new(),
            nano_cpus: 0,
            memory: 0,
            taken: Taken::default(),
        }
    }

    /// Tasks of a service that are meant to run.
    pub fn of_service(&self, service: &Id) -> usize {
        self.by_service.get(service).copied().unwrap_or(0)
    }

    /// Services of which it has some.
    pub(super) fn services(&self) -> impl Iterator<Item = &Id> {
        self.by_service.keys()
    }

    /// Whether so many billionths of CPUs and bytes are left. Nothing always fits.
    pub fn has_room(&self, (nano_cpus, memory): (i64, i64)) -> bool {
        let there = self.node.description.as_ref().map(|d| &d.resources);
        let fits = |wanted: i64, there: i64, used: i64| {
            wanted == 0 || wanted <= there.saturating_sub(used)
        };
        fits(nano_cpus, there.map_or(0, |r| r.nano_cpus), self.nano_cpus)
            && fits(memory, there.map_or(0, |r| r.memory_bytes), self.memory)
    }

    /// The resources of the node's own kinds that a task would get; `None` if not enough is left.
    pub fn claim(&self, asked: &[GenericResource]) -> Option<Vec<GenericResource>> {
        if asked.is_empty() {
            return Some(Vec::new());
        }
        let description = self.node.description.as_ref();
        let there = description.map_or(&[][..], |d| &d.resources.generic_resources);
        self.taken.claim(there, asked)
    }

    /// Whether these ports of the host are free.
    pub fn leaves(&self, ports: &[HostPort]) -> bool {
        self.taken.leaves(ports)
    }

    /// Whether the node may have tasks at all.
    pub fn is_ready(&self) -> bool {
        let availability = &self.node.spec.availability;
        let active = matches!(availability, Availability::Active | Availability::Unset);
        active && self.node.status.state == NodeState::Ready
    }

    /// Until when the node rests, having come and gone too often; only if that is to come.
    pub fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        flapping::rests_until(&self.node.status).filter(|until| *until > now)
    }

    /// Counts a task; says whether it is the first of its service.
    pub(super) fn add(&mut self, task: &Task) -> bool {
        let (nano_cpus, memory) = task.reserved();
        self.nano_cpus = self.nano_cpus.saturating_add(nano_cpus);
        self.memory = self.memory.saturating_add(memory);
        self.taken.add(task);
        if !weighs(task) {
            return false;
        }
        self.tasks += 1;
        let count = self.by_service.entry(task.service_id.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// Takes a task back; says whether it was the last of its service.
    pub(super) fn subtract(&mut self, task: &Task) -> bool {
        let (nano_cpus, memory) = task.reserved();
        self.nano_cpus = self.nano_cpus.saturating_sub(nano_cpus);
        self.memory = self.memory.saturating_sub(memory);
        self.taken.subtract(task);
        if !weighs(task) {
            return false;
        }
        self.tasks = self.tasks.saturating_sub(1);
        let Some(count) = self.by_service.get_mut(&task.service_id) else {
            return false;
        };
        *count = count.saturating_sub(1);
        let last = *count == 0;
        if last {
            self.by_service.remove(&task.service_id);
        }
        last
    }
}

/// Whether a task counts as one that its node bears. One that stands for a container that somebody
/// runs there by hand is nobody's choice.
fn weighs(task: &Task) -> bool {
    task::is_live(task) && task.attached.is_none()
}
