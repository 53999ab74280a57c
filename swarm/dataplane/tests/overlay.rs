//! What the kernel has after each step, in a network namespace of its own that ends with the test.
//! Needs root and iproute2, and no engine.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "overlay/aside.rs"]
mod aside;
#[path = "overlay/beside.rs"]
mod beside;
#[path = "overlay/branches.rs"]
mod branches;
#[path = "overlay/crossing.rs"]
mod crossing;
#[path = "overlay/joined.rs"]
mod joined;
#[path = "hosts/net.rs"]
#[allow(dead_code)]
mod net;
#[path = "overlay/shut.rs"]
mod shut;
#[path = "overlay/stray.rs"]
mod stray;
#[path = "overlay/together.rs"]
mod together;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use skep_dataplane::{Ipv6, Overlay, change, ensure, remove, underlay};

const IPV6: Ipv6 = Ipv6 {
    of: (Ipv4Addr::new(10, 0, 1, 0), 24),
    first: Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0),
    bits: 64,
};

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs on a thread whose network nobody shares; `None` where that is not allowed.
fn alone<T: Send>(work: impl Future<Output = T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let flags = nix::sched::CloneFlags::CLONE_NEWNET;
            if nix::sched::unshare(flags).is_err() {
                return None;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            Some(runtime.unwrap().block_on(work))
        });
        thread.join().unwrap()
    })
}

fn overlay() -> Overlay {
    Overlay {
        bridge: "skepnet".into(),
        device: "skvxnet".into(),
        vni: 4097,
        port: 4789,
        mtu: 1450,
        local: "192.0.2.1".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 1, 4),
        sides: Vec::new(),
        branches: Vec::new(),
    }
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn host(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// Addresses as the three tables know them: the bridge's, the device's, and the neighbours'.
fn entries() -> [usize; 3] {
    let fdb = run("bridge fdb show dev skvxnet");
    let count = |text: &str, word: &str| {
        text.lines()
            .filter(|it| it.contains("02:42:") && it.contains(word))
            .count()
    };
    let neighbours = run("ip neigh show dev skvxnet");
    [
        count(&fdb, "master skepnet static"),
        count(&fdb, "dst 192"),
        count(&neighbours, "PERMANENT"),
    ]
}

#[test]
fn the_underlay_is_the_interface_with_the_address() {
    alone(async {
        run("ip link add wire type bridge && ip link set wire mtu 9000 up");
        run("ip addr add 192.0.2.1/24 dev wire && ip addr add 192.0.2.7/24 dev wire");
        assert_eq!(underlay(host(7)).await.unwrap(), Some(9000));
        assert_eq!(underlay(host(2)).await.unwrap(), None);
        assert_eq!(underlay("::1".parse().unwrap()).await.unwrap(), None);
    });
}

#[test]
fn devices_and_entries_are_what_they_should_be() {
    let done = alone(async {
        let missing = ensure(&overlay(), &BTreeMap::new()).await.unwrap_err();
        assert_eq!(missing.to_string(), "there is no network device skepnet");
        run("ip link add skepnet type bridge && ip link set skepnet up");
        run("ip addr add 192.0.2.1/32 dev lo");

        let remotes = BTreeMap::from([(address(5), host(2)), (address(6), host(2))]);
        ensure(&overlay(), &remotes).await.unwrap();
        assert!(run("ip link show skepnet").contains("02:42:0a:00:01:04"));
        let device = run("ip -d link show skvxnet");
        for part in [
            "vxlan id 4097",
            "local 192.0.2.1",
            "dstport 4789",
            "nolearning",
            "proxy",
            "mtu 1450",
            "master skepnet",
            "learning off",
            "flood off",
        ] {
            assert!(device.contains(part), "{part}: {device}");
        }
        assert_eq!(entries(), [2, 2, 2]);

        let moves = BTreeMap::from([
            (address(5), None),
            (address(6), Some(host(3))),
            (address(7), Some(host(2))),
            (address(8), None),
        ]);
        change("skvxnet", &[], &moves).await.unwrap();
        assert_eq!(entries(), [2, 2, 2]);
        let fdb = run("bridge fdb show dev skvxnet");
        assert!(fdb.contains("02:42:0a:00:01:06 dst 192.0.2.3"), "{fdb}");

        // Again, by somebody who does not know what was there: the device stays.
        let number = || run("ip -o link show skvxnet | cut -d: -f1");
        let before = number();
        let remotes = BTreeMap::from([(address(6), host(2))]);
        ensure(&overlay(), &remotes).await.unwrap();
        assert_eq!(entries(), [1, 1, 1]);
        assert_eq!(number(), before);

        // An address that the host does not have is nothing to send from.
        run("ip addr del 192.0.2.1/32 dev lo");
        ensure(&overlay(), &remotes).await.unwrap();
        let device = run("ip -d link show skvxnet");
        assert!(!device.contains("local"), "{device}");
        assert_eq!(entries(), [1, 1, 1]);

        // Another id is another device.
        let other = Overlay {
            vni: 4098,
            ..overlay()
        };
        ensure(&other, &remotes).await.unwrap();
        assert!(run("ip -d link show skvxnet").contains("vxlan id 4098"));
        assert_eq!(entries(), [1, 1, 1]);

        // With an IPv6 side every entry is one of both kinds.
        let dual = Overlay {
            sides: vec![IPV6],
            ..other
        };
        run("ip addr add fd00:7::4/64 dev skepnet");
        ensure(&dual, &remotes).await.unwrap();
        let second = || run("ip -6 neigh show dev skvxnet nud permanent");
        assert!(second().contains("fd00:7::6 lladdr 02:42:0a:00:01:06"));
        let accept = run("cat /proc/sys/net/ipv6/conf/skepnet/accept_dad");
        assert_eq!(accept.trim(), "0", "nobody is asked for the bridge's own");
        change("skvxnet", &dual.sides, &moves).await.unwrap();
        assert!(second().contains("fd00:7::7 lladdr 02:42:0a:00:01:07"));
        let gone = BTreeMap::from([(address(6), None)]);
        change("skvxnet", &dual.sides, &gone).await.unwrap();
        assert!(!second().contains("fd00:7::6 "));
        ensure(&dual, &BTreeMap::new()).await.unwrap();
        assert_eq!((entries(), second()), ([0, 0, 0], String::new()));

        remove("skvxnet").await.unwrap();
        remove("skvxnet").await.unwrap();
        assert!(change("skvxnet", &[], &moves).await.is_err());
        assert_eq!(run("ip -o link show type vxlan"), "");
    });
    if done.is_none() {
        eprintln!("skipped: a network namespace of its own needs root");
    }
}
