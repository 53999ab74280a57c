//! What a real engine said, held against the conversions: `fixtures/wire`.

use std::path::PathBuf;

use skep_api::cluster::Swarm;
use skep_api::go::Base64;
use skep_api::node::Node as WireNode;
use skep_api::service::{Service as WireService, ServiceSpec};
use skep_api::task::{Runtime, Task as WireTask};

use crate::control::testing::{service as stored_service, state, task as stored_task};
use crate::network::first_networks;
use crate::object::{
    Attachment, ConfigObject, ManagerMember, Meta, NetworkObject, Object, Place, SecretObject,
};
use crate::validate::service_spec;
use crate::wire;

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/wire")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn object<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&fixture(&format!("objects/{name}.json"))).unwrap()
}

/// Services by name, as they were right after their creation.
fn services() -> Vec<WireService> {
    object("services")
}

#[test]
fn specs_read_back_as_from_a_real_engine() {
    let requests: Vec<serde_json::Value> = serde_json::from_str(&fixture("requests.json")).unwrap();
    let mut compared = 0;
    for request in requests
        .iter()
        .filter(|r| r["path"].as_str().unwrap().ends_with("/services/create") && r["status"] == 201)
    {
        let sent: ServiceSpec =
            skep_api::decode(request["body"].as_str().unwrap().as_bytes()).unwrap();
        let name = sent.name.clone();
        let Some(real) = services()
            .into_iter()
            .find(|service| service.spec.name == name)
        else {
            continue;
        };
        let ours = service_spec(sent).unwrap();
        // The two files may come from two runs, with other ids.
        let show = |spec: &ServiceSpec| {
            let mut spec = spec.clone();
            let container = spec.task_template.container_spec.as_mut().unwrap();
            container
                .secrets
                .iter_mut()
                .for_each(|secret| secret.secret_id.clear());
            container
                .configs
                .iter_mut()
                .for_each(|config| config.config_id.clear());
            serde_json::to_string_pretty(&spec).unwrap()
        };
        assert_eq!(show(&ours), show(&real.spec), "{name}");
        compared += 1;
    }
    assert!(
        compared > 5,
        "only {compared} services are both in requests.json and services.json"
    );
}

#[test]
fn a_spec_that_was_read_may_be_sent_back() {
    for service in services() {
        assert_eq!(service_spec(service.spec.clone()).unwrap(), service.spec);
    }
}

#[test]
fn services_are_shown_as_by_a_real_engine() {
    for name in [
        "service-bare",
        "service-minimal",
        "service-minimal-updating",
        "service-minimal-completed",
        "service-minimal-rollback_started",
        "service-bare-paused",
        "service-everywhere",
        "service-everywhere-rollback_started",
        "service-everywhere-rollback_completed",
        "service-job",
        "service-gjob",
        "service-moving-updating",
        "service-second-run",
        "service-stumbles-rollback_paused",
        "service-minimal-created",
        "service-minimal-after",
        "service-minimal-rollback_completed",
        "service-partial",
        "service-maximal",
        "service-hostport",
    ] {
        let real: WireService = object(name);
        let mut stored = stored_service(&real.id, "x");
        stored.meta.version = real.version.index;
        stored.meta.created_at = real.created_at;
        stored.meta.updated_at = real.updated_at;
        stored.spec = real.spec.clone();
        stored.previous_spec = real.previous_spec.clone();
        stored.update_status = real.update_status.clone();
        stored.job = real.job_status;
        let ours = wire::service(&stored, false);
        assert_eq!(
            serde_json::to_string(&ours).unwrap(),
            fixture(&format!("objects/{name}.json")).trim_end(),
            "{name}"
        );
    }
}

#[test]
fn tasks_are_shown_as_by_a_real_engine() {
    let states = [
        "assigned",
        "preparing",
        "ready",
        "starting",
        "running",
        "shutdown",
        "failed",
    ];
    let names = states
        .iter()
        .chain(&["pending", "complete", "rejected-bind", "orphaned", "global"])
        .chain(&["job-complete", "job-running", "global-job-complete"])
        .chain(&["remove", "rejected-image", "failed-start", "nowhere"])
        .chain(&["nowhere-else", "pending-resources", "generic-named"])
        .chain(&["generic-discrete", "ports", "partial", "maximal"])
        .map(|state| format!("task-{state}"))
        .chain(["tasks-ingress".to_owned()]);
    for name in names {
        let real: WireTask = match name.as_str() {
            "tasks-ingress" => object::<Vec<WireTask>>(&name).remove(0),
            _ => object(&name),
        };
        let slot = real.slot.try_into().unwrap();
        let mut stored = stored_task(
            &real.id,
            &stored_service(&real.service_id, "x"),
            slot,
            &real.node_id,
        );
        stored.meta.version = real.version.index;
        stored.meta.created_at = real.created_at;
        stored.meta.updated_at = real.updated_at;
        stored.node_id = Some(real.node_id.as_str().into()).filter(|id: &crate::Id| !id.is_empty());
        stored.spec = real.spec.clone().into();
        stored.spec.runtime = Runtime::Container;
        stored.status = real.status.clone();
        stored.desired_state = real.desired_state;
        stored.generic_resources = real.generic_resources.clone();
        stored.job_iteration = real.job_iteration.map(|version| version.index);
        let networks = real.networks_attachments.iter();
        stored.attachments = networks.clone().map(attachment).collect();
        let view = state(networks.map(|it| Object::from(network(&it.network))));
        // The store counts versions for itself.
        let mut ours = wire::task(&view, &stored);
        for (ours, real) in ours
            .networks_attachments
            .iter_mut()
            .zip(&real.networks_attachments)
        {
            (ours.network.version, ours.network.created_at) =
                (real.network.version, real.network.created_at);
            ours.network.updated_at = real.network.updated_at;
        }
        let shown = serde_json::to_string(&ours).unwrap();
        let text = match name.strip_prefix("tasks-") {
            Some(_) => format!("[{shown}]"),
            None => shown,
        };
        assert_eq!(
            text,
            fixture(&format!("objects/{name}.json")).trim_end(),
            "{name}"
        );
    }
}

fn attachment(real: &skep_api::task::NetworkAttachment) -> Attachment {
    Attachment {
        network: real.network.id.as_str().into(),
        place: Place::Address(real.addresses[0].parse().unwrap()),
        ipv6: None,
        branch: 0,
    }
}

fn network(real: &skep_api::network::Network) -> NetworkObject {
    NetworkObject {
        id: real.id.as_str().into(),
        meta: Meta::default(),
        spec: real.spec.clone(),
        driver_state: Some(real.driver_state.clone()),
        ipam: real.ipam_options.clone(),
        keys: Vec::new(),
    }
}

#[test]
fn the_ingress_network_is_shown_as_by_a_real_engine() {
    let ids = &mut crate::id::CountingIds::default();
    let mut first = first_networks("10.0.0.0/24".parse().ok(), ids);
    let mut ingress = first.remove(0);
    let tasks: Vec<WireTask> = object("tasks-ingress");
    let real = &tasks[0].networks_attachments[0].network;
    let stored = network(real);
    assert_eq!(
        (&ingress.spec, &ingress.driver_state, &ingress.ipam),
        (&stored.spec, &stored.driver_state, &stored.ipam)
    );
    ingress.id = real.id.as_str().into();
    ingress.meta = meta(1, real.created_at);
    let ours = serde_json::to_string(&[wire::network(&ingress)]).unwrap();
    assert_eq!(ours, fixture("objects/networks.json").trim_end());
}

#[test]
fn secrets_and_configs_are_shown_as_by_a_real_engine() {
    for name in ["secret", "secret-bare", "secret-templated"] {
        let real: skep_api::secret::Secret = object(name);
        let mut stored = SecretObject {
            id: real.id.as_str().into(),
            meta: meta(real.version.index, real.created_at),
            spec: real.spec,
        };
        // The client sent it; it is kept and not shown.
        stored.spec.data = Base64(b"hello wire\n".to_vec());
        let ours = serde_json::to_string(&wire::secret(&stored)).unwrap();
        let real = fixture(&format!("objects/{name}.json"));
        assert_eq!(ours, real.trim_end());
    }
    for name in ["config", "config-bare", "config-templated"] {
        let real: skep_api::secret::Config = object(name);
        let stored = ConfigObject {
            id: real.id.as_str().into(),
            meta: meta(real.version.index, real.created_at),
            spec: real.spec,
        };
        let ours = serde_json::to_string(&wire::config(&stored)).unwrap();
        let real = fixture(&format!("objects/{name}.json"));
        assert_eq!(ours, real.trim_end());
    }
}

#[test]
fn nodes_are_shown_as_by_a_real_engine() {
    for name in [
        "down", "drained", "labelled", "leader", "manager", "paused", "worker",
    ] {
        let real: WireNode = object(&format!("node-{name}"));
        let mut stored = crate::testing::node(&real.id);
        stored.meta = meta(real.version.index, real.created_at);
        stored.meta.updated_at = real.updated_at;
        stored.spec = real.spec.clone();
        stored.description = Some(real.description.clone());
        stored.status.state = real.status.state.clone();
        stored.status.message = real.status.message.clone();
        stored.status.addr = real.status.addr.clone();
        stored.manager = real.manager_status.as_ref().map(|it| ManagerMember {
            raft_id: 1,
            addr: it.addr.clone(),
        });
        let leads = real.manager_status.as_ref().is_some_and(|it| it.leader);
        let peers = wire::Peers {
            leader: leads.then(|| stored.id.clone()),
            ..wire::Peers::default()
        };
        let ours = serde_json::to_string(&wire::node(&stored, &peers)).unwrap();
        let real = fixture(&format!("objects/node-{name}.json"));
        assert_eq!(ours, real.trim_end(), "{name}");
    }
}

fn meta(version: u64, at: crate::Timestamp) -> Meta {
    Meta {
        version,
        created_at: at,
        updated_at: at,
    }
}

#[test]
fn the_authority_is_shown_as_by_a_real_engine() {
    let node: WireNode = object("node-leader");
    let swarm: Swarm = object("swarm-fresh");
    assert_eq!(wire::tls_info(&swarm.tls_info.trust_root), swarm.tls_info);
    assert_eq!(node.description.tls_info, swarm.tls_info);
}

#[test]
fn an_update_zeroes_what_it_does_not_name() {
    let real: Swarm = object("swarm-zeroed");
    let sent = skep_api::decode(br#"{"Name":"default"}"#).unwrap();
    let ours = crate::validate::cluster_update(sent).unwrap();
    assert_eq!(
        serde_json::to_string(&ours).unwrap(),
        serde_json::to_string(&real.spec).unwrap()
    );
}
