//! What the state says about published ports, in the form that the rest of the mesh works from.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::blocks::{Block, blocks};
use crate::model::{Network, Protocol, Service, Subnet6, plain};
use crate::state::{Known, State};

/// A port of this host.
pub(super) type Key = (Protocol, u16);

/// A network that ports are published on, as this host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The bridge here on which this host has its address.
    pub(super) bridge: String,
    /// All its bridges here.
    pub(super) bridges: Vec<String>,
    /// Its subnets.
    pub(super) blocks: Vec<Block>,
    /// This host's address on it.
    pub(super) gateway: Ipv4Addr,
    /// This host's address of IPv6 on it.
    pub(super) gateway6: Option<Ipv6Addr>,
    /// Its IPv6 subnets.
    pub(super) subnets6: Vec<Subnet6>,
    /// Other hosts: their addresses on it, and where they themselves are reached.
    pub(super) hosts: BTreeMap<Ipv4Addr, IpAddr>,
    /// Subnets of the swarm's networks here: no client's address in them means anything elsewhere.
    pub(super) inside: BTreeSet<(Ipv4Addr, u8)>,
    /// The same of IPv6.
    pub(super) inside6: BTreeSet<(Ipv6Addr, u8)>,
    /// What is published.
    pub(super) ports: BTreeMap<Key, Published>,
}

impl Plan {
    /// Addresses of tasks on this host.
    pub(super) fn here(&self) -> BTreeSet<Ipv4Addr> {
        let all = self.ports.values().flat_map(|it| &it.backends);
        let here = all.filter(|it| it.host.is_none());
        here.map(|it| it.address).collect()
    }
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// The port of the containers.
    pub(super) target: u16,
    /// How clients get there.
    pub(super) manner: Manner,
    /// Tasks that serve.
    pub(super) backends: Vec<Backend>,
}

/// How clients get to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// With their own address, wherever that can be.
    Kept,
    /// With this host's address.
    Translated,
    /// Through a process of this host, which says in a header who they are.
    Announced,
}

/// A task that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Backend {
    /// Its address on the network.
    pub(super) address: Ipv4Addr,
    /// The one of IPv6, where the network has such.
    pub(super) ipv6: Option<Ipv6Addr>,
    /// The host's address there, unless it is on this one.
    pub(super) host: Option<Ipv4Addr>,
}

/// What is to be: nothing, if no service publishes a port.
pub(super) fn plan(state: &State) -> Option<Plan> {
    let mut plans = state.networks.values().filter_map(|known| {
        let network = known.network.as_ref().filter(|it| it.ingress)?;
        let ports = ports(known, &network.hosts);
        (!ports.is_empty()).then_some((network, ports))
    });
    let (network, ports) = plans.next()?;
    let here = state.networks.values();
    let here = here.filter_map(|known| known.network.as_ref());
    let inside6 = here.clone().flat_map(Network::subnets6);
    Some(Plan {
        ports,
        inside6: inside6.collect(),
        inside: here.flat_map(|it| it.subnets().map(plain)).collect(),
        ..of(network)
    })
}

fn of(network: &Network) -> Plan {
    Plan {
        bridge: network.bridge.clone(),
        bridges: network.bridges().map(str::to_owned).collect(),
        blocks: blocks(network),
        gateway: network.gateway,
        gateway6: network.ipv6.map(|it| it.gateway),
        subnets6: network.subnets6().into_iter().collect(),
        hosts: network.hosts.clone(),
        inside: BTreeSet::new(),
        inside6: BTreeSet::new(),
        ports: BTreeMap::new(),
    }
}

fn ports(known: &Known, hosts: &BTreeMap<Ipv4Addr, IpAddr>) -> BTreeMap<Key, Published> {
    let mut ports = BTreeMap::new();
    for service in known.services.values().filter(|it| !it.ports.is_empty()) {
        let backends = backends(known, hosts, service);
        for port in &service.ports {
            // While a port goes over from one service to another, both may be known to have it.
            let key = (port.protocol, port.published);
            ports.entry(key).or_insert_with(|| Published {
                target: port.target,
                manner: manner(service, port.protocol),
                backends: backends.clone(),
            });
        }
    }
    ports
}

fn manner(service: &Service, protocol: Protocol) -> Manner {
    match protocol {
        Protocol::Tcp if service.proxy_protocol => Manner::Announced,
        _ if service.snat => Manner::Translated,
        _ => Manner::Kept,
    }
}

fn backends(known: &Known, hosts: &BTreeMap<Ipv4Addr, IpAddr>, service: &Service) -> Vec<Backend> {
    let endpoints = known.endpoints_of(&service.id);
    let all: BTreeSet<Backend> = endpoints
        .filter_map(|endpoint| {
            let ipv4 = endpoint.addresses.iter().find_map(|it| match it {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            });
            let ipv6 = endpoint.addresses.iter().find_map(|it| match it {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            });
            Some(Backend {
                address: ipv4?,
                ipv6,
                // One that is no other host shares this one's namespace, and all of its bridges
                // are joined.
                host: endpoint.host.filter(|host| hosts.contains_key(host)),
            })
        })
        .collect();
    all.into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Change, Endpoint, Port};
    use crate::state::Touched;

    /// A state with three hosts, this one 10.0.0.2, and what `more` says.
    pub(in super::super) fn state(more: Vec<Change>) -> State {
        let network = |id: &str, net: u8, ingress: bool| Network {
            id: id.to_owned(),
            name: id.to_owned(),
            bridge: format!("skep-{id}"),
            subnet: (Ipv4Addr::new(10, 0, net, 0), 24),
            gateway: Ipv4Addr::new(10, 0, net, 2),
            ipv6: None,
            internal: false,
            ingress,
            hosts: match ingress {
                true => BTreeMap::from([3, 4].map(|host| {
                    let there = IpAddr::from([192, 0, 2, host]);
                    (Ipv4Addr::new(10, 0, net, host), there)
                })),
                false => BTreeMap::new(),
            },
            branches: Vec::new(),
        };
        let mut state = State::default();
        let networks = [network("in", 0, true), network("back", 1, false)];
        let all = networks.map(Change::Network).into_iter().chain(more);
        let mut touched = Touched::default();
        all.for_each(|change| state.apply(change, &mut touched));
        state
    }

    pub(in super::super) fn service(id: &str, ports: &[(Protocol, u16, u16)]) -> Service {
        let port = |(protocol, published, target): &(_, _, _)| Port {
            protocol: *protocol,
            published: *published,
            target: *target,
        };
        Service {
            id: id.to_owned(),
            name: id.to_owned(),
            ports: ports.iter().map(port).collect(),
            ..Service::default()
        }
    }

    pub(in super::super) fn served(service: Service) -> Change {
        Change::Service("in".to_owned(), service)
    }

    /// A task with the last part of its address, and of its host's.
    pub(in super::super) fn task(service: &str, last: u8, host: Option<u8>) -> Change {
        let endpoint = Endpoint {
            id: format!("{service}-{last}"),
            service: Some(service.to_owned()),
            addresses: vec![IpAddr::from([10, 0, 0, last])],
            host: host.map(|host| Ipv4Addr::new(10, 0, 0, host)),
            ..Endpoint::default()
        };
        Change::Endpoint("in".to_owned(), endpoint)
    }

    #[test]
    fn nothing_published_is_nothing_to_do() {
        assert_eq!(plan(&State::default()), None);
        let quiet = vec![served(service("web", &[])), task("web", 10, None)];
        assert_eq!(plan(&state(quiet)), None);
    }

    #[test]
    fn a_port_has_the_tasks_of_its_service() {
        let ports = [(Protocol::Tcp, 8080, 80), (Protocol::Udp, 53, 53)];
        let announced = Service {
            proxy_protocol: true,
            snat: true,
            ..service("web", &ports)
        };
        let told = vec![
            served(announced),
            task("web", 11, Some(3)),
            task("web", 10, None),
            task("db", 12, None),
        ];
        let plan = plan(&state(told)).unwrap();
        assert_eq!(plan.inside.len(), 2);
        let web = &plan.ports[&(Protocol::Tcp, 8080)];
        assert_eq!((web.target, web.manner), (80, Manner::Announced));
        let addresses: Vec<_> = web.backends.iter().map(|it| it.address).collect();
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!(addresses, [at(10), at(11)]);
        assert_eq!(web.backends[1].host, Some(at(3)));
        let dns = &plan.ports[&(Protocol::Udp, 53)];
        assert_eq!(dns.manner, Manner::Translated);
    }

    #[test]
    fn a_host_that_is_no_other_is_this_one() {
        let web = service("web", &[(Protocol::Tcp, 8080, 80)]);
        let told = vec![
            served(web),
            task("web", 10, Some(9)),
            task("web", 11, Some(3)),
        ];
        let plan = plan(&state(told)).unwrap();
        let web = &plan.ports[&(Protocol::Tcp, 8080)];
        let hosts = web.backends.iter().map(|it| it.host.is_some());
        assert_eq!(hosts.collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn the_first_of_two_services_has_a_port() {
        let ports = [(Protocol::Tcp, 8080, 80)];
        let other = [(Protocol::Tcp, 8080, 81)];
        let told = vec![served(service("b", &other)), served(service("a", &ports))];
        let plan = plan(&state(told)).unwrap();
        assert_eq!(plan.ports[&(Protocol::Tcp, 8080)].target, 80);
    }
}
