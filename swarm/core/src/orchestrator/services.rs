//! The orchestrator itself: knows which services are to be looked at, and when, and lets the file of
//! each one's mode plan. Planning one service is a pure function of the service, its tasks, the
//! nodes and the time.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskState;

use super::dependents::Dependents;
use super::{BATCH, global, jobs, replicated, want};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Node, Object, Service};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Event, State};

/// Keeps services at what they declare.
#[derive(Debug, Default)]
pub struct Orchestrator {
    dirty: BTreeSet<Id>,
    /// Services that wait for a moment.
    waiting: BTreeMap<Id, Timestamp>,
    /// Services with a task on every node, which every node concerns.
    everywhere: BTreeSet<Id>,
    /// Services that wait for others.
    dependents: Dependents,
}

impl Reconciler for Orchestrator {
    fn mark_all(&mut self, view: &State) {
        let services = || view.services().iter();
        self.dirty = services().map(|service| service.id.clone()).collect();
        self.everywhere = services()
            .filter(|service| is_everywhere(service))
            .map(|service| service.id.clone())
            .collect();
        self.dependents = Dependents::of(view);
        // Services that are gone may have left tasks behind.
        self.dirty
            .extend(view.tasks().iter().map(|task| task.service_id.clone()));
    }

    fn observe(&mut self, event: &Event, view: &State) {
        self.dirty.extend(self.dependents.follow(event));
        match event.after.as_ref().or(event.before.as_ref()) {
            Some(Object::Service(service)) => {
                self.dirty.insert(service.id.clone());
                if event.after.is_none() {
                    self.everywhere.remove(&service.id);
                } else if is_everywhere(service) {
                    self.everywhere.insert(service.id.clone());
                }
            }
            Some(Object::Task(task)) => {
                self.dirty.insert(task.service_id.clone());
            }
            Some(Object::Node(node)) => {
                let tasks = view.tasks_of_node(&node.id);
                self.dirty.extend(tasks.map(|task| task.service_id.clone()));
                if matters(event) {
                    self.dirty.extend(self.everywhere.iter().cloned());
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
        let due = self.waiting.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Id> = due.map(|(id, _)| id.clone()).collect();
        self.dirty.extend(due);
        let mut plan = Plan::default();
        while let Some(id) = self.dirty.pop_first() {
            self.waiting.remove(&id);
            let one = plan_service(view, &id, now, ids);
            plan.changes.extend(one.changes);
            if let Some(at) = one.wake_at {
                self.waiting.insert(id, at);
            }
            if plan.changes.len() >= BATCH {
                plan.wake(now);
                break;
            }
        }
        if let Some(at) = self.waiting.values().min() {
            plan.wake(*at);
        }
        plan
    }
}

/// What one service needs now.
pub(super) fn plan_service(view: &State, id: &Id, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
    let mut plan = match view.services().get(id) {
        None => wind_down(view, id),
        Some(service) if service.spec.mode.global.is_some() => {
            global::plan(view, service, now, ids)
        }
        Some(service) if is_job(service) => jobs::plan(view, service, now, ids),
        Some(service) => replicated::plan(view, service, now, ids),
    };
    if plan.changes.len() >= BATCH {
        plan.wake(now);
    }
    plan
}

/// A service is gone: so are its tasks.
fn wind_down(view: &State, id: &Id) -> Plan {
    let left = view
        .tasks_of_service(id)
        .filter_map(|task| want(task, TaskState::Remove));
    Plan {
        changes: left.take(BATCH).collect(),
        wake_at: None,
    }
}

fn is_job(service: &Service) -> bool {
    let mode = &service.spec.mode;
    mode.replicated_job.is_some() || mode.global_job.is_some()
}

fn is_everywhere(service: &Service) -> bool {
    let mode = &service.spec.mode;
    mode.global.is_some() || mode.global_job.is_some()
}

/// Whether a node may suit other services now than before. Says yes for one that came or went.
fn matters(event: &Event) -> bool {
    let (Some(Object::Node(before)), Some(Object::Node(after))) = (&event.before, &event.after)
    else {
        return true;
    };
    let facts = |node: &Node| {
        (
            node.role,
            node.status.state.clone(),
            node.status.addr.clone(),
        )
    };
    before.spec != after.spec
        || facts(before) != facts(after)
        || before.description != after.description
}
