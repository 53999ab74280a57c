//! Numbers for the addresses of a network that are the same on every host and after every restart, so
//! that nothing of them has to be kept anywhere. Pure.

use std::net::Ipv4Addr;

use crate::model::{Network, Subnet, is_in, mask, plain};

/// One of a network's subnets, with the numbers of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The subnet, without what an address in it may have below the prefix.
    pub(crate) subnet: Subnet,
    /// The number of its own address: a multiple of its size.
    pub(crate) first: u32,
}

/// The subnets of a network, the largest first: each then begins at a multiple of its size.
pub(crate) fn blocks(network: &Network) -> Vec<Block> {
    let mut subnets: Vec<Subnet> = network.subnets().map(plain).collect();
    subnets.sort_unstable_by_key(|(address, bits)| (*bits, *address));
    let mut next = 0_u32;
    let block = |subnet: Subnet| {
        let block = Block {
            subnet,
            first: next,
        };
        // Who is beyond has the number of somebody else, or none.
        next = next.wrapping_add((!mask(subnet.1)).wrapping_add(1));
        block
    };
    subnets.into_iter().map(block).collect()
}

/// The number of an address, if it is small enough to be one of a host.
pub(crate) fn number(blocks: &[Block], address: Ipv4Addr) -> Option<u16> {
    let mut blocks = blocks.iter();
    let block = blocks.find(|it| is_in(address, it.subnet))?;
    let place = address.to_bits() & !mask(block.subnet.1);
    let number = block.first.checked_add(place)?;
    // Nobody has a subnet's own address.
    u16::try_from(number).ok().filter(|_| place > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Branch;

    fn network(subnets: &[&str]) -> Network {
        let subnet = |text: &str| {
            let (address, bits) = text.split_once('/').unwrap();
            (address.parse().unwrap(), bits.parse().unwrap())
        };
        let branches = subnets[1..].iter().map(|it| Branch {
            bridge: (*it).to_owned(),
            subnet: subnet(it),
            ipv6: None,
        });
        Network {
            id: "n".to_owned(),
            name: "n".to_owned(),
            bridge: "b".to_owned(),
            subnet: subnet(subnets[0]),
            gateway: Ipv4Addr::UNSPECIFIED,
            ipv6: None,
            internal: false,
            ingress: true,
            hosts: Default::default(),
            branches: branches.collect(),
        }
    }

    #[test]
    fn hosts_have_numbers_of_their_own() {
        let of = |subnets: &[&str], host: &str| {
            let all = blocks(&network(subnets));
            let number = number(&all, host.parse().unwrap());
            // Wherever a host has its own address, it counts the same way.
            let mut turned = subnets.to_vec();
            turned.reverse();
            assert_eq!(all, blocks(&network(&turned)));
            number
        };
        assert_eq!(of(&["10.0.0.0/24"], "10.0.0.7"), Some(7));
        assert_eq!(of(&["10.0.0.130/25"], "10.0.0.130"), Some(2));
        assert_eq!(of(&["10.1.0.0/16"], "10.1.255.255"), Some(65535));
        assert_eq!(of(&["10.0.0.0/8"], "10.1.0.0"), None);
        assert_eq!(of(&["10.0.0.0/24"], "10.0.1.7"), None);
        assert_eq!(of(&["10.0.0.0/24"], "10.0.0.0"), None);
        let three = ["10.9.0.0/29", "10.7.0.0/24", "10.8.0.0/24"];
        assert_eq!(of(&three, "10.7.0.7"), Some(7));
        assert_eq!(of(&three, "10.8.0.7"), Some(263));
        assert_eq!(of(&three, "10.9.0.6"), Some(518));
        assert_eq!(of(&three, "10.9.0.0"), None);
        let large = ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/29"];
        assert_eq!(of(&large, "10.0.0.9"), Some(9));
        assert_eq!(of(&large, "12.0.0.3"), None);
    }
}
