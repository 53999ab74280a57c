//! A task as clients see it. Its name and its service's labels stay behind, as in the original:
//! clients put the name together themselves.

use skep_api::go::Version;
use skep_api::task::{Runtime, Task as WireTask};

use crate::object::Task;

/// `GET /tasks/{id}`.
pub fn task(task: &Task) -> WireTask {
    let mut spec = task.spec.clone();
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
        generic_resources: task.generic_resources.clone(),
        ..WireTask::default()
    }
}
