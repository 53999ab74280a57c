//! The manager layer for services: what the leader refuses by looking at the spec alone. Pure.
//!
//! Source of the behaviour: swarmkit `manager/controlapi/service.go`, in its order, so that a spec
//! with two faults is refused for the same one.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::container::{
    ConfigReference, ContainerSpec, FileTarget, HealthConfig, SecretReference,
};
use skep_api::network::{EndpointSpec, Protocol, PublishMode, ResolutionMode};
use skep_api::service::{ServiceMode, ServiceSpec, UpdateConfig};
use skep_api::task::RestartPolicy;
use skep_api::{Code, Error};

use super::{is_reference, refused, template};
use crate::orchestrator::constraint::Constraint;
use crate::{MILLISECOND, Nanos};

type Checked = Result<(), Error>;

/// The longest name of a service: that of a DNS label.
const MAX_NAME: usize = 63;
/// The least CPU limit or reservation, in billionths of a CPU.
const MIN_CPU: i64 = 1_000_000;
/// The least memory limit or reservation, in bytes.
const MIN_MEMORY: i64 = 4 << 20;

/// Refuses a service's spec that the daemon layer has let pass and that no state could make good.
pub fn check_service(spec: &ServiceSpec) -> Checked {
    name(&spec.name)?;
    task(spec)?;
    mode(&spec.mode)?;
    if spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some() {
        if spec.update_config.is_some() {
            return Err(refused("Jobs may not have an update config"));
        }
    } else {
        update(spec.update_config.as_ref())?;
    }
    endpoint(spec.endpoint_spec.as_ref())
}

/// Refuses what is no name of a service or network.
pub(super) fn name(name: &str) -> Checked {
    if name.is_empty() {
        return Err(refused("meta: name must be provided"));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let mut bytes = name.bytes();
    if !name.bytes().all(inner) || !edge(bytes.next()) || !edge(name.bytes().next_back()) {
        return Err(refused("name must be valid as a DNS name component"));
    }
    if name.len() > MAX_NAME {
        return Err(refused("name must be 63 characters or fewer"));
    }
    Ok(())
}

fn task(spec: &ServiceSpec) -> Checked {
    let task = &spec.task_template;
    if let Some(resources) = &task.resources {
        if let Some(limits) = &resources.limits {
            amounts(limits.nano_cpus, limits.memory_bytes)?;
        }
        if let Some(reservations) = &resources.reservations {
            amounts(reservations.nano_cpus, reservations.memory_bytes)?;
        }
    }
    restart(task.restart_policy.as_ref())?;
    for text in task
        .placement
        .iter()
        .flat_map(|placement| &placement.constraints)
    {
        // A bare error in the original: `Unknown`, hence 500 and not 400.
        Constraint::parse(text).map_err(|why| Error::rpc(Code::Unknown, why))?;
    }
    if let Some(container) = &task.container_spec {
        secrets(&container.secrets)?;
        configs(container)?;
        template::check(spec, container)?;
        return self::container(container);
    }
    if task.plugin_spec.is_some() {
        Ok(())
    } else {
        Err(refused("TaskSpec: missing runtime"))
    }
}

fn amounts(nano_cpus: i64, memory_bytes: i64) -> Checked {
    if nano_cpus != 0 && nano_cpus < MIN_CPU {
        #[allow(clippy::cast_precision_loss)]
        let cpus = go_float(nano_cpus as f64 / 1e9);
        return Err(refused(format!(
            "invalid cpu value {cpus}: Must be at least 0.001"
        )));
    }
    if memory_bytes != 0 && memory_bytes < MIN_MEMORY {
        return Err(refused(format!(
            "invalid memory value {memory_bytes}: Must be at least 4MiB"
        )));
    }
    Ok(())
}

/// Go's `%g`: the shortest digits, with an exponent of two digits below 1e-4 and from 1e6 on.
fn go_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn restart(policy: Option<&RestartPolicy>) -> Checked {
    let Some(policy) = policy else { return Ok(()) };
    if policy.delay.unwrap_or_default() < 0 {
        return Err(refused("TaskSpec: restart-delay cannot be negative"));
    }
    if policy.window.unwrap_or_default() < 0 {
        return Err(refused("TaskSpec: restart-window cannot be negative"));
    }
    Ok(())
}

fn container(container: &ContainerSpec) -> Checked {
    if container.image.is_empty() {
        return Err(refused("ContainerSpec: image reference must be provided"));
    }
    if !is_reference(&container.image) {
        let image = &container.image;
        return Err(refused(format!(
            "ContainerSpec: {image:?} is not a valid repository/tag"
        )));
    }
    let mut targets = BTreeSet::new();
    for mount in &container.mounts {
        if !targets.insert(&mount.target) {
            let target = &mount.target;
            return Err(refused(format!(
                "ContainerSpec: duplicate mount point: {target}"
            )));
        }
    }
    container.healthcheck.as_ref().map_or(Ok(()), health)
}

fn health(health: &HealthConfig) -> Checked {
    let spans: [(&str, Nanos); 4] = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    for (name, span) in spans {
        if span != 0 && span < MILLISECOND {
            let text = format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms");
            return Err(refused(text));
        }
    }
    if health.retries < 0 {
        return Err(refused(
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ));
    }
    Ok(())
}

fn secrets(references: &[SecretReference]) -> Checked {
    let mut targets = BTreeMap::new();
    for reference in references {
        if reference.secret_id.is_empty() || reference.secret_name.is_empty() {
            return Err(refused("malformed secret reference"));
        }
        let Some(file) = &reference.file else {
            return Err(refused("malformed secret reference, no target provided"));
        };
        target("secret", &mut targets, file, &reference.secret_name)?;
    }
    Ok(())
}

fn configs(container: &ContainerSpec) -> Checked {
    let mut targets = BTreeMap::new();
    for reference in &container.configs {
        if reference.config_id.is_empty() || reference.config_name.is_empty() {
            return Err(refused("malformed config reference"));
        }
        if reference.file.is_none() && reference.runtime.is_none() {
            return Err(refused("malformed config reference, no target provided"));
        }
        if let Some(file) = &reference.file {
            target("config", &mut targets, file, &reference.config_name)?;
        }
    }
    let credentials = container
        .privileges
        .as_ref()
        .and_then(|p| p.credential_spec.as_ref());
    let wanted = credentials.map_or("", |spec| spec.config.as_str());
    let provides = |r: &ConfigReference| r.runtime.is_some() && r.config_id == wanted;
    if !wanted.is_empty() && !container.configs.iter().any(provides) {
        return Err(refused(format!(
            "CredentialSpec references config '{wanted}', but that config isn't in config \
             references with RuntimeTarget"
        )));
    }
    Ok(())
}

fn target<'a>(
    kind: &str,
    taken: &mut BTreeMap<&'a str, &'a str>,
    file: &'a FileTarget,
    name: &'a str,
) -> Checked {
    if file.name.is_empty() {
        let text = format!("malformed file {kind} reference, invalid target file name provided");
        return Err(refused(text));
    }
    match taken.insert(&file.name, name) {
        None => Ok(()),
        Some(other) => Err(refused(format!(
            "{kind} references '{other}' and '{name}' have a conflicting target: '{}'",
            file.name
        ))),
    }
}

fn mode(mode: &ServiceMode) -> Checked {
    // Clients send -1 as a huge unsigned number.
    let negative = |count: Option<u64>| i64::try_from(count.unwrap_or_default()).is_err();
    if mode
        .replicated
        .as_ref()
        .is_some_and(|replicated| negative(replicated.replicas))
    {
        return Err(refused("Number of replicas must be non-negative"));
    }
    if let Some(job) = &mode.replicated_job {
        if negative(job.max_concurrent) {
            return Err(refused("Maximum concurrent jobs must not be negative"));
        }
        if negative(job.total_completions) {
            return Err(refused("Total completed jobs must not be negative"));
        }
    }
    Ok(())
}

fn update(config: Option<&UpdateConfig>) -> Checked {
    let Some(config) = config else { return Ok(()) };
    if config.delay < 0 {
        return Err(refused("TaskSpec: update-delay cannot be negative"));
    }
    if config.monitor < 0 {
        return Err(refused("TaskSpec: update-monitor cannot be negative"));
    }
    if config.max_failure_ratio < 0.0 || config.max_failure_ratio > 1.0 {
        return Err(refused(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ));
    }
    Ok(())
}

fn endpoint(endpoint: Option<&EndpointSpec>) -> Checked {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let mut taken: BTreeSet<(u32, &Protocol)> = BTreeSet::new();
    for port in &endpoint.ports {
        if endpoint.mode == ResolutionMode::DnsRr && port.publish_mode == PublishMode::Ingress {
            return Err(refused(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.published_port != 0 && !taken.insert((port.published_port, &port.protocol)) {
            return Err(refused("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
