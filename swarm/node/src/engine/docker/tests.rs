//! What goes over the socket, byte by byte, with an engine that answers from a script.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use skep_core::worker::{ContainerState, EngineOp, OpError, OpOutput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::DockerEngine;
use crate::engine::Engine;

/// Answers every request whose head contains a key with the status and body beside it.
type Script = &'static [(&'static str, &'static str, &'static str)];

struct FakeEngine {
    engine: DockerEngine,
    requests: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

const VERSION: (&str, &str, &str) = (
    "GET /version ",
    "200 OK",
    r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#,
);

impl FakeEngine {
    fn start(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let request = answer(stream, script).await;
                seen.lock().unwrap().push(request);
            }
        });
        Self {
            engine: DockerEngine::new(&socket, &[]),
            requests,
            _dir: dir,
        }
    }

    fn request(&self, start: &str) -> String {
        let requests = self.requests.lock().unwrap();
        let found = requests.iter().find(|request| request.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no {start} in {requests:?}"))
            .clone()
    }
}

/// Reads one request whole, answers it, hangs up.
async fn answer(mut stream: UnixStream, script: Script) -> String {
    let mut request = Vec::new();
    let text = loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part).await.unwrap();
        request.extend_from_slice(&part[..n]);
        let text = String::from_utf8(request.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert_ne!(n, 0, "half a request");
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().unwrap());
        if body.len() >= length {
            break text;
        }
    };
    let (_, status, body) = script
        .iter()
        .chain([&VERSION])
        .find(|(key, ..)| text.contains(key))
        .unwrap_or(&("", "404 Not Found", r#"{"message":"page not found"}"#));
    // `CUT` stands for a connection that breaks in the middle of the answer.
    let (body, end) = match body.strip_suffix("CUT") {
        Some(body) => (body, ""),
        None => (*body, "0\r\n\r\n"),
    };
    let chunk = format!(
        "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n{end}",
        body.len()
    );
    stream.write_all(chunk.as_bytes()).await.unwrap();
    text
}

#[tokio::test]
async fn a_containers_body_and_name_arrive_as_they_are() {
    let fake = FakeEngine::start(&[(
        "/containers/create",
        "201 Created",
        r#"{"Id":"c1","Warnings":null}"#,
    )]);
    let body = json!({"MacAddress": "02:42:0a:00:00:07", "New": {"b": null, "a": [1]}, "Cmd": "x"});
    let op = EngineOp::Create {
        name: "web.1.abc".into(),
        task: "abc".into(),
        body: Box::new(body.clone()),
        files: Vec::new(),
    };
    assert_eq!(
        fake.engine.run(op).await,
        Ok(OpOutput::Created("c1".into()))
    );
    let request = fake.request("POST /v1.41/containers/create?");
    assert!(request.contains("name=web.1.abc"), "{request}");
    let (_, sent) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(sent, body.to_string());
}

fn pull(image: &str) -> EngineOp {
    EngineOp::Pull {
        image: image.into(),
        auth: Some("c2VjcmV0LWFz_3NlbnQ=".into()),
    }
}

#[tokio::test]
async fn credentials_arrive_as_the_client_sent_them() {
    let fake = FakeEngine::start(&[("/images/create", "200 OK", "{\"status\":\"Pulling\"}\r\n")]);
    assert_eq!(
        fake.engine.run(pull("r:5000/web")).await,
        Ok(OpOutput::Done)
    );
    let request = fake.request("POST /v1.41/images/create?");
    assert!(
        request.contains("fromImage=r%3A5000%2Fweb&tag=latest"),
        "{request}"
    );
    let header = "x-registry-auth: c2vjcmv0lwfz_3nlbnq=\r\n";
    assert!(request.to_lowercase().contains(header), "{request}");
    assert!(request.contains("c2VjcmV0LWFz_3NlbnQ="), "{request}");
}

#[tokio::test]
async fn a_pull_that_ends_badly_failed() {
    let refused = FakeEngine::start(&[(
        "/images/create",
        "200 OK",
        "{\"status\":\"Pulling\"}\r\n{\"errorDetail\":{\"message\":\"no space left\"},\"error\":\"no space left\"}\r\n",
    )]);
    let result = refused.engine.run(pull("web")).await;
    assert_eq!(result, Err(OpError::Failed("no space left".into())));

    let cut = FakeEngine::start(&[(
        "/images/create",
        "200 OK",
        "{\"status\":\"Pulling\"}\r\nCUT",
    )]);
    let result = cut.engine.run(pull("web")).await;
    assert!(matches!(result, Err(OpError::Unavailable(_))), "{result:?}");
}

#[tokio::test]
async fn what_is_so_already_is_a_success() {
    let fake = FakeEngine::start(&[
        ("/start", "304 Not Modified", ""),
        ("/stop", "304 Not Modified", ""),
    ]);
    let container = "c1".to_owned();
    let start = EngineOp::Start {
        container: container.clone(),
        networks: Vec::new(),
    };
    assert_eq!(fake.engine.run(start).await, Ok(OpOutput::Done));
    let grace = Some(7);
    let stop = EngineOp::Stop { container, grace };
    assert_eq!(fake.engine.run(stop).await, Ok(OpOutput::Done));
    fake.request("POST /v1.41/containers/c1/stop?t=7 ");
}

#[tokio::test]
async fn a_list_asks_for_this_nodes_containers_stopped_ones_too() {
    let fake = FakeEngine::start(&[("/containers/json", "200 OK", "[]")]);
    let list = EngineOp::List {
        node: "node1".into(),
    };
    assert_eq!(
        fake.engine.run(list).await,
        Ok(OpOutput::Containers(Vec::new()))
    );
    let request = fake.request("GET /v1.41/containers/json?");
    assert!(request.contains("all=true"), "{request}");
    assert!(
        request.contains("com.docker.swarm.node.id%3Dnode1"),
        "{request}"
    );
}

#[tokio::test]
async fn a_client_is_kept_until_the_engine_was_away() {
    let fake = FakeEngine::start(&[("/containers/c1/json", "200 OK", "{}CUT")]);
    let inspect = |id: &str| EngineOp::Inspect {
        container: id.into(),
    };
    let asked = || {
        let requests = fake.requests.lock().unwrap();
        let version = |request: &&String| request.starts_with("GET /version ");
        requests.iter().filter(version).count()
    };
    for _ in 0..2 {
        let result = fake.engine.run(inspect("c2")).await;
        assert_eq!(result, Err(OpError::NotFound("page not found".into())));
    }
    assert_eq!(asked(), 1);
    let result = fake.engine.run(inspect("c1")).await;
    assert!(matches!(result, Err(OpError::Unavailable(_))), "{result:?}");
    let again = tokio::time::timeout(Duration::from_secs(9), fake.engine.run(inspect("c2")));
    assert!(again.await.unwrap().is_err());
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn a_network_is_not_gone_because_a_container_on_it_is() {
    let fake = FakeEngine::start(&[
        (
            "GET /v1.41/networks?",
            "200 OK",
            r#"[{"Name":"skep-n","Labels":{"skep.network":"n"}}]"#,
        ),
        (
            "DELETE /v1.41/networks/skep-n",
            "500 Internal Server Error",
            r#"{"message":"in use"}"#,
        ),
        (
            "/disconnect",
            "404 Not Found",
            r#"{"message":"no such container"}"#,
        ),
        (
            "GET /v1.41/networks/skep-n",
            "200 OK",
            r#"{"Containers":{"c1":{}}}"#,
        ),
    ]);
    let network = "n".into();
    let result = fake.engine.run(EngineOp::RemoveNetwork { network }).await;
    assert_eq!(result, Err(OpError::Failed("in use".into())));
    fake.request("POST /v1.41/networks/skep-n/disconnect");
}

#[tokio::test]
async fn podmans_states_are_understood() {
    let fake = FakeEngine::start(&[
        (
            "/version",
            "200 OK",
            r#"{"ApiVersion":"1.41","Components":[{"Name":"Podman Engine","Version":"4.3.1"}]}"#,
        ),
        (
            "/containers/json",
            "200 OK",
            r#"[{"Id":"c","Names":["/n"],"State":"stopped"}]"#,
        ),
    ]);
    let node = "node1".into();
    let found = fake.engine.run(EngineOp::List { node }).await;
    let Ok(OpOutput::Containers(found)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(found[0].state, ContainerState::Exited);
    let request = fake.request("GET /v1.41/containers/json?");
    assert!(
        request.contains("com.docker.swarm.node.id%3Dnode1"),
        "{request}"
    );
}
