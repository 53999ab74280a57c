//! Requests that swarm mode owns, and the engine's answers that it adds to.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use common::{Harness, Setup, wait_for};
use futures_util::stream;
use http::StatusCode;
use skepd::reply::BodyStream;
use skepd::{ApiVersion, Owned, OwnedRequest, Reply, Swarm, SwarmInfo};

/// Answers with what it was asked; logs go on for ever.
#[derive(Default)]
struct Echo {
    dropped: Arc<AtomicBool>,
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Swarm for Echo {
    async fn handle(&self, route: Owned, request: OwnedRequest) -> Reply {
        match route {
            Owned::ServiceLogs { id } if id == "endless" => {
                let mark = OnDrop(Arc::clone(&self.dropped));
                let body: BodyStream = Box::pin(stream::unfold(Some(mark), |mark| async move {
                    mark.as_ref()?;
                    Some((Ok(Bytes::from_static(b"line\n")), mark))
                }));
                Reply::stream("application/vnd.docker.raw-stream", body)
            }
            Owned::ServiceLogs { .. } => {
                let parts = ["one", "two"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
                Reply::stream(
                    "application/vnd.docker.raw-stream",
                    Box::pin(stream::iter(parts)),
                )
            }
            Owned::TaskList => {
                let _mark = OnDrop(Arc::clone(&self.dropped));
                std::future::pending().await
            }
            route => {
                let body = String::from_utf8_lossy(&request.body);
                let version = request.version;
                let agent = request.headers.get("user-agent").cloned();
                let text = format!(
                    "{route:?} {version} {:?} {body} {agent:?}",
                    request.query.get("a")
                );
                Reply::json(StatusCode::OK, &text)
            }
        }
    }

    fn ping(&self) -> &'static str {
        "active/manager"
    }

    async fn info(&self, version: ApiVersion) -> SwarmInfo {
        SwarmInfo::new(&version.to_string(), vec!["mind the gap".into()]).unwrap()
    }
}

fn harness() -> (Harness, Arc<AtomicBool>) {
    let swarm = Echo::default();
    let dropped = Arc::clone(&swarm.dropped);
    (
        Harness::with(Setup {
            swarm: Arc::new(swarm),
            ..Setup::default()
        }),
        dropped,
    )
}

#[test]
fn owned_requests_never_reach_the_engine() {
    let (harness, _) = harness();
    let mut client = harness.client();
    client.send("GET /v1.40/nodes/n%31?a=b HTTP/1.1\r\nUser-Agent: me\r\n\r\n");
    harness.answer_ping();
    let (head, body) = client.reply();
    assert_eq!(
        body,
        "\"NodeInspect { id: \\\"n1\\\" } 1.40 Some(\\\"b\\\")  Some(\\\"me\\\")\"\n"
    );
    assert!(
        head.starts_with(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n"
        ),
        "{head}"
    );
    assert!(head.contains("\r\nServer: Fake\r\n"), "{head}");

    // On the same connection: a body in chunks, no version, and then the engine's turn.
    client.send("POST /services/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("2\r\n{}\r\n0\r\n\r\nGET /containers/json HTTP/1.1\r\n\r\n");
    assert_eq!(client.reply().1, "\"ServiceCreate 1.41 None {} None\"\n");
    let mut engine = harness.accept();
    engine.expect("GET /containers/json HTTP/1.1\r\n\r\n");
    engine.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
}

#[test]
fn bodies_are_asked_for_and_limited() {
    let (harness, _) = harness();
    let mut client = harness.client();
    client.send("POST /swarm/init HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("null");
    harness.answer_ping();
    assert_eq!(client.reply().1, "\"SwarmInit 1.41 None null None\"\n");

    client.send("POST /swarm/init HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n");
    client.fill_until_closed();
    let (head, body) = client.reply();
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert!(body.contains("8388608 bytes"), "{body}");
}

#[test]
fn versions_outside_the_window_are_refused() {
    let (harness, _) = harness();
    let mut client = harness.client();
    let table = [
        (
            "GET /v1.23/nodes",
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
        (
            "GET /v1.42/nodes",
            "client version 1.42 is too new. Maximum supported API version is 1.41",
        ),
        (
            "GET /v1.24/secrets",
            "GET /secrets requires minimum API version 1.25",
        ),
        (
            "POST /v1.29/configs/create",
            "POST /configs/create requires minimum API version 1.30",
        ),
    ];
    for (index, (request, text)) in table.into_iter().enumerate() {
        client.send(&format!("{request} HTTP/1.1\r\n\r\n"));
        if index == 0 {
            harness.answer_ping();
        }
        let (head, body) = client.reply();
        assert!(
            head.starts_with("HTTP/1.1 400 Bad Request\r\nApi-Version: 1.41\r\n"),
            "{head}"
        );
        assert_eq!(body, format!("{{\"message\":\"{text}\"}}\n"));
    }
}

#[test]
fn the_engine_may_be_down() {
    let (mut harness, _) = harness();
    harness.stop_engine();
    let mut client = harness.client();
    client.send("GET /nodes HTTP/1.1\r\n\r\n");
    assert!(client.reply().0.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn logs_stream_and_end() {
    let (harness, dropped) = harness();
    let mut client = harness.client();
    client.send("GET /services/s/logs?stdout=1 HTTP/1.1\r\n\r\n");
    harness.answer_ping();
    assert!(client.head().contains("\r\nTransfer-Encoding: chunked\r\n"));
    client.expect("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");

    client.send("GET /services/endless/logs HTTP/1.1\r\n\r\n");
    client.head();
    client.expect("5\r\nline\n\r\n");
    drop(client);
    wait_for("the source of the log is dropped", || {
        dropped.load(Ordering::SeqCst)
    });
}

#[test]
fn a_question_is_dropped_when_nobody_waits_for_it() {
    let (harness, dropped) = harness();
    let mut client = harness.client();
    client.send("GET /tasks HTTP/1.1\r\n\r\n");
    harness.answer_ping();
    drop(client);
    wait_for("the question is dropped", || dropped.load(Ordering::SeqCst));
}

#[test]
fn pings_tell_the_swarms_state() {
    let (harness, _) = harness();
    let mut client = harness.client();
    client.send("HEAD /_ping HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    engine.expect("HEAD /_ping HTTP/1.1\r\n\r\n");
    engine.send("HTTP/1.1 200 OK\r\nA: b\r\nSwarm: inactive\r\nContent-Length: 2\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nA: b\r\nSwarm: active/manager\r\nContent-Length: 2\r\n\r\n");
    client.send("GET /v1.41/_ping HTTP/1.1\r\n\r\n");
    engine.head();
    engine.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSwarm: active/manager\r\n\r\nOK");
}

#[test]
fn info_is_patched_and_nothing_else_of_it() {
    let (harness, _) = harness();
    let mut client = harness.client();
    client.send("GET /v1.40/info HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    engine.head();
    engine.send("HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n");
    engine.send("10\r\n{\"Swarm\":{},\"n\":\r\n");
    engine.send("17\r\n1.50,\"Warnings\":[\"w\"]}\n\r\n0\r\n\r\n");
    let (head, body) = client.reply();
    assert_eq!(
        body,
        "{\"Swarm\":\"1.40\",\"n\":1.50,\"Warnings\":[\"w\",\"mind the gap\"]}\n"
    );
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
    );

    // Errors, and what is no object, go through.
    for answer in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    ] {
        client.send("GET /v1.40/info HTTP/1.1\r\n\r\n");
        engine.head();
        engine.send(answer);
        client.expect(answer);
    }
}
