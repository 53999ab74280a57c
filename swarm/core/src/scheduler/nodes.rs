//! All nodes as the scheduler sees them, in the order in which they are to be filled. Follows the
//! store event by event, so that a plan costs what it places, not what exists; never writes back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use skep_api::task::TaskState;

use super::load::Load;
use crate::Timestamp;
use crate::dispatcher::flapping;
use crate::id::Id;
use crate::object::{Node, Object, Task};
use crate::reconcile::earliest;
use crate::store::{Event, State};
use crate::task;

/// A place in the order of ready nodes: tasks, then the id.
pub(super) type Place = (usize, Id);

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Nodes {
    loads: BTreeMap<Id, Load>,
    /// Nodes that may have tasks, emptiest first.
    ready: BTreeSet<Place>,
    /// Those of them that came and went too often, by when they have rested, past or to come.
    resting: BTreeSet<(Timestamp, Id)>,
    /// Where tasks of a service are meant to run.
    services: BTreeMap<Id, BTreeSet<Id>>,
    /// The weight of tasks that are counted already although the store does not have them yet.
    expected: BTreeMap<Id, (Id, bool)>,
}

impl Nodes {
    /// The load as the state has it.
    pub fn of(view: &State) -> Self {
        let mut nodes = Self::default();
        for node in view.nodes().iter() {
            nodes.enter(Load::empty(node));
        }
        for task in view.tasks().iter() {
            nodes.add(task);
        }
        nodes
    }

    /// Follows an event. `None` for a node that is new but has tasks: they have to be counted.
    pub fn follow(mut self, event: &Event, view: &State) -> Option<Self> {
        match (&event.before, &event.after) {
            (None, Some(Object::Node(node))) => {
                if view.tasks_of_node(&node.id).next().is_some() {
                    return None;
                }
                self.enter(Load::empty(node));
            }
            (_, Some(Object::Node(node))) => {
                let mut load = self.leave(&node.id)?;
                load.node = node.clone();
                self.enter(load);
            }
            (Some(Object::Node(node)), None) => {
                let load = self.leave(&node.id)?;
                for service in load.services() {
                    self.forget(service, &node.id);
                }
            }
            (before, after) => {
                let task = |object: &Option<Object>| match object {
                    Some(Object::Task(task)) => Some(task.clone()),
                    _ => None,
                };
                if !self.replace(task(before).as_deref(), task(after).as_deref()) {
                    return None;
                }
            }
        }
        Some(self)
    }

    /// A task changed, came or went. `false` if another event was expected of it: what is counted
    /// is not what is.
    fn replace(&mut self, before: Option<&Task>, after: Option<&Task>) -> bool {
        if let Some(task) = after.or(before)
            && let Some((node, live)) = self.expected.remove(&task.id)
        {
            return after.and_then(weight) == Some((&node, live));
        }
        if before.and_then(weight) == after.and_then(weight) {
            return true;
        }
        if let Some(before) = before {
            self.subtract(before);
        }
        if let Some(after) = after {
            self.add(after);
        }
        true
    }

    /// When the first of the ready nodes that rest may have tasks again.
    pub fn rested_at(&self, now: Timestamp) -> Option<Timestamp> {
        let to_come = self.resting.iter().map(|(until, _)| *until);
        to_come
            .filter(|until| *until > now)
            .fold(None, |first, until| earliest(first, Some(until)))
    }

    /// The moment that decides which nodes rest; `None` while there is no other node than those:
    /// any is better than none.
    pub fn rest(&self, now: Timestamp) -> Option<Timestamp> {
        let rest = self.resting.iter().filter(|(until, _)| *until > now);
        (rest.count() < self.ready.len()).then_some(now)
    }

    /// Counts a task that is about to be given to a node.
    pub fn occupy(&mut self, task: &Task) -> Option<&Load> {
        self.add(task);
        self.get(task.node_id.as_ref()?)
    }

    /// The store will say the same of a task that [`occupy`](Self::occupy) counted: when its event
    /// comes it is not counted again.
    pub fn expect(&mut self, task: &Task) {
        if let Some((node, live)) = weight(task) {
            self.expected.insert(task.id.clone(), (node.clone(), live));
        }
    }

    /// Whether all that was expected has come; not so after a plan that was not written.
    pub fn is_settled(&self) -> bool {
        self.expected.is_empty()
    }

    /// One of the nodes.
    pub fn get(&self, node: &Id) -> Option<&Load> {
        self.loads.get(node)
    }

    /// Every node, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Load> {
        self.loads.values()
    }

    /// The ready nodes from the emptiest on, those after a place.
    pub fn after<'a>(&'a self, place: Option<&'a Place>) -> impl Iterator<Item = &'a Place> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.ready.range((from, Bound::Unbounded))
    }

    /// Nodes where tasks of a service are meant to run.
    pub fn of_service(&self, service: &Id) -> impl Iterator<Item = &Id> {
        self.services.get(service).into_iter().flatten()
    }

    fn enter(&mut self, load: Load) {
        let id = load.node.id.clone();
        if load.is_ready() {
            self.ready.insert((load.tasks, id.clone()));
            if let Some(until) = flapping::rests_until(&load.node.status) {
                self.resting.insert((until, id.clone()));
            }
        }
        self.loads.insert(id, load);
    }

    fn leave(&mut self, id: &Id) -> Option<Load> {
        let load = self.loads.remove(id)?;
        self.ready.remove(&(load.tasks, id.clone()));
        if let Some(until) = flapping::rests_until(&load.node.status) {
            self.resting.remove(&(until, id.clone()));
        }
        Some(load)
    }

    fn add(&mut self, task: &Task) {
        let Some(load) = occupied(task).and_then(|node| self.loads.get_mut(node)) else {
            return;
        };
        let before = load.tasks;
        if load.add(task) {
            let nodes = self.services.entry(task.service_id.clone()).or_default();
            nodes.insert(load.node.id.clone());
        }
        move_place(&mut self.ready, load, before);
    }

    fn subtract(&mut self, task: &Task) {
        let Some(load) = occupied(task).and_then(|node| self.loads.get_mut(node)) else {
            return;
        };
        let before = load.tasks;
        let (last, node) = (load.subtract(task), load.node.id.clone());
        move_place(&mut self.ready, load, before);
        if last {
            self.forget(&task.service_id, &node);
        }
    }

    /// No task of the service is meant to run on the node any more.
    fn forget(&mut self, service: &Id, node: &Id) {
        if let Some(nodes) = self.services.get_mut(service) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.services.remove(service);
            }
        }
    }
}

fn move_place(ready: &mut BTreeSet<Place>, load: &Load, before: usize) {
    if load.tasks == before {
        return;
    }
    let node: &Arc<Node> = &load.node;
    if ready.remove(&(before, node.id.clone())) {
        ready.insert((load.tasks, node.id.clone()));
    }
}

/// The node that a task occupies.
fn occupied(task: &Task) -> Option<&Id> {
    let occupies = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
    task.node_id.as_ref().filter(|_| occupies)
}

/// Where a task counts, and whether it is meant to run there. What it reserves never changes, so two
/// states of one task with the same weight count alike.
fn weight(task: &Task) -> Option<(&Id, bool)> {
    Some((occupied(task)?, task::is_live(task)))
}
