//! Which nodes are alive, and what becomes of the tasks of those that are not. Never moves a task
//! elsewhere: that is the orchestrator's, once the node is down.

use skep_api::node::NodeState;
use skep_api::task::TaskState;

use super::{Dispatcher, flapping, silence, update_node};
use crate::assignment::ToAgent;
use crate::id::Id;
use crate::object::{Object, Task};
use crate::reconcile::{Plan, Reconciler, earliest};
use crate::store::{Change, Event, State};
use crate::{IdSource, MILLISECOND, Nanos, SECOND, Timestamp};

/// How long a node whose connection broke may take to open another. A connection that is cut is
/// known to be so after less than two seconds: such a node is down within three.
pub const CLOSED_GRACE: Nanos = SECOND;
/// After this long without a word to a new leader a node is `unknown`: most find the new leader
/// sooner, and nothing is written about them.
pub const UNKNOWN_AFTER: Nanos = 1500 * MILLISECOND;
/// How long every node may take to find a new leader.
pub const LEADER_GRACE: Nanos = 3 * SECOND;
/// After this long the tasks of a node that is down are given up: `orphaned`.
pub const ORPHAN_AFTER: Nanos = 24 * 3600 * SECOND;
/// A leader that looks so much later than it meant to was stopped itself. What nodes said in that
/// time may not have been read yet.
const LATE: Nanos = 500 * MILLISECOND;
/// What nodes are then given.
const FORGIVEN: Nanos = SECOND;

const MISSED: &str = "heartbeat failure";
const MISSED_UNKNOWN: &str = r#"heartbeat failure for node in "unknown" state"#;
const UNKNOWN: &str = r#"Node moved to "unknown" state due to leadership change in cluster"#;
const NODE_DELETED: &str = "Task belonged to a node that has been deleted";

/// A node without a session counts as down at `until`.
pub(super) struct Grace {
    until: Timestamp,
    message: &'static str,
    /// When the node is to be called unknown before that.
    unknown_at: Option<Timestamp>,
}

impl Grace {
    pub(super) fn closed(now: Timestamp) -> Self {
        Self::restarting(now.plus(CLOSED_GRACE))
    }

    pub(super) fn restarting(until: Timestamp) -> Self {
        Self {
            until,
            message: MISSED,
            unknown_at: None,
        }
    }

    /// A new leader knows of a restart what the old one wrote down.
    fn leader(back_by: Option<Timestamp>, now: Timestamp) -> Self {
        let until = now.plus(LEADER_GRACE);
        Self {
            until: back_by.map_or(until, |back_by| back_by.max(until)),
            message: MISSED_UNKNOWN,
            unknown_at: Some(now.plus(UNKNOWN_AFTER)),
        }
    }
}

impl Reconciler for Dispatcher {
    fn mark_all(&mut self, view: &State) {
        self.fresh = true;
        self.moves.start(view);
        self.regreet_all = true;
        for session in self.sessions.values_mut() {
            session.sent = None;
        }
        self.pending.extend(self.sessions.keys().cloned());
    }

    fn observe(&mut self, event: &Event, view: &State) {
        self.pending.extend(self.moves.observe(event, view));
        for object in [&event.before, &event.after].into_iter().flatten() {
            match object {
                Object::Task(task) => self.touch(task),
                Object::Node(node) => {
                    self.recheck = true;
                    self.regreet.insert(node.id.clone());
                }
                Object::Cluster(_) => {
                    self.recheck = true;
                    self.regreet_all = true;
                }
                Object::Service(_) | Object::Secret(_) | Object::Config(_) | Object::Network(_) => {
                }
            }
        }
        if let (Some(Object::Node(node)), None) = (&event.before, &event.after) {
            self.forget(&node.id);
        }
        if membership_changed(event) {
            self.regreet_all = true;
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        if self.fresh {
            self.start(view, now);
        }
        self.forgive(view, now);
        if self.fresh || self.recheck || self.due.is_some_and(|due| due <= now) {
            (self.fresh, self.recheck, self.due) = (false, false, None);
            self.expire(view, now, &mut plan.changes);
            self.orphan(view, now, &mut plan.changes);
        }
        plan.wake_at = self.due;
        plan
    }
}

impl Dispatcher {
    fn touch(&mut self, task: &Task) {
        let Some(node) = &task.node_id else { return };
        if self.sessions.contains_key(node) {
            self.changed
                .entry(node.clone())
                .or_default()
                .insert(task.id.clone());
        }
    }

    /// A node was deleted: its session ends, its tasks are nobody's.
    fn forget(&mut self, node: &Id) {
        if let Some(session) = self.sessions.remove(node) {
            self.queued
                .push((node.clone(), session.number, ToAgent::Expired));
        }
        self.graces.remove(node);
        self.registrations.remove(node);
        self.changed.remove(node);
        self.deleted.insert(node.clone());
    }

    /// The start of a leadership: nobody has a session yet, and nobody is to blame.
    fn start(&mut self, view: &State, now: Timestamp) {
        for node in view.nodes().iter() {
            if node.status.state != NodeState::Down && !self.sessions.contains_key(&node.id) {
                self.graces
                    .entry(node.id.clone())
                    .or_insert_with(|| Grace::leader(node.status.back_by, now));
            }
        }
        let homeless = view.tasks().iter().filter_map(|task| task.node_id.as_ref());
        self.deleted.extend(
            homeless
                .filter(|node| view.nodes().get(node).is_none())
                .cloned(),
        );
    }

    /// A leader that slept blames nobody for what it did not hear, once.
    fn forgive(&mut self, view: &State, now: Timestamp) {
        let late = self.due.is_some_and(|due| now.since(due) > LATE);
        if late && !self.forgave {
            let (span, until) = (silence(view), now.plus(FORGIVEN));
            for session in self.sessions.values_mut() {
                session.seen = session.seen.max(until.plus(-span));
            }
            for grace in self.graces.values_mut() {
                grace.until = grace.until.max(until);
            }
        }
        self.forgave = late;
    }

    /// Declares nodes down whose time has run out, and finds the next time to look.
    fn expire(&mut self, view: &State, now: Timestamp, changes: &mut Vec<Change>) {
        let span = silence(view);
        let mut down: Vec<(Id, &'static str)> = Vec::new();
        for (node, session) in &self.sessions {
            let until = session.seen.plus(span);
            if until <= now {
                down.push((node.clone(), MISSED));
            } else {
                self.due = earliest(self.due, Some(until));
            }
        }
        for (id, grace) in &mut self.graces {
            if grace.until <= now {
                down.push((id.clone(), grace.message));
                continue;
            }
            self.due = earliest(self.due, Some(grace.until));
            if grace.unknown_at.take_if(|at| *at <= now).is_some() {
                changes.extend(unknown(view, id));
            }
            self.due = earliest(self.due, grace.unknown_at);
        }
        for (id, message) in down {
            self.graces.remove(&id);
            self.changed.remove(&id);
            if let Some(session) = self.sessions.remove(&id) {
                self.queued
                    .push((id.clone(), session.number, ToAgent::Expired));
            }
            let Some(node) = view.nodes().get(&id) else {
                continue;
            };
            if node.status.state != NodeState::Down {
                changes.push(update_node(node, |node| {
                    node.status = flapping::gone(&node.status, message, now);
                }));
            }
        }
    }

    /// Gives up tasks whose node is deleted, or has been down for a day: nobody will ever say
    /// what became of them.
    fn orphan(&mut self, view: &State, now: Timestamp, changes: &mut Vec<Change>) {
        for id in std::mem::take(&mut self.deleted) {
            if view.nodes().get(&id).is_none() {
                give_up(view, &id, NODE_DELETED, now, changes);
            }
        }
        for node in view
            .nodes()
            .iter()
            .filter(|node| node.status.state == NodeState::Down)
        {
            // Not the time of the last write: a new label does not make a node less dead.
            let at = node.status.since.plus(ORPHAN_AFTER);
            if at <= now {
                give_up(view, &node.id, "", now, changes);
            } else {
                self.due = earliest(self.due, Some(at));
            }
        }
    }
}

/// The node has not come back to the new leader yet. Says nothing if that is known.
fn unknown(view: &State, id: &Id) -> Option<Change> {
    let node = view.nodes().get(id)?;
    let known = node.status.state == NodeState::Unknown && node.status.message == UNKNOWN;
    if known || node.status.state == NodeState::Down {
        return None;
    }
    Some(update_node(node, |node| {
        node.status.state = NodeState::Unknown;
        UNKNOWN.clone_into(&mut node.status.message);
    }))
}

fn give_up(view: &State, node: &Id, message: &str, now: Timestamp, changes: &mut Vec<Change>) {
    for task in view.tasks_of_node(node) {
        // What had ended before cannot have changed since.
        if task.status.state < TaskState::Assigned || task.status.state.is_terminal() {
            continue;
        }
        let mut task = Task::clone(task);
        task.status.state = TaskState::Orphaned;
        task.status.timestamp = now;
        if !message.is_empty() {
            message.clone_into(&mut task.status.message);
        }
        changes.push(Change::Update(Object::from(task)));
    }
}

/// Whether the list of managers that agents are told is another one now.
fn membership_changed(event: &Event) -> bool {
    let member = |object: &Option<Object>| match object {
        Some(Object::Node(node)) => node.manager.clone(),
        _ => None,
    };
    member(&event.before) != member(&event.after)
}
