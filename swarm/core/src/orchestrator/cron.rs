//! Jobs that run by the clock: begins a new run of a job when the expression in its label says so.
//! Makes no tasks; the job's orchestrator sees the new run and acts. Remembers nothing: when a job
//! last began is in the store.
//!
//! A run that comes due while the one before it is still under way begins when that has ended, and
//! moments that passed while no manager led are made up for by one run.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskState;

use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::labels::{CRON, cron::Schedule};
use crate::object::{Object, Service};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};

/// Begins runs of jobs.
#[derive(Debug, Default)]
pub struct Cron {
    dirty: BTreeSet<Id>,
    /// When each job that runs by the clock is next due.
    due: BTreeMap<Id, Timestamp>,
    /// Jobs that are due and wait for their last run to end.
    held: BTreeSet<Id>,
}

impl Reconciler for Cron {
    fn mark_all(&mut self, view: &State) {
        *self = Self::default();
        let timed = view.services().iter().filter(|service| is_timed(service));
        self.dirty = timed.map(|service| service.id.clone()).collect();
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        match event.after.as_ref().or(event.before.as_ref()) {
            Some(Object::Service(service))
                if is_timed(service) || self.due.contains_key(&service.id) =>
            {
                self.dirty.insert(service.id.clone());
            }
            Some(Object::Task(task)) if self.held.contains(&task.service_id) => {
                self.dirty.insert(task.service_id.clone());
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let due = self.due.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Id> = due
            .map(|(id, _)| id.clone())
            .filter(|id| !self.held.contains(id))
            .collect();
        self.dirty.extend(due);
        let mut plan = Plan::default();
        for id in std::mem::take(&mut self.dirty) {
            self.due.remove(&id);
            self.held.remove(&id);
            let service = view.services().get(&id);
            let Some((service, at)) = service.and_then(|s| Some((s, next(s)?))) else {
                continue;
            };
            self.due.insert(id.clone(), at);
            if at > now {
                continue;
            }
            if is_under_way(view, service) {
                self.held.insert(id);
            } else {
                plan.changes.push(run(service, now));
            }
        }
        let waiting = self.due.iter().filter(|(id, _)| !self.held.contains(*id));
        if let Some(at) = waiting.map(|(_, at)| *at).filter(|at| *at > now).min() {
            plan.wake(at);
        }
        plan
    }
}

/// Whether the service is a job that runs by the clock.
fn is_timed(service: &Service) -> bool {
    service.job.is_some() && service.spec.labels.contains_key(CRON)
}

/// Whether the job has never begun: one that runs by the clock does nothing when it is created.
pub(super) fn is_before_first_run(service: &Service) -> bool {
    let first = service
        .job
        .as_ref()
        .is_some_and(|job| job.job_iteration.index == 0);
    first && is_timed(service)
}

/// When the job is next to begin.
fn next(service: &Service) -> Option<Timestamp> {
    let job = service.job.as_ref()?;
    Schedule::of(&service.spec.labels)?.next_after(job.last_execution)
}

/// Whether tasks of the last run are still to end.
fn is_under_way(view: &State, service: &Service) -> bool {
    view.tasks_of_service(&service.id)
        .any(|task| task.desired_state <= TaskState::Complete && !task.status.state.is_terminal())
}

fn run(service: &Service, now: Timestamp) -> Change {
    let mut service = service.clone();
    service.run_again(now);
    Change::Update(service.into())
}
