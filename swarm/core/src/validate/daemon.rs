//! The daemon layer for services and nodes: refuses what dockerd's conversion refuses. The form in
//! which a spec is stored and read back is `skep_api`'s matter. Pure.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/{service,node}.go`, in their order.

use skep_api::Error;
use skep_api::network::EndpointSpec;
use skep_api::node::NodeSpec;
use skep_api::service::{GlobalService, ServiceMode, ServiceSpec, UpdateConfig};
use skep_api::task::{ResourceRequirements, RestartPolicy, Runtime, TaskSpec};

use super::container;

type Checked<T = ()> = Result<T, Error>;

pub(super) fn bad<T>(text: impl Into<String>) -> Checked<T> {
    Err(Error::invalid(text))
}

/// Checks a service's spec as dockerd does before it asks a manager, and returns it as it is
/// stored and read back. An empty name stays empty: it is the caller who invents one.
///
/// # Errors
/// dockerd's texts, 400, without a prefix.
pub fn service_spec(mut spec: ServiceSpec) -> Checked<ServiceSpec> {
    spec.task_template
        .resources
        .as_ref()
        .map_or(Ok(()), resources)?;
    runtime(&spec.task_template, &spec.mode)?;
    spec.task_template
        .restart_policy
        .as_ref()
        .map_or(Ok(()), restart_policy)?;
    for config in spec.update_config.iter().chain(&spec.rollback_config) {
        update_config(config)?;
    }
    spec.endpoint_spec.as_ref().map_or(Ok(()), endpoint_spec)?;
    if spec.task_template.runtime == Runtime::Plugin {
        // Plugins are on every node, whatever else was said.
        spec.mode.global = Some(GlobalService::default());
    } else {
        spec.task_template.plugin_spec = None;
    }
    spec.task_template.network_attachment_spec = None;
    mode(&spec.mode)?;
    spec.normalize();
    Ok(spec)
}

fn resources(resources: &ResourceRequirements) -> Checked {
    let memory = resources
        .limits
        .as_ref()
        .map_or(0, |limits| limits.memory_bytes);
    if resources.swap_bytes.is_some() && memory == 0 {
        return bad("memory swap provided, but no memory-limit was set");
    }
    Ok(())
}

fn runtime(task: &TaskSpec, mode: &ServiceMode) -> Checked {
    let mismatch = || bad("mismatched Runtime and *Spec fields");
    match &task.runtime {
        Runtime::Unset | Runtime::Container => task
            .container_spec
            .as_ref()
            .map_or_else(mismatch, container::check),
        Runtime::Plugin if task.plugin_spec.is_none() => mismatch(),
        Runtime::Plugin if mode.replicated.is_some() => bad("plugins must not use replicated mode"),
        Runtime::Plugin => Ok(()),
        Runtime::Attachment | Runtime::Other(_) => bad("unsupported runtime"),
    }
}

fn restart_policy(policy: &RestartPolicy) -> Checked {
    if policy.condition.is_unknown() {
        return bad(format!(
            "invalid RestartCondition: {:?}",
            policy.condition.as_str()
        ));
    }
    Ok(())
}

fn update_config(config: &UpdateConfig) -> Checked {
    if config.failure_action.is_unknown() {
        return bad(format!(
            "unrecognized update failure action {}",
            config.failure_action
        ));
    }
    if config.order.is_unknown() {
        return bad(format!("unrecognized update order {}", config.order));
    }
    Ok(())
}

fn endpoint_spec(endpoint: &EndpointSpec) -> Checked {
    if endpoint.mode.is_unknown() {
        return bad(format!(
            "invalid resolution mode: {:?}",
            endpoint.mode.as_str()
        ));
    }
    Ok(())
}

fn mode(mode: &ServiceMode) -> Checked {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return bad("must specify only one service mode");
    }
    Ok(())
}

/// Checks a node's spec: role and availability are mandatory.
///
/// # Errors
/// dockerd's texts, 400, without a prefix.
pub fn node_spec(spec: NodeSpec) -> Checked<NodeSpec> {
    if spec.role.is_unset() || spec.role.is_unknown() {
        return bad(format!("invalid Role: {:?}", spec.role.as_str()));
    }
    if spec.availability.is_unset() || spec.availability.is_unknown() {
        return bad(format!(
            "invalid Availability: {:?}",
            spec.availability.as_str()
        ));
    }
    Ok(spec)
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
