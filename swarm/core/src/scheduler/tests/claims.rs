//! Resources that nodes name themselves, and ports of the host.

use skep_api::network::EndpointSpec;
use skep_api::service::ServiceSpec;
use skep_api::task::{GenericResource, ResourceRequirements, TaskState};

use super::why;
use crate::State;
use crate::orchestrator::testing::{Harness, node};

fn resources(json: &str) -> Vec<GenericResource> {
    serde_json::from_str(json).unwrap()
}

fn offer(harness: &mut Harness, id: &str, json: &str) {
    harness.node(id, |node| {
        let description = node.description.as_mut().unwrap();
        description.resources.generic_resources = resources(json);
    });
}

fn ask(spec: &mut ServiceSpec, json: &str) {
    let mut requirements = ResourceRequirements::default();
    requirements
        .reservations
        .get_or_insert_default()
        .generic_resources = resources(json);
    spec.task_template.resources = Some(requirements);
}

fn publish(spec: &mut ServiceSpec, json: &str) {
    let endpoint: EndpointSpec = serde_json::from_str(json).unwrap();
    spec.endpoint_spec = Some(endpoint);
}

const GPUS: &str = r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}},
    {"NamedResourceSpec":{"Kind":"gpu","Value":"b"}},
    {"NamedResourceSpec":{"Kind":"gpu","Value":"c"}},
    {"DiscreteResourceSpec":{"Kind":"ssd","Value":3}}]"#;
const NOT_ENOUGH: &str = "no suitable node (insufficient resources on 1 node)";

#[test]
fn resources_are_claimed_piece_by_piece_and_by_amount() {
    let mut harness = Harness::new(&["n1"]);
    offer(&mut harness, "n1", GPUS);
    harness.create("a", 1, |spec| {
        ask(
            spec,
            r#"[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}},
                {"DiscreteResourceSpec":{"Kind":"ssd","Value":2}}]"#,
        );
    });
    harness.settle();
    let claimed = r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}},
        {"NamedResourceSpec":{"Kind":"gpu","Value":"b"}},
        {"DiscreteResourceSpec":{"Kind":"ssd","Value":2}}]"#;
    let task = harness.wanted("a", 1);
    assert_eq!(task.generic_resources, resources(claimed));
    let shown = crate::wire::task(&State::default(), &task).generic_resources;
    assert_eq!(shown, resources(claimed));
    for (name, wish, fits) in [
        (
            "two-gpus",
            r#"[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]"#,
            false,
        ),
        (
            "two-ssds",
            r#"[{"DiscreteResourceSpec":{"Kind":"ssd","Value":2}}]"#,
            false,
        ),
        (
            "fpga",
            r#"[{"DiscreteResourceSpec":{"Kind":"fpga","Value":1}}]"#,
            false,
        ),
        (
            "by-name",
            r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"c"}}]"#,
            false,
        ),
        (
            "one-gpu",
            r#"[{"DiscreteResourceSpec":{"Kind":"gpu","Value":1}}]"#,
            true,
        ),
    ] {
        harness.create(name, 1, |spec| ask(spec, wish));
        harness.settle();
        let why = why(&harness, name);
        assert_eq!(why, if fits { "" } else { NOT_ENOUGH }, "{name}");
    }
    let third = r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"c"}}]"#;
    let task = harness.wanted("one-gpu", 1);
    assert_eq!(task.generic_resources, resources(third));
}

#[test]
fn claims_end_with_the_task() {
    let mut harness = Harness::new(&["n1"]);
    offer(&mut harness, "n1", GPUS);
    let three = r#"[{"DiscreteResourceSpec":{"Kind":"gpu","Value":3}}]"#;
    harness.create("a", 1, |spec| ask(spec, three));
    harness.settle();
    harness.create("b", 1, |spec| ask(spec, three));
    harness.settle();
    assert_eq!(why(&harness, "b"), NOT_ENOUGH);
    harness.remove_service("a");
    harness.settle();
    let task = harness.wanted("b", 1);
    assert_eq!(task.status.state, TaskState::Running);
    assert_eq!(task.generic_resources.len(), 3);
}

#[test]
fn a_node_that_lost_what_a_task_claimed_loses_the_task() {
    for (left, stays) in [
        (
            r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}}]"#,
            true,
        ),
        (
            r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"b"}}]"#,
            false,
        ),
        (
            r#"[{"DiscreteResourceSpec":{"Kind":"gpu","Value":1}}]"#,
            false,
        ),
        ("[]", false),
    ] {
        let mut harness = Harness::new(&["n1"]);
        offer(&mut harness, "n1", GPUS);
        let one = r#"[{"DiscreteResourceSpec":{"Kind":"gpu","Value":1}}]"#;
        harness.create("a", 1, |spec| ask(spec, one));
        harness.settle();
        let before = harness.wanted("a", 1).id;
        offer(&mut harness, "n1", left);
        harness.plan();
        assert_eq!(harness.wanted("a", 1).id == before, stays, "{left}");
    }
}

#[test]
fn ports_of_the_host_are_taken_once() {
    let web = r#"{"Ports":[{"TargetPort":80,"PublishedPort":8080,"PublishMode":"host"}]}"#;
    let mut harness = Harness::new(&["n1", "n2"]);
    harness.create("web", 3, |spec| publish(spec, web));
    harness.settle();
    assert_eq!(
        harness.spread("web"),
        [("-".into(), 1), ("n1".into(), 1), ("n2".into(), 1)]
    );
    for (name, endpoint, fits) in [
        ("same", web, false),
        (
            "udp",
            r#"{"Ports":[{"Protocol":"udp","PublishedPort":8080,"PublishMode":"host"}]}"#,
            true,
        ),
        (
            "other",
            r#"{"Ports":[{"PublishedPort":8081,"PublishMode":"host"}]}"#,
            true,
        ),
        (
            "chosen",
            r#"{"Ports":[{"PublishedPort":0,"PublishMode":"host"}]}"#,
            true,
        ),
        ("ingress", r#"{"Ports":[{"PublishedPort":8080}]}"#, true),
    ] {
        harness.create(name, 1, |spec| publish(spec, endpoint));
        harness.settle();
        let text = "no suitable node (host-mode port already in use on 2 nodes)";
        assert_eq!(why(&harness, name), if fits { "" } else { text }, "{name}");
    }
    harness.put(node("n3"));
    harness.settle();
    assert_eq!(why(&harness, "same"), "", "it came first");
    harness.remove_service("same");
    harness.settle();
    assert!(harness.running("web").iter().all(|t| t.node_id.is_some()));
}
