//! The addresses of one subnet: which are taken, and which comes next. Serial, so that an address
//! that has become free is not given out again at once: caches and connections still know it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::cidr::Cidr;
use crate::network::Pool;

/// Subnets larger than this are used as if they had this many addresses.
const MOST: u32 = 1 << 20;

/// One subnet's addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    subnet: Cidr,
    /// The first address that may be given out.
    base: u32,
    count: u32,
    /// One bit an address.
    taken: Vec<u64>,
    free: u32,
    /// Where the search for the next one begins, counted from `base`.
    cursor: u32,
    /// Addresses of the subnet that are not given out unasked, and that somebody has all the same.
    apart: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// None of them taken but the gateway's.
    pub(super) fn of(pool: Pool) -> Self {
        let subnet = pool.subnet;
        let range = pool.range.unwrap_or(subnet);
        // Neither the subnet's own address nor that of everyone in it.
        let first = range.first().max(subnet.first().saturating_add(1));
        let last = range.last().min(subnet.last().saturating_sub(1));
        let count = (u64::from(last) + 1).saturating_sub(u64::from(first));
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(MOST);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or_default();
        let mut addresses = Self {
            subnet,
            base: first,
            count,
            taken: vec![0; words],
            free: count,
            cursor: 0,
            apart: BTreeSet::new(),
        };
        if let Some(gateway) = pool.gateway {
            addresses.mark(gateway);
        }
        addresses
    }

    /// How many are left.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// The subnet.
    pub(super) fn subnet(&self) -> Cidr {
        self.subnet
    }

    /// Takes the next one, wherever it is.
    #[cfg(test)]
    fn take(&mut self) -> Option<Ipv4Addr> {
        self.take_ahead().or_else(|| {
            self.rewind();
            self.take_ahead()
        })
    }

    /// Takes the next one behind that which was taken last.
    pub(super) fn take_ahead(&mut self) -> Option<Ipv4Addr> {
        let index = self.next(self.cursor, self.count)?;
        let address = Ipv4Addr::from(self.base + index);
        self.mark(address);
        self.go_on_at(index + 1);
        Some(address)
    }

    /// Goes on at the first one.
    pub(super) fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// The first free one of `from..to`.
    fn next(&self, from: u32, to: u32) -> Option<u32> {
        let mut index = from;
        while index < to {
            let word = self.taken.get((index / 64) as usize)?;
            let skipped = (!word >> (index % 64)).trailing_zeros();
            if skipped < 64 - index % 64 {
                let found = index + skipped;
                return (found < to).then_some(found);
            }
            index = (index / 64 + 1) * 64;
        }
        None
    }

    /// Takes this very one. False if it is taken, or none that a container could have.
    pub(super) fn take_this(&mut self, address: Ipv4Addr) -> bool {
        let edge = [self.subnet.first(), self.subnet.last()].contains(&u32::from(address));
        let free = self.subnet.contains(address) && !edge && !self.has(address);
        if free {
            let cursor = self.cursor;
            self.mark(address);
            // The others go on as if nothing had happened.
            self.cursor = cursor;
        }
        free
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        let Some(index) = self.index(address) else {
            return self.apart.contains(&address);
        };
        let word = self.taken.get((index / 64) as usize);
        word.is_some_and(|word| *word & (1 << (index % 64)) != 0)
    }

    /// This one is taken; nothing happens if it was.
    pub(super) fn mark(&mut self, address: Ipv4Addr) {
        let Some(index) = self.index(address) else {
            self.apart.insert(address);
            return;
        };
        let Some(word) = self.taken.get_mut((index / 64) as usize) else {
            return;
        };
        let bit = 1 << (index % 64);
        if *word & bit == 0 {
            *word |= bit;
            self.free -= 1;
            // A new leader goes on after all that is taken.
            self.go_on_at(self.cursor.max(index + 1));
        }
    }

    fn go_on_at(&mut self, index: u32) {
        self.cursor = index.min(self.count);
    }

    /// This one is free again.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        let Some(index) = self.index(address) else {
            self.apart.remove(&address);
            return;
        };
        if let Some(word) = self.taken.get_mut((index / 64) as usize) {
            let bit = 1 << (index % 64);
            self.free += u32::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    fn index(&self, address: Ipv4Addr) -> Option<u32> {
        let index = u32::from(address).checked_sub(self.base)?;
        (index < self.count).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(subnet: &str, range: &str) -> Addresses {
        let subnet: Cidr = subnet.parse().unwrap();
        Addresses::of(Pool {
            subnet,
            range: range.parse().ok(),
            gateway: Some((subnet.first() + 1).into()),
        })
    }

    #[test]
    fn all_are_given_out_once_and_then_the_oldest_again() {
        let mut addresses = network("10.0.1.0/29", "");
        assert_eq!(addresses.free(), 5);
        let taken: Vec<String> = std::iter::from_fn(|| addresses.take())
            .map(|it| it.to_string())
            .collect();
        let expected = ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"];
        assert_eq!(taken, expected);
        for text in ["10.0.1.4", "10.0.1.4", "10.0.1.2", "10.9.9.9", "10.0.1.7"] {
            addresses.release(text.parse().unwrap());
        }
        assert_eq!(addresses.free(), 2);
        assert_eq!(addresses.take().unwrap().to_string(), "10.0.1.2");
        assert_eq!(addresses.take().unwrap().to_string(), "10.0.1.4");
        assert_eq!(addresses.take(), None);
    }

    #[test]
    fn one_that_is_free_again_waits_its_turn() {
        let mut addresses = network("10.0.1.0/24", "");
        let first = addresses.take().unwrap();
        addresses.release(first);
        assert_eq!(addresses.take().unwrap().to_string(), "10.0.1.3");
    }

    #[test]
    fn a_range_is_kept_to() {
        let mut addresses = network("10.0.1.0/24", "10.0.1.128/30");
        let taken: Vec<String> = std::iter::from_fn(|| addresses.take())
            .map(|it| it.to_string())
            .collect();
        assert_eq!(
            taken,
            ["10.0.1.128", "10.0.1.129", "10.0.1.130", "10.0.1.131"]
        );
    }
}
