//! The IPv6 side of a network, as far as this host's kernel is concerned: every address of IPv4 stands
//! for one of IPv6, so that entries for the one are entries for both. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::{Subnet, is_in};

/// What IPv6 addresses those of one of a network's IPv4 subnets stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// The IPv4 subnet.
    pub of: Subnet,
    /// What its own address stands for. Those behind it follow in the same order.
    pub first: Ipv6Addr,
    /// Bits of the prefix.
    pub bits: u8,
}

impl Ipv6 {
    /// What an IPv4 address stands for.
    pub fn address(self, ipv4: Ipv4Addr) -> Ipv6Addr {
        let place = ipv4.to_bits().wrapping_sub(self.of.0.to_bits());
        Ipv6Addr::from_bits(self.first.to_bits().wrapping_add(place.into()))
    }

    /// The IPv4 address that stands for this one, if one of the subnet does.
    fn ipv4(self, ipv6: Ipv6Addr) -> Option<Ipv4Addr> {
        let place = ipv6.to_bits().checked_sub(self.first.to_bits())?;
        let ipv4 = self.of.0.to_bits().checked_add(u32::try_from(place).ok()?);
        let ipv4 = ipv4.map(Ipv4Addr::from_bits);
        ipv4.filter(|it| is_in(*it, self.of))
    }
}

/// Of a network's sides, the one that an IPv4 address is on.
pub(crate) fn side_of(sides: &[Ipv6], ipv4: Ipv4Addr) -> Option<Ipv6> {
    let mut sides = sides.iter().copied();
    sides.find(|side| is_in(ipv4, side.of))
}

/// The IPv4 address on any of a network's sides that stands for this one.
pub(crate) fn ipv4(sides: &[Ipv6], ipv6: Ipv6Addr) -> Option<Ipv4Addr> {
    sides.iter().find_map(|side| side.ipv4(ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_for_others() {
        let side = |number, bits, first: &str| Ipv6 {
            of: (Ipv4Addr::new(10, number, 0, 0), bits),
            first: first.parse().unwrap(),
            bits: 128 - (32 - bits),
        };
        // They share a subnet.
        let sides = [side(7, 23, "fd00:7::1:0"), side(5, 24, "fd00:7::1:200")];
        for (one, other) in [
            ([10, 7, 1, 5], "fd00:7::1:105"),
            ([10, 5, 0, 5], "fd00:7::1:205"),
        ] {
            let (one, other) = (Ipv4Addr::from(one), other.parse().unwrap());
            assert_eq!(side_of(&sides, one).unwrap().address(one), other);
            assert_eq!(ipv4(&sides, other), Some(one));
        }
        for nobodys in ["fd00:7::5", "fd00:7::1:300", "fd00:8::1:5", "ff02::1"] {
            assert_eq!(ipv4(&sides, nobodys.parse().unwrap()), None, "{nobodys}");
        }
        assert_eq!(side_of(&sides, Ipv4Addr::new(10, 6, 0, 1)), None);
    }
}
