//! What the maps are to hold, and the steps from what they held before. Pure. After every single step
//! each slot of a service is somebody's who served before or serves now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A network namespace, by the kernel's own number, on a network.
pub(crate) type Member = (u64, u32);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An address leads to so many endpoints, for those on a network.
    Service(IpAddr, Option<(u32, u32)>),
    Member(Member, bool),
    /// The endpoint of an address in a slot.
    Endpoint(IpAddr, u32, Option<IpAddr>),
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Book {
    services: BTreeMap<IpAddr, Service>,
    members: BTreeSet<Member>,
}

/// Where an address leads; its endpoints slot by slot.
#[derive(Clone, Debug, Default)]
struct Service {
    network: u32,
    endpoints: Vec<IpAddr>,
}

impl Book {
    /// An address of a network leads to these.
    pub(super) fn serve(&mut self, vip: IpAddr, network: u32, endpoints: &[IpAddr]) -> Vec<Step> {
        let mut steps = match self.network(vip) {
            Some(other) if other != network => self.forget(vip, other),
            _ => Vec::new(),
        };
        let old = self.services.remove(&vip).unwrap_or_default().endpoints;
        let endpoints = followed(&old, endpoints);
        let count = slot(endpoints.len());
        let is_new = |(at, it): &(usize, &IpAddr)| old.get(*at) != Some(*it);
        let new = endpoints.iter().enumerate().filter(is_new);
        steps.extend(new.map(|(at, it)| Step::Endpoint(vip, slot(at), Some(*it))));
        if old.len() != endpoints.len() {
            let service = (count > 0).then_some((network, count));
            steps.push(Step::Service(vip, service));
        }
        let gone = endpoints.len()..old.len();
        steps.extend(gone.map(|at| Step::Endpoint(vip, slot(at), None)));
        if count > 0 {
            self.services.insert(vip, Service { network, endpoints });
        }
        steps
    }

    /// An address of a network leads nowhere any more. One that another network has by now stays.
    pub(super) fn forget(&mut self, vip: IpAddr, network: u32) -> Vec<Step> {
        match self.network(vip) == Some(network) {
            true => self.serve(vip, network, &[]),
            false => Vec::new(),
        }
    }

    fn network(&self, vip: IpAddr) -> Option<u32> {
        self.services.get(&vip).map(|it| it.network)
    }

    /// Who is on which networks.
    pub(super) fn join(&mut self, members: BTreeSet<Member>) -> Vec<Step> {
        let gone = self.members.difference(&members);
        let come = members.difference(&self.members);
        let gone = gone.map(|it| Step::Member(*it, false));
        let steps = gone.chain(come.map(|it| Step::Member(*it, true)));
        let steps = steps.collect();
        self.members = members;
        steps
    }

    /// The steps from nothing to everything.
    pub(super) fn all(&self) -> Vec<Step> {
        let services = self.services.iter().flat_map(|(vip, service)| {
            let endpoints = service.endpoints.iter().enumerate();
            let endpoints = endpoints.map(|(at, it)| Step::Endpoint(*vip, slot(at), Some(*it)));
            let count = slot(service.endpoints.len());
            endpoints.chain([Step::Service(*vip, Some((service.network, count)))])
        });
        let members = self.members.iter().map(|it| Step::Member(*it, true));
        services.chain(members).collect()
    }
}

/// The new endpoints, with those that stay in their slots as far as that can be: whoever is last takes
/// the slot of one that has gone.
fn followed(old: &[IpAddr], new: &[IpAddr]) -> Vec<IpAddr> {
    let mut left: BTreeSet<IpAddr> = new.iter().copied().collect();
    let mut slots = old.to_vec();
    let mut at = 0;
    while let Some(endpoint) = slots.get(at) {
        match left.remove(endpoint) {
            true => at += 1,
            false => drop(slots.swap_remove(at)),
        }
    }
    slots.extend(left);
    slots
}

/// More than any map holds are not told apart.
fn slot(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    /// What the kernel has, and finds for whoever connects.
    #[derive(Default, Debug, PartialEq)]
    struct Maps {
        services: BTreeMap<IpAddr, (u32, u32)>,
        endpoints: BTreeMap<(IpAddr, u32), IpAddr>,
        members: BTreeSet<Member>,
    }

    impl Maps {
        fn take(&mut self, step: Step) {
            match step {
                Step::Service(vip, Some(it)) => drop(self.services.insert(vip, it)),
                Step::Service(vip, None) => assert!(self.services.remove(&vip).is_some()),
                Step::Member(it, true) => assert!(self.members.insert(it)),
                Step::Member(it, false) => assert!(self.members.remove(&it)),
                Step::Endpoint(vip, at, Some(it)) => drop(self.endpoints.insert((vip, at), it)),
                Step::Endpoint(vip, at, None) => {
                    assert!(self.endpoints.remove(&(vip, at)).is_some());
                }
            }
        }

        fn led(&self, vip: IpAddr, network: u32) -> BTreeSet<IpAddr> {
            let service = self.services.get(&vip);
            let count = service.filter(|it| it.0 == network).map_or(0, |it| it.1);
            (0..count).map(|at| self.endpoints[&(vip, at)]).collect()
        }
    }

    fn address(third: u8, last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, third, last).into()
    }

    proptest! {
        /// Any services, told one after the other: the maps have what was told, and on the way there
        /// nobody is led to one that neither served nor serves.
        #[test]
        fn whoever_connects_finds_one_that_serves(
            told in prop::collection::vec(
                (0..3u8, 0..2u32, prop::collection::btree_set(0..9u8, 0..6)),
                1..30,
            ),
        ) {
            let (mut book, mut maps) = <(Book, Maps)>::default();
            for (vip, network, lasts) in told {
                let vip = address(9, vip);
                let new: Vec<IpAddr> = lasts.into_iter().map(|it| address(0, it)).collect();
                let old = maps.led(vip, network);
                for step in book.serve(vip, network, &new) {
                    maps.take(step);
                    for it in maps.led(vip, network) {
                        prop_assert!(old.contains(&it) || new.contains(&it), "{step:?}");
                    }
                }
                prop_assert_eq!(maps.led(vip, network), new.into_iter().collect());
                prop_assert_eq!(maps.led(vip, 1 - network), BTreeSet::new());
                let mut anew = Maps::default();
                book.all().into_iter().for_each(|it| anew.take(it));
                prop_assert_eq!(&anew, &maps);
            }
        }
    }

    #[test]
    fn whoever_stays_keeps_the_slot() {
        let mut book = Book::default();
        let (vip, [a, b, c, d]) = (address(9, 1), [1, 2, 3, 4].map(|it| address(0, it)));
        book.serve(vip, 7, &[a, b, c]);
        assert_eq!(
            book.serve(vip, 7, &[b, c]),
            [
                Step::Endpoint(vip, 0, Some(c)),
                Step::Service(vip, Some((7, 2))),
                Step::Endpoint(vip, 2, None),
            ]
        );
        // One for another takes no more than its slot.
        assert_eq!(
            book.serve(vip, 7, &[b, d]),
            [
                Step::Endpoint(vip, 0, Some(b)),
                Step::Endpoint(vip, 1, Some(d))
            ]
        );
        assert_eq!(book.serve(vip, 7, &[d, b]), []);
        assert_eq!(book.forget(vip, 8), []);
        assert_eq!(
            book.forget(vip, 7),
            [
                Step::Service(vip, None),
                Step::Endpoint(vip, 0, None),
                Step::Endpoint(vip, 1, None),
            ]
        );
    }

    #[test]
    fn who_is_on_a_network_is_told_once() {
        let mut book = Book::default();
        let members = |all: &[Member]| all.iter().copied().collect();
        assert_eq!(book.join(members(&[(1, 7)])), [Step::Member((1, 7), true)]);
        assert_eq!(book.join(members(&[(1, 7)])), []);
        assert_eq!(
            book.join(members(&[(2, 7)])),
            [Step::Member((1, 7), false), Step::Member((2, 7), true)]
        );
    }
}
