//! An engine's rules that drop what is for a container and comes in by another bridge than its own:
//! what crosses between the bridges of one network passes all the same, whatever else comes in does
//! not, and in the end nothing is left of that.

use std::collections::BTreeMap;
use std::sync::mpsc;

use skep_dataplane::Plane;
use skep_dataplane::model::{Change, Network};

use crate::branches::{Host, at, bridge};
use crate::joined::{hosts, ran, reaches, talk};
use crate::net::{Namespace, until};
use crate::together::{FAR, FIRST, SECOND, all, everybody_reaches_everybody, places};

/// The nodes' own addresses: of two that share a host, and of the one on another.
const NODES: [(u8, u8); 3] = [(1, 3), (1, 4), (2, 5)];
/// How the rules that let pass are found.
const OURS: &str = "skep-crossing/skep0123456/10.0.";

/// As an engine does from some version on, for each container.
fn drops(net: &Namespace, node: (u8, u8), containers: [(u8, u8); 2]) {
    for (subnet, last) in containers {
        let (address, bridge) = (at(subnet, last), bridge(node, subnet));
        net.sh(&format!(
            "iptables -w -t raw -A PREROUTING -d {address} ! -i {bridge} -j DROP"
        ));
    }
}

/// How many rules of ours there are.
fn ours(net: &Namespace) -> usize {
    let listed = net.sh("iptables -w -t raw -S PREROUTING");
    listed.matches(OURS).count()
}

/// Somebody removes ours.
fn remove(net: &Namespace) {
    net.sh(
        "iptables -w -t raw -S PREROUTING | sed -n '/skep-crossing/s/^-A/-D/p' |
        while read rule; do echo \"$rule\" | xargs iptables -w -t raw; done",
    );
}

fn works() -> Option<()> {
    let [here, there] = hosts()?;
    let switch = "cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo 0";
    let bridged = here.sh(switch).trim() == "1";
    let [first, second, third] = NODES;
    let far = places(2, &[&FAR[..], &[third]].concat());
    let near = places(1, &[&FIRST[..], &SECOND, &[first, second]].concat());
    let a = Host::new(&here, 1, first, &[], &far);
    let b = Host::new(&here, 1, second, &[], &far);
    let c = Host::new(&there, 2, third, &[], &near);
    let place =
        |node: &Host<'_>, of: [(u8, u8); 2]| of.map(|(net, last)| node.container(net, last));
    let (on_a, on_b, on_c) = (place(&a, FIRST), place(&b, SECOND), place(&c, FAR));
    // Somebody on another network of this host.
    let stranger = Namespace::new().unwrap();
    here.link("other", &stranger, "eth0");
    here.sh("sysctl -qw net.ipv4.ip_forward=1 && ip addr add 198.51.100.1/24 dev other");
    stranger.sh("ip addr add 198.51.100.2/24 dev eth0 && ip route add default via 198.51.100.1");
    reaches(&stranger, at(1, 13));
    assert_eq!(ours(&here), 0, "nothing is in the way");

    drops(&here, first, FIRST);
    drops(&here, second, SECOND);
    drops(&there, third, FAR);
    everybody_reaches_everybody(&all([&on_a, &on_b, &on_c]), &NODES);
    assert_eq!(ours(&here), if bridged { 2 } else { 0 });
    let refused = stranger.within(|| talk(at(1, 13).into()).unwrap_err().kind());
    assert_eq!(refused, std::io::ErrorKind::TimedOut);
    if bridged {
        // One that comes before them has no say, and what is removed comes back.
        here.sh("iptables -w -t raw -I PREROUTING -d 10.0.2.14 ! -i skep0 -j DROP");
        reaches(&on_a[0], at(2, 14));
        here.sh("iptables -w -t raw -D PREROUTING -d 10.0.2.14 ! -i skep0 -j DROP");
        remove(&here);
        reaches(&on_a[0], at(2, 14));
    }
    // The daemon that keeps them goes, and its bridges: the other one keeps those that it needs.
    a.leave();
    remove(&here);
    reaches(&on_b[0], at(2, 14));
    assert_eq!(ours(&here), if bridged { 2 } else { 0 });
    b.network_gone();
    until("something is left", || match ours(&here) {
        0 => Ok(()),
        _ => Err(here.sh("iptables -w -t raw -S")),
    });
    [b, c].into_iter().for_each(Host::leave);
    Some(())
}

/// Two bridges of one network that have IPv6 too.
fn works_with_ipv6() -> Option<()> {
    let host = Namespace::new()?;
    let switch = "cat /proc/sys/net/bridge/bridge-nf-call-ip6tables 2>/dev/null || echo 0";
    if host.sh(switch).trim() != "1" {
        return Some(());
    }
    let bridges = [3, 4].map(|last| format!("skep012345601{last:02}"));
    for (bridge, last) in bridges.iter().zip([3, 4]) {
        host.sh(&format!(
            "ip link add {bridge} type bridge && ip link set {bridge} up
            ip addr add 10.0.1.{last}/24 dev {bridge}
            ip addr add fd00:7::{last}/64 dev {bridge} nodad"
        ));
    }
    let dropped = format!("-d fd00:7::b ! -i {} -j DROP", bridges[0]);
    host.sh(&format!("ip6tables -w -t raw -A PREROUTING {dropped}"));
    let network = Change::Network(Network {
        id: "n".into(),
        name: "n".into(),
        bridge: bridges[0].clone(),
        subnet: (at(1, 0), 24),
        gateway: at(1, 3),
        ipv6: None,
        internal: false,
        ingress: false,
        hosts: BTreeMap::new(),
        branches: Vec::new(),
    });
    let (end, ended) = mpsc::channel::<()>();
    let plane = host.begin(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let plane = Plane::start(Default::default());
        runtime.block_on(plane.apply(vec![network]));
        // For as long as somebody holds the other end.
        let _ = ended.recv();
    });
    until("it is not let pass", || {
        let listed = host.sh("ip6tables -w -t raw -S PREROUTING");
        let mut rules = listed.lines().skip(1);
        let first = rules.next().unwrap_or_default();
        let is_so = first.starts_with("-A PREROUTING -d fd00:7::/64 -i skep0123456+ ");
        is_so.then_some(()).ok_or(listed)
    });
    drop(end);
    plane.join().unwrap();
    Some(())
}

#[test]
fn so_does_what_is_of_ipv6() {
    ran(works_with_ipv6());
}

#[test]
fn what_crosses_between_bridges_of_a_network_passes_an_engines_rules() {
    ran(works());
}
