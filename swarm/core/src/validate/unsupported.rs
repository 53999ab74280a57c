//! The list of what a service's spec can say and skep does not do yet. Nothing on it is ignored
//! silently: it is refused with 501 and by name. Pure.

use skep_api::Error;
use skep_api::container::{ContainerSpec, MountType};
use skep_api::service::ServiceSpec;

use super::missing;

/// Refuses what is not there yet, one feature at a time.
pub fn unsupported(spec: &ServiceSpec) -> Result<(), Error> {
    match features(spec).into_iter().find(|(used, _)| *used) {
        Some((_, what)) => Err(missing(what)),
        None => Ok(()),
    }
}

/// Features with whether the spec uses them, in the order in which they are refused.
fn features(spec: &ServiceSpec) -> Vec<(bool, &'static str)> {
    let task = &spec.task_template;
    let driver_options = task.networks.iter().any(|it| !it.driver_opts.is_empty());
    let mut all = vec![
        (task.plugin_spec.is_some(), "a plugin service"),
        (driver_options, "a driver option of a service's network"),
    ];
    all.extend(task.container_spec.iter().flat_map(container));
    all
}

fn container(spec: &ContainerSpec) -> Vec<(bool, &'static str)> {
    let of_kind = |kind: MountType| spec.mounts.iter().any(|mount| mount.kind == kind);
    vec![(of_kind(MountType::Cluster), "a cluster volume")]
}

#[cfg(test)]
mod tests {
    use skep_api::decode;

    use super::*;
    use crate::validate::service_spec;

    fn refusal(extra: &str) -> Option<String> {
        let spec: ServiceSpec = decode(extra.as_bytes()).unwrap();
        unsupported(&service_spec(spec).unwrap())
            .err()
            .map(|error| {
                assert_eq!(error.kind, skep_api::Kind::NotImplemented, "{extra}");
                error.message
            })
    }

    #[test]
    fn what_is_missing_is_named() {
        let table = [
            (
                r#"{"TaskTemplate":{"ContainerSpec":{},"Networks":[{"Target":"a","DriverOpts":{"a":"b"}}]}}"#,
                "a driver option of a service's network",
            ),
            (
                r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"Type":"cluster","Target":"a"}]}}}"#,
                "a cluster volume",
            ),
        ];
        for (spec, what) in table {
            let text = format!("{what} is not supported by this version of skep");
            assert_eq!(refusal(spec), Some(text), "{spec}");
        }
    }

    #[test]
    fn what_only_the_engine_can_refuse_passes() {
        for spec in [
            r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"Type":"npipe","Source":"a","Target":"/a"}]}}}"#,
            r#"{"TaskTemplate":{"ContainerSpec":{"Privileges":{"CredentialSpec":{"File":"a.json"}}}}}"#,
            r#"{"TaskTemplate":{"ContainerSpec":{}},
                "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishMode":"host"},{"TargetPort":80}]}}"#,
        ] {
            assert_eq!(refusal(spec), None, "{spec}");
        }
    }

    #[test]
    fn what_the_cli_always_sends_passes() {
        let spec = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"a","Init":false,
            "DNSConfig":{}},"Resources":{"Limits":{},"Reservations":{}},"Placement":{"Platforms":
            [{"Architecture":"amd64","OS":"linux"}]},"ForceUpdate":0},
            "Mode":{"Replicated":{"Replicas":2}},"EndpointSpec":{"Mode":"vip"}}"#;
        assert_eq!(refusal(spec), None);
    }
}
