//! Virtual addresses of IPv6, with real sockets between network namespaces: who is reached, whom it
//! sees, and what becomes of it all when things change. IPv4 beside it goes on as ever.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use lab::web::{CLIENT, VIP, count, in_all, ping};
use lab::*;
use skep_dataplane::model::{Change, Ipv6Subnet};

const BACKENDS: [u8; 2] = [10, 11];

fn address6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into())
}

fn both(last: u8) -> Vec<IpAddr> {
    vec![address(last).into(), address6(last).into()]
}

/// The same with addresses of both kinds.
fn dual(change: Change, last: u8) -> Change {
    match change {
        Change::Network(mut it) => {
            it.ipv6 = Some(Ipv6Subnet {
                subnet: (address6(0), 64),
                gateway: address6(1),
            });
            Change::Network(it)
        }
        Change::Service(network, mut it) => {
            it.vips = both(last);
            Change::Service(network, it)
        }
        Change::Endpoint(network, mut it) => {
            it.addresses = both(last);
            Change::Endpoint(network, it)
        }
        Change::Container(mut it) => {
            it.addresses.insert("n".to_owned(), both(last));
            Change::Container(it)
        }
        other => other,
    }
}

fn container(lab: &mut Lab, last: u8) -> i32 {
    let pid = lab.container(last);
    let own = address6(last);
    run(&format!(
        "nsenter -t {pid} -n ip addr add {own}/64 dev eth0 nodad"
    ));
    inside(pid, || serve(last, own.into()));
    pid
}

fn start(lab: &mut Lab) -> Vec<Change> {
    run("ip addr add fd00:1::1/64 dev br0 nodad");
    web::start(lab, &BACKENDS, container, dual)
}

fn seen(client: IpAddr, times: usize) -> BTreeMap<String, usize> {
    web::seen(&BACKENDS, client, times)
}

#[test]
fn one_address_of_ipv6_is_all_tasks_in_turn() {
    labs(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        for (vip, own) in both(VIP).into_iter().zip(both(CLIENT)) {
            assert_eq!(count(client, vip, 10), seen(own, 5), "{vip}");
        }
        // A task that asks for its own service reaches itself in its turn.
        let itself = address6(10).into();
        assert_eq!(count(lab.pid(10), address6(VIP), 4), seen(itself, 2));
        let answers = inside(client, || {
            let sockets = [(); 4].map(|()| datagrams(address6(VIP), PATIENCE));
            in_all(sockets.iter().map(|socket| {
                let first = ask(socket).unwrap();
                assert_eq!(ask(socket).unwrap(), first);
                first
            }))
        });
        assert_eq!(answers, seen(address6(CLIENT).into(), 2));
        assert!(inside(client, || ping(address6(VIP))));
        assert!(!inside(client, || ping(address6(99))));
        // The host itself, as its own address there.
        let first = Connection::open(address6(VIP)).unwrap().first;
        assert!(first.ends_with(" fd00:1::1"), "{first}");
    });
}

#[test]
fn who_leaves_finishes_and_where_nobody_is_all_are_refused() {
    labs(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        let mut connection = inside(client, || Connection::open(address6(VIP)).unwrap());
        let patience = Duration::from_millis(200);
        let flow = inside(client, || datagrams(address6(VIP), patience));
        let first = ask(&flow).unwrap();
        let leaver = if first.starts_with("10 ") { 10 } else { 11 };
        lab.tell(vec![endpoint_gone(leaver)]);
        eventually("the flow moves on", || {
            ask(&flow).is_ok_and(|it| it != first)
        });
        assert!(connection.echoes("still here"));
        lab.tell(BACKENDS.map(endpoint_gone).into());
        assert!(lab.settled());
        // At once, and not when the kernel asks a second time.
        let begun = Instant::now();
        for refused in [
            inside(client, || Connection::open(address6(VIP)).err().unwrap()),
            Connection::open(address6(VIP)).err().unwrap(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        assert!(begun.elapsed() < Duration::from_millis(900));
        assert!(connection.echoes("even now"));
    });
}

#[test]
fn what_others_take_away_is_put_back() {
    labs(|lab| {
        let mut changes = start(lab);
        let client = lab.pid(CLIENT);
        let addresses = || run("ip -6 addr show dev br0");
        assert!(addresses().contains("fd00:1::2/128"));
        run(&format!(
            "ip addr del fd00:1::2/128 dev br0; nsenter -t {client} -n nft flush ruleset"
        ));
        eventually("the address", || addresses().contains("fd00:1::2/128"));
        let tables = || run(&format!("nsenter -t {client} -n nft list tables"));
        eventually("the tables", || {
            let tables = tables();
            tables.contains("ip6 skep-vip") && tables.contains("ip skep-vip")
        });
        let own = address6(CLIENT).into();
        assert_eq!(count(client, address6(VIP), 2), seen(own, 1));

        // Meanwhile the service has become another one.
        changes.retain(|it| *it != dual(service("web", VIP), VIP));
        changes.push(dual(service("web", 3), 3));
        lab.restart(changes);
        eventually("the new address", || addresses().contains("fd00:1::3/128"));
        assert!(!addresses().contains("fd00:1::2/128"));
        lab.leave();
        assert!(!addresses().contains("/128"));
        assert!(!run("nft list tables").contains("skep-vip"));
    });
}
