//! The orchestrator itself: knows which places of which services are to be looked at, and when, and
//! lets the file of each one's mode plan. What comes of planning one service depends on the service,
//! its tasks, the nodes and the time, and on nothing else: what is remembered only says where there
//! is nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskState;

use super::dependents::Dependents;
use super::places::Places;
use super::slots::{Place, Slot, Slots, is_everywhere};
use super::waits::Waits;
use super::{BATCH, global, jobs, replicated, want};
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Node, Object, Service, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Event, State};

/// Keeps services at what they declare.
#[derive(Debug, Default)]
pub struct Orchestrator {
    dirty: BTreeSet<Id>,
    /// What is known of the places of each service; it is read anew where it is not there.
    places: BTreeMap<Id, Places>,
    /// Services that wait for a moment.
    waiting: Waits<Id>,
    /// Services with a task on every node, which every node concerns.
    everywhere: BTreeSet<Id>,
    /// Services that wait for others.
    dependents: Dependents,
}

impl Reconciler for Orchestrator {
    fn mark_all(&mut self, view: &State) {
        let services = || view.services().iter();
        *self = Self {
            dirty: services().map(|service| service.id.clone()).collect(),
            everywhere: services()
                .filter(|service| is_everywhere(service))
                .map(|service| service.id.clone())
                .collect(),
            dependents: Dependents::of(view),
            ..Self::default()
        };
        // Services that are gone may have left tasks behind.
        self.dirty
            .extend(view.tasks().iter().map(|task| task.service_id.clone()));
    }

    fn observe(&mut self, event: &Event, view: &State) {
        for id in self.dependents.follow(event) {
            if let Some(places) = self.places.get_mut(&id) {
                places.mark_dependencies();
            }
            self.dirty.insert(id);
        }
        match (&event.before, &event.after) {
            (_, Some(Object::Service(service))) => {
                self.mark(&service.id, Places::mark_all);
                if is_everywhere(service) {
                    self.everywhere.insert(service.id.clone());
                }
            }
            (Some(Object::Service(service)), None) => {
                self.mark(&service.id, Places::mark_all);
                self.everywhere.remove(&service.id);
            }
            (Some(Object::Task(before)), Some(Object::Task(after))) => {
                self.follow(Some(before), Some(after), &after.service_id);
            }
            (None, Some(Object::Task(task))) => self.follow(None, Some(task), &task.service_id),
            (Some(Object::Task(task)), None) => self.follow(Some(task), None, &task.service_id),
            (_, Some(Object::Node(node))) | (Some(Object::Node(node)), None) => {
                for task in view.tasks_of_node(&node.id) {
                    self.mark(&task.service_id, |places| places.mark_place_of(task));
                }
                if matters(event) {
                    for id in self.everywhere.clone() {
                        self.mark(&id, |places| places.mark(Place::Node(node.id.clone())));
                    }
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
        self.dirty.extend(self.waiting.due(now));
        let mut plan = Plan::default();
        let mut unfinished = Vec::new();
        while plan.changes.len() < BATCH
            && let Some(id) = self.dirty.pop_first()
        {
            // Tasks that stand for a container are no service's: their node sees to them.
            if id.is_empty() {
                continue;
            }
            let mut places = self.places.remove(&id).unwrap_or_default();
            let one = plan_service(view, &id, &mut places, now, ids);
            self.waiting.set(&id, one.wake_at);
            if places.is_open() && !one.changes.is_empty() {
                unfinished.push(id.clone());
            }
            let is_gone =
                view.services().get(&id).is_none() && view.tasks_of_service(&id).next().is_none();
            if !is_gone {
                self.places.insert(id, places);
            }
            plan.changes.extend(one.changes);
        }
        self.dirty.extend(unfinished);
        plan.wake_at = if plan.changes.len() >= BATCH {
            Some(now)
        } else {
            self.waiting.first()
        };
        plan
    }
}

impl Orchestrator {
    /// Marks what a service has to be looked at for; all of it if nothing is known of it.
    fn mark(&mut self, id: &Id, what: impl FnOnce(&mut Places)) {
        if let Some(places) = self.places.get_mut(id) {
            what(places);
        }
        self.dirty.insert(id.clone());
    }

    /// A task of the service came, changed or went.
    fn follow(&mut self, before: Option<&Task>, after: Option<&Task>, id: &Id) {
        let places = self.places.get_mut(id);
        if places.is_none_or(|places| places.follow(before, after)) {
            self.dirty.insert(id.clone());
        }
    }
}

#[cfg(test)]
impl Orchestrator {
    /// What is known of every service is what counting anew says.
    pub fn recount(&self, view: &State, now: Timestamp) {
        let mut ids = crate::id::CountingIds::default();
        for (id, places) in &self.places {
            let mut anew = Places::default();
            plan_service(view, id, &mut anew, now, &mut ids);
            places.assert_counts_as(&anew, now);
        }
    }
}

/// What one service needs now, as far as it fits into one plan.
fn plan_service(
    view: &State,
    id: &Id,
    places: &mut Places,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let fresh = places.fresh(view, id, now);
    let mut plan = match view.services().get(id) {
        None => wind_down(places, fresh),
        Some(service) if service.spec.mode.global.is_some() => {
            global::plan(view, service, places, fresh, now, ids)
        }
        Some(service) if is_job(service) => jobs::plan(view, service, places, fresh, now, ids),
        Some(service) => replicated::plan(view, service, places, fresh, now, ids),
    };
    if plan.changes.len() >= BATCH {
        plan.wake(now);
    }
    plan
}

/// A service is gone: so are its tasks.
fn wind_down(places: &mut Places, fresh: Slots) -> Plan {
    places.open(fresh);
    let mut plan = Plan::default();
    while let Some((_, Slot(left))) = places.next(&plan) {
        let left = left.iter().filter_map(|task| want(task, TaskState::Remove));
        plan.changes.extend(left);
    }
    plan
}

fn is_job(service: &Service) -> bool {
    let mode = &service.spec.mode;
    mode.replicated_job.is_some() || mode.global_job.is_some()
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
