//! The clock, the dice and the host's own looks: the impure inputs of everything that is pure.
//! Never interprets them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use skep_core::cidr::Cidr;
use skep_core::dispatcher::MAX_SUBNETS;
use skep_core::id::{IdSource, RANDOM_BYTES};
use skep_core::ipv6::Cidr6;
use skep_core::network::DEVICE_PREFIX;
use skep_core::{Id, Timestamp};

use crate::addr::Interface;

/// The time now.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Waits until a point in time; for ever without one.
pub async fn until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let nanos = u64::try_from(at.since(now())).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
        }
    }
}

/// Between half and all of a pause, so that a thousand nodes do not come back at once.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Ids out of the operating system's randomness.
#[derive(Debug, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn random_bytes(&mut self) -> [u8; RANDOM_BYTES] {
        rand::rng().random()
    }
}

/// A fresh id.
pub fn random_id() -> Id {
    RandomIds.next_id()
}

/// A fresh number that is not zero, for a raft id or a session.
pub fn random_number() -> u64 {
    rand::rng().random_range(1..=u64::MAX)
}

/// Networks that this host reaches besides the swarm's: those of its interfaces and of its routes. A
/// host that cannot say reaches none.
pub async fn subnets() -> Vec<Cidr> {
    let table = tokio::fs::read_to_string("/proc/net/route").await;
    routes(&table.unwrap_or_default())
}

/// The kernel's table of routes, without what leads everywhere and what is the swarm's own.
fn routes(table: &str) -> Vec<Cidr> {
    let address = |hex: &str| Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_be()));
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (device, to, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        let bits = u8::try_from(u32::from(address(mask)?).leading_ones()).ok()?;
        let ours = device.starts_with(DEVICE_PREFIX) || bits == 0;
        let address = address(to).filter(|_| !ours)?;
        Some(Cidr { address, bits }.subnet())
    };
    let all: BTreeSet<Cidr> = table.lines().skip(1).filter_map(route).collect();
    all.into_iter().take(MAX_SUBNETS).collect()
}

/// The same of IPv6.
pub async fn subnets6() -> Vec<Cidr6> {
    let table = tokio::fs::read_to_string("/proc/net/ipv6_route").await;
    routes6(&table.unwrap_or_default())
}

/// The kernel's table of IPv6 routes, without what leads everywhere, what every interface has, this
/// host's own addresses and what is the swarm's own.
fn routes6(table: &str) -> Vec<Cidr6> {
    /// `RTF_LOCAL` and `RTF_ANYCAST`: an address of this host's.
    const OWN: u32 = 0x8010_0000;
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, bits) = (fields.first()?, fields.get(1)?);
        let (flags, device) = (fields.get(8)?, fields.get(9)?);
        let address = Ipv6Addr::from_bits(u128::from_str_radix(to, 16).ok()?);
        let bits = u8::from_str_radix(bits, 16).ok()?;
        let is_own = u32::from_str_radix(flags, 16).ok()? & OWN != 0;
        let everywhere = address.is_multicast()
            || address.is_unicast_link_local()
            || address.is_loopback()
            || bits == 0;
        let ours = is_own || everywhere || device.starts_with(DEVICE_PREFIX);
        (!ours).then(|| Cidr6 { address, bits }.subnet())
    };
    let all: BTreeSet<Cidr6> = table.lines().filter_map(route).collect();
    all.into_iter().take(MAX_SUBNETS).collect()
}

/// This host's interfaces with their addresses, in the kernel's order.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn interfaces() -> std::io::Result<Vec<Interface>> {
    use nix::net::if_::InterfaceFlags;
    let mut found: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let usable = entry.flags.contains(InterfaceFlags::IFF_UP)
            && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let index = found
            .iter()
            .position(|known| known.name == entry.interface_name);
        let index = index.unwrap_or_else(|| {
            let name = entry.interface_name.clone();
            found.push(Interface {
                name,
                usable,
                addrs: Vec::new(),
            });
            found.len() - 1
        });
        let ip = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        if let (Some(ip), Some(interface)) = (ip, found.get_mut(index)) {
            interface.addrs.push(ip);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
            eth0\t00000000\t0100C90A\t0003\t0\t0\t0\t00000000\t0\n\
            eth0\t0000C90A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n\
            skepabc\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
            tun0\t0003000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
            broken\tx\n";
        let found: Vec<String> = routes(table).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.3.0/24", "10.201.0.0/16", "172.17.0.0/16"]);
        assert!(routes("").is_empty());
    }

    #[test]
    fn routes_of_ipv6_are_read_as_the_kernel_writes_them() {
        let table = "fd00c9000000000000000000000000aa 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
            fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000003     eth0\n\
            fd00c9000000000000000000000000aa 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 80200001     eth0\n\
            fd00c900000000000000000000000000 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 80300001     eth0\n\
            00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 80200001     lo\n\
            ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
            fd007000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     skepabc\n\
            20010db8000000000000000000000000 20 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000003     tun0\n\
            broken x\n";
        let found: Vec<String> = routes6(table).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["2001:db8::/32", "fd00:c900::/64"]);
        assert!(routes6("").is_empty());
    }
}
