//! The chains and sets of the mesh that are the same whatever is published. Pure.

use super::marks::{BACK, FORTH, KEPT, KIND_MASK, OURS, OURS_MASK, TRANSLATED};
use super::plan::Plan;
use crate::join::siblings;

/// Sets and maps, by the number of their table.
pub(super) const SETS: [(usize, &str); 8] = [
    (0, "back"),
    (0, "forth"),
    (0, "hosts"),
    (0, "inside"),
    (0, "ports"),
    (0, "refused"),
    (0, "zones"),
    (1, "refused"),
];

/// What the table about IPv6 holds. Its clients are served by a process of this host, so all there
/// is to say is when to refuse them.
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
pub(super) fn ipv4(plan: &Plan) -> String {
    [sets(), arrival(plan), choice(plan), rest()].concat()
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
\tmap forth {
\t\ttype ipv4_addr : mark
\t}
\tmap back {
\t\ttype ether_addr : mark
\t}
\tmap zones {
\t\ttypeof ether saddr : ct zone
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
    let (address, length) = plan.subnet;
    // A client may have the same port towards two hosts, and both may send it to one task. For
    // this host these are two connections only if each host's are counted in a zone of their own;
    // the kernel then gives the second one another port, since answers are not in any zone.
    //
    // The bridge lets loopback addresses through (see sysctls.rs), which is for this host alone.
    format!(
        "\
\tchain zone {{
\t\ttype filter hook prerouting priority raw
\t\tiifname != \"{bridge}\" accept
\t\tip daddr 127.0.0.0/8 drop
\t\tip saddr 127.0.0.0/8 drop
\t\tip saddr != {address}/{length} ct original zone set ether saddr map @zones
\t}}
\tchain arrival {{
\t\ttype filter hook prerouting priority mangle
\t\tct state new ct mark & {OURS_MASK:#x} != {OURS:#x} iifname \"{bridge}\" ip saddr != \
{address}/{length} fib daddr type != local ct mark set ether saddr map @back
\t\tct direction original ct mark & {KIND_MASK:#x} == {FORTH:#x} meta mark set ct mark
\t\tct direction reply ct mark & {KIND_MASK:#x} == {BACK:#x} meta mark set ct mark
\t}}
"
    )
}

/// What is new and for a published port: its chain, and whose address its task sees. From then on
/// packets have a mark of ours in any case, for firewalls that look at that (see accept.rs).
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
\tchain departure {{
\t\ttype filter hook prerouting priority dstnat + 5
\t\tct state new ct mark {KEPT:#x} ct mark set ip daddr map @forth meta mark set ct mark
\t\tct mark & {OURS_MASK:#x} == {OURS:#x} meta mark & {OURS_MASK:#x} != {OURS:#x} meta mark set {OURS:#x}
\t}}
\tchain translation {{
\t\ttype nat hook postrouting priority srcnat - 5
\t\tct mark {TRANSLATED:#x} snat to {gateway}
\t}}
"
    )
}

/// Marks end here: the packet around a packet in a VXLAN would be routed by the inner one's. And
/// hosts on one bridge are not told that they could leave out one of them.
fn rest() -> String {
    format!(
        "\
\tchain clear {{
\t\ttype filter hook postrouting priority mangle
\t\tct mark & {OURS_MASK:#x} == {OURS:#x} meta mark set 0
\t}}
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
