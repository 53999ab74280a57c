//! Nodes as the scheduler sees them: what is on each and what is left. Follows the store event by
//! event, so that a plan does not have to count all tasks of the cluster; never writes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::node::{Availability, NodeState};
use skep_api::task::TaskState;

use crate::Timestamp;
use crate::dispatcher::flapping;
use crate::id::Id;
use crate::object::{Node, Object, Task};
use crate::store::{Event, State};
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
}

impl Load {
    fn empty(node: &Arc<Node>) -> Self {
        Self {
            node: node.clone(),
            tasks: 0,
            by_service: BTreeMap::new(),
            nano_cpus: 0,
            memory: 0,
        }
    }

    /// Tasks of a service that are meant to run.
    pub fn of_service(&self, service: &Id) -> usize {
        self.by_service.get(service).copied().unwrap_or(0)
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

    fn add(&mut self, task: &Task) {
        let (nano_cpus, memory) = task.reserved();
        self.nano_cpus = self.nano_cpus.saturating_add(nano_cpus);
        self.memory = self.memory.saturating_add(memory);
        if task::is_live(task) {
            self.tasks += 1;
            *self.by_service.entry(task.service_id.clone()).or_default() += 1;
        }
    }

    fn subtract(&mut self, task: &Task) {
        let (nano_cpus, memory) = task.reserved();
        self.nano_cpus = self.nano_cpus.saturating_sub(nano_cpus);
        self.memory = self.memory.saturating_sub(memory);
        if !task::is_live(task) {
            return;
        }
        self.tasks = self.tasks.saturating_sub(1);
        if let Some(count) = self.by_service.get_mut(&task.service_id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_service.remove(&task.service_id);
            }
        }
    }
}

/// All nodes, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Nodes(BTreeMap<Id, Load>);

impl Nodes {
    /// The load as the state has it.
    pub fn of(view: &State) -> Self {
        let loads = view
            .nodes()
            .iter()
            .map(|node| (node.id.clone(), Load::empty(node)));
        let mut nodes = Self(loads.collect());
        for task in view.tasks().iter() {
            if let Some(load) = nodes.under(task) {
                load.add(task);
            }
        }
        nodes
    }

    /// Follows an event. `None` for a node that is new: its tasks have to be counted.
    pub fn follow(mut self, event: &Event) -> Option<Self> {
        match (&event.before, &event.after) {
            (None, Some(Object::Node(_))) => return None,
            (_, Some(Object::Node(node))) => self.0.get_mut(&node.id)?.node = node.clone(),
            (Some(Object::Node(node)), None) => drop(self.0.remove(&node.id)),
            (before, after) => {
                if let Some(Object::Task(before)) = before
                    && let Some(load) = self.under(before)
                {
                    load.subtract(before);
                }
                if let Some(Object::Task(after)) = after
                    && let Some(load) = self.under(after)
                {
                    load.add(after);
                }
            }
        }
        Some(self)
    }

    /// When the first of the ready nodes that rest may have tasks again.
    pub fn rested_at(&self, now: Timestamp) -> Option<Timestamp> {
        let ready = self.iter().filter(|load| load.is_ready());
        ready.filter_map(|load| load.rests_until(now)).min()
    }

    /// The moment that decides which nodes rest; `None` while there is no other node than those:
    /// any is better than none.
    pub fn rest(&self, now: Timestamp) -> Option<Timestamp> {
        let mut ready = self.iter().filter(|load| load.is_ready());
        ready
            .any(|load| load.rests_until(now).is_none())
            .then_some(now)
    }

    /// One of them.
    pub fn get(&self, node: &Id) -> Option<&Load> {
        self.0.get(node)
    }

    /// Counts a task that is about to be given to a node.
    pub fn occupy(&mut self, task: &Task) -> Option<&Load> {
        let load = self.under(task)?;
        load.add(task);
        Some(load)
    }

    /// Takes back what [`occupy`](Self::occupy) counted.
    pub fn vacate(&mut self, task: &Task) {
        if let Some(load) = self.under(task) {
            load.subtract(task);
        }
    }

    /// Every node, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Load> {
        self.0.values()
    }

    /// The node that a task occupies.
    fn under(&mut self, task: &Task) -> Option<&mut Load> {
        let occupies = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
        let node = task.node_id.as_ref().filter(|_| occupies)?;
        self.0.get_mut(node)
    }
}
