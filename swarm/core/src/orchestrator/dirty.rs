//! Whether a task still is what its service declares. Decides nothing about what follows from it.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/task.go`.

use skep_api::task::{TaskSpec, TaskState};

use super::constraint::Constraint;
use super::template;
use crate::object::{Service, Task};
use crate::store::State;

/// Whether a task has to be replaced: its spec is another one, and not only in ways that the task
/// would not notice. Its placement counts only if its node no longer fits, new registry
/// credentials only until its image is there.
pub(crate) fn is_dirty(view: &State, service: &Service, task: &Task) -> bool {
    if task.moving {
        return true;
    }
    if task.spec_version == service.spec_version {
        return false;
    }
    if task.status.state < TaskState::Ready && task.registry_auth != service.registry_auth {
        return true;
    }
    let wanted = template(service);
    if task.spec == wanted {
        return false;
    }
    let elsewhere = TaskSpec {
        placement: wanted.placement.clone(),
        ..task.spec.clone()
    };
    if elsewhere != wanted {
        return true;
    }
    let constraints = wanted
        .placement
        .map(|placement| placement.constraints)
        .unwrap_or_default();
    let node = task.node_id.as_ref().and_then(|id| view.nodes().get(id));
    !node.is_some_and(|node| {
        Constraint::parse_all(&constraints)
            .iter()
            .all(|c| c.matches(node))
    })
}
