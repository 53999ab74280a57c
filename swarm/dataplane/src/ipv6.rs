//! The IPv6 side of a network, as far as this host's kernel is concerned: every address of IPv4 stands
//! for one of IPv6, so that entries for the one are entries for both. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What IPv6 addresses a network's IPv4 addresses stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// The IPv4 subnet's own address.
    pub of: Ipv4Addr,
    /// What it stands for. Those behind it follow in the same order.
    pub first: Ipv6Addr,
    /// Bits of the prefix.
    pub bits: u8,
}

impl Ipv6 {
    /// What an IPv4 address stands for.
    pub fn address(self, ipv4: Ipv4Addr) -> Ipv6Addr {
        let place = ipv4.to_bits().wrapping_sub(self.of.to_bits());
        Ipv6Addr::from_bits(self.first.to_bits().wrapping_add(place.into()))
    }

    /// The IPv4 address that stands for this one; some other one, or none, if it is not the network's.
    pub(crate) fn ipv4(self, ipv6: Ipv6Addr) -> Option<Ipv4Addr> {
        let place = ipv6.to_bits().checked_sub(self.first.to_bits())?;
        let place = u32::try_from(place).ok()?;
        self.of
            .to_bits()
            .checked_add(place)
            .map(Ipv4Addr::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_for_others() {
        let ipv6 = Ipv6 {
            of: Ipv4Addr::new(10, 7, 0, 0),
            first: "fd00:7::1:0".parse().unwrap(),
            bits: 64,
        };
        let (one, other) = (Ipv4Addr::new(10, 7, 1, 5), "fd00:7::1:105".parse().unwrap());
        assert_eq!(ipv6.address(one), other);
        assert_eq!(ipv6.ipv4(other), Some(one));
        for nobodys in ["fd00:7::5", "fd00:8::1:5", "ff02::1"] {
            assert_eq!(ipv6.ipv4(nobodys.parse().unwrap()), None, "{nobodys}");
        }
    }
}
