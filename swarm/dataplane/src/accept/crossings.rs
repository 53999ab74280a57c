//! What is let pass between the bridges of one network. From some version on, an engine drops in raw
//! PREROUTING what is for a container of its own and comes in by another bridge than the container's;
//! where bridged packets go through the host's rules, that is everything that crosses from one bridge
//! of a network to another: of a further subnet, or of another node that shares the host. Which
//! bridges there are, and which subnets are on them, shows in the kernel alone, since another node's
//! daemon may keep the rules. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use super::BRIDGES;
use crate::join;

/// With what the names of these rules begin. Behind it, what the names of a network's bridges have
/// in common, and one of its subnets.
pub(super) const CROSSING: &str = "skep-crossing/";

/// The rules there is a use for, by name: of one kind of addresses.
pub(super) fn names(ipv6: bool) -> io::Result<Vec<String>> {
    let found = getifaddrs()?.map(|it| (it.interface_name.clone(), subnet(&it)));
    let all = between(found);
    let right = all.into_iter().filter(|it| it.1.is_ipv6() == ipv6);
    let named = right.map(|(bridges, subnet, bits)| format!("{CROSSING}{bridges}/{subnet}/{bits}"));
    Ok(named.collect())
}

/// What a rule of this name is about.
pub(super) fn packets(name: &str) -> Option<String> {
    let (bridges, subnet) = name.strip_prefix(CROSSING)?.split_once('/')?;
    Some(format!("-d {subnet} -i {bridges}+"))
}

/// An address's subnet, unless it is its own.
fn subnet(found: &InterfaceAddress) -> Option<(IpAddr, u8)> {
    let (address, mask) = (found.address.as_ref()?, found.netmask.as_ref()?);
    let bits = |count: u32| u8::try_from(count).ok();
    if let (Some(address), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
        let mask = mask.ip().to_bits();
        let first = std::net::Ipv4Addr::from_bits(address.ip().to_bits() & mask);
        return Some((first.into(), bits(mask.count_ones())?)).filter(|(_, bits)| *bits < 32);
    }
    let (address, mask) = (address.as_sockaddr_in6()?, mask.as_sockaddr_in6()?);
    let mask = mask.ip().to_bits();
    let first = std::net::Ipv6Addr::from_bits(address.ip().to_bits() & mask);
    let is_local = address.ip().is_unicast_link_local();
    Some((first.into(), bits(mask.count_ones())?)).filter(|(_, bits)| *bits < 128 && !is_local)
}

/// The subnets of networks that have several bridges here, each with what those are called.
fn between(
    devices: impl Iterator<Item = (String, Option<(IpAddr, u8)>)>,
) -> BTreeSet<(String, IpAddr, u8)> {
    let mut networks: BTreeMap<String, (usize, BTreeSet<(IpAddr, u8)>)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (device, subnet) in devices {
        let network = join::common(&device).filter(|it| it.starts_with(BRIDGES));
        if let Some(network) = network.map(str::to_owned) {
            let (bridges, subnets) = networks.entry(network).or_default();
            subnets.extend(subnet);
            // Each device is there once for each of its addresses.
            *bridges += usize::from(seen.insert(device));
        }
    }
    let several = networks.into_iter().filter(|(_, it)| it.0 > 1);
    let all = several.flat_map(|(network, (_, subnets))| {
        let all = subnets.into_iter();
        all.map(move |(subnet, bits)| (network.clone(), subnet, bits))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_with_several_bridges_have_some() {
        let subnet = |text: &str| {
            let (subnet, bits) = text.split_once('/').unwrap();
            Some((subnet.parse().unwrap(), bits.parse().unwrap()))
        };
        let devices = [
            ("skep01234560103", subnet("10.0.1.0/24")),
            ("skep01234560103", subnet("fd00:7::/64")),
            ("skep01234560104", subnet("10.0.1.0/24")),
            ("skep0123456g114", subnet("10.0.2.0/24")),
            ("skep01234570103", subnet("10.0.3.0/24")),
            ("skej01234570103", None),
            ("skej01234570104", None),
            ("br-0123456789ab", subnet("172.18.0.0/16")),
            ("br-0123456789ac", subnet("172.19.0.0/16")),
            ("skepin", subnet("10.0.4.0/24")),
            ("lo", subnet("127.0.0.0/8")),
        ];
        let devices = devices.map(|(name, subnet)| (name.to_owned(), subnet));
        let found = between(devices.into_iter()).into_iter();
        let found: Vec<_> = found
            .map(|(bridges, subnet, bits)| format!("{bridges} {subnet}/{bits}"))
            .collect();
        let expected = ["10.0.1.0/24", "10.0.2.0/24", "fd00:7::/64"];
        assert_eq!(found, expected.map(|it| format!("skep0123456 {it}")));
    }

    #[test]
    fn a_rule_is_about_what_its_name_says() {
        let name = "skep-crossing/skep0123456/fd00:7::/64";
        let expected = "-d fd00:7::/64 -i skep0123456+";
        assert_eq!(packets(name).as_deref(), Some(expected));
        assert_eq!(packets("skep-mesh"), None);
    }
}
