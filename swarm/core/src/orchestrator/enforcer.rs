//! Rejects tasks on nodes that no longer suit them: a label was taken away, a constraint was added,
//! the node lost resources. The orchestrator then replaces them. Leaves drained and paused nodes
//! to others.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/constraintenforcer`.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::scheduler::still_there;
use crate::store::{Change, Event, State};
use crate::task::is_live;

/// swarmkit's words for a task that its node no longer suits.
const REJECTED: &str = "task rejected by constraint enforcer";
const UNSUITABLE: &str = "assigned node no longer meets constraints";

/// Rejects tasks whose node no longer suits them.
#[derive(Debug, Default)]
pub struct Enforcer {
    /// Nodes that changed: all that is on them is looked at.
    dirty: BTreeSet<Id>,
    /// Tasks that are new on their node, or whose service changed, by node.
    tasks: BTreeMap<Id, BTreeSet<Id>>,
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
                tasks.for_each(|task| self.mark(task));
            }
            // One that was made before the service changed may get its node after that.
            Some(Object::Task(task)) if is_new(event, task) => self.mark(task),
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        let mut some = std::mem::take(&mut self.tasks);
        let whole = std::mem::take(&mut self.dirty);
        some.retain(|id, _| !whole.contains(id));
        let whole = whole.into_iter().map(|id| (id, None));
        let some = some.into_iter().map(|(id, tasks)| (id, Some(tasks)));
        let all: BTreeMap<Id, Option<BTreeSet<Id>>> = whole.chain(some).collect();
        for (id, tasks) in all {
            let Some(node) = view.nodes().get(&id) else {
                continue;
            };
            if node.spec.availability != Availability::Active {
                continue;
            }
            let unsuitable = match tasks {
                None => unsuitable(view, node),
                Some(tasks) => {
                    let tasks = tasks.iter().filter_map(|id| view.tasks().get(id));
                    let here = tasks.filter(|task| is_placed(task) && !suits(view, node, task));
                    here.cloned().collect()
                }
            };
            plan.changes
                .extend(unsuitable.iter().map(|task| reject(task, now)));
        }
        plan
    }
}

impl Enforcer {
    fn mark(&mut self, task: &Task) {
        if let Some(node) = &task.node_id {
            let tasks = self.tasks.entry(node.clone()).or_default();
            tasks.insert(task.id.clone());
        }
    }
}

/// Whether a task has just been placed. What it reserves was there: only the constraints of its
/// service may have changed.
fn is_new(event: &Event, task: &Task) -> bool {
    match &event.before {
        Some(Object::Task(before)) => {
            before.node_id != task.node_id || !is_placed(before) && is_placed(task)
        }
        _ => task.node_id.is_some(),
    }
}

/// Whether a task is meant to run where it is. One of a global service has its node before the
/// scheduler has looked at it.
fn is_placed(task: &Task) -> bool {
    is_live(task) && task.status.state >= TaskState::Assigned
}

/// Whether a task may be on this node, apart from what it reserves.
fn suits(view: &State, node: &Node, task: &Task) -> bool {
    grants::admitted(&task.service_labels, &node.spec) && meets_constraints(view, node, task)
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
    let generic = resources.map_or(&[][..], |resources| &resources.generic_resources);
    let mut used = BTreeMap::new();
    let mut found = Vec::new();
    for task in view.tasks_of_node(&node.id).filter(|task| is_placed(task)) {
        let (own_cpus, own_memory) = task.reserved();
        let fits = (own_cpus == 0 || own_cpus <= cpus) && (own_memory == 0 || own_memory <= memory);
        let fits = fits && still_there(generic, &task.generic_resources, &mut used);
        if fits && suits(view, node, task) {
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
    let template = service.map_or(&*task.spec, |service| &service.spec.task_template);
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
