//! From a task and its node to the body of the engine's `POST /containers/create`. Never asks the
//! engine or the disk anything: what only they know is found out when the container is created.

mod host;
mod networking;
mod ports;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use skep_api::container::{ContainerSpec, Mount, MountType};
use skep_api::task::GenericResource;

pub use networking::{further_networks, ipam_config};

use crate::labels::grants::{self, Grants};
use crate::object::{Node, Task};
use crate::template::Context;

/// Marks containers of tasks; its value is empty.
pub const LABEL_TASK: &str = "com.docker.swarm.task";
/// The label with the task's id.
pub const LABEL_TASK_ID: &str = "com.docker.swarm.task.id";
/// The label with the container's name.
pub const LABEL_TASK_NAME: &str = "com.docker.swarm.task.name";
/// The label with the node's id.
pub const LABEL_NODE_ID: &str = "com.docker.swarm.node.id";
/// The label with the service's id.
pub const LABEL_SERVICE_ID: &str = "com.docker.swarm.service.id";
/// The label with the service's name.
pub const LABEL_SERVICE_NAME: &str = "com.docker.swarm.service.name";

/// The body of `POST /containers/create` for a task on a node.
///
/// # Errors
/// The text that the task's status shows, as dockerd words it.
pub fn create_body(task: &Task, node: &Node) -> Result<Value, String> {
    let spec = task
        .spec
        .container_spec
        .as_ref()
        .ok_or("service does not use container tasks")?;
    let context = Context::new(task, node);
    let failed = |what: &'static str| move |why: String| format!("expanding {what} failed: {why}");
    let mut env = env(spec, &context).map_err(failed("env"))?;
    env.extend(resource_env(&task.generic_resources));
    let hostname = context.expand(&spec.hostname).map_err(failed("hostname"))?;
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| expand_mount(mount, &context));
    let mounts = mounts
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed("mounts"))?;
    mounts.iter().try_for_each(check_mount)?;
    let grants = grants(task, node)?;
    let (exposed, bindings) = ports::host_ports(task);

    let mut body = Body::default();
    body.set("Image", &spec.image);
    body.set("Entrypoint", &spec.command);
    body.set("Cmd", &spec.args);
    body.set("Hostname", hostname);
    body.set("Env", env);
    body.set("WorkingDir", &spec.dir);
    body.set("User", &spec.user);
    body.set("Tty", spec.tty);
    body.set("OpenStdin", spec.open_stdin);
    body.set("StopSignal", &spec.stop_signal);
    body.set("Labels", labels(task, node, spec));
    body.set("Healthcheck", &spec.healthcheck);
    body.set("ExposedPorts", exposed);
    let mut host = host::host_config(task, spec, &mounts)?;
    networking::attach(task, &mut body, &mut host);
    host.set_some("PortBindings", Some(bindings));
    host::grant(&mut host, &grants);
    body.set("HostConfig", host.done());
    Ok(body.done())
}

/// The user's labels, and over them those that tell whose container it is.
fn labels(task: &Task, node: &Node, spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    let system = [
        (LABEL_TASK, String::new()),
        (LABEL_TASK_ID, task.id.to_string()),
        (LABEL_TASK_NAME, task.name()),
        (LABEL_NODE_ID, node.id.to_string()),
        (LABEL_SERVICE_ID, task.service_id.to_string()),
        (LABEL_SERVICE_NAME, task.service_name.to_string()),
    ];
    labels.extend(system.map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// What the service's labels ask for beyond Docker's API. A node that does not allow it refuses,
/// whatever the scheduler thought.
fn grants(task: &Task, node: &Node) -> Result<Grants, String> {
    let labels = &task.service_labels;
    if !grants::admitted(labels, &node.spec) {
        return Err(format!(
            "this node does not allow devices, privileges and GPUs: it has no label {}=true",
            grants::ALLOW
        ));
    }
    Grants::parse(labels).map_err(|(label, why)| format!("label {label}: {why}"))
}

/// `DOCKER_RESOURCE_GPU=UUID1,UUID2`: what the task was given of what its node names itself.
fn resource_env(given: &[GenericResource]) -> Vec<String> {
    let mut kinds = BTreeMap::<String, Vec<String>>::new();
    for resource in given {
        if let Some(named) = &resource.named_resource_spec {
            let kind = kinds.entry(named.kind.to_uppercase()).or_default();
            kind.push(named.value.clone());
        }
        if let Some(amount) = &resource.discrete_resource_spec {
            let kind = kinds.entry(amount.kind.to_uppercase()).or_default();
            kind.push(amount.value.to_string());
        }
    }
    let line = |(kind, values): (String, Vec<String>)| {
        format!("DOCKER_RESOURCE_{kind}={}", values.join(","))
    };
    kinds.into_iter().map(line).collect()
}

/// Only what stands after the `=` is a template.
fn env(spec: &ContainerSpec, context: &Context<'_>) -> Result<Vec<String>, String> {
    let expand = |entry: &String| match entry.split_once('=') {
        Some((name, value)) => Ok(format!("{name}={}", context.expand(value)?)),
        None => Ok(entry.clone()),
    };
    spec.env.iter().map(expand).collect()
}

fn expand_mount(mount: &Mount, context: &Context<'_>) -> Result<Mount, String> {
    let mut mount = mount.clone();
    mount.source = context.expand(&mount.source)?;
    mount.target = context.expand(&mount.target)?;
    if let Some(options) = &mut mount.volume_options {
        let driver = options.driver_config.iter_mut();
        let texts = driver.flat_map(|driver| driver.options.values_mut());
        for text in options.labels.values_mut().chain(texts) {
            *text = context.expand(text)?;
        }
    }
    Ok(mount)
}

/// What dockerd checks before it makes the container. Whether the source of a bind exists only the
/// engine knows.
fn check_mount(mount: &Mount) -> Result<(), String> {
    let (source, target) = (&mount.source, &mount.target);
    if !target.starts_with('/') {
        return Err(format!(
            "invalid mount target, must be an absolute path: {target}"
        ));
    }
    let absolute = source.starts_with('/');
    match &mount.kind {
        MountType::Bind | MountType::Unset if !absolute => Err(format!(
            "invalid bind mount source, must be an absolute path: {source}"
        )),
        MountType::Volume if absolute => Err(format!(
            "invalid volume mount source, must not be an absolute path: {source}"
        )),
        MountType::Tmpfs if !source.is_empty() => {
            Err("invalid tmpfs source, source must be empty".to_owned())
        }
        MountType::Npipe if source.is_empty() => {
            Err("invalid npipe source, source must not be empty".to_owned())
        }
        MountType::Cluster | MountType::Image | MountType::Other(_) => {
            Err(format!("invalid mount type: {}", mount.kind))
        }
        _ => Ok(()),
    }
}

/// A JSON object that leaves zero values out, as a Go client would.
#[derive(Default)]
struct Body(Map<String, Value>);

impl Body {
    fn set(&mut self, key: &str, value: impl Serialize) {
        // The types that come here always have a JSON form.
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        let zero = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
        };
        if !zero {
            self.0.insert(key.to_owned(), value);
        }
    }

    /// Also if it is the zero value.
    fn set_some(&mut self, key: &str, value: Option<impl Serialize>) {
        let value = value.and_then(|value| serde_json::to_value(value).ok());
        self.0.extend(value.map(|value| (key.to_owned(), value)));
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

#[cfg(test)]
mod tests;
