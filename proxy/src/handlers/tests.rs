//! Tests of the handlers against a cluster of one in memory.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use skep_api::cluster::LocalNodeState;
use skep_core::object::Role;

use super::fake::{Fake, NAMESAKE, NODE, OTHER};
use super::*;
use crate::reply::Body;
use crate::route::{Route, Target, route};
use crate::swarm::Query;

/// Sends a request through the table of routes; returns the status and the body as JSON (as a
/// string where it is none).
pub(super) async fn send(
    handlers: &Handlers<Fake>,
    method: &str,
    target: &str,
    body: &str,
) -> (StatusCode, Value) {
    send_with(handlers, method, target, body, HeaderMap::new()).await
}

async fn send_with(
    handlers: &Handlers<Fake>,
    method: &str,
    target: &str,
    body: &str,
    headers: HeaderMap,
) -> (StatusCode, Value) {
    let target = Target::parse(target);
    let method: Method = method.parse().unwrap();
    let Route::Owned(owned) = route(&method, &target) else {
        panic!("{method} is not owned")
    };
    let request = OwnedRequest {
        version: target.version.unwrap_or(ApiVersion::MAX),
        query: Query::parse(target.query),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    let reply = handlers.handle(owned, request).await;
    let Body::Full(bytes) = reply.body else {
        panic!("a stream")
    };
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    (
        reply.status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

fn web() -> String {
    json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}).to_string()
}

#[tokio::test]
async fn a_service_lives() {
    let handlers = Handlers::new(Fake::manager());
    let (status, made) = send(&handlers, "POST", "/v1.41/services/create", &web()).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = made["ID"].as_str().unwrap().to_owned();
    let (status, service) = send(&handlers, "GET", "/services/web", "").await;
    assert_eq!((status, &service["ID"]), (StatusCode::OK, &made["ID"]));
    assert_eq!(
        service["Spec"]["Mode"],
        json!({"Replicated": {"Replicas": 1}})
    );
    assert_eq!(service["Spec"].get("UpdateConfig"), None);
    let (_, full) = send(&handlers, "GET", "/services/web?insertDefaults=true", "").await;
    assert_eq!(full["Spec"]["UpdateConfig"]["Parallelism"], 1);

    let version = service["Version"]["Index"].as_u64().unwrap();
    let mut spec = service["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = json!(3);
    let path = format!("/services/{}/update?version={version}", &id[..6]);
    let (status, answer) = send(&handlers, "POST", &path, &spec.to_string()).await;
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({"Warnings": null}))
    );
    let (status, answer) = send(&handlers, "POST", &path, &spec.to_string()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let text = "rpc error: code = Unknown desc = update out of sequence";
    assert_eq!(answer, json!({ "message": text }));

    let (_, list) = send(&handlers, "GET", "/services?status=1", "").await;
    assert_eq!(list[0]["ServiceStatus"]["DesiredTasks"], 3);
    assert_eq!(list[0]["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 1);
    let (_, list) = send(&handlers, "GET", "/v1.40/services?status=maybe", "").await;
    assert_eq!(list[0].get("ServiceStatus"), None);

    let (status, body) = send(&handlers, "DELETE", "/services/web", "").await;
    assert_eq!((status, body), (StatusCode::OK, json!("")));
    assert_eq!(send(&handlers, "GET", "/services", "").await.1, json!([]));
}

#[tokio::test]
async fn a_service_without_a_name_gets_one() {
    let handlers = Handlers::new(Fake::manager());
    let spec = r#"{"TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}"#;
    let (status, _) = send(&handlers, "POST", "/services/create", spec).await;
    assert_eq!(status, StatusCode::CREATED);
    let (_, list) = send(&handlers, "GET", "/services", "").await;
    assert!(
        list[0]["Spec"]["Name"].as_str().unwrap().contains('_'),
        "{list}"
    );
}

#[tokio::test]
async fn credentials_are_never_shown() {
    let handlers = Handlers::new(Fake::manager());
    let mut headers = HeaderMap::new();
    headers.insert("X-Registry-Auth", "c2VjcmV0".parse().unwrap());
    send_with(&handlers, "POST", "/services/create", &web(), headers).await;
    let (_, service) = send(&handlers, "GET", "/services/web", "").await;
    assert!(!service.to_string().contains("c2VjcmV0"));
}

#[tokio::test]
async fn swarm_calls() {
    let handlers = Handlers::new(Fake::manager());
    let (status, swarm) = send(&handlers, "GET", "/swarm", "").await;
    assert_eq!((status, &swarm["ID"]), (StatusCode::OK, &json!("swarm1")));
    assert_eq!(swarm["JoinTokens"]["Worker"], "SWMTKN-1-d-w");
    let path = "/swarm/update?version=1&rotateWorkerToken=true";
    let spec = swarm["Spec"].to_string();
    assert_eq!(
        send(&handlers, "POST", path, &spec).await,
        (StatusCode::OK, json!(""))
    );
    let (_, swarm) = send(&handlers, "GET", "/swarm", "").await;
    assert_ne!(swarm["JoinTokens"]["Worker"], "SWMTKN-1-d-w");
    assert_eq!(swarm["JoinTokens"]["Manager"], "SWMTKN-1-d-m");

    let init = r#"{"ListenAddr":"0.0.0.0:2377","DataPathPort":5000}"#;
    let (status, id) = send(&handlers, "POST", "/swarm/init", init).await;
    assert_eq!((status, id), (StatusCode::OK, json!("0.0.0.0:2377 5000")));
    let (_, id) = send(&handlers, "POST", "/v1.39/swarm/init", init).await;
    assert_eq!(id, json!("0.0.0.0:2377 0"), "the port came with API 1.40");
    let (status, _) = send(&handlers, "POST", "/swarm/join", "{}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, body) = send(&handlers, "POST", "/swarm/leave?force=1", "").await;
    assert_eq!((status, body), (StatusCode::OK, json!("")));
    let (status, key) = send(&handlers, "GET", "/swarm/unlockkey", "").await;
    assert_eq!((status, key), (StatusCode::OK, json!({"UnlockKey": ""})));
    let (status, _) = send(&handlers, "POST", "/swarm/unlock", "{}").await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn nodes_are_drained_and_shown() {
    let handlers = Handlers::new(Fake::manager());
    let (_, node) = send(&handlers, "GET", "/nodes/n1", "").await;
    assert_eq!(node["ManagerStatus"]["Leader"], true);
    let drain = r#"{"Role":"manager","Availability":"drain"}"#;
    let path = "/nodes/n1/update?version=1";
    assert_eq!(
        send(&handlers, "POST", path, drain).await,
        (StatusCode::OK, json!(""))
    );
    let (_, list) = send(&handlers, "GET", "/nodes", "").await;
    assert_eq!(list[0]["Spec"]["Availability"], "drain");
}

#[tokio::test]
async fn one_host_name_of_two_nodes_is_ambiguous() {
    let handlers = Handlers::new(Fake::manager().with_second(Role::Worker).with_namesake());
    let said = json!({"message": "node n2 is ambiguous (2 matches found)"});
    for (method, path) in [
        ("GET", "/nodes/n2"),
        ("POST", "/nodes/n2/update?version=1"),
        ("DELETE", "/nodes/n2"),
    ] {
        let spec = r#"{"Role":"worker","Availability":"active"}"#;
        let answer = send(&handlers, method, path, spec).await;
        assert_eq!(answer, (StatusCode::BAD_REQUEST, said.clone()), "{method}");
    }
    for id in [OTHER, NAMESAKE] {
        let (status, node) = send(&handlers, "GET", &format!("/nodes/{id}"), "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&node["ID"], &node["Description"]["Hostname"]),
            (&json!(id), &json!("n2"))
        );
    }
}

#[tokio::test]
async fn info_and_ping() {
    let info = |handlers: Handlers<Fake>| async move {
        let info = handlers.info(ApiVersion::MAX).await;
        let swarm: Value = serde_json::from_str(info.swarm.get()).unwrap();
        (handlers.ping(), swarm, info.warnings)
    };
    let (ping, swarm, warnings) = info(Handlers::new(Fake::manager())).await;
    assert_eq!(ping, "active/manager");
    assert_eq!(
        (&swarm["NodeID"], &swarm["Managers"]),
        (&json!(NODE), &json!(1))
    );
    assert_eq!(swarm["RemoteManagers"][0]["Addr"], "10.0.0.1:2377");
    assert_eq!(swarm["Cluster"]["ID"], "swarm1");
    assert!(swarm["Cluster"].get("JoinTokens").is_none() && warnings.is_empty());

    let two = Handlers::new(Fake::manager().with_second(Role::Manager));
    let (_, swarm, warnings) = info(two).await;
    assert_eq!(swarm["Warnings"], json!(warnings));
    assert!(warnings[0].contains("configuration provides\n         no fault tolerance"));

    for (state, word) in [
        (LocalNodeState::Inactive, "inactive"),
        (LocalNodeState::Pending, "pending"),
        (LocalNodeState::Active, "active/worker"),
        (LocalNodeState::Error, "error"),
        (LocalNodeState::Locked, "locked"),
    ] {
        let (ping, swarm, _) = info(Handlers::new(Fake::outside(state.clone(), "no"))).await;
        assert_eq!(ping, word);
        assert_eq!(swarm["LocalNodeState"], state.as_str());
        assert_eq!(swarm.get("Cluster"), None);
    }
}
