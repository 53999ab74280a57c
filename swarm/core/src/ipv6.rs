//! The IPv6 side of a network. Every IPv4 address of the network stands for one IPv6 address, that at
//! the same place in the other subnet: who has the one has the other, and only IPv4's are given out.
//! Arithmetic only: chooses nothing.

mod sides;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;

pub use sides::{Pool6, sides};

/// An IPv6 address with the length of its subnet's prefix: `fd00:7::5/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr6 {
    /// The address; that of the subnet itself if no host is meant.
    pub address: Ipv6Addr,
    /// Bits of the prefix, 0 to 128.
    pub bits: u8,
}

impl Cidr6 {
    /// The lowest address of the subnet, as a number.
    pub fn first(self) -> u128 {
        self.address.to_bits() & self.mask()
    }

    /// The highest address of the subnet, as a number.
    pub fn last(self) -> u128 {
        self.address.to_bits() | !self.mask()
    }

    /// The subnet without a host.
    pub fn subnet(self) -> Self {
        Self {
            address: Ipv6Addr::from_bits(self.first()),
            bits: self.bits,
        }
    }

    /// Whether the address belongs to the subnet.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (self.first()..=self.last()).contains(&address.to_bits())
    }

    /// Whether two subnets have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    fn mask(self) -> u128 {
        u128::MAX
            .checked_shl(128 - u32::from(self.bits.min(128)))
            .unwrap_or(0)
    }
}

impl fmt::Display for Cidr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Cidr6 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid CIDR address: {text}");
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 128);
        let bits = bits.ok_or_else(bad)?;
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Cidr6 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr6> for String {
    fn from(cidr: Cidr6) -> Self {
        cidr.to_string()
    }
}

/// What an IPv4 subnet of a network has beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6 {
    /// The IPv4 subnet.
    pub of: Cidr,
    /// The IPv6 subnet: if other IPv4 subnets have parts of it too, this one's part.
    pub subnet: Cidr6,
    /// What the IPv4 subnet's own address stands for: the first address of the IPv6 subnet, or of
    /// the part of it that addresses are to come from.
    pub first: Ipv6Addr,
}

impl Ipv6 {
    /// What an address of the IPv4 subnet stands for.
    pub fn address(self, ipv4: Ipv4Addr) -> Ipv6Addr {
        let place = u32::from(ipv4).wrapping_sub(self.of.first());
        Ipv6Addr::from_bits(self.first.to_bits().wrapping_add(place.into()))
    }

    /// The same with the length of the prefix.
    pub fn cidr(self, ipv4: Ipv4Addr) -> Cidr6 {
        Cidr6 {
            address: self.address(ipv4),
            bits: self.subnet.bits,
        }
    }

    /// The reverse; `None` for addresses that no IPv4 address stands for.
    pub fn ipv4(self, ipv6: Ipv6Addr) -> Option<Ipv4Addr> {
        let place = ipv6.to_bits().checked_sub(self.first.to_bits())?;
        let ipv4 = self.of.first().checked_add(u32::try_from(place).ok()?)?;
        let ipv4 = Ipv4Addr::from_bits(ipv4);
        self.of.contains(ipv4).then_some(ipv4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv6(of: &str, subnet: &str, range: &str) -> Option<Ipv6> {
        let pool = (subnet.parse().unwrap(), range.parse().ok());
        sides(&[of.parse().unwrap()], &[pool]).ok()?.pop()
    }

    #[test]
    fn subnets_begin_end_and_overlap() {
        let cidr = |text: &str| text.parse::<Cidr6>().unwrap();
        let net = cidr("fd00:7::1:5/64");
        assert_eq!(net.to_string(), "fd00:7::1:5/64");
        assert_eq!(net.subnet().to_string(), "fd00:7::/64");
        let last = Ipv6Addr::from_bits(net.last());
        assert_eq!(last.to_string(), "fd00:7::ffff:ffff:ffff:ffff");
        assert!(net.contains(last) && !net.contains("fd00:7:0:1::".parse().unwrap()));
        for (other, expected) in [
            ("fd00:7::/48", true),
            ("fd00:7:0:1::/64", false),
            ("::/0", true),
        ] {
            assert_eq!(net.overlaps(cidr(other)), expected, "{other}");
            assert_eq!(cidr(other).overlaps(net), expected, "{other}");
        }
        for text in ["", "fd00::", "fd00::/129", "10.0.0.0/8", "x/64"] {
            assert!(text.parse::<Cidr6>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_address_stands_for_another_and_back() {
        let table = [
            ("10.7.0.0/24", "fd00:7::/64", "", "10.7.0.5", "fd00:7::5"),
            (
                "10.7.0.9/23",
                "fd00:7::9/64",
                "",
                "10.7.1.255",
                "fd00:7::1ff",
            ),
            (
                "10.7.0.0/24",
                "fd00:7::/120",
                "",
                "10.7.0.255",
                "fd00:7::ff",
            ),
            (
                "10.7.0.0/24",
                "fd00:7::/64",
                "fd00:7::a:0/112",
                "10.7.0.5",
                "fd00:7::a:5",
            ),
        ];
        for (of, subnet, range, one, other) in table {
            let ipv6 = ipv6(of, subnet, range).unwrap();
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(ipv6.address(one), other);
            assert_eq!(ipv6.cidr(one).bits, ipv6.subnet.bits);
            assert_eq!(ipv6.ipv4(other), Some(one));
        }
        let net = ipv6("10.7.0.0/24", "fd00:7::/64", "fd00:7::1:0/112").unwrap();
        for nobodys in ["fd00:7::5", "fd00:7::1:100", "fd00:8::5", "::"] {
            assert_eq!(net.ipv4(nobodys.parse().unwrap()), None, "{nobodys}");
        }
    }
}
