//! Tasks go only where they may: to nodes that are ready, active, satisfy the constraints, and do
//! not have as many of the service's tasks as is allowed. Held against the state at the moment of
//! the assignment; what happens to the node later is another matter.

use skep_api::node::{Availability, NodeState};
use skep_api::task::TaskState;
use skep_core::object::{Node, Object, Role, Task};
use skep_core::{Id, State};

use super::{Verdict, Write};

/// Looks at the assignments of one transaction.
pub fn check(write: &Write<'_>) -> Verdict {
    for event in write.events {
        if let (Some(Object::Task(before)), Some(Object::Task(after))) =
            (&event.before, &event.after)
            && let Some(node) = &after.node_id
            && got_its_node(before, after)
        {
            assigned(write, after, node).map_err(|why| format!("task {}: {why}", after.id))?;
        }
    }
    Ok(())
}

/// Whether a task was given to its node, which it may have had in mind from the start.
fn got_its_node(before: &Task, after: &Task) -> bool {
    before.status.state < TaskState::Assigned && after.status.state == TaskState::Assigned
}

fn assigned(write: &Write<'_>, task: &Task, node: &Id) -> Verdict {
    let node = write
        .before
        .nodes()
        .get(node)
        .ok_or("assigned to a node that does not exist")?;
    suits(task, node)?;
    let placement = task.spec.placement.as_ref();
    let limit = placement.map_or(0, |placement| placement.max_replicas);
    // Others of this transaction may have other limits: only those that are alike count.
    let alike = write
        .events
        .iter()
        .filter(|event| match (&event.before, &event.after) {
            (Some(Object::Task(before)), Some(Object::Task(after))) => {
                got_its_node(before, after)
                    && after.node_id.as_ref() == Some(&node.id)
                    && after.service_id == task.service_id
                    && after.spec_version == task.spec_version
            }
            _ => false,
        });
    let there = of_service_on(write.before, &task.service_id, &node.id) + alike.count() as u64;
    if limit > 0 && there > limit {
        return Err(format!(
            "node {} has {there} tasks of the service, allowed {limit}",
            node.id
        ));
    }
    fits(write.after, node)
}

/// Whether a node may get this task.
pub fn suits(task: &Task, node: &Node) -> Verdict {
    if node.status.state != NodeState::Ready {
        return Err(format!(
            "node {} is {}",
            node.id,
            node.status.state.as_str()
        ));
    }
    if !matches!(
        node.spec.availability,
        Availability::Active | Availability::Unset
    ) {
        return Err(format!(
            "node {} is {}",
            node.id,
            node.spec.availability.as_str()
        ));
    }
    satisfies(task, node)
}

/// Whether a node satisfies the constraints of a task.
pub fn satisfies(task: &Task, node: &Node) -> Verdict {
    let placement = task.spec.placement.iter();
    for constraint in placement.flat_map(|placement| &placement.constraints) {
        if !matches(constraint, node) {
            return Err(format!("node {} does not match {constraint}", node.id));
        }
    }
    Ok(())
}

/// A reading of constraints that shares nothing with the scheduler's; knows the keys that the
/// client of the simulation uses.
pub fn matches(constraint: &str, node: &Node) -> bool {
    let (key, wanted, equal) = match (constraint.split_once("=="), constraint.split_once("!=")) {
        (Some((key, wanted)), _) => (key, wanted, true),
        (_, Some((key, wanted))) => (key, wanted, false),
        _ => return false,
    };
    let actual = match key {
        "node.id" => node.id.as_str(),
        "node.role" if node.role == Role::Manager => "manager",
        "node.role" => "worker",
        "node.hostname" => node
            .description
            .as_ref()
            .map_or("", |d| d.hostname.as_str()),
        _ => {
            let label = key
                .strip_prefix("node.labels.")
                .and_then(|l| node.spec.labels.get(l));
            label.map_or("", String::as_str)
        }
    };
    (actual == wanted) == equal
}

/// Tasks of a service that hold a place on a node.
pub fn of_service_on(state: &State, service: &Id, node: &Id) -> u64 {
    let holds = |task: &&std::sync::Arc<Task>| {
        task.service_id == *service
            && task.desired_state <= TaskState::Complete
            && task.status.state >= TaskState::Assigned
            && task.status.state <= TaskState::Running
    };
    state.tasks_of_node(node).filter(holds).count() as u64
}

/// What the tasks of a node reserve must be there.
fn fits(state: &State, node: &Node) -> Verdict {
    let Some(description) = &node.description else {
        return Ok(());
    };
    let live = state
        .tasks_of_node(&node.id)
        .filter(|task| skep_core::task::is_live(task) && task.status.state >= TaskState::Assigned);
    let reserved = live.filter_map(|task| task.spec.resources.as_ref()?.reservations.as_ref());
    let (cpus, memory) = reserved.fold((0i64, 0i64), |(cpus, memory), more| {
        (cpus + more.nano_cpus, memory + more.memory_bytes)
    });
    let there = &description.resources;
    if cpus > there.nano_cpus || memory > there.memory_bytes {
        return Err(format!(
            "node {} is overbooked: {cpus} CPUs, {memory} bytes",
            node.id
        ));
    }
    Ok(())
}
