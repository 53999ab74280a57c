//! Rejects tasks on nodes that no longer suit them: a label was taken away, a constraint was added,
//! the node lost resources. The orchestrator then replaces them. Leaves drained and paused nodes
//! to others.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/constraintenforcer`.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_api::node::Availability;
use skep_api::service::UpdateState;
use skep_api::task::{TaskSpec, TaskState};

use super::constraint::Constraint;
use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::labels::grants;
use crate::object::{Node, Object, Task};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};
use crate::task::is_live;

/// swarmkit's words for a task that its node no longer suits.
const REJECTED: &str = "task rejected by constraint enforcer";
const UNSUITABLE: &str = "assigned node no longer meets constraints";

/// Rejects tasks whose node no longer suits them.
#[derive(Debug, Default)]
pub struct Enforcer {
    dirty: BTreeSet<Id>,
}

impl Reconciler for Enforcer {
    fn mark_all(&mut self, view: &State) {
        self.dirty = view.nodes().iter().map(|node| node.id.clone()).collect();
    }

    fn observe(&mut self, event: &Event, view: &State) {
        match &event.after {
            Some(Object::Node(node)) => {
                self.dirty.insert(node.id.clone());
            }
            Some(Object::Service(service)) => {
                let tasks = view.tasks_of_service(&service.id);
                self.dirty
                    .extend(tasks.filter_map(|task| task.node_id.clone()));
            }
            // One that was made before the service changed may get its node after that.
            Some(Object::Task(task)) if task.node_id != node_before(event) => {
                self.dirty.extend(task.node_id.clone());
            }
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        for id in std::mem::take(&mut self.dirty) {
            let Some(node) = view.nodes().get(&id) else {
                continue;
            };
            if node.spec.availability != Availability::Active {
                continue;
            }
            let unsuitable = unsuitable(view, node);
            plan.changes
                .extend(unsuitable.iter().map(|task| reject(task, now)));
        }
        plan
    }
}

/// The node that a task had before.
fn node_before(event: &Event) -> Option<Id> {
    match &event.before {
        Some(Object::Task(task)) => task.node_id.clone(),
        _ => None,
    }
}

/// Tasks that do not meet their service's constraints on this node, do not fit it, or have more of
/// it than it allows.
fn unsuitable(view: &State, node: &Arc<Node>) -> Vec<Arc<Task>> {
    let resources = node
        .description
        .as_ref()
        .map(|description| &description.resources);
    let (mut cpus, mut memory) = resources.map_or((0, 0), |resources| {
        (resources.nano_cpus, resources.memory_bytes)
    });
    let mut found = Vec::new();
    // A task of a global service has its node before the scheduler has looked at it.
    let placed = |task: &&Arc<Task>| is_live(task) && task.status.state >= TaskState::Assigned;
    for task in view.tasks_of_node(&node.id).filter(placed) {
        let (own_cpus, own_memory) = task.reserved();
        let fits = (own_cpus == 0 || own_cpus <= cpus) && (own_memory == 0 || own_memory <= memory);
        let admitted = grants::admitted(&task.service_labels, &node.spec);
        if fits && admitted && meets_constraints(view, node, task) {
            cpus -= own_cpus;
            memory -= own_memory;
        } else {
            found.push(task.clone());
        }
    }
    found
}

/// The constraints are those that the service has now; a task of a service that is gone has its
/// own. Constraints that an update brings are left to the update, which has its own pace.
fn meets_constraints(view: &State, node: &Node, task: &Task) -> bool {
    let service = view.services().get(&task.service_id);
    let template = service.map_or(&task.spec, |service| &service.spec.task_template);
    let constraints = constraints(template);
    if Constraint::parse_all(constraints)
        .iter()
        .all(|constraint| constraint.matches(node))
    {
        return true;
    }
    let status = service.and_then(|service| service.update_status.as_ref());
    let updated = status.is_some_and(|status| {
        matches!(
            status.state,
            UpdateState::Completed | UpdateState::RollbackCompleted
        )
    });
    !updated && constraints != self::constraints(&task.spec)
}

fn constraints(spec: &TaskSpec) -> &[String] {
    spec.placement
        .as_ref()
        .map_or(&[], |placement| &placement.constraints)
}

fn reject(task: &Arc<Task>, now: Timestamp) -> Change {
    let mut task = task.as_ref().clone();
    task.status.state = TaskState::Rejected;
    task.status.message = REJECTED.to_owned();
    task.status.err = UNSUITABLE.to_owned();
    task.status.timestamp = now;
    Change::Update(task.into())
}
