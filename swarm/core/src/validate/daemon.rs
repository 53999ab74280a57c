//! The daemon layer for services and nodes: refuses what dockerd's conversion refuses, and spells
//! out what it spells out, so that a spec reads back as from a real engine. Pure.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/{service,node}.go`, both directions.

use skep_api::network::{EndpointSpec, Protocol, PublishMode, ResolutionMode};
use skep_api::node::{Availability, NodeSpec, Role};
use skep_api::service::{
    FailureAction, ReplicatedJob, ReplicatedService, ServiceMode, ServiceSpec, UpdateConfig,
    UpdateOrder,
};
use skep_api::task::{
    Placement, ResourceRequirements, RestartCondition, RestartPolicy, Runtime, TaskSpec,
};
use skep_api::{Error, Kind};

use super::container;

type Checked<T> = Result<T, Error>;

fn bad<T>(text: impl Into<String>) -> Checked<T> {
    Err(Error::new(Kind::InvalidParameter, text))
}

/// Checks a service's spec as dockerd does before it asks a manager, and returns it as it is
/// stored and read back. An empty name stays empty: the caller gives it one first.
pub fn service_spec(spec: ServiceSpec) -> Checked<ServiceSpec> {
    let plugin = spec.task_template.runtime == Runtime::Plugin;
    let task_template = task_spec(spec.task_template, &spec.mode)?;
    let mode = if plugin {
        ServiceMode {
            global: Some(Default::default()),
            ..ServiceMode::default()
        }
    } else {
        spec.mode
    };
    Ok(ServiceSpec {
        task_template,
        update_config: spec.update_config.map(update_config).transpose()?,
        rollback_config: spec.rollback_config.map(update_config).transpose()?,
        endpoint_spec: spec.endpoint_spec.map(endpoint_spec).transpose()?,
        mode: service_mode(mode)?,
        ..spec
    })
}

fn task_spec(mut task: TaskSpec, mode: &ServiceMode) -> Checked<TaskSpec> {
    task.resources = task.resources.map(resources).transpose()?;
    match &task.runtime {
        Runtime::Unset | Runtime::Container => {
            let Some(container) = task.container_spec.take() else {
                return bad("mismatched Runtime and *Spec fields");
            };
            task.container_spec = Some(container::container_spec(container)?);
            task.plugin_spec = None;
            task.runtime = Runtime::Container;
        }
        Runtime::Plugin if task.plugin_spec.is_none() => {
            return bad("mismatched Runtime and *Spec fields");
        }
        Runtime::Plugin if mode.replicated.is_some() => {
            return bad("plugins must not use replicated mode");
        }
        Runtime::Plugin => {}
        Runtime::Attachment | Runtime::Other(_) => return bad("unsupported runtime"),
    }
    task.network_attachment_spec = None;
    task.restart_policy = task.restart_policy.map(restart_policy).transpose()?;
    task.placement = task.placement.map(placement);
    Ok(task)
}

fn resources(resources: ResourceRequirements) -> Checked<ResourceRequirements> {
    let memory = resources
        .limits
        .as_ref()
        .map_or(0, |limits| limits.memory_bytes);
    if resources.swap_bytes.is_some() && memory == 0 {
        return bad("memory swap provided, but no memory-limit was set");
    }
    Ok(resources)
}

fn restart_policy(policy: RestartPolicy) -> Checked<RestartPolicy> {
    let condition = match policy.condition {
        RestartCondition::Unset => RestartCondition::Any,
        RestartCondition::Other(text) => {
            return bad(format!("invalid RestartCondition: {text:?}"));
        }
        known => known,
    };
    // The original's own field is a plain number, so that an absent one reads back as 0.
    let max_attempts = Some(policy.max_attempts.unwrap_or_default());
    Ok(RestartPolicy {
        condition,
        max_attempts,
        ..policy
    })
}

fn placement(mut placement: Placement) -> Placement {
    placement
        .preferences
        .retain(|preference| preference.spread.is_some());
    placement
}

fn update_config(config: UpdateConfig) -> Checked<UpdateConfig> {
    let failure_action = match config.failure_action {
        FailureAction::Unset => FailureAction::Pause,
        FailureAction::Other(text) => {
            return bad(format!("unrecognized update failure action {text}"));
        }
        known => known,
    };
    let order = match config.order {
        UpdateOrder::Unset => UpdateOrder::StopFirst,
        UpdateOrder::Other(text) => return bad(format!("unrecognized update order {text}")),
        known => known,
    };
    Ok(UpdateConfig {
        failure_action,
        order,
        ..config
    })
}

fn endpoint_spec(mut endpoint: EndpointSpec) -> Checked<EndpointSpec> {
    endpoint.mode = match endpoint.mode {
        ResolutionMode::Unset => ResolutionMode::Vip,
        ResolutionMode::Other(text) => {
            return bad(format!("invalid resolution mode: {text:?}"));
        }
        known => known,
    };
    for port in &mut endpoint.ports {
        // An unknown protocol or mode silently becomes the default in the original too.
        port.protocol = match Protocol::from(port.protocol.as_str().to_lowercase().as_str()) {
            Protocol::Unset | Protocol::Other(_) => Protocol::Tcp,
            known => known,
        };
        port.publish_mode =
            match PublishMode::from(port.publish_mode.as_str().to_lowercase().as_str()) {
                PublishMode::Unset | PublishMode::Other(_) => PublishMode::Ingress,
                known => known,
            };
    }
    Ok(endpoint)
}

fn service_mode(mode: ServiceMode) -> Checked<ServiceMode> {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    match given.into_iter().filter(|given| *given).count() {
        0 => Ok(replicated(1)),
        1 => Ok(match mode {
            ServiceMode {
                replicated: Some(ReplicatedService { replicas }),
                ..
            } => replicated(replicas.unwrap_or(1)),
            ServiceMode {
                replicated_job: Some(job),
                ..
            } => {
                let concurrent = job.max_concurrent.unwrap_or(1);
                let total = job.total_completions.unwrap_or(concurrent);
                let job = ReplicatedJob {
                    max_concurrent: Some(concurrent),
                    total_completions: Some(total),
                };
                ServiceMode {
                    replicated_job: Some(job),
                    ..ServiceMode::default()
                }
            }
            other => other,
        }),
        _ => bad("must specify only one service mode"),
    }
}

fn replicated(replicas: u64) -> ServiceMode {
    let replicated = ReplicatedService {
        replicas: Some(replicas),
    };
    ServiceMode {
        replicated: Some(replicated),
        ..ServiceMode::default()
    }
}

/// Checks a node's spec: role and availability are mandatory, in any case of letters.
pub fn node_spec(spec: NodeSpec) -> Checked<NodeSpec> {
    let role = match Role::from(spec.role.as_str().to_lowercase().as_str()) {
        Role::Unset | Role::Other(_) => {
            return bad(format!("invalid Role: {:?}", spec.role.as_str()));
        }
        known => known,
    };
    let availability = match Availability::from(spec.availability.as_str().to_lowercase().as_str())
    {
        Availability::Unset | Availability::Other(_) => {
            return bad(format!(
                "invalid Availability: {:?}",
                spec.availability.as_str()
            ));
        }
        known => known,
    };
    Ok(NodeSpec {
        role,
        availability,
        ..spec
    })
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
