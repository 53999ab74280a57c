//! The engine's networks that realise the swarm's, as clients see them: under the swarm's names, and
//! never under the engine's. The engine is played.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use common::{Harness, Peer, Setup};
use skepd::swarm::{Feed, Inactive, Query};
use skepd::{ApiVersion, Owned, OwnedRequest, Reply, Swarm, SwarmInfo};

const ID: &str = "abcdefghijklmnopqrstuvw12";

/// A node of a swarm: a manager if it knows names, else a worker.
struct Member(bool);

#[async_trait]
impl Swarm for Member {
    async fn handle(&self, route: Owned, request: OwnedRequest) -> Reply {
        match route {
            Owned::NetworkRemove { .. } if !self.0 => {
                Reply::error(http::StatusCode::SERVICE_UNAVAILABLE, "not a manager")
            }
            Owned::NetworkRemove { .. } | Owned::NetworkInspect { .. } => {
                Reply::error(http::StatusCode::NOT_FOUND, "none of ours")
            }
            route => Inactive.handle(route, request).await,
        }
    }

    fn ping(&self) -> &'static str {
        match self.0 {
            true => "active/manager",
            false => "active/worker",
        }
    }

    async fn info(&self, version: ApiVersion) -> SwarmInfo {
        Inactive.info(version).await
    }

    fn events(&self, _: &Query) -> Option<Feed> {
        let live = futures_util::stream::pending();
        Some(Feed::new(VecDeque::new(), Box::pin(live)))
    }

    fn network_name(&self, id: &str) -> Option<String> {
        (self.0 && id == ID).then(|| "front".to_owned())
    }
}

fn harness(manages: bool) -> Harness {
    Harness::with(Setup {
        swarm: Arc::new(Member(manages)),
        ..Setup::default()
    })
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn answer(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The engine's network that realises ours.
fn engines() -> String {
    let shown = format!(
        r#"{{\"Name\":\"front\",\"Id\":\"{ID}\",\"Created\":\"c\",\"Scope\":\"swarm\",\"Driver\":\"overlay\",\"Containers\":null,\"Options\":null,\"Labels\":{{\"a\":\"b\"}}}}"#
    );
    format!(
        r#"{{"Name":"skep-{ID}","Id":"ff00","Created":"d","Scope":"local","Driver":"bridge","IPAM":{{"Config":[{{"Subnet":"10.0.1.0/24","Gateway":"10.0.1.3"}}]}},"Containers":{{"c1":{{"Name":"web.1"}}}},"Options":{{"x":"y"}},"Labels":{{"skep.network":"{ID}","skep.network.name":"front","skep.network.shown":"{shown}"}}}}"#
    )
}

/// Answers skepd's own question.
fn asked(harness: &Harness, path: &str, body: &str) {
    let mut engine = harness.accept();
    let head = engine.head();
    assert!(
        head.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
        "{head}"
    );
    engine.send(&answer(body));
}

const OURS: &str = "/networks?filters=%7B%22label%22%3A%5B%22skep.network%22%5D%7D";

fn container(network: &str, id: &str) -> String {
    format!(
        r#"{{"Id":"c1","Labels":{{}},"HostConfig":{{"NetworkMode":"{network}"}},"NetworkSettings":{{"Networks":{{"{network}":{{"NetworkID":"{id}"}}}}}}}}"#
    )
}

#[test]
fn containers_are_on_the_swarms_networks() {
    let harness = harness(false);
    let mut client = harness.client();
    client.send(&get(
        "/v1.41/containers/json?filters=%7B%22network%22%3A%5B%22front%22%5D%7D",
    ));
    asked(&harness, OURS, &format!("[{}]", engines()));
    let mut engine = harness.accept();
    let head = engine.head();
    let any = |name: &str| format!("%22{name}%22%3Atrue");
    let beginning = format!("%22network%22%3A%7B{}", any(&format!("0skep%2D{ID}")));
    let further = any(&format!("0skep%2D{ID}%2E1"));
    let own = format!("{}%2C{}", any("front"), any(&format!("skep%2D{ID}")));
    for wanted in [beginning, further, own] {
        assert!(head.contains(&wanted), "{head}");
    }
    let other = r#"{"Id":"c2", "Odd":[1 ,2]}"#;
    engine.send(&answer(&format!(
        "[{},{other}]",
        container(&format!("skep-{ID}"), "ff00")
    )));
    let (_, body) = client.reply();
    assert_eq!(body, format!("[{},{other}]\n", container("front", ID)));
    // Known by now, so that nobody has to be asked again.
    client.send(&get("/containers/c1/json"));
    engine.expect(&get("/containers/c1/json"));
    engine.send(&answer(&container(&format!("skep-{ID}"), "ff00")));
    assert_eq!(client.reply().1, container("front", ID) + "\n");
}

#[test]
fn what_realises_a_network_is_not_there() {
    for manages in [true, false] {
        let harness = harness(manages);
        let mut client = harness.client();
        let path = format!("/networks/skep-{ID}");
        let expected = format!("{{\"message\":\"network skep-{ID} not found\"}}\n");
        client.send(&get(&path));
        if !manages {
            asked(&harness, OURS, &format!("[{}]", engines()));
        }
        let mut engine = if manages {
            // The first answer of skepd's own says what the engine is.
            harness.answer_ping();
            harness.accept()
        } else {
            harness.accept()
        };
        engine.expect(&get(&path));
        engine.send(&answer(&engines()));
        if !manages {
            harness.answer_ping();
        }
        let (head, body) = client.reply();
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert_eq!(body, expected);
        for (method, path) in [
            ("DELETE", path.clone()),
            ("POST", format!("{path}/connect")),
            ("POST", format!("{path}/disconnect")),
        ] {
            client.send(&format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            ));
            if !manages && method == "DELETE" {
                asked(&harness, OURS, &format!("[{}]", engines()));
            }
            asked(&harness, &format!("/networks/skep-{ID}"), &engines());
            let (head, body) = client.reply();
            assert!(head.starts_with("HTTP/1.1 404 "), "{method} {path}: {head}");
            assert_eq!(body, expected);
        }
    }
}

#[test]
fn a_worker_shows_the_networks_that_it_has_a_part_in() {
    let harness = harness(false);
    let mut client = harness.client();
    client.send(&get(
        "/networks?filters=%7B%22driver%22%3A%5B%22overlay%22%5D%7D",
    ));
    asked(&harness, OURS, &format!("[{}]", engines()));
    let mut engine = harness.accept();
    engine.head();
    engine.send(&answer("[]"));
    let listed = format!(
        r#"[{{"Name":"front","Id":"{ID}","Created":"d","Scope":"swarm","Driver":"overlay","Containers":{{}},"Options":{{}},"Labels":{{"a":"b"}}}}]"#
    );
    assert_eq!(client.reply().1, listed + "\n");
    client.send(&get("/networks/front"));
    asked(&harness, OURS, &format!("[{}]", engines()));
    asked(&harness, "/networks/ff00", &engines());
    harness.answer_ping();
    let (_, body) = client.reply();
    let own = r#""Containers":{"c1":{"Name":"web.1"},"lb-front":{"#;
    assert!(
        body.contains(own) && body.contains(r#""IPv4Address":"10.0.1.3/24""#),
        "{body}"
    );
    // A network is a manager's to remove.
    client.send("DELETE /networks/front HTTP/1.1\r\nHost: x\r\n\r\n");
    asked(&harness, OURS, &format!("[{}]", engines()));
    let (head, body) = client.reply();
    assert!(
        head.starts_with("HTTP/1.1 503 ") && body.contains("not a manager"),
        "{body}"
    );
}

fn event(id: &str, name: &str, driver: &str) -> String {
    format!(
        "{{\"Type\":\"network\",\"Action\":\"create\",\"Actor\":{{\"ID\":\"{id}\",\"Attributes\":\
         {{\"name\":\"{name}\",\"type\":\"{driver}\"}}}},\"scope\":\"local\",\"time\":1,\
         \"timeNano\":1000000002}}\n"
    )
}

fn chunk(line: &str) -> String {
    format!("{:x}\r\n{line}\r\n", line.len())
}

#[test]
fn events_tell_of_the_swarms_networks() {
    let harness = harness(true);
    let mut client: Peer = harness.client();
    client.send(&get(
        "/events?filters=%7B%22network%22%3A%5B%22fr%22%2C%22mine%22%5D%7D",
    ));
    let mut engine = harness.accept();
    let head = engine.head();
    assert!(head.contains("%22skep%2D%22%3Atrue"), "{head}");
    let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    engine.send(start);
    client.expect(start);
    // In one piece, and torn.
    let hidden = chunk(&event("ff00", &format!("skep-{ID}"), "bridge"));
    let (first, second) = hidden.split_at(40);
    engine.send(&hidden);
    engine.send(first);
    client.expect(&chunk(&event(ID, "front", "overlay")));
    engine.send(second);
    client.expect(&chunk(&event(ID, "front", "overlay")));
    // Not what was asked for, though the engine had to be asked for it.
    engine.send(&chunk(&event("ff01", "skep-others", "bridge")));
    let mine = chunk(&event("ff02", "mine", "bridge"));
    engine.send(&mine);
    client.expect(&mine);
    engine.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
}
