//! An internal network of nodes that share a host and of one on another: the rules of either node of
//! the host hold for the bridges of both, and everybody on the network reaches everybody.

use std::net::Ipv4Addr;

use crate::joined::{Node, at, hosts, outside, ran, reaches, talk};
use crate::net::Namespace;

/// What such a node has, as it is in the golden file.
const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../fixtures/nft/internal.nft"
);

/// Has bridged packets go through the host's rules, or not; whether the kernel can.
fn filters_bridged(host: &Namespace, is_so: bool) -> bool {
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let set = format!("echo {} > {switch}", u8::from(is_so));
    host.attempt(&set).0 || !is_so
}

fn works() -> Option<()> {
    let [host, far] = hosts()?;
    let (a, b, c) = (
        Node::on(0, &host, 1, 3),
        Node::on(0, &host, 1, 4),
        Node::on(0, &far, 2, 5),
    );
    let here = [(5, 2), (13, 2)];
    a.ensure(&[], &here);
    b.ensure(&[], &here);
    c.ensure(&[], &[(3, 1), (4, 1), (11, 1), (12, 1)]);
    let [on_a, on_b, on_c] = [a.container(11), b.container(12), c.container(13)];
    for (on, way_out) in [(&on_a, 3), (&on_b, 4), (&on_c, 5)] {
        on.sh(&format!("ip route add default via {}", at(0, way_out)));
        reaches(on, at(0, 3));
    }
    for net in [&host, &far] {
        net.sh(&format!("nft -f {RULES}"));
    }
    for filtered in [false, true] {
        if ![&host, &far].iter().all(|it| filters_bridged(it, filtered)) {
            break;
        }
        let all = [(&on_a, 11), (&on_b, 12), (&on_c, 13)];
        for (from, own) in all {
            let others = all.iter().map(|it| it.1).filter(|it| *it != own);
            others.for_each(|to| reaches(from, at(0, to)));
            let [first, second, third] = [3, 4, 5].map(|it| at(0, it).into());
            // At once, since each attempt takes its time.
            let tried = [first, second, third, outside(1)]
                .map(|to| (to, from.begin(move || talk(to).is_ok())));
            for (to, reached) in tried {
                assert!(!reached.join().unwrap(), "{own} reaches {to}");
            }
        }
        [11, 12]
            .into_iter()
            .for_each(|to| reaches(&host, at(0, to)));
        reaches(&far, at(0, 13));
        reaches(&host, Ipv4Addr::new(192, 0, 2, 2));
    }
    [a, b, c].into_iter().for_each(Node::end);
    Some(())
}

#[test]
fn nobody_on_an_internal_network_reaches_a_host() {
    ran(works());
}
