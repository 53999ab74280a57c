//! Expands a spec's templates for a task and a node that do not exist, so that a mistake is refused
//! at create and not found by every task. Pure.
//!
//! Source of the behaviour: swarmkit expands with dummies too (`template.ExpandContainerSpec`).
//! The words behind the last colon are Go's there and our own here.

use std::fmt::Display;

use skep_api::Error;
use skep_api::container::{ContainerSpec, Mount};
use skep_api::node::{NodeDescription, NodeSpec};
use skep_api::service::ServiceSpec;
use skep_api::task::{Platform, TaskSpec};

use super::refused;
use crate::id::Id;
use crate::object::{Meta, Node, NodeStatus, Role, Task};
use crate::template::Context;

/// Refuses templates that could not be expanded for any task of the service.
pub(super) fn check(spec: &ServiceSpec, container: &ContainerSpec) -> Result<(), Error> {
    let (task, node) = (task(spec), node());
    let context = Context::new(&task, &node);
    for entry in &container.env {
        // Only what stands after the `=` is a template.
        let value = entry.split_once('=').map_or("", |(_, value)| value);
        let told = context.expand(value);
        told.map_err(|why| failed("env", format_args!("expanding env {entry:?}: {why}")))?;
    }
    for mount in &container.mounts {
        for (what, text) in texts(mount) {
            let told = context.expand(text);
            let words = |why| {
                failed(
                    "mounts",
                    format_args!("expanding mount {what} {text:?}: {why}"),
                )
            };
            told.map_err(words)?;
        }
    }
    let told = context.expand(&container.hostname);
    told.map(drop).map_err(|why| failed("hostname", why))
}

fn failed(what: &str, why: impl Display) -> Error {
    refused(format_args!("expanding {what} failed: {why}"))
}

/// The templates of a mount, each with what it is.
fn texts(mount: &Mount) -> Vec<(&'static str, &String)> {
    let mut texts = vec![("source", &mount.source), ("target", &mount.target)];
    if let Some(options) = &mount.volume_options {
        texts.extend(options.labels.values().map(|text| ("label", text)));
        let driver = options.driver_config.iter();
        let options = driver.flat_map(|driver| driver.options.values());
        texts.extend(options.map(|text| ("driver option", text)));
    }
    texts
}

fn task(spec: &ServiceSpec) -> Task {
    Task {
        service_id: Id::from("serviceid"),
        service_name: spec.name.as_str().into(),
        // The original has no labels here and so refuses every mention of one.
        service_labels: spec.labels.clone().into(),
        slot: 1,
        ..Task::new(Id::from("taskid"), TaskSpec::default())
    }
}

fn node() -> Node {
    let platform = Platform {
        architecture: "architecture".into(),
        os: "os".into(),
    };
    let description = NodeDescription {
        hostname: "nodeHostname".into(),
        platform,
        ..NodeDescription::default()
    };
    Node {
        id: Id::from("nodeid"),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(description),
        status: NodeStatus::default(),
        role: Role::Worker,
        manager: None,
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::spec;

    #[test]
    fn mistakes_are_found_at_create() {
        let refusal = |change: fn(&mut ContainerSpec)| {
            let mut spec = spec("web");
            spec.labels.insert("tier".into(), "front".into());
            let mut container = spec.task_template.container_spec.take().unwrap();
            change(&mut container);
            check(&spec, &container).map_err(|error| error.message)
        };
        let good = refusal(|container| {
            container.hostname = "{{.Node.Hostname}}-{{.Task.Slot}}".into();
            container.env = vec!["A={{.Service.Labels.tier}}".into(), "{{NOT".into()];
        });
        assert_eq!(good, Ok(()));
        let prefix = "rpc error: code = InvalidArgument desc = expanding ";
        for (change, text) in [
            (
                (|c| c.env = vec!["A={{.No}}".into()]) as fn(&mut ContainerSpec),
                "env failed: ",
            ),
            (|c| c.hostname = "{{".into(), "hostname failed: "),
            (
                |c| {
                    c.mounts = vec![Mount {
                        source: "{{.X}}".into(),
                        ..Mount::default()
                    }]
                },
                "mounts failed: expanding mount source \"{{.X}}\": ",
            ),
        ] {
            let message = refusal(change).unwrap_err();
            assert!(message.starts_with(&format!("{prefix}{text}")), "{message}");
        }
    }
}
