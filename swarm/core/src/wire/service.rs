//! A service as clients see it: the spec with or without defaults, and the counts for `service ls`.
//! Credentials stay behind.

use skep_api::go::Version;
use skep_api::network::Endpoint;
use skep_api::service::{Service as WireService, ServiceStatus};
use skep_api::task::TaskState;

use crate::object::Service;
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
        job_status: None,
    }
}

/// How the service is reached. Ports that nobody has to allocate are there at once.
fn endpoint(service: &Service) -> Endpoint {
    if let Some(endpoint) = &service.endpoint {
        return endpoint.clone();
    }
    match &service.spec.endpoint_spec {
        Some(spec) if !spec.ports.is_empty() => Endpoint {
            spec: spec.clone(),
            ports: spec.ports.clone(),
            virtual_ips: Vec::new(),
        },
        _ => Endpoint::default(),
    }
}

/// The counts of `GET /services?status=true`. Completed tasks are counted for jobs only.
pub fn service_status(view: &State, service: &Service) -> ServiceStatus {
    let tasks = || view.tasks_of_service(&service.id);
    let running = tasks()
        .filter(|task| task.status.state == TaskState::Running)
        .count();
    let desired = match &service.spec.mode.replicated {
        Some(replicated) => replicated.replicas.unwrap_or(1),
        None => tasks()
            .filter(|task| task.desired_state == TaskState::Running)
            .count() as u64,
    };
    ServiceStatus {
        running_tasks: running as u64,
        desired_tasks: desired,
        completed_tasks: 0,
    }
}
