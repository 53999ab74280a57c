//! Requests about containers of tasks: this engine's, another node's, and nobody's.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use common::{FakeEngine, Harness, Peer, Setup};
use serde_json::value::RawValue;
use skep_api::Error;
use skepd::stream::BoxStream;
use skepd::swarm::{Inactive, Place};
use skepd::{ApiVersion, Owned, OwnedRequest, Reply, Swarm, SwarmInfo};
use tokio::net::UnixStream;

const FAR: &str = "far0far0far0";
const NEAR: &str = "near0near0";

/// A manager that knows a task here, one on node `n2` and one on `n3`, which is gone.
struct Manager {
    far: PathBuf,
}

#[async_trait]
impl Swarm for Manager {
    async fn handle(&self, route: Owned, request: OwnedRequest) -> Reply {
        Inactive.handle(route, request).await
    }

    fn ping(&self) -> &'static str {
        "active/manager"
    }

    async fn info(&self, version: ApiVersion) -> SwarmInfo {
        Inactive.info(version).await
    }

    fn locate(&self, name: &str) -> Option<Place> {
        let (node, container, engine_knows) = match name {
            "web.1" | "task" => ("n2", FAR, false),
            FAR | "far0" => ("n2", FAR, true),
            "web.2" => ("n1", NEAR, false),
            "web.2.id" => ("n1", NEAR, true),
            "web.3" => ("n3", "gone", false),
            _ => return None,
        };
        let task = RawValue::from_string(r#"{"ID":"task"}"#.to_owned()).unwrap();
        Some(Place {
            node: node.to_owned(),
            here: node == "n1",
            container: container.to_owned(),
            engine_knows,
            task: (name == "task").then_some(task),
        })
    }

    async fn reach(&self, node: &str) -> Result<BoxStream, Error> {
        match node {
            "n2" => Ok(Box::new(UnixStream::connect(&self.far).await.unwrap())),
            node => Err(Error::unavailable(format!("node {node} is down"))),
        }
    }
}

fn start() -> (Harness, FakeEngine, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let far = dir.path().join("far.sock");
    let engine = FakeEngine::start(far.clone());
    let swarm = Arc::new(Manager { far });
    let harness = Harness::with(Setup {
        swarm,
        ..Setup::default()
    });
    (harness, engine, dir)
}

/// Answers skepd's question whether this host's engine knows a container.
fn asked(harness: &Harness, name: &str, status: &str) {
    let mut engine = harness.accept();
    let head = engine.head();
    assert!(
        head.starts_with(&format!("GET /containers/{name}/json ")),
        "{head}"
    );
    engine.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
}

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn round(client: &mut Peer, engine: &mut Peer, sent: &str, answer: &str) {
    engine.expect(sent);
    engine.send(answer);
    client.expect(answer);
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[test]
fn what_is_no_tasks_is_this_engines_as_ever() {
    let (harness, far, _dir) = start();
    let mut client = harness.client();
    client.send(&request("GET", "/v1.41/containers/mine/json"));
    let mut engine = harness.accept();
    round(
        &mut client,
        &mut engine,
        &request("GET", "/v1.41/containers/mine/json"),
        OK,
    );
    // A task of this node under the name that the engine has for it, on the same connection.
    let sent = request("GET", "/containers/web.2.id/json");
    client.send(&sent);
    round(&mut client, &mut engine, &sent, OK);
    assert!(far.is_idle());
}

#[test]
fn this_engine_has_the_first_say() {
    let (harness, far, _dir) = start();
    let mut client = harness.client();
    let sent = request("GET", "/containers/web.1/json");
    client.send(&sent);
    asked(&harness, "web.1", "200 OK");
    round(&mut client, &mut harness.accept(), &sent, OK);
    assert!(far.is_idle());
}

#[test]
fn requests_travel_to_the_container() {
    let (harness, far, _dir) = start();
    let mut client = harness.client();
    for name in ["web.1", "far0", FAR] {
        let (before, after) = ("/v1.41/containers/", "/logs?stdout=1");
        client.send(&request("GET", &format!("{before}{name}{after}")));
        if name != FAR {
            asked(&harness, name, "404 Not Found");
        }
        let sent = request("GET", &format!("{before}{FAR}{after}"));
        round(&mut client, &mut far.accept(), &sent, OK);
    }
    // One of this node by a name that only the swarm knows.
    client.send(&request("POST", "/containers/web.2/kill"));
    asked(&harness, "web.2", "404 Not Found");
    let sent = request("POST", &format!("/containers/{NEAR}/kill"));
    round(&mut client, &mut harness.accept(), &sent, OK);
}

#[test]
fn a_process_is_found_where_its_container_is() {
    let (harness, far, _dir) = start();
    let mut client = harness.client();
    let body = "Content-Length: 2\r\n\r\n{}";
    client.send(&format!("POST /containers/{FAR}/exec HTTP/1.1\r\n{body}"));
    let made = "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"e\"}";
    let sent = format!("POST /containers/{FAR}/exec HTTP/1.1\r\n{body}");
    round(&mut client, &mut far.accept(), &sent, made);
    // Over another connection; hijacked, with both ends of it.
    let mut client = harness.client();
    let sent =
        format!("POST /exec/e/start HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{body}");
    client.send(&sent);
    let mut engine = far.accept();
    let upgraded = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    round(&mut client, &mut engine, &sent, upgraded);
    client.send("in");
    client.half_close();
    engine.expect("in");
    engine.expect_end();
    engine.send("out");
    drop(engine);
    client.expect("out");
    client.expect_end();
    // Others are this engine's.
    let mut client = harness.client();
    let sent = request("GET", "/exec/other/json");
    client.send(&sent);
    round(&mut client, &mut harness.accept(), &sent, OK);
}

#[test]
fn a_task_is_described_with_its_container() {
    let (harness, far, _dir) = start();
    let mut client = harness.client();
    client.send(&request("GET", "/containers/task/json"));
    asked(&harness, "task", "404 Not Found");
    let mut engine = far.accept();
    engine.expect(&request("GET", &format!("/containers/{FAR}/json")));
    engine.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"Id\":\"c\"}");
    let (_, body) = client.reply();
    assert_eq!(body, "{\"Id\":\"c\",\"ID\":\"task\"}\n");
}

#[test]
fn a_node_that_is_gone_is_named() {
    let (harness, _far, _dir) = start();
    let mut client = harness.client();
    client.send(&request("GET", "/containers/web.3/json"));
    asked(&harness, "web.3", "404 Not Found");
    harness.answer_ping();
    let (head, body) = client.reply();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "{\"message\":\"node n3 is down\"}\n");
}
