//! Connections to virtual addresses, with real sockets between network namespaces: who is reached,
//! whom it sees, and what becomes of connections when things change.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::web::{CLIENT, VIP, in_all, ping, seen};
use lab::*;
use skep_dataplane::model::Change;

const BACKENDS: [u8; 3] = [10, 11, 12];
/// A container that the data plane does not know.
const STRANGER: u8 = 30;

fn has_table(pid: i32) -> bool {
    run(&format!("nsenter -t {pid} -n nft list tables")).contains("skep-vip")
}

fn start(lab: &mut Lab) -> Vec<Change> {
    lab.container(STRANGER);
    web::start(lab, &BACKENDS, Lab::container, |change, _| change)
}

/// Connects so many times, and counts who answers.
fn count(pid: i32, times: usize) -> BTreeMap<String, usize> {
    web::count(pid, address(VIP), times)
}

#[test]
fn without_the_daemon_packets_are_led() {
    labs(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        let mut connection = inside(client, || Connection::open(address(VIP)).unwrap());
        lab.end();
        eventually("packets are led", || asks(client, address(VIP).into()));
        let answers = count(client, 6);
        assert_eq!(answers, seen(&BACKENDS, address(CLIENT), 2));
        assert!(connection.echoes("still here"));
    });
}

#[test]
fn one_address_is_all_tasks_in_turn() {
    labs(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        assert_eq!(count(client, 30), seen(&BACKENDS, address(CLIENT), 10));
        // A task that asks for its own service reaches itself in its turn.
        assert_eq!(count(lab.pid(10), 6), seen(&BACKENDS, address(10), 2));
        // Whoever asks with whom it speaks is told the service's address, by either kind of socket.
        let mapped = address(VIP).to_ipv6_mapped();
        for vip in [IpAddr::from(address(VIP)), mapped.into()] {
            let connection = inside(client, || Connection::open(vip).unwrap());
            assert_eq!(connection.peer(), SocketAddr::from((vip, PORT)));
        }
        assert_eq!(
            web::count(client, mapped, 6),
            seen(&BACKENDS, address(CLIENT), 2)
        );
        let datagrams = inside(client, || {
            let sockets = [(); 6].map(|()| datagrams(address(VIP), PATIENCE));
            in_all(sockets.iter().map(|socket| {
                let first = ask(socket).unwrap();
                // The rest of a flow goes where its first packet went.
                assert_eq!(ask(socket).unwrap(), first);
                first
            }))
        });
        assert_eq!(datagrams, seen(&BACKENDS, address(CLIENT), 2));
        assert!(inside(client, || ping(address(VIP))));
        assert!(!inside(client, || ping(address(99))));
    });
}

#[test]
fn the_host_serves_itself_and_those_without_a_table() {
    labs(|lab| {
        start(lab);
        let own = in_all((0..6).map(|_| Connection::open(address(VIP)).unwrap().first));
        assert_eq!(own, seen(&BACKENDS, address(1), 2));
        assert!(ask(&datagrams(address(VIP), PATIENCE)).is_ok());
        assert!(ping(address(VIP)));

        let stranger = lab.pid(STRANGER);
        assert_eq!(count(stranger, 6), seen(&BACKENDS, address(1), 2));
        assert!(inside(stranger, || ask(&datagrams(address(VIP), PATIENCE))).is_ok());
        assert!(inside(stranger, || ping(address(VIP))));
    });
}

/// Nobody serves: everybody is told at once. A packet that is refused where it is sent is an error
/// of the call that sends it.
fn refused(what: &str) {
    let start = Instant::now();
    let error = Connection::open(address(VIP)).err().unwrap();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionRefused,
        "{what}: {error}"
    );
    let error = ask(&datagrams(address(VIP), PATIENCE)).unwrap_err();
    let kinds = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
    assert!(kinds.contains(&error.kind()), "{what}: {error}");
    assert!(start.elapsed() < Duration::from_secs(1), "{what}");
}

#[test]
fn who_leaves_finishes_and_gets_nothing_new() {
    labs(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        let by = |it: &str| it.split(' ').next().unwrap().parse::<u8>().unwrap();
        let mut connection = inside(client, || Connection::open(address(VIP)).unwrap());
        let leaver = by(&connection.first);
        let patience = Duration::from_millis(200);
        let flows = inside(client, || {
            [(); 3].map(|()| datagrams(address(VIP), patience))
        });
        let flow = flows
            .iter()
            .find(|it| by(&ask(it).unwrap()) == leaver)
            .unwrap();

        lab.tell(vec![endpoint_gone(leaver)]);
        eventually("the flow moves on", || {
            ask(flow).is_ok_and(|it| by(&it) != leaver)
        });
        let rest: Vec<u8> = BACKENDS.into_iter().filter(|it| *it != leaver).collect();
        assert_eq!(count(client, 20), seen(&rest, address(CLIENT), 10));
        assert!(connection.echoes("still here"));

        lab.tell(rest.iter().map(|last| endpoint_gone(*last)).collect());
        assert!(lab.settled());
        inside(client, || refused("a container"));
        inside(lab.pid(STRANGER), || refused("a container without a table"));
        refused("the host");
        assert!(inside(client, || ping(address(VIP))));
        assert!(connection.echoes("even now"));

        lab.tell(vec![endpoint("web", leaver)]);
        assert!(lab.settled());
        assert_eq!(count(client, 3), seen(&[leaver], address(CLIENT), 3));
        lab.tell(vec![Change::ServiceGone("n".to_owned(), "web".to_owned())]);
        let routes = || run("ip route show table local proto 83");
        eventually("the address is gone", || routes().is_empty());
        assert!(connection.echoes("and after all"));
    });
}

#[test]
fn what_is_flushed_is_put_back() {
    labs(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        let mut connection = inside(client, || Connection::open(address(VIP)).unwrap());
        run(&format!(
            "nsenter -t {client} -n nft flush ruleset; nft flush ruleset"
        ));
        let start = Instant::now();
        eventually("the container's table", || has_table(client));
        eventually("the host's table", || {
            run("nft list tables").contains("skep-vip")
        });
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(count(client, 3), seen(&BACKENDS, address(CLIENT), 1));
        assert_eq!(count(lab.pid(STRANGER), 3), seen(&BACKENDS, address(1), 1));
        assert!(connection.echoes("still here"));

        // A bridge that is made anew has lost its routes.
        run("ip link del br0; ip link add br0 type bridge; ip link set br0 up");
        run("ip addr add 10.0.1.1/24 dev br0");
        let routes = || run("ip route show table local proto 83");
        eventually("the route", || routes().contains("10.0.1.2"));
    });
}

#[test]
fn a_restart_disturbs_nobody() {
    labs(|lab| {
        let mut changes = start(lab);
        let client = lab.pid(CLIENT);
        let mut connection = inside(client, || Connection::open(address(VIP)).unwrap());
        let patience = Duration::from_millis(200);
        let flows = inside(client, || {
            [(); 3].map(|()| datagrams(address(VIP), patience))
        });
        let before = flows.each_ref().map(|it| ask(it).unwrap());
        // Meanwhile one is gone, and so is a service; another one is new.
        run("ip route add local 10.0.1.77 dev br0 table local proto 83");
        changes.retain(|it| *it != endpoint("web", 11));
        changes.push(service("db", 3));
        lab.restart(changes);
        let routes = || run("ip route show table local proto 83");
        eventually("the new address", || routes().contains("10.0.1.3 "));
        assert!(!routes().contains("10.0.1.77"));
        eventually("who is gone is left out", || {
            count(client, 2) == seen(&[10, 12], address(CLIENT), 1)
        });
        assert!(connection.echoes("still here"));
        for (flow, before) in flows.iter().zip(before) {
            if !before.starts_with("11 ") {
                assert_eq!(ask(flow).unwrap(), before);
            } else {
                eventually("the flow moves on", || ask(flow).is_ok());
            }
        }
        lab.leave();
        assert!(!run("nft list tables").contains("skep-vip"));
        assert_eq!(routes(), "");
        lab.leave();
        assert!(connection.echoes("to the end"));
    });
}

#[test]
fn a_hundred_containers_follow() {
    labs(|lab| {
        let mut changes = vec![network()];
        for vip in 2..52 {
            let id = format!("service{vip}");
            changes.push(service(&id, vip));
        }
        changes.push(endpoint("service2", 60));
        let lasts: Vec<u8> = (101..201).collect();
        for last in &lasts {
            changes.push(here(*last, lab.bare(*last)));
        }
        lab.tell(changes);
        let everywhere = |lab: &Lab, lasts: &[u8], word: &str| {
            assert!(lab.settled());
            for last in lasts {
                let pid = lab.pid(*last);
                let listed = run(&format!("nsenter -t {pid} -n nft list ruleset"));
                assert!(listed.contains(word), "{last}: {listed}");
            }
        };
        everywhere(lab, &lasts[..3], "10.0.1.2 . none : 10.0.1.60");

        // A process that ends before anybody was told holds up nobody.
        lab.kill(101);
        lab.tell(vec![endpoint("service2", 61)]);
        everywhere(lab, &lasts[1..], "10.0.1.61");
        let back = lab.bare(101);
        lab.tell(vec![here(101, back)]);
        everywhere(lab, &lasts[..1], "10.0.1.61");
    });
}
