//! Containers' questions answered in their own namespaces, by real resolvers: glibc's, musl's,
//! busybox's. In network namespaces that end with the test; needs root, nft and iproute2, and no
//! engine: a stand-in answers where the engine's own resolver would.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use skep_dataplane::model::{Change, Container, Endpoint, Network, Service};
use skep_dataplane::{Config, Plane};
use support::{Inside, Stub, alone, ask_tcp, ask_udp, run, try_udp, within};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(internal: bool) -> Change {
    Change::Network(Network {
        id: "n".into(),
        name: "back".into(),
        bridge: "br-n".into(),
        subnet: (Ipv4Addr::new(10, 0, 1, 0), 24),
        gateway: GATEWAY,
        ipv6: None,
        internal,
        ingress: false,
        hosts: Default::default(),
        branches: Vec::new(),
    })
}

fn service(name: &str, vip: &str) -> Change {
    let service = Service {
        id: name.into(),
        name: name.into(),
        vips: vec![ip(vip)],
        ..Service::default()
    };
    Change::Service("n".into(), service)
}

fn task(service: &str, slot: u8) -> Change {
    let endpoint = Endpoint {
        id: format!("{service}-{slot}"),
        service: Some(service.into()),
        names: vec![format!("{service}.{slot}")],
        addresses: vec![IpAddr::from([10, 0, 1, slot])],
        host: None,
    };
    Change::Endpoint("n".into(), endpoint)
}

fn container(inside: &Inside) -> Change {
    Change::Container(Container {
        id: "c".into(),
        pid: inside.pid(),
        addresses: BTreeMap::from([("n".into(), vec![ip("10.0.1.200")])]),
        ..Container::default()
    })
}

/// One that is about to start: nobody has said which process it is.
fn starting(container: &str) -> Change {
    let mut change = running(container, 0);
    if let Change::Container(container) = &mut change {
        container.starting = true;
    }
    change
}

fn running(container: &str, pid: i32) -> Change {
    Change::Container(Container {
        id: "c".into(),
        container: container.into(),
        pid,
        addresses: BTreeMap::from([("n".into(), vec![ip("10.0.1.200")])]),
        ..Container::default()
    })
}

/// A service `web` with two tasks, and `big` with a hundred.
fn world(internal: bool) -> Vec<Change> {
    let mut changes = vec![network(internal)];
    changes.push(service("web", "10.0.1.2"));
    changes.extend([task("web", 3), task("web", 4)]);
    changes.push(service("big", "10.0.1.9"));
    changes.extend((100..200).map(|slot| task("big", slot)));
    changes
}

/// Waits until a question has this answer, and says how long that took.
fn until(inside: &Inside, name: &str, expected: &str) -> Duration {
    let begin = Instant::now();
    let mut last = String::new();
    while begin.elapsed() < Duration::from_secs(20) {
        last = match try_udp(inside, RESOLVER, name, Duration::from_secs(5)) {
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        };
        if last == expected {
            return begin.elapsed();
        }
        // Between two looks.
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{name} is {last}, not {expected}, and stays so");
}

#[test]
fn a_container_finds_what_is_on_its_network() {
    let done = alone(|| async {
        let inside = Inside::new("127.0.0.11");
        let engine = Stub::engine(&inside);
        assert_eq!(ask_udp(&inside, RESOLVER, "web").text(), "NXDomain");
        let plane = Plane::start(Config::default());
        plane.apply(world(false)).await;
        plane.apply(vec![container(&inside)]).await;
        until(&inside, "web", "10.0.1.2");
        assert_eq!(ask_tcp(&inside, RESOLVER, "web.back").text(), "10.0.1.2");
        assert_eq!(
            ask_udp(&inside, RESOLVER, "tasks.web").text(),
            "10.0.1.3 10.0.1.4"
        );

        // A hundred tasks do not fit in a datagram; a stream has them all.
        let big = ask_udp(&inside, RESOLVER, "tasks.big");
        assert!(big.truncated && big.answers.len() == 30, "{big:?}");
        assert_eq!(ask_tcp(&inside, RESOLVER, "tasks.big").answers.len(), 100);

        // Others are asked what is not ours, in the way in which we were asked.
        assert_eq!(
            ask_tcp(&inside, RESOLVER, "ext.example").text(),
            "192.0.2.81"
        );
        for (name, expected) in [
            ("ext.example", "192.0.2.80"),
            ("nothing.example", "NXDomain"),
            ("fails.example", "ServFail"),
            // What the engine says of our networks is not for it to say.
            ("leak", "NXDomain"),
            // Its answers under other numbers and to other questions come first, and count nothing.
            ("spoof.example", "192.0.2.80"),
        ] {
            assert_eq!(ask_udp(&inside, RESOLVER, name).text(), expected, "{name}");
        }

        // Many at once: everybody gets the own answer.
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let inside = &inside;
                scope.spawn(move || {
                    for turn in 0..20 {
                        let name = format!("n{thread}x{turn}.echo.example");
                        let expected = format!("192.0.{thread}.{turn}");
                        assert_eq!(ask_udp(inside, RESOLVER, &name).text(), expected);
                    }
                });
            }
        });

        // The engine was restarted: its resolver is elsewhere.
        drop(engine);
        let _engine = Stub::engine(&inside);
        until(&inside, "ext.example", "192.0.2.80");
    });
    if done.is_none() {
        eprintln!("skipped: a network namespace of its own needs root");
    }
}

#[test]
fn every_resolver_understands_the_answers() {
    let done = alone(|| async {
        let inside = Inside::new("127.0.0.11");
        let _engine = Stub::engine(&inside);
        let plane = Plane::start(Config::default());
        plane.apply(world(false)).await;
        plane.apply(vec![container(&inside)]).await;
        until(&inside, "web", "10.0.1.2");

        let glibc = |name: &str| inside.run(&format!("getent ahosts {name} | grep STREAM"));
        assert!(glibc("web").unwrap().starts_with("10.0.1.2 "));
        assert!(glibc("web.back").unwrap().starts_with("10.0.1.2 "));
        assert_eq!(glibc("tasks.web").unwrap().lines().count(), 2);
        assert_eq!(glibc("tasks.big").unwrap().lines().count(), 100);
        assert_eq!(glibc("nothing.example"), None);
        let back = inside.run("getent hosts 10.0.1.3").unwrap();
        assert!(back.contains("web.3.back"), "{back}");

        let busybox = |name: &str| inside.run(&format!("busybox nslookup {name} 127.0.0.11"));
        if run("command -v busybox").is_some() {
            assert!(busybox("web").unwrap().contains("10.0.1.2"));
            assert!(busybox("nothing.example").is_none());
        } else {
            eprintln!("left out: there is no busybox");
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/resolve.c");
        let program = inside.dir().join("resolve");
        let compile = format!("musl-gcc -static -o {} {source}", program.display());
        if run(&compile).is_some() {
            let musl = |name: &str| inside.run(&format!("{} {name}", program.display()));
            assert_eq!(musl("web").unwrap(), "10.0.1.2\n");
            assert_eq!(musl("tasks.web").unwrap().lines().count(), 2);
            // Those that fit, where it does not ask again over a stream.
            assert!(musl("tasks.big").unwrap().lines().count() >= 30);
            assert_eq!(musl("nothing.example"), None);
        } else {
            eprintln!("left out: there is no musl-gcc");
        }
    });
    if done.is_none() {
        eprintln!("skipped: a network namespace of its own needs root");
    }
}

#[test]
fn a_container_is_answered_before_its_first_process_begins() {
    let done = alone(|| async {
        let plane = Plane::start(Config::default());
        plane.apply(world(false)).await;
        for turn in 0..5 {
            let id = format!("{}-{turn}", std::process::id());
            plane.apply(vec![starting(&id)]).await;
            // Not even loopback is there yet, and nobody has said which process it is.
            let mut inside = Inside::waiting(&id);
            while inside.run("nft list chain ip skep-dns resolver").is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            inside.begin();
            // Whoever was there already goes on when the engine says that it runs.
            let engine = Stub::engine(&inside);
            assert_eq!(ask_udp(&inside, RESOLVER, "web").text(), "10.0.1.2");
            let ext = ask_udp(&inside, RESOLVER, "ext.example").text();
            assert_eq!(ext, "192.0.2.80");
            let sockets = "cat /proc/net/udp | grep 0B00007F:EE | sort";
            let before = inside.run(sockets).unwrap();
            plane.apply(vec![running(&id, inside.first())]).await;
            assert!(plane.follow().settled().await);
            assert_eq!(inside.run(sockets).unwrap(), before);
            assert_eq!(ask_tcp(&inside, RESOLVER, "web").text(), "10.0.1.2");
            plane.apply(vec![Change::ContainerGone("c".into())]).await;
            drop(engine);
        }
    });
    if done.is_none() {
        eprintln!("skipped: a network namespace of its own needs root");
    }
}

#[test]
fn changes_restarts_and_strangers_are_followed() {
    let done = alone(|| async {
        let inside = Inside::new("127.0.0.11");
        let _engine = Stub::engine(&inside);
        let plane = Plane::start(Config::default());
        plane.apply(world(false)).await;
        plane.apply(vec![container(&inside)]).await;
        until(&inside, "tasks.web.back", "10.0.1.3 10.0.1.4");

        let gone = Change::EndpointGone("n".into(), "web-3".into());
        plane.apply(vec![gone]).await;
        let took = until(&inside, "tasks.web", "10.0.1.4");
        println!("a task that is gone was not told of after {took:?}");
        plane.apply(vec![service("new", "10.0.1.50")]).await;
        until(&inside, "new", "10.0.1.50");

        // Somebody takes our rules away: they are back soon.
        inside.run("nft delete table ip skep-dns").unwrap();
        assert_eq!(ask_udp(&inside, RESOLVER, "web").text(), "NXDomain");
        let took = until(&inside, "web", "10.0.1.2");
        println!("the rules were back after {took:?}");
        // Whoever puts them back may still be at it.
        while inside.run("nft flush chain ip skep-dns resolver").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Not by an answer: a flow of before, whose port is used again, still comes to us.
        let rules = "nft list chain ip skep-dns resolver | grep -q 'tcp dport 53 dnat'";
        while inside.run(rules).is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        until(&inside, "web", "10.0.1.2");

        // While nobody is there, a question is lost rather than refused; whoever asks again on the
        // same socket after the restart is answered.
        drop(plane);
        let socket = within(&inside, || {
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
        });
        socket.connect((RESOLVER, 53)).unwrap();
        let mut sockets = inside.run("grep -c 0B00007F:EE7D /proc/net/udp");
        while sockets.is_some() {
            std::thread::sleep(Duration::from_millis(5));
            sockets = inside.run("grep -c 0B00007F:EE7D /proc/net/udp");
        }
        let lost = support::exchange(&socket, "web", Duration::from_millis(300));
        let lost = lost.unwrap_err().kind();
        assert_eq!(lost, std::io::ErrorKind::WouldBlock);
        let plane = Plane::start(Config::default());
        plane.apply(world(false)).await;
        plane.apply(vec![container(&inside)]).await;
        let again = (0..20)
            .find_map(|_| support::exchange(&socket, "web", Duration::from_millis(500)).ok());
        assert_eq!(again.unwrap().text(), "10.0.1.2");

        // A container that is no longer ours asks the engine.
        plane.apply(vec![Change::ContainerGone("c".into())]).await;
        while inside.run("nft list table ip skep-dns").is_some() {
            std::thread::sleep(Duration::from_millis(5));
        }
        until(&inside, "web", "NXDomain");
        // Nobody misses one that has ended before it was answered.
        plane
            .apply(vec![container(&Inside::new("127.0.0.11"))])
            .await;
        plane.apply(vec![container(&inside)]).await;
        until(&inside, "web", "10.0.1.2");
    });
    if done.is_none() {
        eprintln!("skipped: a network namespace of its own needs root");
    }
}

#[test]
fn where_the_engine_has_no_resolver_the_hosts_are_asked() {
    let done = alone(|| async {
        // Such an engine writes the host's address on the network into the container.
        let inside = Inside::new("10.0.1.1");
        let stub = Stub::host();
        let config = Config {
            resolvers: vec![ip("127.0.0.1")],
            ..Config::default()
        };
        let plane = Plane::start(config);
        plane.apply(world(false)).await;
        plane.apply(vec![container(&inside)]).await;
        until(&inside, "web", "10.0.1.2");
        assert_eq!(ask_udp(&inside, GATEWAY, "web").text(), "10.0.1.2");
        assert_eq!(ask_tcp(&inside, GATEWAY, "web").text(), "10.0.1.2");
        let glibc = inside.run("getent ahosts web | grep STREAM").unwrap();
        assert!(glibc.starts_with("10.0.1.2 "), "{glibc}");
        assert_eq!(
            ask_tcp(&inside, GATEWAY, "ext.example").text(),
            "192.0.2.81"
        );
        for (name, expected) in [
            ("ext.example", "192.0.2.80"),
            ("spoof.example", "192.0.2.80"),
            ("nothing.example", "NXDomain"),
            ("fails.example", "ServFail"),
            // Somebody who does not answer at all.
            ("silent.example", "ServFail"),
        ] {
            assert_eq!(ask_udp(&inside, GATEWAY, name).text(), expected, "{name}");
        }

        // From a network that leads nowhere, nobody outside is asked.
        plane.apply(vec![network(true)]).await;
        until(&inside, "ext.example", "ServFail");
        assert_eq!(ask_udp(&inside, GATEWAY, "web").text(), "10.0.1.2");
        drop(stub);
    });
    if done.is_none() {
        eprintln!("skipped: a network namespace of its own needs root");
    }
}
