//! Global services have their task on every node that suits and on no other; jobs come to their end,
//! each slot or node once a run, and begin nothing beyond their total. Says nothing of replicated
//! services.

use std::collections::BTreeSet;

use skep_api::node::{Availability, NodeState};
use skep_api::task::TaskState;
use skep_core::object::{Node, Object, Service, Task};
use skep_core::{Id, State};

use super::settled::over;
use super::{Verdict, Write, placement};

/// Looks at the tasks that one transaction makes.
pub fn check(write: &Write<'_>) -> Verdict {
    for event in write.events {
        let (None, Some(Object::Task(task))) = (&event.before, &event.after) else {
            continue;
        };
        let service = write.before.services().get(&task.service_id);
        if let Some(service) = service {
            made(write.before, service, task).map_err(|why| format!("task {}: {why}", task.id))?;
        }
    }
    Ok(())
}

fn made(state: &State, service: &Service, task: &Task) -> Verdict {
    let mode = &service.spec.mode;
    let run = service.job.map(|job| job.job_iteration.index);
    if task.job_iteration != run {
        return Err(format!(
            "made for run {:?} in run {run:?}",
            task.job_iteration
        ));
    }
    let job = mode.replicated_job.as_ref();
    let total = job.and_then(|job| job.total_completions);
    if total.is_some_and(|total| task.slot >= total) {
        return Err(format!("made for slot {} of {total:?}", task.slot));
    }
    let by_node = mode.global.is_some() || mode.global_job.is_some();
    match &task.node_id {
        Some(id) if by_node => {
            let node = state.nodes().get(id).ok_or("made for no node")?;
            if gets_one(node, service) {
                return Ok(());
            }
            Err(format!("made for node {id}, which is not to have it"))
        }
        None if !by_node => Ok(()),
        other => Err(format!("made for {other:?}")),
    }
}

/// Whether a node is to have a task of the service.
fn gets_one(node: &Node, service: &Service) -> bool {
    let availability = &node.spec.availability;
    node.status.state != NodeState::Down
        && matches!(availability, Availability::Active | Availability::Unset)
        && suits(node, service)
}

/// Whether a node satisfies the constraints of a service.
fn suits(node: &Node, service: &Service) -> bool {
    let placement = service.spec.task_template.placement.iter();
    let mut constraints = placement.flat_map(|placement| &placement.constraints);
    constraints.all(|constraint| placement::matches(constraint, node))
}

/// At rest: exactly one task runs on each node that suits, and nothing is live elsewhere.
pub fn is_everywhere(state: &State, service: &Service) -> Verdict {
    let mut there: BTreeSet<&Id> = BTreeSet::new();
    for task in state.tasks_of_service(&service.id) {
        let (now, wanted) = (task.status.state, task.desired_state);
        if (now, wanted) != (TaskState::Running, TaskState::Running) {
            if over(task) {
                continue;
            }
            return Err(format!("task {} is {now}, wanted {wanted}", task.id));
        }
        let node = task.node_id.as_ref().ok_or("a task runs nowhere")?;
        if !there.insert(node) {
            return Err(format!("two tasks run on {node}"));
        }
    }
    let nodes = state.nodes().iter();
    let wanted: BTreeSet<&Id> = nodes
        .filter(|node| gets_one(node, service))
        .map(|node| &node.id)
        .collect();
    if there == wanted {
        return Ok(());
    }
    Err(format!("runs on {there:?}, is to run on {wanted:?}"))
}

/// At rest: every slot, or every node that suits, has completed the present run, and nothing is left
/// of it or of earlier ones.
pub fn has_ended(state: &State, service: &Service) -> Verdict {
    let run = service.job.map(|job| job.job_iteration.index);
    let mut slots: BTreeSet<u64> = BTreeSet::new();
    let mut nodes: BTreeSet<&Id> = BTreeSet::new();
    for task in state.tasks_of_service(&service.id) {
        let (now, wanted) = (task.status.state, task.desired_state);
        if !over(task) {
            return Err(format!("task {} is {now}, wanted {wanted}", task.id));
        }
        if task.job_iteration == run && now == TaskState::Complete {
            slots.insert(task.slot);
            nodes.extend(&task.node_id);
        }
    }
    if let Some(job) = &service.spec.mode.replicated_job {
        let total = job.total_completions.unwrap_or(1);
        let count = slots.len() as u64;
        if count != total {
            return Err(format!("{count} of {total} completions"));
        }
        return Ok(());
    }
    let left = state.nodes().iter();
    let mut left = left.filter(|node| gets_one(node, service) && !nodes.contains(&node.id));
    match left.next() {
        Some(node) => Err(format!("was never completed on {}", node.id)),
        None => Ok(()),
    }
}
