//! A cluster that is left alone comes to rest as declared: every service has exactly its replicas
//! running on nodes that suit them, every container belongs to a task, and nothing is left over.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::node::{Availability, NodeState};
use skep_api::service::UpdateState;
use skep_api::task::{TaskSpec, TaskState};
use skep_core::object::{Node, Service, Task};
use skep_core::{Id, State};

use super::{Verdict, modes, placement};
use crate::engine::{Engine, runs};

/// Holds the store against what was declared, and the engines against the store.
pub fn check<'a>(state: &State, engines: impl Iterator<Item = (&'a Id, &'a Engine)>) -> Verdict {
    let away = |node: &&std::sync::Arc<Node>| node.status.state != NodeState::Ready;
    if let Some(node) = state.nodes().iter().find(away) {
        return Err(format!(
            "node {} is {}",
            node.id,
            node.status.state.as_str()
        ));
    }
    for service in state.services().iter() {
        declared(state, service).map_err(|why| format!("{}: {why}", service.spec.name))?;
    }
    let mut running: BTreeMap<&str, usize> = BTreeMap::new();
    for (node, engine) in engines {
        for fake in engine.containers.values() {
            let task = fake.shown.task.as_str();
            let known = state
                .tasks()
                .get(task)
                .filter(|task| task.node_id.as_ref() == Some(node));
            let known = known.ok_or_else(|| format!("a container of {task} is left on {node}"))?;
            if runs(&fake.shown) {
                belongs(known)?;
                *running.entry(task).or_default() += 1;
            }
        }
    }
    let wanted = state
        .tasks()
        .iter()
        .filter(|task| task.status.state == TaskState::Running);
    for task in wanted {
        if running.get(task.id.as_str()) != Some(&1) {
            return Err(format!(
                "task {} is called running, its container does not",
                task.id
            ));
        }
    }
    Ok(())
}

/// A running container's task is called running and meant to.
fn belongs(task: &Task) -> Verdict {
    let (state, desired) = (task.status.state, task.desired_state);
    if (state, desired) == (TaskState::Running, TaskState::Running) {
        return Ok(());
    }
    Err(format!(
        "task {} runs but is {state}, wanted {desired}",
        task.id
    ))
}

fn declared(state: &State, service: &Service) -> Verdict {
    let mode = &service.spec.mode;
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        return modes::has_ended(state, service);
    }
    if mode.global.is_some() {
        modes::is_everywhere(state, service)?;
        return updated(state, service);
    }
    let replicated = service.spec.mode.replicated.as_ref();
    let replicas = replicated.and_then(|mode| mode.replicas).unwrap_or(1);
    let mut slots = BTreeSet::new();
    let mut homeless = BTreeSet::new();
    let mut placed = Ok(());
    for task in state.tasks_of_service(&service.id) {
        if task.desired_state == TaskState::Running && task.status.state == TaskState::Running {
            slots.insert(task.slot);
            placed = placed.and(stays(state, service, task));
        } else if waits(task) && nowhere(state, task) {
            homeless.insert(task.slot);
        } else if !over(task) {
            let (now, wanted) = (task.status.state, task.desired_state);
            return Err(format!("task {} is {now}, wanted {wanted}", task.id));
        }
    }
    slots.extend(&homeless);
    // An update waits for tasks without a node as long as that takes. What ended for good, or no
    // longer suits its node, waits for the update.
    let stuck = !homeless.is_empty() && is_under_way(service);
    let count = slots.len() as u64;
    if count > replicas || (count < replicas && !stuck) {
        return Err(format!("{count} of {replicas} replicas run"));
    }
    if stuck {
        return Ok(());
    }
    placed?;
    if homeless.is_empty() {
        updated(state, service)
    } else {
        Ok(())
    }
}

/// Whether nothing of the task runs or ever will.
pub fn over(task: &Task) -> bool {
    let never_placed =
        task.status.state < TaskState::Assigned && task.desired_state > TaskState::Complete;
    task.status.state.is_terminal() || never_placed
}

/// Whether a task is meant to run and has no node.
fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.desired_state <= TaskState::Complete
}

/// Whether no node may take the task. Reservations are too small in this world to matter.
fn nowhere(state: &State, task: &Task) -> bool {
    let placement = task.spec.placement.as_ref();
    let limit = placement.map_or(0, |placement| placement.max_replicas);
    let full =
        |node: &Id| limit > 0 && placement::of_service_on(state, &task.service_id, node) >= limit;
    state
        .nodes()
        .iter()
        .all(|node| placement::suits(task, node).is_err() || full(&node.id))
}

/// A running task is where the service has it; a paused node keeps what it has.
fn stays(state: &State, service: &Service, task: &Task) -> Verdict {
    let node = task
        .node_id
        .as_ref()
        .and_then(|node| state.nodes().get(node));
    let node = node.ok_or_else(|| format!("task {} runs nowhere", task.id))?;
    if node.spec.availability == Availability::Drain {
        return Err(format!(
            "task {} runs on the drained node {}",
            task.id, node.id
        ));
    }
    // A task that suits new constraints is kept, with the old ones in its spec; one that does not
    // waits for the update, see `updated`.
    placement::satisfies(task, node).or_else(|_| satisfies_new(service, task, node))
}

/// Whether a node satisfies the constraints that the service has now.
fn satisfies_new(service: &Service, task: &Task, node: &Node) -> Verdict {
    let mut task = task.clone();
    let now = &service.spec.task_template.placement;
    task.spec.placement.clone_from(now);
    placement::satisfies(&task, node)
}

fn is_under_way(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(|status| {
        matches!(
            status.state,
            UpdateState::Updating | UpdateState::RollbackStarted
        )
    })
}

/// Unless the update was stopped, every running task is of the current spec.
fn updated(state: &State, service: &Service) -> Verdict {
    let progress = service.update_status.as_ref().map(|status| &status.state);
    match progress {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => return Ok(()),
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => {
            return Err("the update is still under way".into());
        }
        _ => {}
    }
    let current = &service.spec.task_template;
    let live = state
        .tasks_of_service(&service.id)
        .filter(|task| skep_core::task::is_live(task));
    // A node that still satisfies changed constraints keeps its task; a task names no runtime.
    let old = |task: &Task| {
        let mut spec = TaskSpec::clone(&task.spec);
        spec.placement.clone_from(&current.placement);
        spec.runtime.clone_from(&current.runtime);
        spec != *current
    };
    for task in live {
        if old(task) {
            return Err(format!("task {} runs an old spec", task.id));
        }
        let node = task
            .node_id
            .as_ref()
            .and_then(|node| state.nodes().get(node));
        node.map_or(Ok(()), |node| satisfies_new(service, task, node))?;
    }
    Ok(())
}
