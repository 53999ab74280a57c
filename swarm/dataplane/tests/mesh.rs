//! The routing mesh between hosts that are network namespaces: who answers, and whom the tasks see.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod hosts;
#[path = "mesh/lasting.rs"]
mod lasting;
#[path = "mesh/passing.rs"]
mod passing;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hosts::net::{Namespace, until};
use hosts::talk::{self, Talk, tcp, udp};
use hosts::{CLIENT, Lab, Task, WEB, gone, published, service};
use skep_dataplane::Config;
use skep_dataplane::model::{Protocol, Service};

const PORTS: [(Protocol, u16, u16); 2] = [(Protocol::Tcp, 8080, 80), (Protocol::Udp, 5353, 80)];

/// A lab with this many hosts whose data planes run and serve `web` with these tasks.
fn lab(hosts: u8, tasks: &[Task], service: &Service) -> Option<Lab> {
    lab_with(&Config::default(), hosts, tasks, service)
}

/// One whose data planes are told so of their hosts.
fn lab_with(config: &Config, hosts: u8, tasks: &[Task], service: &Service) -> Option<Lab> {
    let Some(mut lab) = Lab::new(hosts, tasks) else {
        eprintln!("skipped: network namespaces need root");
        return None;
    };
    for host in &mut lab.hosts {
        host.start_with(config.clone());
    }
    lab.serve(service, tasks);
    Some(lab)
}

/// Waits until a server answers at all, and says what it says.
#[track_caller]
fn answer(
    ask: fn(&Namespace, &str) -> Result<String, String>,
    from: &Namespace,
    to: &str,
) -> String {
    until("nobody answers", || ask(from, to))
}

/// What servers say in some turns.
#[track_caller]
fn answers(
    ask: fn(&Namespace, &str) -> Result<String, String>,
    from: &Namespace,
    to: &str,
) -> BTreeSet<String> {
    answer(ask, from, to);
    (0..4).map(|_| ask(from, to).unwrap()).collect()
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn the_rules_of_the_golden_files_are_rules() {
    let Some(alone) = Namespace::new() else {
        eprintln!("skipped: network namespaces need root");
        return;
    };
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/nft");
    for file in ["mesh-routed", "mesh", "mesh6-tracked", "mesh6", "internal"] {
        // Twice, since they replace whatever is there.
        let load = format!("nft -f {files}/{file}.nft");
        alone.sh(&format!("nft -c -f {files}/{file}.nft\n{load}\n{load}"));
    }
    assert!(alone.sh("nft list tables").contains("ip6 skep-mesh"));
}

#[test]
fn what_tasks_have_for_their_answers_is_as_in_the_golden_file() {
    let tasks = [(2, 12)];
    let Some(mut lab) = Lab::with_ipv6(2, &tasks) else {
        return;
    };
    lab.hosts.iter_mut().for_each(hosts::Host::start);
    lab.serve(&service(&PORTS), &tasks);
    let task = &lab.hosts[1].containers[0];
    let listed =
        ["ip", "ip6", "netdev"].map(|it| task.sh(&format!("nft list table {it} skep-replies")));
    let golden = include_str!("mesh/replies.txt");
    assert_eq!(listed.concat(), golden);
}

#[test]
fn tasks_see_the_client_on_whichever_host_it_comes_to() {
    let Some(lab) = lab(3, &[(1, 11), (2, 12)], &service(&PORTS)) else {
        return;
    };
    // Tasks answer without their hosts: where bridged packets pass no rules, those send on nothing.
    for host in &lab.hosts[..2] {
        host.net
            .sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
        host.net.sh("nft add table ip t; nft 'add chain ip t f { type filter hook forward priority 0; }'
            nft add rule ip t f ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 iifname skepin oifname skepin counter");
    }
    served_everywhere(&lab);
    for host in &lab.hosts[..2] {
        let counted = host.net.sh("nft list chain ip t f");
        assert!(counted.contains("packets 0"), "{counted}");
    }
}

#[test]
fn tasks_see_clients_by_ipv6_where_their_network_has_it() {
    let tasks = [(1, 11), (2, 12)];
    let Some(mut lab) = Lab::with_ipv6(3, &tasks) else {
        return;
    };
    lab.hosts.iter_mut().for_each(hosts::Host::start);
    lab.serve(&service(&PORTS), &tasks);
    let both = set(&["task11 sees fd01::9", "task12 sees fd01::9"]);
    for bridged in [1, 0] {
        for host in &lab.hosts {
            let [web, dns] = [8080, 5353].map(|port| format!("[fd00::{}]:{port}", host.number));
            host.net.sh(&format!(
                "sysctl -qw net.bridge.bridge-nf-call-ip6tables={bridged}"
            ));
            until("the client is not seen", || {
                let seen = answers(tcp, &lab.client, &web);
                (seen == both).then_some(()).ok_or(format!("{seen:?}"))
            });
            assert_eq!(answers(udp, &lab.client, &dns), both, "{dns}");
        }
    }
    // Hosts, other hosts and tasks are translated, as they are over IPv4.
    let first = &lab.hosts[0];
    let own = set(&["task11 sees fd00:a::1", "task12 sees fd00:a::1"]);
    assert_eq!(answers(tcp, &first.containers[0], "[fd00::1]:8080"), own);
    assert_eq!(answers(tcp, &lab.hosts[1].net, "[fd00::1]:8080").len(), 2);
    for host in ["[::1]", "[fd00::1]"] {
        answers(tcp, &first.net, &format!("{host}:8080"));
    }
    // And a client may have one port towards all of them.
    from_one_port(&lab, |host| format!("[fd00::{host}]:8080"), "fd01::9");
}

#[test]
fn hosts_send_on_what_tasks_cannot_send_by_themselves() {
    let config = Config {
        routes_replies: true,
        ..Config::default()
    };
    for bridged in [0, 1] {
        let Some(lab) = lab_with(&config, 3, &[(1, 11), (2, 12)], &service(&PORTS)) else {
            return;
        };
        for host in &lab.hosts {
            host.net.sh(&format!(
                "sysctl -qw net.bridge.bridge-nf-call-iptables={bridged}"
            ));
        }
        served_everywhere(&lab);
    }
}

/// Both of two tasks, on the first two hosts, are reached by way of three and see the client.
fn served_everywhere(lab: &Lab) {
    let both = [
        format!("task11 sees {CLIENT}"),
        format!("task12 sees {CLIENT}"),
    ];
    let both = BTreeSet::from(both);
    for host in 1..=3 {
        let web = format!("192.0.2.{host}:8080");
        assert_eq!(answers(tcp, &lab.client, &web), both, "{web}");
        let dns = format!("192.0.2.{host}:5353");
        assert_eq!(answers(udp, &lab.client, &dns), both, "{dns}");
    }
    // Nobody is told of shorter ways, which would be wrong ones.
    let redirects = lab.router.sh("nstat -asz IcmpInRedirects");
    assert!(
        redirects.contains("IcmpInRedirects                 0"),
        "{redirects}"
    );
}

#[test]
fn hosts_and_their_containers_are_served_too() {
    let tasks = [(1, 11), (2, 12)];
    let Some(lab) = lab(2, &tasks, &service(&PORTS)) else {
        return;
    };
    let seen = set(&["task11 sees 10.0.0.1", "task12 sees 10.0.0.1"]);
    let first = &lab.hosts[0];
    let plain = first.plain();
    // The host itself, by any of its addresses; a container that is no task; a task, which may
    // come to itself.
    let ways: [(&Namespace, &[&str]); 3] = [
        (&first.net, &["192.0.2.1", "127.0.0.1", "[::1]", "10.0.0.1"]),
        (&plain, &["172.17.0.1", "192.0.2.1"]),
        (&first.containers[0], &["10.0.0.1", "192.0.2.1"]),
    ];
    for (from, hosts) in ways {
        for host in hosts {
            let web = format!("{host}:8080");
            assert_eq!(answers(tcp, from, &web), seen, "{web}");
            let dns = format!("{host}:5353");
            let all: BTreeSet<_> = (0..4).map(|_| udp(from, &dns).unwrap()).collect();
            assert_eq!(all, seen, "{dns}");
        }
    }
    // One host asks another, whose tasks may be its own.
    let others = set(&["task11 sees 10.0.0.2", "task12 sees 10.0.0.2"]);
    assert_eq!(answers(tcp, &first.net, "192.0.2.2:8080"), others);
    // From outside by IPv6, and with bridged packets that go through the host's rules.
    assert_eq!(answers(tcp, &lab.client, "[fd00::1]:8080"), seen);
    assert_eq!(answers(udp, &lab.client, "[fd00::1]:5353"), seen);
    // What is meant for loopback is not to be had by going around it.
    let secret = first
        .net
        .within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 7777)).unwrap());
    first.containers[0].sh("ip route add 127.0.0.1 via 10.0.0.1 table 9 && ip rule add to 127.0.0.1 dport 7777 lookup 9 pref 0
        ip rule add lookup local pref 5 && ip rule del lookup local pref 0 && sysctl -qw net.ipv4.conf.all.route_localnet=1");
    assert!(tcp(&first.containers[0], "127.0.0.1:7777").is_err());
    drop(secret);
}

#[test]
fn clients_are_hidden_or_announced_where_a_service_says_so() {
    let tasks = [(1, 11), (2, 12)];
    let hidden = Service {
        snat: true,
        ..service(&PORTS)
    };
    let Some(lab) = lab(2, &tasks, &hidden) else {
        return;
    };
    let seen = set(&["task11 sees 10.0.0.1", "task12 sees 10.0.0.1"]);
    assert_eq!(answers(tcp, &lab.client, "192.0.2.1:8080"), seen);
    assert_eq!(answers(udp, &lab.client, "192.0.2.1:5353"), seen);

    let announced = Service {
        proxy_protocol: true,
        ..service(&PORTS)
    };
    lab.tell(|_| vec![published(&announced)]);
    for (to, length, family) in [("192.0.2.1:8080", 12, 0x11), ("[fd00::1]:8080", 36, 0x21)] {
        let header = until("no header comes", || {
            let talk = Talk::begin(&lab.client, to);
            let header = talk.and_then(|mut talk| {
                // The server answers every line, the header's too.
                talk.send("")?;
                talk.bytes(16 + usize::from(length))
            });
            let header = header.map_err(|it| it.to_string())?;
            let whole = header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21");
            whole
                .then_some(header.clone())
                .ok_or(format!("{header:x?}"))
        });
        assert_eq!(header[13..16], [family, 0, length]);
        match length {
            12 => assert_eq!(header[16..20], [198, 51, 100, 9]),
            _ => assert_eq!((header[16..18].to_vec(), header[31]), (vec![0xfd, 1], 9)),
        }
    }
    // Datagrams have no beginning to say it in; theirs is the client's own address.
    let seen = BTreeSet::from([
        format!("task11 sees {CLIENT}"),
        format!("task12 sees {CLIENT}"),
    ]);
    assert_eq!(answers(udp, &lab.client, "192.0.2.1:5353"), seen);
}

#[test]
fn an_engines_firewall_lets_it_pass_and_a_users_does_not() {
    let tasks = [(1, 11), (2, 12)];
    let Some(mut lab) = Lab::new(2, &tasks) else {
        return;
    };
    let engine = "iptables -w -P FORWARD DROP; iptables -w -N DOCKER-USER; iptables -w -N OTHER
        iptables -w -A DOCKER-USER -j RETURN; iptables -w -A OTHER -j DROP
        iptables -w -I FORWARD -j OTHER; iptables -w -I FORWARD -j DOCKER-USER";
    for host in &mut lab.hosts {
        host.net.sh(engine);
        host.start();
    }
    lab.serve(&service(&PORTS), &tasks);
    let both = BTreeSet::from([
        format!("task11 sees {CLIENT}"),
        format!("task12 sees {CLIENT}"),
    ]);
    assert_eq!(answers(tcp, &lab.client, "192.0.2.1:8080"), both);

    // An engine that starts again puts its own rules first.
    let again = "iptables -w -D FORWARD -j OTHER; iptables -w -I FORWARD -j OTHER
        iptables -w -D FORWARD -j DOCKER-USER; iptables -w -I FORWARD -j DOCKER-USER";
    lab.hosts.iter().for_each(|host| drop(host.net.sh(again)));
    until("the rule is not back in its place", || {
        let rules = lab.hosts[0].net.sh("iptables -w -S FORWARD");
        let lines: Vec<_> = rules.lines().collect();
        let back = lines[1].ends_with("DOCKER-USER") && lines[2].contains("skep-mesh");
        back.then_some(()).ok_or(rules.clone())
    });
    assert_eq!(answers(tcp, &lab.client, "192.0.2.1:8080"), both);

    // A firewall in nftables can let packets pass by their mark.
    let other = "nft 'add table ip fw; add chain ip fw rest { type filter hook forward priority 0; policy drop; };
        add rule ip fw rest meta mark & 0xfff00000 == 0x5be00000 accept'";
    lab.hosts.iter().for_each(|host| drop(host.net.sh(other)));
    assert_eq!(answers(tcp, &lab.client, "192.0.2.1:8080"), both);

    let first = &lab.hosts[0].net;
    first.sh("iptables -w -I DOCKER-USER -i eth0 -j DROP");
    assert!(tcp(&lab.client, "192.0.2.1:8080").is_err());
}

#[test]
fn without_a_task_clients_are_refused_at_once() {
    let tasks = [(1, 11)];
    let Some(lab) = lab(2, &tasks, &service(&PORTS)) else {
        return;
    };
    for host in ["192.0.2.1", "192.0.2.2", "[fd00::2]"] {
        answer(tcp, &lab.client, &format!("{host}:8080"));
    }
    let mut before = Talk::begin(&lab.client, "192.0.2.2:8080").unwrap();
    lab.tell(|_| vec![gone(WEB, (1, 11))]);
    let refused = |from: &Namespace, to: &str| {
        until("it is not refused", || match Talk::begin(from, to) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it is accepted".to_owned()),
        });
        let begun = Instant::now();
        assert!(tcp(from, to).is_err());
        assert!(begun.elapsed() < Duration::from_millis(500), "{to}");
    };
    for host in ["192.0.2.1", "192.0.2.2", "[fd00::2]"] {
        refused(&lab.client, &format!("{host}:8080"));
    }
    for host in ["127.0.0.1", "[::1]", "192.0.2.1"] {
        refused(&lab.hosts[0].net, &format!("{host}:8080"));
    }
    let socket = talk::socket(&lab.client, "192.0.2.1:5353");
    let error = talk::ask(&socket).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    // Whoever was there already stays.
    assert_eq!(before.say("still there?").unwrap(), "still there?");
}

#[test]
fn one_that_leaves_keeps_its_connections_and_loses_its_datagrams() {
    let tasks = [(1, 11), (2, 12)];
    let Some(lab) = lab(2, &tasks, &service(&PORTS)) else {
        return;
    };
    answers(tcp, &lab.client, "192.0.2.1:8080");
    let mut talks: Vec<_> = (0..4)
        .map(|_| Talk::begin(&lab.client, "192.0.2.1:8080").unwrap())
        .collect();
    answers(udp, &lab.client, "192.0.2.1:5353");
    let sockets: Vec<_> = (0..4)
        .map(|_| talk::socket(&lab.client, "192.0.2.1:5353"))
        .collect();
    let first: Vec<_> = sockets.iter().map(|it| talk::ask(it).unwrap()).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 2);

    lab.tell(|_| vec![gone(WEB, (2, 12))]);
    let left = format!("task11 sees {CLIENT}");
    until("new ones still come to it", || {
        let all = answers(tcp, &lab.client, "192.0.2.1:8080");
        let done = all == BTreeSet::from([left.clone()]);
        done.then_some(()).ok_or(format!("{all:?}"))
    });
    for talk in &mut talks {
        assert_eq!(talk.say("go on").unwrap(), "go on");
    }
    for socket in &sockets {
        until("its datagrams still come to it", || {
            let said = talk::ask(socket).map_err(|it| it.to_string())?;
            (said == left).then_some(()).ok_or(said)
        });
    }
}

#[test]
fn a_client_may_use_one_port_towards_all_hosts() {
    // With bridged packets that pass the rules of the task's host, and past them.
    for bridged in [0, 1] {
        let Some(lab) = lab(3, &[(1, 11)], &service(&PORTS)) else {
            return;
        };
        for host in &lab.hosts {
            host.net.sh(&format!(
                "sysctl -qw net.bridge.bridge-nf-call-iptables={bridged}"
            ));
        }
        from_one_port(&lab, |host| format!("192.0.2.{host}:8080"), CLIENT);
    }
}

/// All hosts send it to the same task, for which these would be one connection.
fn from_one_port(lab: &Lab, at: fn(u8) -> String, client: &str) {
    let mut talks = Vec::new();
    for host in 1..=3 {
        answer(tcp, &lab.client, &at(host));
        let to: std::net::SocketAddr = at(host).parse().unwrap();
        let stream = lab.client.within(move || {
            let domain = socket2::Domain::for_address(to);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            let any = match to {
                std::net::SocketAddr::V4(_) => "0.0.0.0:40000",
                std::net::SocketAddr::V6(_) => "[::]:40000",
            };
            let own: std::net::SocketAddr = any.parse().unwrap();
            socket.bind(&own.into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
            std::io::Result::Ok(TcpStream::from(socket))
        });
        let talk = Talk::over(stream.unwrap()).unwrap();
        assert!(
            talk.first.ends_with(&format!("sees {client}")),
            "{}",
            talk.first
        );
        talks.push(talk);
    }
    for (index, talk) in talks.iter_mut().enumerate() {
        assert_eq!(talk.say(&index.to_string()).unwrap(), index.to_string());
    }
}
