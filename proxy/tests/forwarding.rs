//! Ordinary requests pass as the bytes that they are. What swarm mode owns is in `owned.rs`.

#![allow(clippy::unwrap_used)]

mod common;

use common::Harness;

#[test]
fn bytes_pass_unchanged_in_both_directions() {
    let harness = Harness::new();
    let mut client = harness.client();
    let request = "POST /v1.41/images/load?quiet=1&x=%2f HTTP/1.1\r\nhOsT: a\r\nX-B: 2\r\nx-a:1\r\n\
        X-B:  3 \r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
        3;ext=1\r\nabc\r\n0010\r\n0123456789abcdef\r\n0\r\nX-T: t\r\n\r\n";
    client.send(request);
    let mut engine = harness.accept();
    engine.expect(request);
    let answer = "HTTP/1.1 299 Odd  reason\r\nZ: z\r\nserver: s\r\ntransfer-encoding: chunked\r\n\r\n\
        A\r\n0123456789\r\n000\r\nX-U: u\r\n\r\n";
    engine.send(answer);
    client.expect(answer);

    // Both connections stay, and a length is kept as well as chunks are.
    let request = "PUT /containers/a/archive HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
    client.send(request);
    engine.expect(request);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    engine.send(answer);
    client.expect(answer);
    assert!(
        harness.engine.as_ref().unwrap().is_idle(),
        "one engine connection serves both"
    );
}

#[test]
fn answers_without_a_body_end_at_their_head() {
    let harness = Harness::new();
    let mut client = harness.client();
    let exchanges = [
        (
            "HEAD /containers/a/archive?path=/ HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
        ),
        (
            "DELETE /containers/a HTTP/1.1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "POST /containers/a/start HTTP/1.1\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
        ),
        (
            "GET /x HTTP/1.1\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    let mut engine = None;
    for (request, answer) in exchanges {
        client.send(request);
        let engine = engine.get_or_insert_with(|| harness.accept());
        engine.expect(request);
        engine.send(answer);
        client.expect(answer);
    }
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let harness = Harness::new();
    let mut client = harness.client();
    client.send("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    for path in ["/a", "/b"] {
        engine.expect(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        engine.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        engine.send(path);
    }
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/a");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/b");
}

#[test]
fn the_engine_decides_on_expect_continue() {
    let harness = Harness::new();
    let mut client = harness.client();
    let head = "POST /build HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head);
    let mut engine = harness.accept();
    engine.expect(head);
    engine.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("data");
    engine.expect("data");
    engine.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");

    client.send(head);
    engine.expect(head);
    let refusal =
        "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    engine.send(refusal);
    client.expect(refusal);
    client.expect_end();
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let harness = Harness::new();
    let mut client = harness.client();
    let head = "POST /images/load HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n";
    client.send(head);
    client.send("first");
    let mut engine = harness.accept();
    engine.expect(head);
    engine.expect("first");
    engine.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    client.expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    client.send("second");
    engine.expect("second");
    engine.send("0\r\n\r\n");
    drop(engine);
    client.expect("0\r\n\r\n");
    client.expect_end();
}

#[test]
fn a_client_that_hangs_up_cancels() {
    let harness = Harness::new();
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let mut client = harness.client();
        client.send("GET /events HTTP/1.1\r\n\r\n");
        let mut engine = harness.accept();
        engine.expect("GET /events HTTP/1.1\r\n\r\n");
        engine.send(answer);
        client.expect(answer);
        drop(client);
        engine.expect_end();
    }
}

#[test]
fn a_client_that_closed_its_sending_side_still_gets_its_answer() {
    let harness = Harness::new();
    let mut client = harness.client();
    client.send("GET /a HTTP/1.1\r\n\r\n");
    client.half_close();
    let mut engine = harness.accept();
    engine.expect("GET /a HTTP/1.1\r\n\r\n");
    engine.expect_end();
    engine.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    client.expect_end();
}

#[test]
fn receivers_set_the_pace() {
    let harness = Harness::new();
    let mut client = harness.client();
    client.send("POST /images/load HTTP/1.1\r\nContent-Length: 100000000000\r\n\r\n");
    let _engine = harness.accept();
    let sent = client.fill();
    assert!(
        sent < 2 << 20,
        "{sent} bytes went into a stream that nobody reads"
    );

    let mut client = harness.client();
    client.send("GET /images/a/get HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    engine.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
    let sent = engine.fill();
    assert!(
        sent < 2 << 20,
        "{sent} bytes went into a stream that nobody reads"
    );
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let harness = Harness::new();
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
    ] {
        let mut client = harness.client();
        client.send("GET /a HTTP/1.1\r\n\r\n");
        harness.accept().send(answer);
        client.expect(answer);
        client.expect_end();
    }
}

#[test]
fn an_engine_that_is_down_is_named_and_found_again() {
    let mut harness = Harness::new();
    harness.stop_engine();
    let (head, body) = {
        let mut client = harness.client();
        client.send("GET /containers/json HTTP/1.1\r\n\r\n");
        let reply = client.reply();
        client.expect_end();
        reply
    };
    assert!(
        head.starts_with("HTTP/1.1 503 Service Unavailable\r\nApi-Version: "),
        "{head}"
    );
    let message: serde_json::Value = serde_json::from_str(&body).unwrap();
    let message = message["message"].as_str().unwrap();
    assert!(
        message.contains("engine.sock: there is no such socket"),
        "{message}"
    );

    harness.start_engine();
    let mut client = harness.client();
    client.send("GET /containers/json HTTP/1.1\r\n\r\n");
    harness
        .accept()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
}

#[test]
fn an_engine_that_does_not_answer_is_a_bad_gateway() {
    let harness = Harness::new();
    for (answer, text) in [
        ("", "closed the connection before"),
        ("nonsense\r\n\r\n", "is no HTTP"),
    ] {
        let mut client = harness.client();
        client.send("GET /containers/json HTTP/1.1\r\n\r\n");
        let mut engine = harness.accept();
        engine.head();
        engine.send(answer);
        drop(engine);
        if answer.is_empty() {
            harness.answer_ping();
        }
        let (head, body) = client.reply();
        assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{head}");
        assert!(body.contains(text), "{body}");
    }
}

#[test]
fn a_connection_that_the_engine_gave_up_is_not_used_again() {
    let harness = Harness::new();
    let mut client = harness.client();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..3 {
        client.send("POST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx");
        let mut engine = harness.accept();
        engine.head();
        engine.expect("x");
        engine.send(answer);
        client.expect(answer);
    }
}

#[test]
fn connection_close_is_kept() {
    let harness = Harness::new();
    for (request, answer) in [
        (
            "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET /a HTTP/1.0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET /a HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let mut client = harness.client();
        client.send(request);
        let mut engine = harness.accept();
        engine.expect(request);
        engine.send(answer);
        client.expect(answer);
        client.expect_end();
        engine.expect_end();
    }
}
