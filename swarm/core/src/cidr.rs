//! IPv4 subnets, and addresses within them, in CIDR form. Arithmetic only: chooses nothing.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address with the length of its subnet's prefix: `10.0.1.5/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address; that of the subnet itself if no host is meant.
    pub address: Ipv4Addr,
    /// Bits of the prefix, 0 to 32.
    pub bits: u8,
}

impl Cidr {
    /// Stands for an address where there is none, or none that the swarm knows.
    pub const NONE: Self = Self {
        address: Ipv4Addr::UNSPECIFIED,
        bits: 32,
    };

    /// The lowest address of the subnet, as a number.
    pub fn first(self) -> u32 {
        u32::from(self.address) & self.mask()
    }

    /// The highest address of the subnet, as a number.
    pub fn last(self) -> u32 {
        u32::from(self.address) | !self.mask()
    }

    /// The subnet without a host.
    pub fn subnet(self) -> Self {
        Self {
            address: Ipv4Addr::from(self.first()),
            bits: self.bits,
        }
    }

    /// Whether the address belongs to the subnet.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&u32::from(address))
    }

    /// Whether two subnets have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// Another address of the same subnet.
    pub fn with(self, address: Ipv4Addr) -> Self {
        Self {
            address,
            bits: self.bits,
        }
    }

    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.bits.min(32)))
            .unwrap_or(0)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid CIDR address: {text}");
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32);
        let bits = bits.ok_or_else(bad)?;
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_begin_and_end() {
        let table = [
            ("10.0.1.7/24", "10.0.1.0/24", "10.0.1.255"),
            ("10.0.1.7/32", "10.0.1.7/32", "10.0.1.7"),
            ("10.0.1.7/0", "0.0.0.0/0", "255.255.255.255"),
            ("10.0.1.130/29", "10.0.1.128/29", "10.0.1.135"),
        ];
        for (text, subnet, last) in table {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(cidr.to_string(), text);
            assert_eq!(cidr.subnet().to_string(), subnet);
            assert_eq!(Ipv4Addr::from(cidr.last()).to_string(), last);
        }
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.1/33",
            "x/8",
            "10.0.0.1/-1",
            "fd00::/64",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlaps_are_mutual() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let table = [
            ("10.0.0.0/8", "10.9.0.0/24", true),
            ("10.0.0.0/24", "10.0.1.0/24", false),
            ("10.0.1.0/24", "10.0.1.0/24", true),
        ];
        for (one, other, expected) in table {
            assert_eq!(cidr(one).overlaps(cidr(other)), expected);
            assert_eq!(cidr(other).overlaps(cidr(one)), expected);
        }
        assert!(cidr("10.0.0.0/24").contains("10.0.0.255".parse().unwrap()));
        assert!(!cidr("10.0.0.0/24").contains("10.0.1.0".parse().unwrap()));
    }
}
