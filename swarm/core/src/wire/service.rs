//! A service as clients see it: the spec with or without defaults, and the counts for `service ls`.
//! Credentials stay behind.

use skep_api::go::Version;
use skep_api::network::Endpoint;
use skep_api::service::{
    FailureAction, Service as WireService, ServiceSpec, ServiceStatus, UpdateConfig, UpdateOrder,
};
use skep_api::task::{RestartCondition, RestartPolicy, TaskState};

use crate::SECOND;
use crate::object::Service;
use crate::store::State;

/// How long the engine waits before it kills, unless the spec says otherwise.
const STOP_GRACE: i64 = 10 * SECOND;
/// How long a task that ended waits before its replacement starts.
const RESTART_DELAY: i64 = 5 * SECOND;
/// How long an updated task is watched for failures.
const MONITOR: i64 = 5 * SECOND;

/// `GET /services/{id}`, with the defaults filled in if the client asks for them.
pub fn service(service: &Service, insert_defaults: bool) -> WireService {
    let spec = service.spec.clone();
    WireService {
        id: service.id.to_string(),
        version: Version::from(service.meta.version),
        created_at: service.meta.created_at,
        updated_at: service.meta.updated_at,
        spec: if insert_defaults {
            with_defaults(spec)
        } else {
            spec
        },
        previous_spec: service.previous_spec.clone(),
        // Ports and addresses come with the allocator.
        endpoint: Endpoint::default(),
        update_status: service.update_status.clone(),
        service_status: None,
        job_status: None,
    }
}

/// Fills in what a spec leaves open. Source: swarmkit `api/defaults/service.go`.
pub fn with_defaults(mut spec: ServiceSpec) -> ServiceSpec {
    let task = &mut spec.task_template;
    if let Some(container) = &mut task.container_spec {
        container.stop_grace_period.get_or_insert(STOP_GRACE);
        container.dns_config.get_or_insert_default();
    }
    task.resources.get_or_insert_default();
    let restart = task.restart_policy.get_or_insert_with(|| RestartPolicy {
        condition: RestartCondition::Any,
        max_attempts: Some(0),
        ..RestartPolicy::default()
    });
    restart.delay.get_or_insert(RESTART_DELAY);
    task.placement.get_or_insert_default();
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(|| UpdateConfig {
            parallelism: 1,
            failure_action: FailureAction::Pause,
            order: UpdateOrder::StopFirst,
            ..UpdateConfig::default()
        });
        if config.monitor == 0 {
            config.monitor = MONITOR;
        }
    }
    spec
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
