//! Hijacked connections: attach, exec, BuildKit's sessions. Both directions, each with its own
//! end, with and without an `Upgrade` header.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Harness, Peer};

const UPGRADE: &str = "POST /v1.41/exec/e/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
    Upgrade: tcp\r\nContent-Length: 2\r\n\r\n{}";
const UPGRADED: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const PLAIN: &str = "POST /containers/c/attach?stream=1 HTTP/1.1\r\nHost: x\r\n\r\n";
const RAW: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

fn open(harness: &Harness, request: &str, answer: &str) -> (Peer, Peer) {
    let mut client = harness.client();
    client.send(request);
    let mut engine = harness.accept();
    engine.expect(request);
    engine.send(answer);
    client.expect(answer);
    (client, engine)
}

#[test]
fn both_directions_are_open() {
    let harness = Harness::new();
    for (request, answer) in [(UPGRADE, UPGRADED), (PLAIN, RAW)] {
        let (mut client, mut engine) = open(&harness, request, answer);
        client.send("input");
        engine.expect("input");
        engine.send("output");
        client.expect("output");
        // What looks like HTTP is not taken as such.
        client.send("GET /swarm HTTP/1.1\r\n\r\n");
        engine.expect("GET /swarm HTTP/1.1\r\n\r\n");
    }
}

#[test]
fn the_end_of_input_leaves_the_output_open() {
    let harness = Harness::new();
    for (request, answer) in [(UPGRADE, UPGRADED), (PLAIN, RAW)] {
        let (mut client, mut engine) = open(&harness, request, answer);
        client.send("last");
        client.half_close();
        engine.expect("last");
        engine.expect_end();
        engine.send("result");
        client.expect("result");
        drop(engine);
        client.expect_end();
    }
}

#[test]
fn the_end_of_output_leaves_the_input_open() {
    let harness = Harness::new();
    let (mut client, mut engine) = open(&harness, UPGRADE, UPGRADED);
    engine.send("done");
    engine.half_close();
    client.expect("done");
    client.expect_end();
    client.send("more");
    engine.expect("more");
    client.half_close();
    engine.expect_end();
}

#[test]
fn input_sent_ahead_of_the_answer_arrives() {
    let harness = Harness::new();
    for (request, answer) in [(UPGRADE, UPGRADED), (PLAIN, RAW)] {
        let mut client = harness.client();
        client.send(request);
        client.send("early");
        client.half_close();
        let mut engine = harness.accept();
        engine.expect(request);
        engine.send(answer);
        engine.expect("early");
        engine.expect_end();
        engine.send("late");
        drop(engine);
        client.expect(answer);
        client.expect("late");
        client.expect_end();
    }
}

#[test]
fn either_side_may_vanish() {
    let harness = Harness::new();
    let (client, mut engine) = open(&harness, UPGRADE, UPGRADED);
    drop(client);
    engine.expect_end();
    let (mut client, engine) = open(&harness, UPGRADE, UPGRADED);
    drop(engine);
    client.expect_end();
    // The whole connection is gone, not one direction of it.
    common::wait_for("writes fail", || {
        std::io::Write::write(&mut client.0, b"x").is_err()
    });
}

#[test]
fn a_refused_hijack_is_an_ordinary_answer() {
    let harness = Harness::new();
    let refusal = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
    let (mut client, mut engine) = open(&harness, UPGRADE, refusal);
    client.send("GET /a HTTP/1.1\r\n\r\n");
    engine.expect("GET /a HTTP/1.1\r\n\r\n");
}

#[test]
fn much_passes_both_ways_at_once() {
    const MUCH: usize = 32 << 20;
    let harness = Harness::new();
    let (client, engine) = open(&harness, UPGRADE, UPGRADED);
    let pump = |peer: &Peer| {
        let (mut from, mut to) = (peer.0.try_clone().unwrap(), peer.0.try_clone().unwrap());
        let writer = std::thread::spawn(move || {
            let sent = std::io::copy(
                &mut std::io::Read::take(std::io::repeat(7), MUCH as u64),
                &mut to,
            );
            to.shutdown(std::net::Shutdown::Write).unwrap();
            sent.unwrap()
        });
        let reader =
            std::thread::spawn(move || std::io::copy(&mut from, &mut std::io::sink()).unwrap());
        (writer, reader)
    };
    let ends = [pump(&client), pump(&engine)];
    for (writer, reader) in ends {
        assert_eq!(
            (writer.join().unwrap(), reader.join().unwrap()),
            (MUCH as u64, MUCH as u64)
        );
    }
}
