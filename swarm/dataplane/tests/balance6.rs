//! Virtual addresses of IPv6, with real sockets between network namespaces: who is reached, whom it
//! sees, and what becomes of it all when things change. IPv4 beside it goes on as ever.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use lab::*;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use skep_dataplane::model::{Change, Ipv6Subnet};

const VIP: u8 = 2;
const BACKENDS: [u8; 2] = [10, 11];
const CLIENT: u8 = 20;

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

fn container(lab: &mut Lab, last: u8) -> Change {
    let pid = lab.container(last);
    let own = address6(last);
    run(&format!(
        "nsenter -t {pid} -n ip addr add {own}/64 dev eth0 nodad"
    ));
    inside(pid, || serve(last, own.into()));
    dual(here(last, pid), last)
}

fn start(lab: &mut Lab) -> Vec<Change> {
    run("ip addr add fd00:1::1/64 dev br0 nodad");
    let mut changes = vec![dual(network(), 0), dual(service("web", VIP), VIP)];
    for last in BACKENDS {
        changes.push(dual(endpoint("web", last), last));
        changes.push(container(lab, last));
    }
    changes.push(container(lab, CLIENT));
    lab.tell(changes.clone());
    assert!(lab.settled());
    changes
}

fn count(pid: i32, to: IpAddr, times: usize) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for _ in 0..times {
        let first = inside(pid, || Connection::open(to).unwrap().first);
        *count.entry(first).or_default() += 1;
    }
    count
}

fn seen(client: IpAddr, times: usize) -> BTreeMap<String, usize> {
    let backends = BACKENDS.iter();
    backends
        .map(|it| (format!("{it} {client}"), times))
        .collect()
}

/// Whether a container's echo request is answered.
fn ping(pid: i32, to: Ipv6Addr) -> bool {
    inside(pid, || {
        let raw = (AddressFamily::Inet6, SockType::Raw, SockFlag::empty());
        let socket = socket(raw.0, raw.1, raw.2, SockProtocol::IcmpV6).unwrap();
        let patience = TimeVal::milliseconds(500);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
        // Type 128; the kernel makes the checksum. Number 1, sequence 1.
        let request = [128, 0, 0, 0, 0, 1, 0, 1];
        let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
        let socket = std::os::fd::AsRawFd::as_raw_fd(&socket);
        sendto(socket, &request, &to, MsgFlags::empty()).unwrap();
        let mut answer = [0; 64];
        loop {
            match recv(socket, &mut answer, MsgFlags::empty()) {
                Ok(length) if length >= 8 && answer[0] == 129 => return true,
                // Neighbours look for each other meanwhile.
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    })
}

#[test]
fn one_address_of_ipv6_is_all_tasks_in_turn() {
    lab(|lab| {
        start(lab);
        let client = lab.pid(CLIENT);
        for (vip, own) in both(VIP).into_iter().zip(both(CLIENT)) {
            assert_eq!(count(client, vip, 10), seen(own, 5), "{vip}");
        }
        // A task that asks for its own service reaches itself in its turn.
        let itself = address6(10).into();
        assert_eq!(count(lab.pid(10), address6(VIP).into(), 4), seen(itself, 2));
        let answers = inside(client, || {
            let sockets = [(); 4].map(|()| datagrams(address6(VIP), PATIENCE));
            let mut answers = BTreeMap::new();
            for socket in &sockets {
                let first = ask(socket).unwrap();
                assert_eq!(ask(socket).unwrap(), first);
                *answers.entry(first).or_default() += 1;
            }
            answers
        });
        assert_eq!(answers, seen(address6(CLIENT).into(), 2));
        assert!(ping(client, address6(VIP)));
        assert!(!ping(client, address6(99)));
        // The host itself, as its own address there.
        let first = Connection::open(address6(VIP)).unwrap().first;
        assert!(first.ends_with(" fd00:1::1"), "{first}");
    });
}

#[test]
fn who_leaves_finishes_and_where_nobody_is_all_are_refused() {
    lab(|lab| {
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
    lab(|lab| {
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
        assert_eq!(count(client, address6(VIP).into(), 2), seen(own, 1));

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
