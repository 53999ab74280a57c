//! All namespaces, and what each has to do when something changes. What is decided is decided
//! before the first of them is spoken with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZero;
use std::sync::Arc;

use super::answers::{Answers, Wishes};
use super::catalogue::{Catalogue, Changed};
use super::rules::{Role, Table, Target, Targets};
use super::space::{Space, Work};
use crate::model::Container;
use crate::netlink::Family;
use crate::netns::Place;
use crate::owner::{self, Owner};
use crate::sockets::Sockets;
use crate::state::{State, Touched};

/// What there can be only one of in a namespace.
pub(super) const HOST: &str = "vip";
/// So few namespaces are not worth more threads.
const FEW: usize = 4;
/// Unless one of them has so many addresses to tell.
const MUCH: usize = 100;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Whether it has ever seen the state.
    knows: bool,
    catalogue: Catalogue,
    hosts: BTreeMap<Family, Tenant>,
    containers: BTreeMap<(String, Family), Tenant>,
    answers: Answers,
    wishes: Wishes,
    sockets: Sockets,
    leads: Leads,
    /// The right to the host's own tables and to answer for it, where daemons share a host.
    owner: Option<Owner>,
    /// Another one has it.
    waits: bool,
    /// There is no network at all.
    idle: bool,
}

/// What sockets are to be told.
#[derive(Debug, Default)]
struct Leads {
    /// Addresses that are another way, with the numbers of their networks.
    targets: Vec<(IpAddr, u32, Option<Arc<Target>>)>,
    /// Containers, with the numbers of the networks whose services they are to reach; `None` if
    /// that is as it was.
    members: Option<BTreeMap<String, BTreeSet<u32>>>,
}

/// A namespace's table for one kind of addresses, and what is to be done there.
#[derive(Debug)]
struct Tenant {
    pid: i32,
    space: Space,
    work: Option<Work>,
}

impl Tenant {
    /// Whether there is so much to do that a thread is worth it.
    fn has_much(&self) -> bool {
        match &self.work {
            Some(Work::All(targets)) => targets.len() > MUCH,
            Some(Work::Some(some)) => some.len() > MUCH,
            None => false,
        }
    }
}

impl Inner {
    pub(crate) fn new(sockets: Sockets) -> Self {
        Self {
            sockets,
            ..Self::default()
        }
    }

    /// Decides what is to be done.
    pub(crate) fn prepare(&mut self, state: &State, touched: &Touched) {
        let all = Touched {
            all: true,
            ..Touched::default()
        };
        // Whoever has seen nothing yet looks at everything.
        let touched = if self.knows { touched } else { &all };
        self.knows = true;
        self.idle = state.networks.is_empty();
        let changed = self.catalogue.follow(state, touched);
        self.wishes = self
            .answers
            .wishes(state, &self.catalogue, &changed, touched.all);
        self.lead(state, touched, &changed);
        let anew = self.movers(state, touched);
        let catalogue = &self.catalogue;
        for ((id, family), tenant) in &mut self.containers {
            let Some(container) = state.containers.get(id) else {
                continue;
            };
            let mut on = container.addresses.keys();
            let all = touched.all
                || anew.contains(id)
                || tenant.space.wants_all()
                || on.any(|it| touched.networks.contains(it));
            let networks = visible(container, state);
            tenant.work = work(*family, catalogue, networks, &changed, all);
        }
        let mut known = state.networks.values().filter_map(|it| it.network.as_ref());
        let has_ipv6 = known.any(|network| network.ipv6.is_some());
        for family in Family::ALL {
            if family == Family::Ipv4 || has_ipv6 {
                let new = || host(family, state);
                self.hosts.entry(family).or_insert_with(new);
            }
        }
        for (family, host) in &mut self.hosts {
            let all = touched.all || host.space.wants_all();
            host.work = work(*family, catalogue, catalogue.networks(), &changed, all);
        }
    }

    /// Decides what sockets are to be told.
    fn lead(&mut self, state: &State, touched: &Touched, changed: &Changed) {
        if self.sockets.is_without() {
            return;
        }
        let mut targets = Vec::new();
        for (network, vips) in changed {
            let number = self.sockets.number(network);
            let target = |vip| self.catalogue.target(network, vip).cloned();
            targets.extend(vips.iter().map(|vip| (*vip, number, target(*vip))));
        }
        // Who gives up an address goes first: another may have it by now.
        targets.sort_by_key(|(_, _, target)| target.is_some());
        self.leads.targets = targets;
        if touched.all || !touched.networks.is_empty() || !touched.containers.is_empty() {
            let containers = state.containers.values();
            let sockets = &mut self.sockets;
            let members = containers.map(|it| {
                let networks = visible(it, state).map(|network| sockets.number(network));
                (it.id.clone(), networks.collect())
            });
            self.leads.members = Some(members.collect());
            let is_there = |network: &String| state.networks.contains_key(network);
            self.sockets.retain(is_there);
        }
    }

    /// Tells sockets where addresses lead.
    fn tell_targets(&mut self) {
        for (vip, network, target) in std::mem::take(&mut self.leads.targets) {
            let endpoints = target.as_ref().map(|it| it.backends.as_slice());
            self.sockets.serve(vip, network, endpoints);
        }
    }

    /// Tells sockets who is on which networks, once the namespaces are known.
    fn tell_members(&mut self) {
        let Some(members) = self.leads.members.take() else {
            return;
        };
        let members = members.into_iter().filter_map(|(id, networks)| {
            let tenant = self.containers.get(&(id, Family::Ipv4))?;
            Some((tenant.space.cookie()?, networks))
        });
        let each = |(cookie, networks): (u64, BTreeSet<u32>)| {
            networks.into_iter().map(move |it| (cookie, it))
        };
        self.sockets.join(members.flat_map(each).collect());
    }

    /// Containers that came or are another way; forgets those that went.
    fn movers(&mut self, state: &State, touched: &Touched) -> BTreeSet<String> {
        let mut movers = touched.containers.clone();
        if touched.all {
            movers.extend(self.containers.keys().map(|(id, _)| id.clone()));
            movers.extend(state.containers.keys().cloned());
        }
        for (id, family) in movers.iter().flat_map(|id| Family::ALL.map(|it| (id, it))) {
            let key = (id.clone(), family);
            let container = state.containers.get(id).filter(|it| it.pid != 0);
            let Some(container) = container.filter(|it| needs(it, family)) else {
                self.containers.remove(&key);
                continue;
            };
            let known = self.containers.get(&key);
            if known.is_none_or(|it| it.pid != container.pid) {
                self.containers.insert(key, tenant(family, container));
            }
        }
        movers
    }

    /// Does what was decided, everywhere; the first thing that failed is what is said.
    pub(crate) fn work(&mut self) -> Result<(), String> {
        self.tell_targets();
        let owned = self.owns();
        let owns = *owned.as_ref().unwrap_or(&false);
        let host = self.hosts.values_mut().filter(|_| owns);
        // Containers first: the host's table is for those that have none.
        let mut tenants: Vec<&mut Tenant> = self.containers.values_mut().chain(host).collect();
        tenants.retain(|tenant| tenant.work.is_some());
        let done = everywhere(tenants);
        self.tell_members();
        let wishes = std::mem::take(&mut self.wishes);
        let answered = match owns {
            true => self.answers.follow(wishes),
            false => Ok(()),
        };
        let done = done
            .into_iter()
            .chain([answered, owned.map(drop)])
            .collect();
        if self.idle {
            // Somebody else may have a use for it.
            (self.owner, self.waits) = (None, false);
            (self.hosts, self.answers) = (BTreeMap::new(), Answers::default());
            self.sockets = self.sockets.anew();
        }
        done
    }

    /// Whether what is the host's is ours, or can be.
    fn owns(&mut self) -> Result<bool, String> {
        let owns = owner::holds(&mut self.owner, HOST);
        let owns = owns.map_err(|error| format!("virtual addresses of the host: {error}"))?;
        self.waits = !owns;
        Ok(owns)
    }

    /// Whether nobody else was at it, anywhere.
    pub(crate) fn intact(&mut self) -> bool {
        self.sockets.look();
        if self.waits && self.owns().unwrap_or(false) {
            return false;
        }
        let owns = self.owner.is_some();
        let hosts = self.hosts.values_mut().filter(|_| owns);
        let tenants = self.containers.values_mut().chain(hosts);
        // All of them are looked at, so that all are repaired at once.
        let broken = tenants.filter_map(|it| (!it.space.intact()).then_some(()));
        broken.count() == 0 && (!owns || self.answers.intact())
    }
}

/// Whether a container has a use for a table. The one of IPv4 is there from the first.
fn needs(container: &Container, family: Family) -> bool {
    let mut addresses = container.addresses.values().flatten();
    family == Family::Ipv4 || addresses.any(|it| Family::of(*it) == family)
}

fn tenant(family: Family, container: &Container) -> Tenant {
    let addresses = container.addresses.values().flatten();
    let seed = addresses.fold(0, |seed, address| match address {
        IpAddr::V4(address) => seed ^ u32::from(*address),
        IpAddr::V6(_) => seed,
    });
    let table = Table {
        family,
        role: Role::Container,
        seed,
    };
    Tenant {
        pid: container.pid,
        space: Space::new(Place::Of(container.pid), table),
        work: None,
    }
}

fn host(family: Family, state: &State) -> Tenant {
    let networks = state.networks.values();
    let mut gateways = networks.filter_map(|it| it.network.as_ref().map(|it| it.gateway));
    let seed = gateways.next().map_or(0, |it: Ipv4Addr| it.into());
    let table = Table {
        family,
        role: Role::Host,
        seed,
    };
    Tenant {
        pid: 0,
        space: Space::new(Place::Host, table),
        work: None,
    }
}

/// The networks whose services a container is to reach. Nobody asks for one on the network that
/// ports are published on.
fn visible<'a>(container: &'a Container, state: &'a State) -> impl Iterator<Item = &'a String> {
    container.addresses.keys().filter(|network| {
        let known = state.networks.get(*network);
        let known = known.and_then(|it| it.network.as_ref());
        known.is_none_or(|network| !network.ingress)
    })
}

/// What a namespace on these networks has to do.
fn work<'a>(
    family: Family,
    catalogue: &Catalogue,
    networks: impl Iterator<Item = &'a String>,
    changed: &Changed,
    all: bool,
) -> Option<Work> {
    if all {
        let on = networks.filter_map(|network| catalogue.on(network));
        let all = on.flatten().filter(|(vip, _)| Family::of(**vip) == family);
        let all: Targets = all.map(|(vip, it)| (*vip, it.clone())).collect();
        return Some(Work::All(all));
    }
    let mut some = BTreeMap::new();
    for (network, vips) in networks.filter_map(|it| changed.get_key_value(it)) {
        let target = |vip| (vip, catalogue.target(network, vip).cloned());
        let vips = vips.iter().filter(|vip| Family::of(**vip) == family);
        some.extend(vips.map(|vip| target(*vip)));
    }
    (!some.is_empty()).then_some(Work::Some(some))
}

/// Lets all of them work, on as many threads as there are processors.
fn everywhere(mut tenants: Vec<&mut Tenant>) -> Vec<Result<(), String>> {
    let one = |tenant: &mut &mut Tenant| match tenant.work.take() {
        Some(work) => tenant.space.follow(&work),
        None => Ok(()),
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let is_little = tenants.len() <= FEW && !tenants.iter().any(|it| it.has_much());
    if is_little || threads == 1 {
        return tenants.iter_mut().map(one).collect();
    }
    let share = tenants.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let shares = tenants.chunks_mut(share);
        let running: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter_mut().map(one).collect::<Vec<_>>()))
            .collect();
        let lost = || vec![Err("a thread of the data plane failed".to_owned())];
        let results = running.into_iter().map(|it| it.join());
        results
            .flat_map(|it| it.unwrap_or_else(|_| lost()))
            .collect()
    })
}
