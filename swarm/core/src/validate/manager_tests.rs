//! Tests of the manager layer: every refusal's text and code.

use skep_api::decode;

use super::*;
use crate::validate::service_spec;

fn checked(name: &str, container: &str, task: &str, outer: &str) -> Checked {
    let text = format!(
        r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"a"{container}}}{task}}}{outer}}}"#
    );
    check_service(&service_spec(decode(text.as_bytes()).unwrap()).unwrap())
}

fn expect(table: &[(&str, &str)], check: impl Fn(&str) -> Checked) {
    for (part, text) in table {
        let error = check(part).unwrap_err();
        let full = match text.strip_prefix("Unknown: ") {
            Some(text) => Error::rpc(Code::Unknown, text),
            None => Error::rpc(Code::InvalidArgument, text),
        };
        assert_eq!(error, full, "{part}");
    }
}

#[test]
fn names() {
    let long = "a".repeat(64);
    for name in ["a", "a-b_c", "A1", "9", &"a".repeat(63)] {
        assert_eq!(checked(name, "", "", ""), Ok(()), "{name}");
    }
    let table = [
        ("", "meta: name must be provided"),
        ("-a", "name must be valid as a DNS name component"),
        ("a-", "name must be valid as a DNS name component"),
        ("a.b", "name must be valid as a DNS name component"),
        ("a b", "name must be valid as a DNS name component"),
        (long.as_str(), "name must be 63 characters or fewer"),
    ];
    expect(&table, |name| checked(name, "", "", ""));
}

#[test]
fn containers() {
    let table = [
        (
            r#","Image":"""#,
            "ContainerSpec: image reference must be provided",
        ),
        (
            r#","Image":"A B""#,
            "ContainerSpec: \"A B\" is not a valid repository/tag",
        ),
        (
            r#","Mounts":[{"Target":"/t"},{"Target":"/t"}]"#,
            "ContainerSpec: duplicate mount point: /t",
        ),
        (
            r#","Healthcheck":{"Interval":1}"#,
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            r#","Healthcheck":{"Timeout":-1}"#,
            "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms",
        ),
        (
            r#","Healthcheck":{"StartPeriod":1}"#,
            "ContainerSpec: StartPeriod in HealthConfig cannot be less than 1ms",
        ),
        (
            r#","Healthcheck":{"StartInterval":1}"#,
            "ContainerSpec: StartInterval in HealthConfig cannot be less than 1ms",
        ),
        (
            r#","Healthcheck":{"Retries":-1}"#,
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ),
        (
            r#","Secrets":[{"SecretID":"x"}]"#,
            "malformed secret reference",
        ),
        (
            r#","Secrets":[{"SecretID":"x","SecretName":"n"}]"#,
            "malformed secret reference, no target provided",
        ),
        (
            r#","Secrets":[{"SecretID":"x","SecretName":"n","File":{}}]"#,
            "malformed file secret reference, invalid target file name provided",
        ),
        (
            r#","Configs":[{"ConfigID":"x","ConfigName":"a","File":{"Name":"t"}},
                {"ConfigID":"y","ConfigName":"b","File":{"Name":"t"}}]"#,
            "config references 'a' and 'b' have a conflicting target: 't'",
        ),
        (
            r#","Privileges":{"CredentialSpec":{"Config":"c"}}"#,
            "CredentialSpec references config 'c', but that config isn't in config references \
             with RuntimeTarget",
        ),
    ];
    expect(&table, |container| checked("a", container, "", ""));
}

#[test]
fn tasks() {
    let table = [
        (
            r#","Resources":{"Limits":{"NanoCPUs":1000}}"#,
            "invalid cpu value 1e-06: Must be at least 0.001",
        ),
        (
            r#","Resources":{"Reservations":{"NanoCPUs":500000}}"#,
            "invalid cpu value 0.0005: Must be at least 0.001",
        ),
        (
            r#","Resources":{"Limits":{"MemoryBytes":4194303}}"#,
            "invalid memory value 4194303: Must be at least 4MiB",
        ),
        (
            r#","RestartPolicy":{"Delay":-1}"#,
            "TaskSpec: restart-delay cannot be negative",
        ),
        (
            r#","RestartPolicy":{"Window":-1}"#,
            "TaskSpec: restart-window cannot be negative",
        ),
        (
            r#","Placement":{"Constraints":["node.role"]}"#,
            "Unknown: constraint expected one operator from ==, !=",
        ),
        (
            r#","Placement":{"Constraints":["n!==a"]}"#,
            "Unknown: key 'n!' is invalid",
        ),
    ];
    expect(&table, |task| checked("a", "", task, ""));
}

#[test]
fn the_rest() {
    let table = [
        (
            r#","Mode":{"Replicated":{"Replicas":18446744073709551615}}"#,
            "Number of replicas must be non-negative",
        ),
        (
            r#","Mode":{"ReplicatedJob":{"MaxConcurrent":18446744073709551615}}"#,
            "Maximum concurrent jobs must not be negative",
        ),
        (
            r#","Mode":{"ReplicatedJob":{"MaxConcurrent":1,"TotalCompletions":18446744073709551615}}"#,
            "Total completed jobs must not be negative",
        ),
        (
            r#","Mode":{"GlobalJob":{}},"UpdateConfig":{}"#,
            "Jobs may not have an update config",
        ),
        (
            r#","UpdateConfig":{"Delay":-1}"#,
            "TaskSpec: update-delay cannot be negative",
        ),
        (
            r#","UpdateConfig":{"Monitor":-1}"#,
            "TaskSpec: update-monitor cannot be negative",
        ),
        (
            r#","UpdateConfig":{"MaxFailureRatio":1.5}"#,
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            r#","EndpointSpec":{"Mode":"dnsrr","Ports":[{"TargetPort":80}]}"#,
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            r#","EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":1},{"TargetPort":81,"PublishedPort":1}]}"#,
            "EndpointSpec: duplicate published ports provided",
        ),
    ];
    expect(&table, |outer| checked("a", "", "", outer));
    assert_eq!(
        checked("a", "", "", r#","RollbackConfig":{"Delay":-1}"#),
        Ok(())
    );
}

#[test]
fn floats_as_go_prints_them() {
    for (value, text) in [
        (0.0, "0"),
        (0.001, "0.001"),
        (1e-5, "1e-05"),
        (-2.5, "-2.5"),
    ] {
        assert_eq!(go_float(value), text);
    }
}
