//! `GET /events` on a manager: the cluster's events between the engine's, byte for byte.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use common::{Harness, Setup};
use futures_util::stream::unfold;
use http::StatusCode;
use skepd::swarm::{Feed, Lagged, Query};
use skepd::{ApiVersion, Owned, OwnedRequest, Reply, Swarm, SwarmInfo};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Line = Result<Bytes, Lagged>;

/// Has one feed to give.
struct One(Mutex<Option<Feed>>);

#[async_trait]
impl Swarm for One {
    async fn handle(&self, _: Owned, _: OwnedRequest) -> Reply {
        Reply::empty(StatusCode::OK)
    }

    fn ping(&self) -> &'static str {
        "active/manager"
    }

    async fn info(&self, _: ApiVersion) -> SwarmInfo {
        SwarmInfo::new(&"", Vec::new()).unwrap()
    }

    fn events(&self, _: &Query) -> Option<Feed> {
        self.0.lock().unwrap().take()
    }
}

/// A daemon whose feed has this past, and what sends the rest.
fn harness(past: &[(i64, &'static str)]) -> (Harness, UnboundedSender<Line>) {
    let (send, live) = unbounded_channel();
    let next = |mut live: UnboundedReceiver<Line>| async move { Some((live.recv().await?, live)) };
    let past: VecDeque<_> = past
        .iter()
        .map(|(at, line)| (*at, Bytes::from_static(line.as_bytes())))
        .collect();
    let feed = Feed::new(past, Box::pin(unfold(live, next)));
    let swarm = Arc::new(One(Mutex::new(Some(feed))));
    let setup = Setup {
        swarm,
        ..Setup::default()
    };
    (Harness::with(setup), send)
}

const ASK: &str = "GET /v1.41/events HTTP/1.1\r\nHost: docker\r\n\r\n";
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn ours(line: &'static str) -> Line {
    Ok(Bytes::from_static(line.as_bytes()))
}

#[test]
fn lines_go_between_the_engines() {
    let (harness, send) = harness(&[]);
    let mut client = harness.client();
    client.send(ASK);
    let mut engine = harness.accept();
    assert_eq!(engine.head(), ASK);
    engine.send(HEAD);
    client.expect(HEAD);
    send.send(ours("{\"c\":1}\n")).unwrap();
    client.expect("8\r\n{\"c\":1}\n\r\n");
    engine.send("8;x=y\r\n{\"e\":1}\n\r\n");
    client.expect("8;x=y\r\n{\"e\":1}\n\r\n");
    // Not in the middle of a line, however it is chunked.
    engine.send("3\r\n{\"e\r\n");
    client.expect("3\r\n{\"e\r\n");
    send.send(ours("{\"c\":2}\n")).unwrap();
    engine.send("5\r\n\":");
    client.expect("5\r\n\":");
    engine.send("2}\n\r\n");
    client.expect("2}\n\r\n8\r\n{\"c\":2}\n\r\n");
    // The engine ends it; the connection goes on.
    engine.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    client.send("GET /v1.41/version HTTP/1.1\r\n\r\n");
    assert!(engine.head().starts_with("GET /v1.41/version"));
}

#[test]
fn the_past_is_merged_by_time() {
    let (harness, _send) = harness(&[(1, "{\"c\":1}\n"), (3, "{\"c\":3}\n"), (9, "{\"c\":9}\n")]);
    let mut client = harness.client();
    client.send(ASK);
    let mut engine = harness.accept();
    engine.head();
    engine.send(&format!(
        "{HEAD}f\r\n{{\"timeNano\":2}}\n\r\nf\r\n{{\"timeNano\":4}}\n\r\n0\r\n\r\n"
    ));
    client.expect(HEAD);
    client.expect("8\r\n{\"c\":1}\n\r\nf\r\n{\"timeNano\":2}\n\r\n");
    client.expect("8\r\n{\"c\":3}\n\r\nf\r\n{\"timeNano\":4}\n\r\n");
    client.expect("8\r\n{\"c\":9}\n\r\n0\r\n\r\n");
}

#[test]
fn the_past_does_not_wait_for_a_silent_engine() {
    let (harness, send) = harness(&[(1, "{\"c\":1}\n")]);
    send.send(ours("{\"c\":2}\n")).unwrap();
    let mut client = harness.client();
    client.send(ASK);
    let mut engine = harness.accept();
    engine.head();
    engine.send(HEAD);
    client.expect(HEAD);
    client.expect("8\r\n{\"c\":1}\n\r\n8\r\n{\"c\":2}\n\r\n");
}

#[test]
fn a_refusal_of_the_engine_is_left_alone() {
    let (harness, send) = harness(&[(1, "{\"c\":1}\n")]);
    send.send(ours("{\"c\":2}\n")).unwrap();
    let mut client = harness.client();
    client.send(ASK);
    let mut engine = harness.accept();
    engine.head();
    let refusal = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";
    engine.send(refusal);
    client.expect(refusal);
    client.send("GET /v1.41/version HTTP/1.1\r\n\r\n");
    assert!(engine.head().starts_with("GET /v1.41/version"));
}

#[test]
fn an_old_clients_stream_has_no_chunks() {
    let (harness, send) = harness(&[]);
    let mut client = harness.client();
    client.send("GET /events HTTP/1.0\r\n\r\n");
    let mut engine = harness.accept();
    engine.head();
    engine.send("HTTP/1.0 200 OK\r\n\r\n{\"e\":1}\n{\"e\"");
    client.expect("HTTP/1.0 200 OK\r\n\r\n{\"e\":1}\n");
    engine.send(":2}\n");
    client.expect("{\"e\":2}\n");
    send.send(ours("{\"c\":1}\n")).unwrap();
    client.expect("{\"c\":1}\n");
    drop(engine);
    client.expect_end();
}

#[test]
fn the_stream_ends_with_either_half() {
    // A reader that lags.
    let (first, send) = harness(&[]);
    let mut client = first.client();
    client.send(ASK);
    let mut engine = first.accept();
    engine.head();
    engine.send(HEAD);
    client.expect(HEAD);
    send.send(Err(Lagged(7))).unwrap();
    client.expect_end();
    engine.expect_end();
    // An engine that goes away.
    let (second, _send) = harness(&[]);
    let mut client = second.client();
    client.send(ASK);
    let mut engine = second.accept();
    engine.head();
    engine.send(HEAD);
    client.expect(HEAD);
    drop(engine);
    client.expect_end();
    // A client that hangs up.
    let (third, _send) = harness(&[]);
    let mut client = third.client();
    client.send(ASK);
    let mut engine = third.accept();
    engine.head();
    engine.send(HEAD);
    client.expect(HEAD);
    drop(client);
    engine.expect_end();
}

#[test]
fn an_engine_that_restarts_ends_the_stream_and_is_asked_anew() {
    let (harness, send) = harness(&[]);
    let mut client = harness.client();
    client.send(ASK);
    let mut engine = harness.accept();
    engine.head();
    engine.send(HEAD);
    client.expect(HEAD);
    engine.send("8\r\n{\"e\":1}\n\r\n");
    client.expect("8\r\n{\"e\":1}\n\r\n");
    send.send(ours("{\"c\":1}\n")).unwrap();
    client.expect("8\r\n{\"c\":1}\n\r\n");
    // It goes in the middle of a line, which stays as it is: neither completed nor continued.
    engine.send("3\r\n{\"e\r\n");
    client.expect("3\r\n{\"e\r\n");
    send.send(ours("{\"c\":2}\n")).unwrap();
    drop(engine);
    client.expect_end();
    // Nobody listens to the cluster for that client any more, and the next one is a new request.
    while send.send(ours("{\"c\":3}\n")).is_ok() {
        std::thread::yield_now();
    }
    let mut next = harness.client();
    next.send(ASK);
    let mut engine = harness.accept();
    assert_eq!(engine.head(), ASK);
    engine.send(&format!("{HEAD}8\r\n{{\"e\":2}}\n\r\n"));
    next.expect(HEAD);
    next.expect("8\r\n{\"e\":2}\n\r\n");
}
