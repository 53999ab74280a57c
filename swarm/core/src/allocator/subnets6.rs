//! Chooses the IPv6 subnet of a new network that names none. Pure; what is taken is read from the
//! networks that there are.

use crate::id::Id;
use crate::ipv6::Cidr6;
use crate::store::State;

/// The first byte of addresses that are unique without anybody having given them out (RFC 4193).
const UNIQUE_LOCAL: u128 = 0xfd;
/// Bits of the prefix of a subnet.
const BITS: u8 = 64;
/// Of these bits, the ones that are the swarm's own, before those of its networks.
const SWARM: u32 = 40;

/// The IPv6 subnets of all networks.
pub(crate) fn taken(view: &State) -> Vec<Cidr6> {
    let networks = view.networks().iter();
    networks.flat_map(|it| it.subnets6()).collect()
}

/// What nodes reach besides the swarm's networks.
pub(crate) fn of_nodes(view: &State) -> Vec<Cidr6> {
    let nodes = view.nodes().iter();
    nodes.flat_map(|it| it.subnets6.iter().copied()).collect()
}

/// A subnet of the swarm's own that overlaps with none that is taken: the one with the end of the
/// network's VXLAN id for a number, so that it is not given out again at once, or else the lowest.
pub(crate) fn choose(cluster: &Id, vni: u32, taken: &[Cidr6]) -> Option<Cidr6> {
    let swarm = own_bits(cluster);
    let at = |number: u32| Cidr6 {
        address: (UNIQUE_LOCAL << 120 | swarm << 80 | u128::from(number) << 64).into(),
        bits: BITS,
    };
    let last = u32::from(u16::MAX);
    let mut all = std::iter::once(vni & last).chain(0..=last).map(at);
    all.find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
}

/// Bits by chance, as a cluster's id is made of.
fn own_bits(cluster: &Id) -> u128 {
    let digits = cluster.chars().map(|c| c.to_digit(36).unwrap_or(0));
    let number = digits.fold(0_u64, |number, digit| {
        number.wrapping_mul(36).wrapping_add(digit.into())
    });
    u128::from(number) & ((1 << SWARM) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_has_subnets_of_its_own() {
        let chosen = |cluster: &str, vni, taken: &[&str]| {
            let taken: Vec<Cidr6> = taken.iter().map(|it| it.parse().unwrap()).collect();
            choose(&cluster.into(), vni, &taken).map(|it| it.to_string())
        };
        let id = "5j8bbxr8p5dbgbm7tm3jtxyzg";
        let first = chosen(id, 4097, &[]).unwrap();
        assert!(
            first.starts_with("fd") && first.ends_with(":1001::/64"),
            "{first}"
        );
        let next = chosen(id, 4097, &[&first]).unwrap();
        assert!(next.ends_with("::/64") && next != first, "{next}");
        assert_eq!(first.get(..14), next.get(..14), "they share 48 bits");
        let other = chosen("5j8bbxr8p5dbgbm7tm3jtxyzh", 4097, &[]).unwrap();
        assert_ne!(first.get(..14), other.get(..14));
        assert_eq!(chosen(id, 4097, &["fc00::/7"]), None);
    }
}
