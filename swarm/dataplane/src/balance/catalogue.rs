//! What the state says of virtual addresses, network by network, kept up to date by what is
//! touched. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::rules::{Target, Targets};
use crate::netlink::Family;
use crate::state::{Known, State, Touched};

/// A network and a service on it.
type Place = (String, String);

/// Addresses that may lead somewhere else than before, by network.
pub(crate) type Changed = BTreeMap<String, BTreeSet<IpAddr>>;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    networks: BTreeMap<String, Targets>,
    addresses: BTreeMap<Place, Vec<IpAddr>>,
}

impl Catalogue {
    /// Takes in what is touched; the answer names every address that it can concern.
    pub(crate) fn follow(&mut self, state: &State, touched: &Touched) -> Changed {
        let places = self.places(state, touched);
        let mut changed = Changed::new();
        // All that is old goes first: an address may have moved from one to the other.
        for place in &places {
            let old = self.addresses.remove(place).unwrap_or_default();
            if let Some(targets) = self.networks.get_mut(&place.0) {
                old.iter().for_each(|vip| drop(targets.remove(vip)));
            }
            changed.entry(place.0.clone()).or_default().extend(old);
        }
        for place in places {
            let known = state.networks.get(&place.0);
            let new = known.map_or_else(Targets::new, |known| targets(known, &place.1));
            if new.is_empty() {
                continue;
            }
            let vips = changed.entry(place.0.clone()).or_default();
            vips.extend(new.keys());
            let network = self.networks.entry(place.0.clone()).or_default();
            self.addresses.insert(place, new.keys().copied().collect());
            network.extend(new);
        }
        self.networks.retain(|_, targets| !targets.is_empty());
        changed
    }

    /// The addresses on a network.
    pub(crate) fn on(&self, network: &str) -> Option<&Targets> {
        self.networks.get(network)
    }

    /// Where an address on a network leads.
    pub(crate) fn target(&self, network: &str, vip: IpAddr) -> Option<&Arc<Target>> {
        self.on(network).and_then(|targets| targets.get(&vip))
    }

    /// All networks that have addresses.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &String> {
        self.networks.keys()
    }

    /// Where something may be another way.
    fn places(&self, state: &State, touched: &Touched) -> BTreeSet<Place> {
        let mut places = touched.services.clone();
        let all = |network: &String| touched.all || touched.networks.contains(network);
        for (network, known) in state.networks.iter().filter(|(id, _)| all(id)) {
            let services = known.services.keys();
            places.extend(services.map(|service| (network.clone(), service.clone())));
        }
        let old = self.addresses.keys().filter(|(network, _)| all(network));
        places.extend(old.cloned());
        places
    }
}

/// Where the addresses of a service lead.
fn targets(known: &Known, service: &str) -> Targets {
    let Some(service) = known.services.get(service) else {
        return Targets::new();
    };
    let network = known.network.as_ref();
    let target = |family: Family| {
        let endpoints = known.endpoints_of(&service.id);
        // Each has one address of a kind.
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let backends = endpoints.filter_map(|it| it.addresses.iter().find(of_family));
        let backends: BTreeSet<IpAddr> = backends.copied().collect();
        Arc::new(Target {
            backends: backends.into_iter().collect(),
            gateway: match family {
                Family::Ipv4 => network.map(|it| it.gateway.into()),
                Family::Ipv6 => network.and_then(|it| Some(it.ipv6?.gateway.into())),
            },
        })
    };
    let mut targets = BTreeMap::new();
    let vips = service.vips.iter();
    vips.map(|vip| {
        let family = Family::of(*vip);
        let target = targets.entry(family).or_insert_with(|| target(family));
        (*vip, Arc::clone(target))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{Change, Endpoint, Network, Service};

    fn service(id: &str, vip: &str) -> Change {
        let service = Service {
            id: id.to_owned(),
            vips: vec![vip.parse().unwrap()],
            ..Service::default()
        };
        Change::Service("n".to_owned(), service)
    }

    fn endpoint(id: &str, service: &str, address: &str) -> Change {
        let endpoint = Endpoint {
            id: id.to_owned(),
            service: Some(service.to_owned()),
            addresses: vec!["2001:db8::1".parse().unwrap(), address.parse().unwrap()],
            ..Endpoint::default()
        };
        Change::Endpoint("n".to_owned(), endpoint)
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 1, last).into()
    }

    /// Applies changes, and holds that following what they touch comes to the same as looking at
    /// everything.
    fn follow(catalogue: &mut Catalogue, state: &mut State, changes: Vec<Change>) -> Changed {
        let mut touched = Touched::default();
        for change in changes {
            state.apply(change, &mut touched);
        }
        let changed = catalogue.follow(state, &touched);
        let mut anew = Catalogue::default();
        let all = Touched {
            all: true,
            ..Touched::default()
        };
        anew.follow(state, &all);
        assert_eq!(catalogue.networks, anew.networks);
        assert_eq!(catalogue.addresses, anew.addresses);
        changed
    }

    #[test]
    fn what_is_touched_is_what_changes() {
        let (mut catalogue, mut state) = <(Catalogue, State)>::default();
        let it = (&mut catalogue, &mut state);
        let changes = vec![
            service("web", "10.0.1.2"),
            service("db", "10.0.1.3"),
            endpoint("a", "web", "10.0.1.10"),
            endpoint("b", "web", "10.0.1.9"),
        ];
        let changed = follow(it.0, it.1, changes);
        assert_eq!(changed["n"], BTreeSet::from([address(2), address(3)]));
        let target = it.0.target("n", address(2)).unwrap();
        assert_eq!(target.backends, [address(9), address(10)]);
        assert!(it.0.target("n", address(3)).unwrap().backends.is_empty());

        let gone = Change::EndpointGone("n".to_owned(), "a".to_owned());
        let changed = follow(it.0, it.1, vec![gone]);
        assert_eq!(changed["n"], BTreeSet::from([address(2)]));

        // An address that one gives up and another takes in the same moment.
        let changed = follow(
            it.0,
            it.1,
            vec![service("web", "10.0.1.4"), service("db", "10.0.1.2")],
        );
        let all = [address(2), address(3), address(4)];
        assert_eq!(changed["n"], BTreeSet::from(all));
        assert!(it.0.target("n", address(2)).unwrap().backends.is_empty());
        assert_eq!(it.0.target("n", address(4)).unwrap().backends, [address(9)]);

        let network = Network {
            id: "n".to_owned(),
            name: "net".to_owned(),
            bridge: "br".to_owned(),
            subnet: (Ipv4Addr::new(10, 0, 1, 0), 24),
            gateway: Ipv4Addr::new(10, 0, 1, 1),
            ipv6: None,
            internal: false,
            ingress: false,
            hosts: Default::default(),
            branches: Vec::new(),
        };
        follow(it.0, it.1, vec![Change::Network(network)]);
        assert_eq!(
            it.0.target("n", address(4)).unwrap().gateway,
            Some(address(1))
        );
        let changed = follow(it.0, it.1, vec![Change::NetworkGone("n".to_owned())]);
        assert_eq!(changed["n"], BTreeSet::from([address(2), address(4)]));
        assert_eq!(it.0.networks().count(), 0);
    }
}
