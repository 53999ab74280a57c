//! Chooses what a new network is made with: a subnet that no other has and a VXLAN id. Pure; what
//! is taken is read from the networks that there are.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::bootstrap::{ADDR_POOL, SUBNET_SIZE};
use crate::cidr::Cidr;
use crate::network::FIRST_VNI;
use crate::object::Cluster;
use crate::store::State;

/// VXLAN ids have 24 bits.
pub(crate) const LAST_VNI: u32 = (1 << 24) - 1;

/// The subnets of all networks.
pub(crate) fn taken(view: &State) -> Vec<Cidr> {
    let networks = view.networks().iter();
    let pools = networks.flat_map(|network| network.pools());
    pools.map(|pool| pool.subnet).collect()
}

/// What is left of networks that were removed while their last tasks were stopping: addresses that
/// nodes still have there. A subnet with one of these is not given out again yet.
pub(crate) fn remains(view: &State) -> Vec<Cidr> {
    let gateways = view.nodes().iter().flat_map(|node| node.gateways.values());
    let alone = |address: &Ipv4Addr| Cidr {
        address: *address,
        bits: 32,
    };
    gateways.map(alone).collect()
}

/// What nodes reach besides the swarm's networks: a network there would cut them off from it, or
/// their engines would refuse it.
pub(crate) fn of_nodes(view: &State) -> Vec<Cidr> {
    let nodes = view.nodes().iter();
    nodes
        .flat_map(|node| node.subnets.iter().copied())
        .collect()
}

/// The addresses at which nodes are reached, with what their hosts are called: a network that has one
/// of them in it would cut that node off.
pub(crate) fn hosts(view: &State) -> impl Iterator<Item = (IpAddr, &str)> {
    view.nodes().iter().flat_map(|node| {
        let description = node.description.as_ref();
        let name = description.map_or("", |it| it.hostname.as_str());
        let seen = node.status.addr.parse::<IpAddr>().ok();
        let all = node.data_path.into_iter().chain(seen);
        all.filter(|it| !it.is_unspecified())
            .map(move |it| (it, name))
    })
}

/// The first subnet of the cluster's pools that overlaps with none that is taken.
pub(crate) fn choose(cluster: &Cluster, mut taken: Vec<Cidr>) -> Option<Cidr> {
    let default = [ADDR_POOL.to_owned()];
    let pools = match cluster.default_addr_pool.as_slice() {
        [] => &default[..],
        pools => pools,
    };
    let bits = match cluster.subnet_size {
        0 => SUBNET_SIZE,
        bits => bits,
    };
    taken.sort_unstable_by_key(|subnet| subnet.first());
    let pools = pools.iter().filter_map(|pool| pool.parse::<Cidr>().ok());
    pools
        .into_iter()
        .find_map(|pool| first_free(pool, u8::try_from(bits).ok()?, &taken))
}

/// `taken` is in order.
fn first_free(pool: Cidr, bits: u8, taken: &[Cidr]) -> Option<Cidr> {
    if bits < pool.bits || bits > 32 {
        return None;
    }
    let at = |address: u32| Cidr {
        address: address.into(),
        bits,
    };
    let mut candidate = at(pool.first());
    for other in taken {
        if candidate.overlaps(*other) {
            candidate = at(candidate.last().max(other.last()).checked_add(1)?);
            // A larger one may end in the middle of a subnet of this size: go on to its end.
            if candidate.first() != u32::from(candidate.address) {
                candidate = at(candidate.last().checked_add(1)?);
            }
        }
    }
    (candidate.last() <= pool.last()).then_some(candidate)
}

/// A VXLAN id that no network has: the one that goes with the place of the subnet in the pools, so
/// that it, too, is not given out again at once, or else the lowest.
pub(crate) fn next_vni(view: &State, subnet: Cidr, taken: &BTreeSet<u32>) -> Option<u32> {
    let pools = view.cluster().map(|it| it.default_addr_pool.as_slice());
    let pools = pools.unwrap_or_default().iter();
    let mut pools = pools.filter_map(|pool| pool.parse::<Cidr>().ok());
    let pool = pools.find(|pool| pool.contains(subnet.address));
    let place = pool.map(|pool| {
        let distance = subnet.first().saturating_sub(pool.first());
        distance
            .checked_shr(32 - u32::from(subnet.bits))
            .unwrap_or(0)
    });
    let own = place.and_then(|place| FIRST_VNI.checked_add(place));
    let own = own.filter(|vni| *vni <= LAST_VNI && !taken.contains(vni));
    own.or_else(|| (FIRST_VNI..=LAST_VNI).find(|vni| !taken.contains(vni)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::cluster;

    fn chosen(pools: &[&str], size: u32, taken: &[&str]) -> Option<String> {
        let cluster = Cluster {
            default_addr_pool: pools.iter().map(|pool| (*pool).to_owned()).collect(),
            subnet_size: size,
            ..cluster()
        };
        let taken = taken.iter().map(|text| text.parse().unwrap()).collect();
        choose(&cluster, taken).map(|subnet| subnet.to_string())
    }

    #[test]
    fn the_first_subnet_that_overlaps_with_none() {
        type Case = (
            &'static [&'static str],
            u32,
            &'static [&'static str],
            Option<&'static str>,
        );
        let table: [Case; 8] = [
            (&[], 0, &[], Some("10.0.0.0/24")),
            (&["10.0.0.0/8"], 24, &["10.0.0.0/24"], Some("10.0.1.0/24")),
            (&["10.0.0.0/8"], 24, &["10.0.1.0/24"], Some("10.0.0.0/24")),
            (
                &["10.0.0.0/8"],
                24,
                &["10.0.0.0/23", "10.0.2.0/25"],
                Some("10.0.3.0/24"),
            ),
            (&["10.0.0.0/8"], 24, &["10.0.0.0/9"], Some("10.128.0.0/24")),
            (
                &["10.0.0.0/24", "10.1.0.0/16"],
                24,
                &["10.0.0.0/24"],
                Some("10.1.0.0/24"),
            ),
            (
                &["10.0.0.0/24"],
                25,
                &["10.0.0.0/25", "10.0.0.128/25"],
                None,
            ),
            (&["255.255.255.0/24"], 24, &["255.255.255.0/24"], None),
        ];
        for (pools, size, taken, expected) in table {
            let found = chosen(pools, size, taken);
            assert_eq!(found.as_deref(), expected, "{pools:?} {size} {taken:?}");
        }
    }
}
