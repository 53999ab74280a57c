//! All names that a host knows, and who of its containers may ask for which. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::zone::{Zone, lower};
use crate::state::{State, Touched};

/// The names of all networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// By the network's id.
    zones: BTreeMap<String, Zone>,
    /// The networks of each container.
    containers: BTreeMap<String, Vec<String>>,
}

/// What somebody gets to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The name is one of ours and stands for these; it may be for none.
    Addresses(Vec<IpAddr>),
    /// The address is one of ours and is called this.
    Name(String),
    /// The address is one of ours and has no name.
    Nameless,
    /// It is none of ours.
    Unknown,
}

impl Book {
    /// Takes in what is another way now.
    pub(crate) fn follow(&mut self, state: &State, touched: &Touched) {
        if touched.all {
            *self = Self::default();
            for (id, known) in &state.networks {
                let zone = self.zones.entry(id.clone()).or_default();
                zone.network(known.network.as_ref());
                for service in known.services.keys() {
                    zone.service(service, Some(known));
                }
                for (id, endpoint) in &known.endpoints {
                    zone.endpoint(id, Some(endpoint));
                }
            }
            for id in state.containers.keys() {
                self.container(state, id);
            }
            return;
        }
        for (network, service) in &touched.services {
            let zone = self.zones.entry(network.clone()).or_default();
            zone.service(service, state.networks.get(network));
        }
        for (network, id) in &touched.endpoints {
            let zone = self.zones.entry(network.clone()).or_default();
            let known = state.networks.get(network);
            zone.endpoint(id, known.and_then(|it| it.endpoints.get(id)));
        }
        for id in &touched.networks {
            let zone = self.zones.entry(id.clone()).or_default();
            let known = state.networks.get(id);
            zone.network(known.and_then(|it| it.network.as_ref()));
        }
        self.zones.retain(|id, _| state.networks.contains_key(id));
        for id in &touched.containers {
            self.container(state, id);
        }
    }

    fn container(&mut self, state: &State, id: &str) {
        match state.containers.get(id) {
            Some(it) => {
                let networks = it.addresses.keys().cloned().collect();
                self.containers.insert(id.to_owned(), networks);
            }
            None => {
                self.containers.remove(id);
            }
        }
    }

    /// The networks that a container is on.
    fn own<'a>(&'a self, container: &str) -> impl Iterator<Item = &'a Zone> {
        let networks = self.containers.get(container).into_iter().flatten();
        networks.filter_map(|id| self.zones.get(id))
    }

    /// Those whose names it may ask for, in the order in which they are asked.
    fn zones_of(&self, container: &str) -> Vec<&Zone> {
        let named = self.own(container).filter(|zone| zone.rank().is_some());
        let mut zones: Vec<&Zone> = named.collect();
        zones.sort_by_key(|zone| zone.rank());
        zones
    }

    /// What a name stands for. As the original: on the first network that knows it, and only then
    /// as a name with a network's behind it.
    pub(crate) fn name(&self, container: &str, name: &str) -> Found {
        let name = lower(name);
        let zones = self.zones_of(container);
        let plain = zones.iter().find_map(|zone| zone.find(&name));
        let found = plain.or_else(|| zones.iter().find_map(|zone| zone.find_full(&name)));
        found.map_or(Found::Unknown, Found::Addresses)
    }

    /// What an address is called.
    pub(crate) fn address(&self, container: &str, address: IpAddr) -> Found {
        let zones = self.zones_of(container);
        match zones.iter().find_map(|zone| zone.called(address)) {
            Some(name) => Found::Name(name),
            None if self.is_ours(container, address) => Found::Nameless,
            None => Found::Unknown,
        }
    }

    /// Whether an address is on one of a container's networks, used or not.
    pub(crate) fn is_ours(&self, container: &str, address: IpAddr) -> bool {
        self.own(container).any(|zone| zone.contains(address))
    }

    /// Whether all of a container's networks lead nowhere else.
    pub(crate) fn is_shut_in(&self, container: &str) -> bool {
        let mut zones = self.own(container).peekable();
        zones.peek().is_some() && zones.all(Zone::is_internal)
    }

    /// Whether an address is this host's own on one of a container's networks.
    pub(crate) fn is_gateway(&self, container: &str, address: IpAddr) -> bool {
        let mut zones = self.own(container);
        zones.any(|zone| zone.is_gateway(address))
    }
}
