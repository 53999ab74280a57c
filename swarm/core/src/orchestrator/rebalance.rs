//! Services that ask for it spread onto nodes that join, come back or become active again: marks
//! the tasks that are to move. The move itself is an ordinary rolling update, at the pace that the
//! service's update configuration sets. Chooses no node: that is the scheduler's work.
//!
//! The original never moves a task that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::node::{Availability, NodeState};
use skep_api::service::UpdateState;

use super::constraint::Constraint;
use crate::dispatcher::flapping;
use crate::id::{Id, IdSource};
use crate::labels;
use crate::object::{Node, Object, Service, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};
use crate::task::is_live;
use crate::{Nanos, SECOND, Timestamp};

/// A node that joined is left in peace for so long: others may follow, and it may go again.
const SETTLING: Nanos = 5 * SECOND;

/// Marks tasks that are to move.
#[derive(Debug, Default)]
pub struct Rebalance {
    /// Services that ask for it.
    asking: BTreeSet<Id>,
    dirty: BTreeSet<Id>,
    /// When each is to be looked at again.
    waiting: BTreeMap<Id, Timestamp>,
}

impl Reconciler for Rebalance {
    fn mark_all(&mut self, view: &State) {
        *self = Self::default();
        let asking = view.services().iter().filter(|service| asks(service));
        self.asking = asking.map(|service| service.id.clone()).collect();
        self.dirty = self.asking.clone();
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        match (&event.before, &event.after) {
            (_, Some(Object::Service(service))) if asks(service) => {
                self.asking.insert(service.id.clone());
                self.dirty.insert(service.id.clone());
            }
            (Some(Object::Service(service)), _) => {
                self.asking.remove(&service.id);
                self.dirty.remove(&service.id);
                self.waiting.remove(&service.id);
            }
            (_, Some(Object::Node(_))) => self.dirty = self.asking.clone(),
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let due = self.waiting.iter().filter(|(_, at)| **at <= now);
        self.dirty
            .extend(due.map(|(id, _)| id.clone()).collect::<Vec<_>>());
        let mut plan = Plan {
            wake_at: self.waiting.values().min().copied(),
            ..Plan::default()
        };
        if self.dirty.is_empty() {
            return plan;
        }
        let joined: Vec<(Timestamp, &Arc<Node>)> = view
            .nodes()
            .iter()
            .filter(|node| is_usable(node))
            .map(|node| (settled_at(node), node))
            .collect();
        for id in std::mem::take(&mut self.dirty) {
            self.waiting.remove(&id);
            let Some(service) = view.services().get(&id).filter(|service| is_idle(service)) else {
                continue;
            };
            let since = service.rebalanced_at.unwrap_or(service.meta.created_at);
            let news = || joined.iter().filter(|(at, _)| *at > since);
            if let Some(at) = news().map(|(at, _)| *at).filter(|at| *at > now).min() {
                self.waiting.insert(id, at);
            }
            if news().any(|(at, _)| *at <= now) {
                let nodes = joined.iter().filter(|(at, _)| *at <= now);
                let moved = move_tasks(view, service, nodes.map(|(_, node)| *node), &mut plan);
                plan.changes.push(looked_at(service, moved, now));
            }
        }
        plan.wake_at = self.waiting.values().min().copied();
        plan
    }
}

fn asks(service: &Service) -> bool {
    service.spec.mode.replicated.is_some() && labels::rebalances(&service.spec.labels)
}

/// Whether no update is under way or waits for its user.
fn is_idle(service: &Service) -> bool {
    service.update_status.as_ref().is_none_or(|status| {
        matches!(
            status.state,
            UpdateState::Completed | UpdateState::RollbackCompleted
        )
    })
}

fn is_usable(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

/// From when on tasks may move to a node.
fn settled_at(node: &Node) -> Timestamp {
    let there = node.status.since.max(node.active_since).plus(SETTLING);
    flapping::rests_until(&node.status).map_or(there, |rested| there.max(rested))
}

/// What became of looking at a service, also if nothing is to move: a node that joined is looked at
/// once.
fn looked_at(service: &Service, moved: usize, now: Timestamp) -> Change {
    let mut service = service.clone();
    service.rebalanced_at = Some(now);
    if moved > 0 {
        service.update_status = None;
    }
    Change::Update(service.into())
}

/// Marks tasks on the fullest nodes until no node would have two more than another; gives how many.
fn move_tasks<'a>(
    view: &State,
    service: &Service,
    nodes: impl Iterator<Item = &'a Arc<Node>>,
    plan: &mut Plan,
) -> usize {
    let placement = service.spec.task_template.placement.as_ref();
    let constraints = Constraint::parse_all(placement.map_or(&[], |p| &p.constraints));
    let mut on: BTreeMap<&Id, Vec<&Arc<Task>>> = nodes
        .filter(|node| constraints.iter().all(|wish| wish.matches(node)))
        .map(|node| (&node.id, Vec::new()))
        .collect();
    let mut room: BTreeMap<&Id, u64> = BTreeMap::new();
    let tasks: Vec<&Arc<Task>> = view
        .tasks_of_service(&service.id)
        .filter(|task| is_live(task))
        .collect();
    for task in &tasks {
        if let Some(here) = task.node_id.as_ref().and_then(|node| on.get_mut(node)) {
            here.push(task);
        }
    }
    let Some(one) = tasks.first() else { return 0 };
    for id in on.keys() {
        room.insert(id, fits(view, id, one));
    }
    let mut counts: BTreeMap<&Id, u64> = on
        .iter()
        .map(|(id, tasks)| (*id, tasks.len() as u64))
        .collect();
    let mut moved = 0usize;
    while let Some((full, empty)) = worst(&counts, &room) {
        let Some(task) = on.get_mut(full).and_then(Vec::pop) else {
            break;
        };
        *counts.entry(full).or_default() -= 1;
        *counts.entry(empty).or_default() += 1;
        *room.entry(empty).or_default() -= 1;
        let mut task = task.as_ref().clone();
        task.moving = true;
        plan.changes.push(Change::Update(task.into()));
        moved += 1;
    }
    moved
}

/// The fullest node and the emptiest with room, if they are two tasks apart.
fn worst<'a>(
    counts: &BTreeMap<&'a Id, u64>,
    room: &BTreeMap<&'a Id, u64>,
) -> Option<(&'a Id, &'a Id)> {
    let (full, most) = counts.iter().max_by_key(|(_, count)| **count)?;
    let has_room = |id: &&Id| room.get(*id).is_some_and(|room| *room > 0);
    let (empty, least) = counts
        .iter()
        .filter(|(id, _)| has_room(id))
        .min_by_key(|(_, count)| **count)?;
    (*most >= *least + 2).then_some((*full, *empty))
}

/// How many more tasks like this one a node has room for, by what they reserve.
fn fits(view: &State, node: &Id, task: &Task) -> u64 {
    let (cpus, memory) = task.reserved();
    let description = view.nodes().get(node).and_then(|n| n.description.as_ref());
    let Some(resources) = description.map(|description| &description.resources) else {
        return 0;
    };
    if (cpus, memory) == (0, 0) {
        return u64::MAX;
    }
    let live = view.tasks_of_node(node).filter(|task| is_live(task));
    let (used_cpus, used_memory) = live.fold((0i64, 0i64), |(cpus, memory), task| {
        let (more_cpus, more_memory) = task.reserved();
        (
            cpus.saturating_add(more_cpus),
            memory.saturating_add(more_memory),
        )
    });
    let times = |free: i64, each: i64| match each {
        ..=0 => u64::MAX,
        each => u64::try_from(free / each).unwrap_or(0),
    };
    times(resources.nano_cpus.saturating_sub(used_cpus), cpus).min(times(
        resources.memory_bytes.saturating_sub(used_memory),
        memory,
    ))
}
