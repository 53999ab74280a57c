//! Makes what services declare come true: creates tasks, replaces those that end, carries out
//! updates, and clears away what is left. Never chooses nodes and never talks to one.

pub mod constraint;
mod cron;
mod dependents;
mod dirty;
mod enforcer;
mod global;
mod homes;
mod jobs;
mod numbers;
mod places;
mod progress;
mod reaper;
mod rebalance;
mod replicated;
mod restart;
mod services;
mod settle;
mod slots;
mod surplus;
mod update;
mod waits;

pub use cron::Cron;
pub(crate) use dirty::is_dirty;
pub use enforcer::Enforcer;
pub use reaper::Reaper;
pub use rebalance::Rebalance;
pub use services::Orchestrator;

#[cfg(test)]
mod declaring;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use skep_api::node::{Availability, NodeState};
use skep_api::task::{Runtime, TaskSpec, TaskState, TaskStatus};

use slots::Place;

use crate::Timestamp;
use crate::id::IdSource;
use crate::object::{Meta, Service, StartGate, Task};
use crate::store::{Change, State};

/// Changes after which the plan of a service ends; the rest follows at once in the next.
const BATCH: usize = 200;

/// What swarmkit writes on a new task.
const CREATED: &str = "created";

/// How many tasks of a replicated service are wanted.
fn replicas(service: &Service) -> u64 {
    let replicated = service.spec.mode.replicated.as_ref();
    replicated
        .and_then(|replicated| replicated.replicas)
        .unwrap_or(1)
}

/// The spec that a task of this service gets: the template, which in a task never names a runtime.
fn template(service: &Service) -> TaskSpec {
    TaskSpec {
        runtime: Runtime::Unset,
        ..service.spec.task_template.clone()
    }
}

/// Why a task is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// To fill a free slot, or in place of one that lost its node.
    ToFill,
    /// In place of one that ended, the last of so many in a row that ended soon.
    Again(u32),
    /// By an update, in place of one of an older spec.
    ByUpdate,
}

/// What a task is meant to come to: that of a job ends by itself.
fn goal(iteration: Option<u64>) -> TaskState {
    match iteration {
        Some(_) => TaskState::Complete,
        None => TaskState::Running,
    }
}

/// The run that a job is in; `None` for services that are none.
pub(crate) fn iteration(service: &Service) -> Option<u64> {
    service.job.map(|job| job.job_iteration.index)
}

/// A new task in a place. With a gate it is made ready at first and runs once the gate opens. In a
/// place that is a node it has that node from the start.
fn create(
    service: &Service,
    place: &Place,
    gate: Option<StartGate>,
    made: Made,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Change {
    let desired_state = if gate.is_some() {
        TaskState::Ready
    } else {
        goal(iteration(service))
    };
    let (slot, node_id) = match place {
        Place::Slot(number) => (*number, None),
        Place::Node(node) => (0, Some(node.clone())),
    };
    let status = TaskStatus {
        timestamp: now,
        state: TaskState::New,
        message: CREATED.to_owned(),
        ..TaskStatus::default()
    };
    let task = Task {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: template(service).into(),
        spec_version: service.spec_version,
        service_id: service.id.clone(),
        service_name: service.spec.name.as_str().into(),
        service_labels: service.spec.labels.clone().into(),
        slot,
        node_id,
        status,
        running_since: None,
        of_update: made == Made::ByUpdate,
        desired_state,
        registry_auth: service.registry_auth.clone(),
        start_gate: gate,
        job_iteration: iteration(service),
        generic_resources: Vec::new(),
        endpoint: service.spec.endpoint_spec.clone(),
        attachments: Vec::new(),
        moving: false,
        crashes: match made {
            Made::Again(crashes) => crashes,
            Made::ToFill | Made::ByUpdate => 0,
        },
        roll: service.roll,
        attached: None,
    };
    Change::Create(task.into())
}

/// A task moved to a later desired state; `None` if it is there already or beyond.
fn want(task: &Arc<Task>, desired: TaskState) -> Option<Change> {
    if task.desired_state >= desired {
        return None;
    }
    let mut task = task.as_ref().clone();
    task.desired_state = desired;
    task.start_gate = None;
    Some(Change::Update(task.into()))
}

/// Whether nothing of the task runs or ever will: it ended, or never got to a node.
fn is_over(task: &Task) -> bool {
    task.status.state.is_terminal()
        || (task.status.state < TaskState::Assigned && task.desired_state > TaskState::Complete)
}

/// Whether the node that a task has been given will not run it: gone, down or drained. A paused
/// node keeps what it has.
fn lost_its_node(view: &State, task: &Task) -> bool {
    let Some(id) = &task.node_id else {
        return false;
    };
    view.nodes().get(id).is_none_or(|node| {
        node.status.state == NodeState::Down || node.spec.availability == Availability::Drain
    })
}

/// Whether the node of a task cannot say how the task ends, so that waiting for it is of no use.
fn node_is_silent(view: &State, task: &Task) -> bool {
    let Some(id) = &task.node_id else {
        return false;
    };
    view.nodes()
        .get(id)
        .is_none_or(|node| node.status.state == NodeState::Down)
}
