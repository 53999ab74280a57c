//! Whether a task still is what its service declares. Decides nothing about what follows from it.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/task.go`.

use skep_api::task::{Runtime, TaskSpec, TaskState};

use super::constraint::Constraint;
use crate::labels::grants;
use crate::object::{Service, Task};
use crate::store::State;

/// Whether a task has to be replaced: it is to move, its secrets or configs have new data, or its
/// spec is another one.
pub(crate) fn is_dirty(view: &State, service: &Service, task: &Task) -> bool {
    task.moving || task.roll != service.roll || differs(view, service, task)
}

/// Whether a task's spec is another one than its service has, and not only in ways that the task
/// would not notice. Of the service's labels only those that give the container more than its usual
/// share count; its placement counts only if its node no longer fits, new registry
/// credentials only until its image is there.
pub(super) fn differs(view: &State, service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version {
        return false;
    }
    if task.status.state < TaskState::Ready && task.registry_auth != service.registry_auth {
        return true;
    }
    if !grants::same(&task.service_labels, &service.spec.labels) || moved(service, task) {
        return true;
    }
    let wanted = &service.spec.task_template;
    if !is_same_elsewhere(&task.spec, wanted) {
        return true;
    }
    if task.spec.placement == wanted.placement {
        return false;
    }
    let placement = wanted.placement.as_ref();
    let constraints = placement.map_or(&[][..], |placement| &placement.constraints);
    let node = task.node_id.as_ref().and_then(|id| view.nodes().get(id));
    !node.is_some_and(|node| {
        Constraint::parse_all(constraints)
            .iter()
            .all(|c| c.matches(node))
    })
}

/// Whether a task's spec is as the template says, placement apart. Said of every task of a service
/// that is updated: compares without making the spec that the task would get.
fn is_same_elsewhere(spec: &TaskSpec, template: &TaskSpec) -> bool {
    let TaskSpec {
        container_spec,
        plugin_spec,
        network_attachment_spec,
        resources,
        restart_policy,
        placement: _,
        networks,
        log_driver,
        force_update,
        runtime,
    } = spec;
    // In a task it is never named.
    *runtime == Runtime::Unset
        && *force_update == template.force_update
        && *container_spec == template.container_spec
        && *plugin_spec == template.plugin_spec
        && *network_attachment_spec == template.network_attachment_spec
        && *resources == template.resources
        && *restart_policy == template.restart_policy
        && *networks == template.networks
        && *log_driver == template.log_driver
}

/// Whether the service is to be reached in another way than when the task was made. Tasks that
/// know of none are only behind if there are ports now.
fn moved(service: &Service, task: &Task) -> bool {
    let wanted = &service.spec.endpoint_spec;
    let ports = wanted.iter().any(|endpoint| !endpoint.ports.is_empty());
    task.endpoint != *wanted && (task.endpoint.is_some() || ports)
}
