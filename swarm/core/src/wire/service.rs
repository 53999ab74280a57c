//! A service as clients see it: the spec with or without defaults, and the counts for `service ls`.
//! Credentials stay behind.

use std::collections::BTreeSet;

use skep_api::go::Version;
use skep_api::network::Endpoint;
use skep_api::service::{Service as WireService, ServiceStatus};
use skep_api::task::TaskState;

use crate::object::{Service, Task};
use crate::orchestrator::iteration;
use crate::store::State;

/// `GET /services/{id}`, with the defaults filled in if the client asks for them.
pub fn service(service: &Service, insert_defaults: bool) -> WireService {
    let mut spec = service.spec.clone();
    if insert_defaults {
        spec.insert_defaults();
    }
    WireService {
        id: service.id.to_string(),
        version: Version::from(service.meta.version),
        created_at: service.meta.created_at,
        updated_at: service.meta.updated_at,
        spec,
        previous_spec: service.previous_spec.clone(),
        endpoint: endpoint(service),
        update_status: service.update_status.clone(),
        service_status: None,
        job_status: service.job,
    }
}

/// How the service is reached. Ports that nobody has to allocate are there at once.
fn endpoint(service: &Service) -> Endpoint {
    if let Some(endpoint) = &service.endpoint {
        return endpoint.clone();
    }
    match &service.spec.endpoint_spec {
        // Of one without addresses, how it resolves is shown where it has networks.
        Some(spec) if !spec.ports.is_empty() || !service.spec.task_template.networks.is_empty() => {
            Endpoint {
                spec: spec.clone(),
                ports: spec.ports.clone(),
                virtual_ips: Vec::new(),
            }
        }
        _ => Endpoint::default(),
    }
}

/// The counts of `GET /services?status=true`. Of a job only the tasks of the present run count, and
/// each slot is completed once.
pub fn service_status(view: &State, service: &Service) -> ServiceStatus {
    let mode = &service.spec.mode;
    let run = iteration(service);
    let tasks = || {
        let tasks = view.tasks_of_service(&service.id);
        tasks.filter(|task| task.job_iteration == run)
    };
    let count = |wanted: &dyn Fn(&Task) -> bool| tasks().filter(|task| wanted(task)).count() as u64;
    let completed = || tasks().filter(|task| task.status.state == TaskState::Complete);
    let desired_tasks = if let Some(replicated) = &mode.replicated {
        replicated.replicas.unwrap_or(1)
    } else if let Some(job) = &mode.replicated_job {
        job.max_concurrent.unwrap_or(1)
    } else if mode.global_job.is_some() {
        count(&|task| {
            task.desired_state == TaskState::Complete && task.status.state != TaskState::Complete
        })
    } else {
        count(&|task| task.desired_state == TaskState::Running)
    };
    let completed_tasks = if mode.replicated_job.is_some() {
        completed()
            .map(|task| task.slot)
            .collect::<BTreeSet<_>>()
            .len()
    } else if mode.global_job.is_some() {
        let nodes = completed().map(|task| &task.node_id);
        nodes.collect::<BTreeSet<_>>().len()
    } else {
        0
    };
    ServiceStatus {
        running_tasks: count(&|task| task.status.state == TaskState::Running),
        desired_tasks,
        completed_tasks: completed_tasks as u64,
    }
}
