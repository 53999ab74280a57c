//! A network of two subnets on two nodes that share a namespace and one on another host: everybody
//! reaches everybody, whichever subnet the nodes have their own addresses in, also when the node that
//! has the network's device goes and comes again.

use std::net::Ipv4Addr;

use skep_dataplane::crypt::Key;

use crate::branches::{Host, at, bridge, nothing_left, reach, six};
use crate::joined::{a_key, count, hosts, ran, reaches};
use crate::net::{Namespace, until};

/// The host's address on the cable between hosts.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Containers of the first node, of the second and of the one on the other host.
pub const FIRST: [(u8, u8); 2] = [(1, 11), (2, 12)];
pub const SECOND: [(u8, u8); 2] = [(1, 13), (2, 14)];
pub const FAR: [(u8, u8); 2] = [(1, 15), (2, 16)];

/// What is on a host, for one that is on another.
pub fn places(host: u8, nodes: &[(u8, u8)]) -> Vec<(Ipv4Addr, u8)> {
    let place = |(subnet, last): &(u8, u8)| (at(*subnet, *last), host);
    nodes.iter().map(place).collect()
}

/// Each of the containers with its address.
pub type All<'a> = Vec<(&'a Namespace, Ipv4Addr)>;

/// Those of the three nodes.
pub fn all(on: [&[Namespace; 2]; 3]) -> All<'_> {
    let all = on.into_iter().zip([FIRST, SECOND, FAR]);
    let all = all.flat_map(|(on, of)| on.iter().zip(of));
    all.map(|(it, (subnet, last))| (it, at(subnet, last)))
        .collect()
}

pub fn everybody_reaches_everybody(all: &All<'_>, nodes: &[(u8, u8)]) {
    for (from, own) in all {
        let others = all.iter().map(|(_, it)| *it).filter(|it| it != own);
        let nodes = nodes.iter().map(|(subnet, last)| at(*subnet, *last));
        others.chain(nodes).for_each(|to| reach(from, to));
    }
}

/// The bridges of this host are one, and there is one way between any two of them.
#[track_caller]
fn is_a_star(net: &Namespace, bridges: usize) {
    until("the bridges are no star", || {
        let found = ["skep", "skej", "skvx"].map(|it| count(net, it));
        let is_so = found == [bridges, bridges - 1, 1];
        is_so.then_some(()).ok_or(net.sh("ip -o link show"))
    });
}

/// The nodes' own addresses: of two that share a host, and of the one on another.
fn works(keys: &[Key], nodes: [(u8, u8); 3]) -> Option<()> {
    let [here, there] = hosts()?;
    let [first, second, third] = nodes;
    let far = places(2, &[&FAR[..], &[third]].concat());
    let near = places(1, &[&FIRST[..], &SECOND, &[first, second]].concat());
    let begin = || Host::new(&here, 1, first, keys, &far);
    let (a, b) = (begin(), Host::new(&here, 1, second, keys, &far));
    let c = Host::new(&there, 2, third, keys, &near);
    let place =
        |node: &Host<'_>, of: [(u8, u8); 2]| of.map(|(net, last)| node.container(net, last));
    let (on_a, on_b, on_c) = (place(&a, FIRST), place(&b, SECOND), place(&c, FAR));
    everybody_reaches_everybody(&all([&on_a, &on_b, &on_c]), &nodes);
    is_a_star(&here, 4);
    for (_, address) in all([&on_a, &on_b, &on_c]) {
        reach(&here, address);
        reach(&there, address);
    }
    // The host answers for addresses that no device has, as services' are.
    let answers = format!("10.0.1.99 dev {} table local", bridge(first, 1));
    here.sh(&format!("ip route add local {answers}"));
    let answers = format!("{}/128 dev {} nodad", six(at(1, 99)), bridge(first, 1));
    here.sh(&format!("ip addr add {answers}"));
    on_a.iter().chain(&on_b).for_each(|it| reach(it, at(1, 99)));
    // Each by its own way out.
    for (node, on) in [(&a, &on_a), (&b, &on_b)] {
        for (inside, subnet) in on.iter().zip([1, 2]) {
            reaches(inside, HOST);
            node.is_way_out(subnet, inside);
        }
    }

    // The one that has the device goes, and comes again.
    a.leave();
    let left: All<'_> = all([&on_a, &on_b, &on_c]).split_off(FIRST.len());
    everybody_reaches_everybody(&left, &[second, third]);
    is_a_star(&here, 2);
    for (_, address) in &left {
        reach(&here, *address);
        reach(&there, *address);
    }
    on_b.iter().for_each(|inside| reaches(inside, HOST));
    drop(on_a);
    // The kernel takes their cables away as well, at its own pace.
    for (_, last) in FIRST {
        here.sh(&format!(
            "ip link del v{last} 2>/dev/null || ! ip link show v{last} 2>/dev/null"
        ));
    }
    let a = begin();
    let on_a = place(&a, FIRST);
    everybody_reaches_everybody(&all([&on_a, &on_b, &on_c]), &nodes);
    is_a_star(&here, 4);
    for (_, address) in all([&on_a, &on_b, &on_c]) {
        reach(&here, address);
    }
    // What is between two bridges goes.
    let end = bridge(first, 2).replacen("skep", "skej", 1);
    here.sh(&format!("ip link del {end}"));
    reach(&on_a[1], at(1, 13));
    is_a_star(&here, 4);
    [b, a, c].into_iter().for_each(Host::leave);
    [&here, &there].into_iter().for_each(nothing_left);
    Some(())
}

#[test]
fn with_addresses_of_their_own_in_one_subnet() {
    ran(works(&[], [(1, 3), (1, 4), (1, 5)]));
}

#[test]
fn with_addresses_of_their_own_in_different_subnets() {
    ran(works(&[], [(1, 3), (2, 4), (2, 5)]));
}

#[test]
fn so_they_are_if_it_is_encrypted() {
    ran(works(&[a_key()], [(2, 3), (1, 4), (1, 5)]));
}
