//! A network that leads nowhere else, with real sockets between network namespaces: its containers
//! reach each other and answer their host, and begin nothing with it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use lab::web::{CLIENT, VIP, ping};
use lab::*;
use skep_dataplane::model::{Change, Ipv6Subnet};

const BACKENDS: [u8; 2] = [10, 11];
/// A container that the data plane does not know.
const STRANGER: u8 = 30;
/// The host's address on a network of its own, and that of somebody there.
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const NEIGHBOUR: [u8; 4] = [192, 0, 2, 2];
/// Longer than an answer takes, and shorter than it takes to ask again.
const MOMENT: Duration = Duration::from_millis(600);

fn six(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last).into()
}

/// The network, as it is told.
fn kind(change: Change, internal: bool) -> Change {
    match change {
        Change::Network(mut it) => {
            it.internal = internal;
            it.ipv6 = Some(Ipv6Subnet {
                subnet: (Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0), 64),
                gateway: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1),
            });
            Change::Network(it)
        }
        other => other,
    }
}

/// A container with addresses of both kinds.
fn container(lab: &mut Lab, last: u8) -> i32 {
    let pid = lab.bare(last);
    run(&format!(
        "ip link add v{last} type veth peer name eth0 netns {pid} &&
         ip link set v{last} master br0 up &&
         nsenter -t {pid} -n sh -c 'ip link set lo up && ip link set eth0 up &&
         ip addr add 10.0.1.{last}/24 dev eth0 && ip route add default via 10.0.1.1 &&
         ip addr add fd00:1::{last:x}/64 dev eth0 nodad &&
         ip route add default via fd00:1::1'"
    ));
    inside(pid, || serve(last, Ipv6Addr::UNSPECIFIED.into()));
    pid
}

/// Whether somebody is reached from the namespace of the thread that calls, by TCP and by UDP: both
/// or none.
fn reaches(to: impl Into<IpAddr>) -> bool {
    let to: IpAddr = to.into();
    std::thread::scope(|scope| {
        let udp = scope.spawn(|| ask(&datagrams(to, MOMENT)).is_ok());
        let tcp = TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), MOMENT).is_ok();
        assert_eq!(tcp, udp.join().unwrap(), "{to}");
        tcp
    })
}

fn has_rules() -> bool {
    run("nft list tables").contains("inet skep-internal-br0")
}

/// What the host and somebody outside have, and what leads there.
fn outside(lab: &mut Lab) {
    let neighbour = lab.bare(2);
    run(&format!(
        "ip addr add fd00:1::1/64 dev br0 nodad &&
         ip link add out type veth peer name eth0 netns {neighbour} &&
         ip addr add 192.0.2.1/24 dev out && ip link set out up &&
         nsenter -t {neighbour} -n sh -c 'ip link set lo up && ip link set eth0 up &&
         ip addr add 192.0.2.2/24 dev eth0 && ip route add default via 192.0.2.1'"
    ));
    inside(neighbour, || serve(2, IpAddr::from(NEIGHBOUR)));
    // Answers come from where questions went.
    let host: [IpAddr; 3] = [address(1).into(), six(1), OUTSIDE.into()];
    host.into_iter().for_each(|it| serve(1, it));
}

/// The host and its neighbour are reached from a container, or none of them.
fn leads_out(pid: i32) -> bool {
    inside(pid, || {
        let all = [address(1).into(), six(1), OUTSIDE.into(), NEIGHBOUR.into()];
        // At once, since each takes its time where it is not reached.
        let reached = std::thread::scope(|scope| {
            let begun = all.map(|it| scope.spawn(move || reaches(it)));
            begun.map(|it| it.join().unwrap())
        });
        let is_so = ping(IpAddr::from(OUTSIDE));
        assert_eq!(reached, [is_so; 4]);
        is_so
    })
}

/// What goes on whatever the network is.
fn works(lab: &Lab) {
    for last in BACKENDS {
        assert!(reaches(address(last)) && reaches(six(last.into())));
    }
    assert!(reaches(address(VIP)));
    for last in [CLIENT, STRANGER] {
        inside(lab.pid(last), || {
            assert!(reaches(address(10)) && reaches(six(11)));
            assert!(reaches(address(VIP)));
            assert!(ping(address(1)) && ping(six(1)));
        });
    }
}

#[test]
fn containers_begin_nothing_with_their_host() {
    labs(|lab| {
        outside(lab);
        container(lab, STRANGER);
        let all = web::start(lab, &BACKENDS, container, |it, _| kind(it, false));
        let client = lab.pid(CLIENT);
        assert!(!has_rules() && leads_out(client));
        works(lab);

        lab.tell(vec![kind(network(), true)]);
        assert!(lab.settled() && has_rules());
        assert!(!leads_out(client) && !leads_out(lab.pid(STRANGER)));
        works(lab);
        // Where bridged packets go through the host's rules, too.
        let switch = "/proc/sys/net/bridge/bridge-nf-call-ip";
        if std::fs::exists(format!("{switch}tables")).unwrap() {
            run(&format!(
                "echo 1 > {switch}tables && echo 1 > {switch}6tables"
            ));
            assert!(!leads_out(client));
            works(lab);
        }
        // What the host has begun goes on.
        let mut connection = Connection::open(address(10)).unwrap();
        assert!(connection.echoes("one"));

        // Somebody flushes them; the daemon restarts.
        run("nft flush ruleset");
        eventually("they are there again", has_rules);
        lab.end();
        assert!(has_rules() && !leads_out(client));
        let all = all.into_iter().map(|it| kind(it, true)).collect();
        lab.restart(all);
        assert!(lab.settled() && has_rules() && connection.echoes("two"));

        lab.tell(vec![Change::NetworkGone("n".to_owned())]);
        assert!(lab.settled() && !has_rules());
        lab.tell(vec![kind(network(), true)]);
        assert!(lab.settled() && has_rules());
        // Not before the bridge is gone: whoever is on it is to reach nothing.
        run("ip link del br0");
        lab.leave();
        assert!(!has_rules());
    });
}
