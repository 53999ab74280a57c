//! What a host has to know of its networks, as data: who is on them, under which names, and which
//! containers are here. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet: its address and the length of its prefix.
pub type Subnet = (Ipv4Addr, u8);
/// The same of IPv6.
pub type Subnet6 = (Ipv6Addr, u8);

/// A network that this host has a part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name: the second part of names such as `web.backend`.
    pub name: String,
    /// The bridge that it is here.
    pub bridge: String,
    /// Its subnet; of several, the one in which the host has its address.
    pub subnet: Subnet,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// What that one has of IPv6, if it has.
    pub ipv6: Option<Ipv6Subnet>,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether ports are published on it.
    pub ingress: bool,
    /// All other hosts that have a part in it, whether or not anybody on it is there: their own
    /// addresses on it, and with each the address at which the host itself is reached. Told of
    /// networks for ingress only.
    pub hosts: BTreeMap<Ipv4Addr, IpAddr>,
    /// Its other IPv4 subnets.
    pub branches: Vec<Branch>,
}

/// A subnet of a network in which the host has no address that nobody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The bridge that it is here.
    pub bridge: String,
    /// The subnet.
    pub subnet: Subnet,
    /// What it has of IPv6, if it has.
    pub ipv6: Option<Subnet6>,
}

impl Network {
    /// All its IPv4 subnets.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> {
        let further = self.branches.iter().map(|it| it.subnet);
        std::iter::once(self.subnet).chain(further)
    }

    /// All its IPv6 subnets, in order: one may belong to several of IPv4.
    pub fn subnets6(&self) -> BTreeSet<Subnet6> {
        let further = self.branches.iter().filter_map(|it| it.ipv6);
        let first = self.ipv6.map(|it| it.subnet);
        first.into_iter().chain(further).collect()
    }

    /// All its bridges here.
    pub fn bridges(&self) -> impl Iterator<Item = &str> {
        let further = self.branches.iter().map(|it| it.bridge.as_str());
        std::iter::once(self.bridge.as_str()).chain(further)
    }

    /// The bridge that an address of the network is behind, if it is on this host.
    pub fn bridge_of(&self, address: IpAddr) -> &str {
        let has = |it: &&Branch| match address {
            IpAddr::V4(own) => is_in(own, it.subnet),
            IpAddr::V6(own) => it.ipv6.is_some_and(|subnet| is_in6(own, subnet)),
        };
        let branch = self.branches.iter().find(has);
        branch.map_or(&self.bridge, |it| &it.bridge)
    }
}

/// Whether an address belongs to a subnet.
pub fn is_in(address: Ipv4Addr, (subnet, length): Subnet) -> bool {
    let mask = mask(length);
    address.to_bits() & mask == subnet.to_bits() & mask
}

/// The same of IPv6.
pub fn is_in6(address: Ipv6Addr, (subnet, length): Subnet6) -> bool {
    let mask = mask6(length);
    address.to_bits() & mask == subnet.to_bits() & mask
}

/// A subnet without what its address has below the prefix.
pub(crate) fn plain((address, bits): Subnet) -> Subnet {
    (Ipv4Addr::from_bits(address.to_bits() & mask(bits)), bits)
}

/// The bits of an IPv4 address that a prefix of this length is about.
pub(crate) fn mask(length: u8) -> u32 {
    let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32)));
    mask.unwrap_or(0)
}

/// The same of IPv6.
pub(crate) fn mask6(length: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128)));
    mask.unwrap_or(0)
}

/// The IPv6 subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Subnet {
    /// The subnet: address and length of the prefix.
    pub subnet: Subnet6,
    /// The host's own address in it.
    pub gateway: Ipv6Addr,
}

/// A service on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Other names that it has on this network.
    pub aliases: Vec<String>,
    /// Its virtual addresses; none if its name stands for its tasks.
    pub vips: Vec<IpAddr>,
    /// Ports that it publishes on every host. On networks that are not for ingress there are none.
    pub ports: Vec<Port>,
    /// Clients of its published ports may be hidden behind a host's address.
    pub snat: bool,
    /// Connections to its published ports begin with a PROXY protocol header, version 2.
    pub proxy_protocol: bool,
}

/// A port that a service publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// On the hosts.
    pub published: u16,
    /// In the containers.
    pub target: u16,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// Somebody on a network who is there to be found: a task that serves, or a container that was
/// attached. One that is not to be found, because it does not serve yet or not any more, is not
/// told of at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The task's id.
    pub id: String,
    /// The service that it is a task of, if any.
    pub service: Option<String>,
    /// Its own names on this network: the task's, the container's, its short id.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// The address on this network of the host that it is on; `None` if it is on this one.
    pub host: Option<Ipv4Addr>,
}

/// A container of this host that is on one or more networks: one that runs, or one that is about to
/// start, so that everything is there before its first process begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The task's id.
    pub id: String,
    /// What the engine calls it: its id.
    pub container: String,
    /// Its first process: the way to its network namespace. 0 while nobody knows it.
    pub pid: i32,
    /// It is about to start. Where it is then found out here, as soon as there is a process.
    pub starting: bool,
    /// Its addresses, by network.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Resolvers that it was given instead of the host's.
    pub resolvers: Vec<IpAddr>,
}

/// Something that is another way now. Telling what is known already changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A network is there, or is another way; what is on it stays.
    Network(Network),
    /// A network is gone, and with it all that was on it.
    NetworkGone(String),
    /// A service is on a network.
    Service(String, Service),
    /// No longer: network and service. Its endpoints stay until they are told of.
    ServiceGone(String, String),
    /// Somebody is on a network.
    Endpoint(String, Endpoint),
    /// No longer: network and task.
    EndpointGone(String, String),
    /// A container runs or is about to. Another process than before is another network namespace.
    Container(Container),
    /// It does not run any more.
    ContainerGone(String),
}

impl Change {
    /// Whether it is about an endpoint alone.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        matches!(self, Self::Endpoint(..) | Self::EndpointGone(..))
    }
}

/// What a host has found out by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// Published ports that cannot be had here, most likely because another program has them, with
    /// the reason.
    pub taken: BTreeMap<(Protocol, u16), String>,
}
