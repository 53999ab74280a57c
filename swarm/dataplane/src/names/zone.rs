//! The names of one network, found by name and by address. A change costs what its own names cost,
//! whoever else is there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{Endpoint, Network, Service, is_in, is_in6};
use crate::state::Known;

/// What stands before a service's name, or another name of it, for the addresses of its tasks.
const TASKS: &str = "tasks.";

/// Whose a name is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// A service, by id.
    Service(String),
    /// A task or an attached container, by the task's id.
    Endpoint(String),
}

/// All that one owner brings along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// What its names stand for; nothing is an answer too.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// What its addresses are called, without the network.
    called: String,
    /// Its own addresses.
    addresses: Vec<IpAddr>,
}

/// The names of a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    network: Option<Network>,
    /// The network's name as it is compared.
    suffix: String,
    entries: BTreeMap<Owner, Entry>,
    by_name: BTreeMap<String, BTreeSet<Owner>>,
    by_address: BTreeMap<IpAddr, BTreeSet<Owner>>,
}

impl Zone {
    /// What is known of the network now.
    pub(crate) fn network(&mut self, network: Option<&Network>) {
        self.suffix = network.map(|it| lower(&it.name)).unwrap_or_default();
        self.network = network.cloned();
    }

    /// Where it is asked among others: as the original, networks that lead outside first, then by
    /// name. `None` if it answers nobody: on a network for ingress nobody is to be found.
    pub(crate) fn rank(&self) -> Option<(bool, &str)> {
        let network = self.network.as_ref().filter(|it| !it.ingress)?;
        Some((network.internal, &network.name))
    }

    /// Whether the network leads nowhere else.
    pub(crate) fn is_internal(&self) -> bool {
        self.network.as_ref().is_some_and(|it| it.internal)
    }

    /// Whether an address is the host's on it.
    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        self.network.as_ref().is_some_and(|it| match address {
            IpAddr::V4(address) => it.gateway == address,
            IpAddr::V6(address) => it.ipv6.is_some_and(|it| it.gateway == address),
        })
    }

    /// A service as it is now, or that it is gone.
    pub(crate) fn service(&mut self, id: &str, known: Option<&Known>) {
        let entry = known.and_then(|known| {
            let service = known.services.get(id)?;
            Some(of_service(service, known))
        });
        self.put(Owner::Service(id.to_owned()), entry);
    }

    /// A task or an attached container as it is now, or that it is gone.
    pub(crate) fn endpoint(&mut self, id: &str, endpoint: Option<&Endpoint>) {
        let entry = endpoint.map(of_endpoint);
        self.put(Owner::Endpoint(id.to_owned()), entry);
    }

    fn put(&mut self, owner: Owner, entry: Option<Entry>) {
        if let Some(before) = self.entries.remove(&owner) {
            for name in before.names.keys() {
                strike(&mut self.by_name, name, &owner);
            }
            for address in &before.addresses {
                strike(&mut self.by_address, address, &owner);
            }
        }
        let Some(entry) = entry else { return };
        for name in entry.names.keys() {
            let owners = self.by_name.entry(name.clone()).or_default();
            owners.insert(owner.clone());
        }
        for address in &entry.addresses {
            let owners = self.by_address.entry(*address).or_default();
            owners.insert(owner.clone());
        }
        self.entries.insert(owner, entry);
    }

    /// What a name in small letters stands for, or `None` if nobody has it.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        let owners = self.by_name.get(name)?;
        let of = |owner| self.entries.get(owner)?.names.get(name);
        let all = owners.iter().filter_map(of).flatten();
        Some(all.copied().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// The same for a name with the network's behind it.
    pub(crate) fn find_full(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix(&self.suffix)?.strip_suffix('.')?;
        self.find(name)
    }

    /// What an address is called. Of several who have it, a service comes first.
    pub(crate) fn called(&self, address: IpAddr) -> Option<String> {
        let network = &self.network.as_ref()?.name;
        let owner = self.by_address.get(&address)?.first()?;
        let called = &self.entries.get(owner)?.called;
        Some(format!("{called}.{network}"))
    }

    /// Whether an address is one of the network's, used or not.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let Some(network) = &self.network else {
            return false;
        };
        match address {
            IpAddr::V4(address) => network.subnets().any(|it| is_in(address, it)),
            IpAddr::V6(address) => network.subnets6().into_iter().any(|it| is_in6(address, it)),
        }
    }
}

fn strike<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Owner>>, key: &K, owner: &Owner) {
    if let Some(owners) = index.get_mut(key) {
        owners.remove(owner);
        if owners.is_empty() {
            index.remove(key);
        }
    }
}

fn of_service(service: &Service, known: &Known) -> Entry {
    let endpoints = known.endpoints_of(&service.id);
    let tasks: Vec<IpAddr> = endpoints.flat_map(|it| it.addresses.clone()).collect();
    let own = if service.vips.is_empty() {
        &tasks
    } else {
        &service.vips
    };
    let mut names = BTreeMap::new();
    for name in service.aliases.iter().chain([&service.name]) {
        let name = lower(name);
        names.insert(format!("{TASKS}{name}"), tasks.clone());
        names.insert(name, own.clone());
    }
    Entry {
        names,
        called: service.name.clone(),
        addresses: service.vips.clone(),
    }
}

fn of_endpoint(endpoint: &Endpoint) -> Entry {
    let names = endpoint.names.iter();
    let names = names.map(|name| (lower(name), endpoint.addresses.clone()));
    let called = endpoint.names.first().unwrap_or(&endpoint.id);
    Entry {
        names: names.collect(),
        called: called.clone(),
        addresses: endpoint.addresses.clone(),
    }
}

/// A name as it is compared: in small letters.
pub(crate) fn lower(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
