//! Chooses a node for every task that waits for one, and says why where there is none. Never moves
//! a task that has a node.
//!
//! Source of the behaviour: swarmkit `manager/scheduler`.

mod choice;
mod claims;
mod failures;
mod filter;
mod load;
mod nodes;
mod preassigned;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskState;

use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Object, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};
use choice::{Choice, Wish};
use claims::asked;
pub(crate) use claims::still_there;
use failures::Failures;
use filter::Filters;
use nodes::Nodes;
use preassigned::Preassigned;

/// Tasks that one plan assigns or explains at most; the rest follows at once in the next.
const BATCH: usize = 200;
/// Explanations that are kept at most.
const KEPT: usize = 1_000;
/// What swarmkit writes when a task gets its node.
const ASSIGNED: &str = "scheduler assigned task to node";

/// Tasks that are alike: what fits one fits all.
type Group = (Id, u64);
/// A task's place in its group: slot and id.
type Turn = (u64, Id);

/// Assigns pending tasks to nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    waiting: BTreeMap<Group, BTreeSet<Turn>>,
    /// Tasks whose node is not chosen here.
    preassigned: Preassigned,
    /// Groups to look at: new ones, or those that something happened to that may make room.
    dirty: BTreeSet<Group>,
    /// When the first node that came back too often may have tasks again.
    rested_at: Option<Timestamp>,
    /// What is where; a cache that is counted anew when it is not there.
    nodes: Option<Nodes>,
    /// What failed; a cache likewise.
    failures: Option<Failures>,
    /// Why no node does for tasks of a signature, for as long as that is so.
    explained: BTreeMap<String, String>,
    /// How far the tasks of a group, too many for one plan, have been told why they wait.
    told: Option<(Group, String, Turn)>,
}

impl Reconciler for Scheduler {
    fn mark_all(&mut self, view: &State) {
        *self = Self {
            preassigned: Preassigned::of(view),
            // Everything is looked at now anyway: the first plan is to cost no more than others.
            nodes: Some(Nodes::of(view)),
            failures: Some(Failures::of(view)),
            ..Self::default()
        };
        for task in view.tasks().iter().filter(|task| waits(task)) {
            self.enter(task);
        }
    }

    fn observe(&mut self, event: &Event, view: &State) {
        let nodes = self.nodes.take();
        self.nodes = nodes.and_then(|nodes| nodes.follow(event, view));
        if let Some(failures) = &mut self.failures {
            failures.follow(event);
        }
        self.preassigned.observe(event);
        match (&event.before, &event.after) {
            (Some(Object::Node(_)), _) | (_, Some(Object::Node(_))) => self.look_at_all(),
            (before, Some(Object::Task(after))) => {
                if waits(after) {
                    self.enter(after);
                } else {
                    self.leave(after);
                }
                if let Some(Object::Task(before)) = before
                    && changes_room(before, after)
                {
                    self.look_again(after);
                }
            }
            (Some(Object::Task(task)), None) => {
                self.leave(task);
                if task.node_id.is_some() {
                    self.look_again(task);
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        self.nodes.take_if(|nodes| !nodes.is_settled());
        if self.preassigned.is_due() {
            let nodes = self.nodes.get_or_insert_with(|| Nodes::of(view));
            self.preassigned.plan(view, nodes, now, &mut plan);
            if !plan.changes.is_empty() {
                expect(&plan, nodes);
                return plan;
            }
        }
        if self.rested_at.is_some_and(|at| at <= now) {
            self.look_at_all();
        }
        if self.dirty.is_empty() {
            plan.wake_at = self.rested_at.filter(|_| !self.waiting.is_empty());
            return plan;
        }
        let nodes = self.nodes.get_or_insert_with(|| Nodes::of(view));
        self.rested_at = nodes.rested_at(now);
        while let Some(group) = self.dirty.pop_first() {
            self.place(view, &group, &mut plan.changes, now);
            if plan.changes.len() >= BATCH {
                self.dirty.insert(group);
                plan.wake(now);
                break;
            }
        }
        if let Some(at) = self.rested_at {
            plan.wake(at);
        }
        if let Some(nodes) = &mut self.nodes {
            expect(&plan, nodes);
        }
        plan
    }
}

/// Once the plan is written, its events are not to count again what it gave away.
fn expect(plan: &Plan, nodes: &mut Nodes) {
    for change in &plan.changes {
        if let Change::Update(Object::Task(task)) = change {
            nodes.expect(task);
        }
    }
}

impl Scheduler {
    fn enter(&mut self, task: &Task) {
        let group = (task.service_id.clone(), task.spec_version);
        let fresh = self.waiting.entry(group.clone()).or_default();
        if fresh.insert((task.slot, task.id.clone())) {
            self.told.take_if(|(told, ..)| *told == group);
            self.dirty.insert(group);
        }
    }

    fn leave(&mut self, task: &Task) {
        let group = (task.service_id.clone(), task.spec_version);
        if let Some(waiting) = self.waiting.get_mut(&group) {
            waiting.remove(&(task.slot, task.id.clone()));
            if waiting.is_empty() {
                self.waiting.remove(&group);
                self.dirty.remove(&group);
            }
        }
    }

    fn look_at_all(&mut self) {
        self.explained.clear();
        self.dirty.extend(self.waiting.keys().cloned());
    }

    /// Looks again at those whom it may concern that a task takes more or less of its node: all if
    /// it reserves something, else only those of its service, which may be limited to so many a
    /// node.
    fn look_again(&mut self, task: &Task) {
        if Filters::takes_room(task) {
            return self.look_at_all();
        }
        let service = &task.service_id;
        let groups = (service.clone(), 0)..=(service.clone(), u64::MAX);
        let groups = self.waiting.range(groups).map(|(group, _)| group.clone());
        self.dirty.extend(groups);
    }

    /// Gives the tasks of one group their nodes, best node first for each, and tells the others
    /// why not.
    fn place(&mut self, view: &State, group: &Group, changes: &mut Vec<Change>, now: Timestamp) {
        let Some(waiting) = self.waiting.get(group) else {
            return;
        };
        let nodes = self.nodes.get_or_insert_with(|| Nodes::of(view));
        let failures = self.failures.get_or_insert_with(|| Failures::of(view));
        let known = |(_, id): &Turn| view.tasks().get(id);
        let mut tasks = waiting.iter().filter_map(known).peekable();
        let Some(kind) = tasks.peek() else { return };
        let wish = Wish {
            kind,
            filters: Filters::of(view, kind, nodes.rest(now)),
            failures: failures.lately(view, kind, now),
        };
        if let Some(why) = explained(&self.explained, &wish.filters).cloned() {
            return self.tell(view, group, &why, changes, now);
        }
        let mut choice = Choice::new(&wish, nodes);
        while changes.len() < BATCH
            && let Some(task) = tasks.next()
        {
            let Some(node) = choice.take(&wish, nodes) else {
                // The others are alike: the same explanation serves them all.
                let why = wish.filters.explain(nodes);
                if let Some(signature) = wish.filters.signature() {
                    if self.explained.len() >= KEPT {
                        self.explained.clear();
                    }
                    self.explained.insert(signature, why.clone());
                }
                return self.tell(view, group, &why, changes, now);
            };
            let mut task = assigned(task, &node, now);
            let load = nodes.get(&node);
            if let Some(claimed) = load.and_then(|load| load.claim(asked(&task))) {
                task.generic_resources = claimed;
            }
            nodes.occupy(&task);
            if Filters::takes_room(&task) {
                self.explained.clear();
            }
            choice.again(&node, &wish, nodes);
            changes.push(Change::Update(task.into()));
        }
    }

    /// Writes down why the tasks of a group wait, on those that do not say so yet. Those that have
    /// just been given a node do not count.
    fn tell(
        &mut self,
        view: &State,
        group: &Group,
        why: &str,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) {
        let Some(waiting) = self.waiting.get(group) else {
            return;
        };
        let told = self.told.take();
        let told = told.filter(|(whom, what, _)| whom == group && what == why);
        let placed: BTreeSet<&Id> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Update(Object::Task(task)) => Some(&task.id),
                _ => None,
            })
            .collect();
        let from = match &told {
            Some((.., turn)) => std::ops::Bound::Excluded(turn.clone()),
            None => std::ops::Bound::Unbounded,
        };
        let mut news = Vec::new();
        for turn in waiting.range((from, std::ops::Bound::Unbounded)) {
            let task = view.tasks().get(&turn.1);
            let task = task.filter(|task| !placed.contains(&task.id));
            news.extend(task.and_then(|task| unplaceable(task, why, now)));
            if changes.len() + news.len() >= BATCH {
                self.told = Some((group.clone(), why.to_owned(), turn.clone()));
                break;
            }
        }
        changes.extend(news);
    }
}

/// Why no node does for what asks this, if that is known.
fn explained<'a>(known: &'a BTreeMap<String, String>, filters: &Filters<'_>) -> Option<&'a String> {
    // Most groups get a node: their signature is not worth its making.
    if known.is_empty() {
        return None;
    }
    known.get(&filters.signature()?)
}

/// Whether a task takes less of its node than before; or more, if it reserves something: then
/// there may be another reason why others have to wait.
fn changes_room(before: &Task, after: &Task) -> bool {
    let ended = |task: &Task| task.status.state.is_terminal();
    let less = crate::task::is_live(before) && !crate::task::is_live(after)
        || !ended(before) && ended(after);
    let placed =
        before.status.state < TaskState::Assigned && after.status.state >= TaskState::Assigned;
    let more = placed && Filters::takes_room(after);
    after.node_id.is_some() && (less || more)
}

fn assigned(task: &Task, node: &Id, now: Timestamp) -> Task {
    let mut task = task.clone();
    task.node_id = Some(node.clone());
    task.status.state = TaskState::Assigned;
    task.status.message = ASSIGNED.to_owned();
    task.status.err.clear();
    task.status.timestamp = now;
    task
}

/// Writes down why a task waits, if that is news.
fn unplaceable(task: &Task, why: &str, now: Timestamp) -> Option<Change> {
    if task.status.err == why {
        return None;
    }
    let mut task = task.clone();
    task.status.err = why.to_owned();
    task.status.timestamp = now;
    Some(Change::Update(task.into()))
}

/// Whether a task waits for a node.
fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending
        && task.node_id.is_none()
        && task.desired_state <= TaskState::Complete
}
