//! The chains and sets of the mesh that are the same whatever is published. Pure.

use std::net::Ipv6Addr;

use super::marks::{BACK, KEPT, KIND_MASK, OURS, OURS_MASK, TRANSLATED};
use super::plan::Plan;
use crate::join::siblings;
use crate::{mac, nft};

/// Sets and maps, by the number of their table.
pub(super) const SETS: [(usize, &str); 8] = [
    (0, "hosts"),
    (0, "inside"),
    (0, "ports"),
    (0, "refused"),
    (1, "hosts"),
    (1, "inside"),
    (1, "ports"),
    (1, "refused"),
];
/// Those by which hosts are told apart whose clients' packets are known here as connections.
pub(super) const HOSTS: [(usize, &str); 3] = [(0, "back"), (0, "zones"), (1, "zones")];

/// What becomes of packets between clients of other hosts and tasks of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// This host routes the answers, since tasks cannot lead them by themselves.
    Routed,
    /// They are bridged, and known as connections: where the network has several bridges, as where
    /// nodes share a host, a packet from one to another can be an answer that this host waits for.
    Tracked,
    /// They are bridged, and no connection is known here.
    Bridged,
}

/// What the table about IPv6 holds in any case: when to refuse clients. Where there is no more, a
/// process of this host serves them.
pub(super) const IPV6: &str = "\
\tset refused {
\t\ttype inet_proto . inet_service
\t}
\tchain refuse {
\t\ttype filter hook input priority filter - 5
\t\tct state new meta l4proto . th dport @refused fib daddr type local jump refusal
\t}
\tchain refusal {
\t\tmeta l4proto tcp reject with tcp reset
\t\treject with icmpv6 type port-unreachable
\t}
";

/// What the table about IPv4 holds.
pub(super) fn ipv4(plan: &Plan, passing: Passing) -> String {
    let arrival = match passing {
        Passing::Routed | Passing::Tracked => arrival(plan),
        Passing::Bridged => bridged(plan),
    };
    [sets(), arrival, choice(plan), marks(plan, passing), rest()].concat()
}

fn sets() -> String {
    "\
\tset inside {
\t\ttype ipv4_addr
\t\tflags interval
\t}
\tset hosts {
\t\ttype ipv4_addr
\t}
\tmap ports {
\t\ttype inet_proto . inet_service : verdict
\t}
\tset refused {
\t\ttype inet_proto . inet_service
\t}
"
    .to_owned()
}

/// What arrives: its place among connections, and its way on.
fn arrival(plan: &Plan) -> String {
    let bridge = siblings(&plan.bridge);
    let network = network(plan);
    // A client may have the same port towards two hosts, and both may send it to one task. For
    // this host these are two connections only if each host's are counted in a zone of their own;
    // the kernel then gives the second one another port, since answers are not in any zone.
    //
    // The bridge lets loopback addresses through (see sysctls.rs), which is for this host alone.
    format!(
        "\
\tmap back {{
\t\ttype ether_addr : mark
\t}}
\tmap zones {{
\t\ttypeof ether saddr : ct zone
\t}}
\tchain zone {{
\t\ttype filter hook prerouting priority raw
\t\tiifname != \"{bridge}\" accept
\t\tip daddr 127.0.0.0/8 drop
\t\tip saddr 127.0.0.0/8 drop
\t\tip saddr != {network} ct original zone set ether saddr map @zones
\t}}
\tchain arrival {{
\t\ttype filter hook prerouting priority mangle
\t\tct state new ct mark & {OURS_MASK:#x} != {OURS:#x} iifname \"{bridge}\" ip saddr != \
{network} fib daddr type != local ct mark set ether saddr map @back
\t\tct direction reply ct mark & {KIND_MASK:#x} == {BACK:#x} meta mark set ct mark
\t}}
"
    )
}

/// What arrives where it is this host's, or none of its business: tasks and other hosts keep track of
/// their connections themselves.
fn bridged(plan: &Plan) -> String {
    let bridge = siblings(&plan.bridge);
    let untracked = untracked(plan, "ip", &network(plan));
    format!(
        "\
\tchain zone {{
\t\ttype filter hook prerouting priority raw
\t\tiifname != \"{bridge}\" accept
\t\tip daddr 127.0.0.0/8 drop
\t\tip saddr 127.0.0.0/8 drop
{untracked}\t}}
"
    )
}

/// Rules about what only passes here, from or to somebody outside of the network.
fn untracked(plan: &Plan, family: &str, network: &str) -> String {
    let own = own(plan);
    let rules = ["saddr", "daddr"]
        .map(|of| format!("\t\t{family} {of} != {network} ether daddr != {own} notrack\n"));
    rules.concat()
}

/// What is new and for a published port: its chain, and whose address its task sees.
fn choice(plan: &Plan) -> String {
    let gateway = plan.gateway;
    format!(
        "\
\tchain outside {{
\t\ttype nat hook prerouting priority dstnat - 4
\t\tfib daddr type local meta l4proto . th dport vmap @ports
\t}}
\tchain here {{
\t\ttype nat hook output priority -104
\t\tfib daddr type local meta l4proto . th dport vmap @ports
\t}}
\tchain sources {{
\t\tct mark set {KEPT:#x}
\t\tip saddr @inside ct mark set {TRANSLATED:#x}
\t\tip saddr @hosts ct mark set {TRANSLATED:#x}
\t\tfib saddr type local ct mark set {TRANSLATED:#x}
\t}}
\tchain translation {{
\t\ttype nat hook postrouting priority srcnat - 5
\t\tct mark {TRANSLATED:#x} snat to {gateway}
\t}}
"
    )
}

/// What is forwarded has a mark of ours, for firewalls that look at that (see accept.rs); not before,
/// since a way is chosen by marks. They end here: the packet around a packet in a VXLAN would be
/// routed by the inner one's.
fn marks(plan: &Plan, passing: Passing) -> String {
    let bridge = siblings(&plan.bridge);
    let passing = match passing {
        Passing::Routed | Passing::Tracked => String::new(),
        Passing::Bridged => format!(
            "\t\tct state untracked iifname \"{bridge}\" oifname \"{bridge}\" meta mark set {OURS:#x}\n"
        ),
    };
    format!(
        "\
\tchain departure {{
\t\ttype filter hook forward priority mangle
\t\tct mark & {OURS_MASK:#x} == {OURS:#x} meta mark & {OURS_MASK:#x} != {OURS:#x} meta mark set {OURS:#x}
{passing}\t}}
\tchain clear {{
\t\ttype filter hook postrouting priority mangle
\t\tmeta mark & {OURS_MASK:#x} == {OURS:#x} meta mark set 0
\t}}
"
    )
}

/// Hosts on one bridge are not told that they could leave out one of them; and nobody waits where
/// there is no task.
fn rest() -> String {
    format!(
        "\
\tchain redirects {{
\t\ttype filter hook output priority filter
\t\ticmp type redirect ct mark & {OURS_MASK:#x} == {OURS:#x} drop
\t}}
\tchain refuse {{
\t\ttype filter hook input priority filter - 5
\t\tct state new meta l4proto . th dport @refused fib daddr type local jump refusal
\t}}
\tchain refusal {{
\t\tmeta l4proto tcp reject with tcp reset
\t\treject with icmp type port-unreachable
\t}}
"
    )
}

/// What else the table about IPv6 holds where the network of published ports has such addresses, and
/// tasks answer to other hosts by themselves. This host itself is served by a process all the same,
/// since what begins at `[::1]` leads nowhere else; and so is whoever has an address that is good for
/// one link only.
pub(super) fn ipv6(plan: &Plan, gateway: Ipv6Addr, passing: Passing) -> String {
    let bridge = siblings(&plan.bridge);
    let marks = marks(plan, passing);
    let (zones, rules) = match passing {
        Passing::Bridged => {
            let link = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
            let network = nft::any_of([link].into_iter().chain(plan.subnets6.iter().copied()));
            (String::new(), untracked(plan, "ip6", &network))
        }
        _ => {
            let network = nft::any_of(plan.subnets6.iter().copied());
            (
                "\tmap zones {\n\t\ttypeof ether saddr : ct zone\n\t}\n".to_owned(),
                format!(
                    "\t\tip6 saddr fe80::/10 accept
\t\tip6 saddr != {network} ct original zone set ether saddr map @zones\n"
                ),
            )
        }
    };
    format!(
        "\
\tset hosts {{
\t\ttype ipv6_addr
\t}}
\tset inside {{
\t\ttype ipv6_addr
\t\tflags interval
\t}}
{zones}\tmap ports {{
\t\ttype inet_proto . inet_service : verdict
\t}}
\tchain zone {{
\t\ttype filter hook prerouting priority raw
\t\tiifname != \"{bridge}\" accept
{rules}\t}}
\tchain outside {{
\t\ttype nat hook prerouting priority dstnat - 4
\t\tip6 saddr fe80::/10 accept
\t\tfib daddr type local meta l4proto . th dport vmap @ports
\t}}
\tchain sources {{
\t\tct mark set {KEPT:#x}
\t\tip6 saddr @inside ct mark set {TRANSLATED:#x}
\t\tip6 saddr @hosts ct mark set {TRANSLATED:#x}
\t}}
\tchain translation {{
\t\ttype nat hook postrouting priority srcnat - 5
\t\tct mark {TRANSLATED:#x} snat to {gateway}
\t}}
{marks}"
    )
}

/// What the table about bridges holds, where tasks cannot answer to other hosts by themselves: what
/// comes for them from clients of such a host is this host's, which routes it on to the task, as it
/// then does with the answers.
pub(super) fn bridges(plan: &Plan) -> String {
    let network = network(plan);
    let own = own(plan);
    format!(
        "\
\tchain turn {{
\t\ttype filter hook prerouting priority -300
\t\tip saddr != {network} ip daddr {network} ether daddr != {own} \
ether daddr set {own} meta pkttype set host
\t}}
"
    )
}

/// The hardware address of the bridge on which this host has its address: where hosts only bridge,
/// there is no other.
fn own(plan: &Plan) -> String {
    hardware(mac(plan.gateway))
}

/// The network's IPv4 subnets.
fn network(plan: &Plan) -> String {
    nft::any_of(plan.blocks.iter().map(|it| it.subnet))
}

/// A hardware address as text.
pub(super) fn hardware(mac: [u8; 6]) -> String {
    mac.map(|it| format!("{it:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::plan::plan;
    use super::super::plan::tests::{served, service, state, task};
    use super::*;
    use crate::blocks::Block;
    use crate::model::Protocol;

    #[test]
    fn every_subnet_is_meant() {
        let web = service("web", &[(Protocol::Tcp, 8080, 80)]);
        let mut plan = plan(&state(vec![served(web), task("web", 10, None)])).unwrap();
        plan.blocks.push(Block {
            subnet: (Ipv4Addr::new(10, 9, 0, 0), 29),
            first: 256,
        });
        let subnets = "{ 10.0.0.0/24, 10.9.0.0/29 }";
        let bridged = ipv4(&plan, Passing::Bridged);
        let passes = format!("ip daddr != {subnets} ether daddr != 02:42:0a:00:00:02 notrack");
        assert!(bridged.contains(&passes), "{bridged}");
        let tracked = ipv4(&plan, Passing::Tracked);
        let zone = format!("ip saddr != {subnets} ct original zone");
        assert!(tracked.contains(&zone), "{tracked}");
        let own = "ether daddr != 02:42:0a:00:00:02 ether daddr set 02:42:0a:00:00:02";
        let turned = format!("ip saddr != {subnets} ip daddr {subnets} {own}");
        assert!(super::bridges(&plan).contains(&turned));
    }
}
