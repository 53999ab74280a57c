//! Everything a real engine said decodes and encodes again to the same bytes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use skep_api::cluster::{Info, InitRequest, JoinRequest, Spec, Swarm, UnlockRequest};
use skep_api::node::{Node, NodeSpec};
use skep_api::secret::{Config, ConfigSpec, Secret, SecretSpec};
use skep_api::service::{Service, ServiceSpec};
use skep_api::task::Task;
use skep_api::{ApiVersion, decode, go};

fn wire(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/wire")
        .join(path)
}

/// `None` when all is well, else what differs.
fn check<T>(text: &str) -> Option<String>
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let object: T = match decode(text.as_bytes()) {
        Ok(object) => object,
        Err(error) => return Some(format!("does not decode: {error}")),
    };
    let packed = rmp_serde::to_vec_named(&object).unwrap();
    match rmp_serde::from_slice::<T>(&packed) {
        Ok(unpacked) if unpacked == object => {}
        Ok(unpacked) => return Some(format!("MessagePack changes it: {object:?} {unpacked:?}")),
        Err(error) => return Some(format!("MessagePack does not decode: {error}")),
    }
    // Plain serde must read what a real engine says, too.
    if serde_json::from_str::<T>(text).ok().as_ref() != Some(&object) {
        return Some("serde_json alone reads it differently".to_owned());
    }
    let again = serde_json::to_string(&object).unwrap();
    (again != text).then(|| format!("engine {text}\n  ours {again}"))
}

fn check_by_name(name: &str, text: &str) -> Option<String> {
    let kind = name.split(['-', '.']).next().unwrap();
    match kind {
        "version" | "networks" | "request" | "ping" => None,
        "info" => check::<Info>(text),
        "swarm" if name.contains("unlockkey") => check::<UnlockRequest>(text),
        "swarm" => check::<Swarm>(text),
        "nodes" => check::<Vec<Node>>(text),
        "node" => check::<Node>(text),
        "services" => check::<Vec<Service>>(text),
        "service" => check::<Service>(text),
        "tasks" => check::<Vec<Task>>(text),
        "task" => check::<Task>(text),
        "secrets" => check::<Vec<Secret>>(text),
        "secret" => check::<Secret>(text),
        "configs" => check::<Vec<Config>>(text),
        "config" => check::<Config>(text),
        _ => Some("unknown kind of object".to_owned()),
    }
}

#[test]
fn objects_of_a_real_engine_encode_to_the_same_bytes() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(wire("objects")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        seen += 1;
        if let Some(fault) = check_by_name(&name, text.trim_end()) {
            faults.push(format!("{name}: {fault}"));
        }
    }
    assert!(
        seen > 50,
        "only {seen} objects: run fixtures/wire/capture.py"
    );
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Drops what is null, false, zero, empty: the CLI's structs are newer than the engine's.
fn significant(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, significant(value)))
                .filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false)))
                .filter(|(_, value)| value.as_str() != Some("") && value.as_u64() != Some(0))
                .filter(|(_, value)| value.as_array().is_none_or(|items| !items.is_empty()))
                .filter(|(key, value)| key != "Labels" || *value != Value::Object(Map::new()))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(significant).collect()),
        other => other,
    }
}

fn check_request<T>(body: &str) -> Option<String>
where
    T: DeserializeOwned + Serialize,
{
    let object: T = match decode(body.as_bytes()) {
        Ok(object) => object,
        Err(error) => return Some(format!("does not decode: {error}")),
    };
    let ours = significant(serde_json::to_value(&object).unwrap());
    let sent = significant(serde_json::from_str(body).unwrap());
    (ours != sent).then(|| format!("sent {sent}\n  ours {ours}"))
}

#[test]
fn requests_of_the_cli_lose_nothing() {
    let text = fs::read_to_string(wire("requests.json")).unwrap();
    let requests: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for request in &requests {
        let (path, body) = (
            request["path"].as_str().unwrap(),
            request["body"].as_str().unwrap(),
        );
        let path = path.split('?').next().unwrap().trim_start_matches("/v1.41");
        let fault = match path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
            _ if body.is_empty() => continue,
            ["swarm", "init"] => check_request::<InitRequest>(body),
            ["swarm", "join"] => check_request::<JoinRequest>(body),
            ["swarm", "update"] => check_request::<Spec>(body),
            ["nodes", _, "update"] => check_request::<NodeSpec>(body),
            ["services", ..] => check_request::<ServiceSpec>(body),
            ["secrets", "create"] => check_request::<SecretSpec>(body),
            ["configs", "create"] => check_request::<ConfigSpec>(body),
            _ => Some("unknown path".to_owned()),
        };
        seen += 1;
        assert_eq!(fault, None, "{path}");
    }
    assert!(seen > 20, "only {seen} requests");
}

/// The spec of a captured service.
fn shown(name: &str) -> ServiceSpec {
    let text = fs::read(wire(&format!("objects/service-{name}.json"))).unwrap();
    decode::<Service>(&text).unwrap().spec
}

#[test]
fn requests_normalize_to_what_the_engine_shows() {
    for name in ["partial", "partial2", "partial3"] {
        let body = fs::read(wire(&format!("objects/request-{name}.json"))).unwrap();
        let mut spec: ServiceSpec = decode(&body).unwrap();
        spec.normalize();
        assert_eq!(spec, shown(name), "{name}");
        spec.insert_defaults();
        assert_eq!(
            spec,
            shown(&format!("{name}-defaults")),
            "{name} with defaults"
        );
    }
    let text = fs::read_to_string(wire("requests.json")).unwrap();
    let requests: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for request in requests
        .iter()
        .filter(|r| r["path"] == "/v1.41/services/create")
    {
        let mut spec: ServiceSpec = decode(request["body"].as_str().unwrap().as_bytes()).unwrap();
        spec.adjust_for(ApiVersion::new(1, 41));
        spec.normalize();
        let name = spec.name.clone();
        if wire(&format!("objects/service-{name}.json")).exists() {
            assert_eq!(spec, shown(&name), "{name}");
            seen += 1;
        }
        if wire(&format!("objects/service-{name}-defaults.json")).exists() {
            spec.insert_defaults();
            assert_eq!(
                spec,
                shown(&format!("{name}-defaults")),
                "{name} with defaults"
            );
        }
    }
    assert!(seen >= 5, "only {seen} services");
}

#[test]
fn bad_bodies_are_refused_in_the_engines_words() {
    let text = fs::read_to_string(wire("errors.json")).unwrap();
    let refusals: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for refusal in &refusals {
        let message = refusal["message"].as_str().unwrap();
        let body = match &refusal["body"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let ours = match refusal["path"].as_str().unwrap() {
            "/swarm/init" => decode::<InitRequest>(body.as_bytes()).err(),
            "/swarm/join" => decode::<JoinRequest>(body.as_bytes()).err(),
            "/services/create" => decode::<ServiceSpec>(body.as_bytes()).err(),
            "/secrets/create" => decode::<SecretSpec>(body.as_bytes()).err(),
            _ => continue,
        };
        // Newer engines refuse content after the body; the captured one ignores it.
        let Some(ours) = ours.filter(|e| e.message != "unexpected content after JSON") else {
            continue;
        };
        assert_eq!(ours.message, format!("invalid JSON: {message}"), "{body}");
        seen += 1;
    }
    assert!(seen > 8, "only {seen} refusals");
}

#[test]
fn keys_may_come_in_any_case_but_map_keys_stay() {
    let spec: ServiceSpec = decode(
        br#"{"name":"web","LABELS":{"Name":"x","name":"y"},"taskTemplate":{"containerspec":
        {"IMAGE":"a","tty":true,"Env":null,"args":["a",null],"Sysctls":{"TTY":"1"}},"forceupdate":3},
        "Mode":{"replicated":{"replicas":4}},"UpdateConfig":null}"#,
    )
    .unwrap();
    assert_eq!(spec.name, "web");
    assert_eq!(spec.labels.len(), 2);
    let container = spec.task_template.container_spec.unwrap();
    assert_eq!((container.image.as_str(), container.tty), ("a", true));
    assert_eq!(container.args, ["a", ""]);
    assert_eq!(container.sysctls.get("TTY").map(String::as_str), Some("1"));
    assert_eq!(spec.task_template.force_update, 3);
    assert_eq!(spec.mode.replicated.unwrap().replicas, Some(4));
    assert_eq!(spec.update_config, None);
}

#[test]
fn floats_print_as_go_prints_them() {
    #[derive(serde::Serialize)]
    struct Ratio(#[serde(serialize_with = "go::float32")] f32);
    for (number, text) in [
        (0.0, "0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (0.25, "0.25"),
        (0.333, "0.333"),
    ] {
        assert_eq!(serde_json::to_string(&Ratio(number)).unwrap(), text);
        assert_eq!(
            serde_json::to_value(Ratio(number)).unwrap().to_string(),
            text
        );
    }
}
