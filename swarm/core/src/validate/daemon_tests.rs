//! Tests of the daemon layer: the refusals' texts, and specs as they read back.

use skep_api::network::{Protocol, PublishMode, ResolutionMode};
use skep_api::node::{Availability, Role};
use skep_api::service::{FailureAction, ServiceSpec, UpdateOrder};
use skep_api::task::RestartCondition;
use skep_api::{Kind, decode};

use super::*;

fn checked(text: &str) -> Checked<ServiceSpec> {
    service_spec(decode(text.as_bytes()).unwrap())
}

#[test]
fn every_refusal_has_the_originals_words() {
    let container = |inner: &str| format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{{inner}}}}}}}"#);
    let beside = |outer: &str| format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{}}}},{outer}}}"#);
    let task = |outer: &str| format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{}},{outer}}}}}"#);
    let credentials =
        |inner: &str| container(&format!(r#""Privileges":{{"CredentialSpec":{{{inner}}}}}"#));
    let table = [
        ("{}".to_owned(), "mismatched Runtime and *Spec fields"),
        (
            r#"{"TaskTemplate":{"Runtime":"plugin"}}"#.into(),
            "mismatched Runtime and *Spec fields",
        ),
        (task(r#""Runtime":"attachment""#), "unsupported runtime"),
        (task(r#""Runtime":"x""#), "unsupported runtime"),
        (
            r#"{"TaskTemplate":{"Runtime":"plugin","PluginSpec":{}},"Mode":{"Replicated":{}}}"#
                .into(),
            "plugins must not use replicated mode",
        ),
        (
            beside(r#""Mode":{"Replicated":{},"Global":{}}"#),
            "must specify only one service mode",
        ),
        (
            beside(r#""EndpointSpec":{"Mode":"x"}"#),
            "invalid resolution mode: \"x\"",
        ),
        (
            task(r#""RestartPolicy":{"Condition":"x"}"#),
            "invalid RestartCondition: \"x\"",
        ),
        (
            beside(r#""UpdateConfig":{"FailureAction":"x"}"#),
            "unrecognized update failure action x",
        ),
        (
            beside(r#""RollbackConfig":{"Order":"x"}"#),
            "unrecognized update order x",
        ),
        (
            container(r#""Mounts":[{"Type":"x"}]"#),
            "invalid MountType: \"x\"",
        ),
        (
            container(r#""Mounts":[{"Type":"image"}]"#),
            "invalid MountType: \"image\"",
        ),
        (
            container(r#""Mounts":[{"BindOptions":{"Propagation":"x"}}]"#),
            "invalid MountPropagation: \"x\"",
        ),
        (
            task(r#""Resources":{"SwapBytes":1}"#),
            "memory swap provided, but no memory-limit was set",
        ),
        (
            credentials(""),
            "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for \
             credential spec",
        ),
        (
            credentials(r#""Config":"a","File":"b""#),
            "invalid CredentialSpec: cannot specify both \"config\" and \"file\" credential specs",
        ),
        (
            credentials(r#""Config":"a","File":"b","Registry":"c""#),
            "invalid CredentialSpec: cannot specify both \"config\", \"file\", and \"registry\" \
             credential specs",
        ),
        (
            container(r#""Configs":[{}]"#),
            "invalid Config: either File or Runtime should be set",
        ),
        (
            container(r#""Configs":[{"File":{},"Runtime":{}}]"#),
            "invalid Config: cannot specify both File and Runtime",
        ),
    ];
    for (spec, text) in table {
        let error = checked(&spec).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::InvalidParameter, text),
            "{spec}"
        );
    }
}

#[test]
fn defaults_are_spelled_out() {
    let spec = checked(
        r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"Target":"/a","BindOptions":{}},
            {"Type":"VOLUME","Target":"/b","Consistency":"cached"},
            {"Target":"/c","BindOptions":{"NonRecursive":true,"CreateMountpoint":true}}]},
            "RestartPolicy":{}},"UpdateConfig":{},
            "EndpointSpec":{"Ports":[{"TargetPort":80}]}}"#,
    )
    .unwrap();
    assert_eq!(spec.mode.replicated.unwrap().replicas, Some(1));
    let update = spec.update_config.unwrap();
    assert_eq!(update.failure_action, FailureAction::Pause);
    assert_eq!(update.order, UpdateOrder::StopFirst);
    let endpoint = spec.endpoint_spec.unwrap();
    assert_eq!(endpoint.mode, ResolutionMode::Vip);
    assert_eq!(endpoint.ports[0].protocol, Protocol::Tcp);
    assert_eq!(endpoint.ports[0].publish_mode, PublishMode::Ingress);
    let task = spec.task_template;
    assert_eq!(task.runtime, Runtime::Container);
    let restart = task.restart_policy.unwrap();
    assert_eq!(
        (restart.condition, restart.max_attempts),
        (RestartCondition::Any, Some(0))
    );
    let container = task.container_spec.unwrap();
    assert_eq!(container.isolation, "default");
    let mounts = serde_like(&container.mounts);
    assert_eq!(
        mounts,
        [
            "bind /a none",
            "volume /b none",
            "bind /c rprivate non-recursive"
        ]
    );
}

/// Mounts in short, to compare them by eye.
fn serde_like(mounts: &[skep_api::container::Mount]) -> Vec<String> {
    let show = |mount: &skep_api::container::Mount| {
        assert!(mount.consistency.is_empty());
        let options = match &mount.bind_options {
            None => "none".to_owned(),
            Some(options) => {
                assert!(!options.create_mountpoint);
                let non = if options.non_recursive {
                    " non-recursive"
                } else {
                    ""
                };
                format!("{}{non}", options.propagation)
            }
        };
        format!("{} {} {options}", mount.kind, mount.target)
    };
    mounts.iter().map(show).collect()
}

#[test]
fn nodes() {
    let check = |text: &str| node_spec(decode(text.as_bytes()).unwrap());
    let spec = check(r#"{"Role":"Manager","Availability":"DRAIN","Name":"free text"}"#).unwrap();
    assert_eq!(
        (spec.role, spec.availability),
        (Role::Manager, Availability::Drain)
    );
    for (text, message) in [
        ("{}", "invalid Role: \"\""),
        (r#"{"Role":"x"}"#, "invalid Role: \"x\""),
        (r#"{"Role":"worker"}"#, "invalid Availability: \"\""),
        (
            r#"{"Role":"worker","Availability":"off"}"#,
            "invalid Availability: \"off\"",
        ),
    ] {
        assert_eq!(check(text).unwrap_err(), Error::invalid(message));
    }
}
