//! The addresses of one network, out of all of its subnets: as those of one subnet, one after the
//! other and not again at once, first through one subnet and then through the next. Knows nothing of
//! who has which.

use std::net::Ipv4Addr;

use super::addresses::Addresses;
use crate::cidr::Cidr;
use crate::ipv6::{Cidr6, Ipv6};
use crate::object::NetworkObject;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Pools {
    /// At least one.
    all: Vec<Addresses>,
    /// The one that the next address comes from, if there are any ahead in it.
    turn: usize,
    /// What each of them has of IPv6; nothing without IPv6.
    sides: Vec<Ipv6>,
}

impl Pools {
    /// None of them taken but the gateways'; `None` for a network without addresses of its own.
    pub(super) fn of(network: &NetworkObject) -> Option<Self> {
        let all: Vec<Addresses> = network.pools().map(Addresses::of).collect();
        if all.is_empty() {
            return None;
        }
        let sides = network.sides();
        let stands_for = |gateway| sides.iter().find_map(|it| it.ipv4(gateway));
        let gateways: Vec<Ipv4Addr> = network.ipv6_gateways().filter_map(stands_for).collect();
        let mut pools = Self {
            all,
            turn: 0,
            sides,
        };
        gateways.into_iter().for_each(|it| pools.mark(it));
        Some(pools)
    }

    /// How many are left.
    pub(super) fn free(&self) -> u32 {
        let free = self.all.iter().map(Addresses::free);
        free.fold(0, u32::saturating_add)
    }

    /// Takes the next one.
    pub(super) fn take(&mut self) -> Option<Cidr> {
        // Each of them twice: what is ahead may not be all.
        for _ in 0..2 * self.all.len() {
            let pool = self.all.get_mut(self.turn)?;
            if let Some(address) = pool.take_ahead() {
                return Some(pool.subnet().with(address));
            }
            pool.rewind();
            self.turn = (self.turn + 1) % self.all.len();
        }
        None
    }

    /// Takes this very one; `None` if it is taken, or none that a container could have.
    pub(super) fn take_this(&mut self, address: Ipv4Addr) -> Option<Cidr> {
        let pool = self.of_address(address)?;
        let subnet = pool.subnet();
        pool.take_this(address).then(|| subnet.with(address))
    }

    /// Which of the subnets an address is in, counted from 0.
    pub(super) fn branch(&self, address: Ipv4Addr) -> Option<usize> {
        let mut all = self.all.iter();
        all.position(|it| it.subnet().contains(address))
    }

    /// What one of them stands for on its subnet's IPv6 side.
    pub(super) fn ipv6(&self, address: Ipv4Addr) -> Option<Cidr6> {
        let side = self.sides.get(self.branch(address)?)?;
        Some(side.cidr(address))
    }

    /// This one is taken; nothing happens if it was.
    pub(super) fn mark(&mut self, address: Ipv4Addr) {
        if let Some(pool) = self.of_address(address) {
            pool.mark(address);
        }
    }

    /// This one is free again.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        if let Some(pool) = self.of_address(address) {
            pool.release(address);
        }
    }

    fn of_address(&mut self, address: Ipv4Addr) -> Option<&mut Addresses> {
        let branch = self.branch(address)?;
        self.all.get_mut(branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{addressing, pool};
    use crate::object::Meta;

    fn pools(subnets: &[&str]) -> Pools {
        let configs = subnets.iter().map(|it| pool(it.parse().unwrap(), "", None));
        let network = NetworkObject {
            id: "n".into(),
            meta: Meta::default(),
            spec: Default::default(),
            driver_state: None,
            ipam: Some(addressing(configs)),
            keys: Vec::new(),
        };
        Pools::of(&network).unwrap()
    }

    fn rest(pools: &mut Pools) -> Vec<String> {
        let all = std::iter::from_fn(|| pools.take());
        all.map(|it| it.to_string()).collect()
    }

    #[test]
    fn one_subnet_comes_after_the_other() {
        let mut pools = pools(&["10.6.0.0/29", "10.5.0.0/29"]);
        assert_eq!(pools.free(), 10);
        let first = ["10.6.0.2/29", "10.6.0.3/29", "10.6.0.4/29", "10.6.0.5/29"];
        for expected in first {
            assert_eq!(pools.take().unwrap().to_string(), expected);
        }
        // What is free again waits until all others had their turn.
        pools.release([10, 6, 0, 4].into());
        let expected = [
            "10.6.0.6/29",
            "10.5.0.2/29",
            "10.5.0.3/29",
            "10.5.0.4/29",
            "10.5.0.5/29",
            "10.5.0.6/29",
            "10.6.0.4/29",
        ];
        assert_eq!(rest(&mut pools), expected);
        assert_eq!((pools.free(), pools.take()), (0, None));
    }

    #[test]
    fn none_is_overlooked() {
        let mut pools = pools(&["10.5.0.0/29", "10.6.0.0/29"]);
        // As a new leader finds them.
        for last in 2..=6 {
            pools.mark([10, 5, 0, last].into());
            pools.mark([10, 6, 0, last].into());
        }
        pools.release([10, 6, 0, 3].into());
        assert_eq!(rest(&mut pools), ["10.6.0.3/29"]);
    }

    #[test]
    fn only_what_is_in_a_subnet_can_be_asked_for() {
        let mut pools = pools(&["10.5.0.0/24", "10.7.0.0/24"]);
        let asked = pools.take_this([10, 7, 0, 9].into());
        assert_eq!(asked.unwrap().to_string(), "10.7.0.9/24");
        assert_eq!(pools.branch([10, 7, 0, 9].into()), Some(1));
        for address in [[10, 7, 0, 9], [10, 6, 0, 9], [10, 7, 0, 255], [10, 7, 0, 1]] {
            assert_eq!(pools.take_this(address.into()), None, "{address:?}");
        }
        assert_eq!(pools.take().unwrap().to_string(), "10.5.0.2/24");
    }
}
