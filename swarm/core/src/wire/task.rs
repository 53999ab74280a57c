//! A task as clients see it. Its name and its service's labels stay behind, as in the original:
//! clients put the name together themselves.

use skep_api::go::Version;
use skep_api::task::{Runtime, Task as WireTask, TaskSpec};

use super::network::attachments;
use crate::object::Task;
use crate::store::State;

/// `GET /tasks/{id}`, with the task's networks in full.
pub fn task(view: &State, task: &Task) -> WireTask {
    let mut spec = TaskSpec::clone(&task.spec);
    // A service's spec names its runtime, a container task's does not.
    if spec.runtime == Runtime::Container {
        spec.runtime = Runtime::Unset;
    }
    WireTask {
        id: task.id.to_string(),
        version: Version::from(task.meta.version),
        created_at: task.meta.created_at,
        updated_at: task.meta.updated_at,
        spec,
        service_id: task.service_id.to_string(),
        slot: i64::try_from(task.slot).unwrap_or(i64::MAX),
        node_id: task
            .node_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        status: task.status.clone(),
        desired_state: task.desired_state,
        job_iteration: task.job_iteration.map(Version::from),
        networks_attachments: attachments(view, task),
        generic_resources: task.generic_resources.clone(),
        ..WireTask::default()
    }
}
