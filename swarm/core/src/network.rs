//! What a network of the swarm is made of: its driver, its subnet, its VXLAN id, and the networks
//! that every swarm begins with. Chooses no address and touches no kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use skep_api::Secret;
use skep_api::go::Driver;
use skep_api::network::{IpamConfig, IpamOptions, NetworkSpec};

use crate::Timestamp;
use crate::cidr::Cidr;
use crate::id::{Id, IdSource};
use crate::ipv6::{Cidr6, Ipv6, Pool6, sides};
use crate::object::{Meta, NetworkObject, Node};

/// The driver of networks that reach over hosts.
pub const OVERLAY: &str = "overlay";
/// The scope of a swarm's networks.
pub const SCOPE: &str = "swarm";
/// Marks the mirrors of networks that every engine has of its own.
pub const PREDEFINED: &str = "com.docker.swarm.predefined";
/// The option with a network's VXLAN id.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The option with a network's MTU.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// The MTU of a network that names none: what VXLAN leaves of an Ethernet's 1500.
pub const MTU: u32 = 1450;
/// The option that asks for encrypted traffic between nodes.
pub const ENCRYPTED: &str = "encrypted";
/// The MTU of an encrypted network that names none: what sealing leaves, over IPv6 too.
pub const ENCRYPTED_MTU: u32 = 1390;
/// The first VXLAN id that is given out.
pub const FIRST_VNI: u32 = 4096;
/// The most subnets of a kind of one network: a node has a bridge for each of IPv4, and there are
/// names for so many.
pub const MOST_SUBNETS: usize = 8;

/// On the engines' networks that realise ours: the network's id.
pub const LABEL: &str = "skep.network";
/// On the engines' networks that realise ours: the network's name.
pub const LABEL_NAME: &str = "skep.network.name";
/// On the engines' networks that realise ours: the network as lists show it, in JSON. Nodes that are
/// no managers know it from there.
pub const LABEL_SHOWN: &str = "skep.network.shown";

/// Networks of each engine's own that services may use, by their names there.
const LOCAL: [&str; 2] = ["bridge", "host"];

/// How the engine's networks that realise ours are called: one of these, and the network's id. The
/// second is for those on which ports are published.
pub const ENGINE_PREFIXES: [&str; 2] = ["skep-", "0skep-"];

/// What the engine's network is called that realises one of ours on a node. Engines before 28 take
/// the first name of all as the way out of a container: the network on which ports are published
/// must be that, for answers to go back the way that requests came.
pub fn engine_name(network: &Id, ingress: bool) -> String {
    let [prefix, first] = ENGINE_PREFIXES;
    let prefix = if ingress { first } else { prefix };
    format!("{prefix}{network}")
}

/// Between what the engine's network is called and the number of the subnet that it is for.
pub const BRANCH_MARK: char = '.';

/// What the engine's network is called that has the subnet of this number of one of ours: an engine's
/// bridges have one IPv4 subnet each.
pub fn branch_name(network: &Id, ingress: bool, branch: usize) -> String {
    let first = engine_name(network, ingress);
    match branch {
        0 => first,
        branch => format!("{first}{BRANCH_MARK}{branch}"),
    }
}

/// How bridges that are networks are called: this, the beginning of the network's id, and what tells
/// the node from others.
pub const DEVICE_PREFIX: &str = "skep";

/// What the bridge is called that is a subnet of a network on a node: nodes that share a network
/// namespace have one each, whose names differ in their last four characters. Names of devices have
/// 15 characters. Subnets are counted from 0; the node has its address in the one named first, and
/// the bridge is for the other.
pub fn bridge_name(network: &Id, (own, gateway): (usize, Ipv4Addr), subnet: usize) -> String {
    let [_, _, high, low] = gateway.octets();
    let last = match (own, subnet) {
        (0, 0) => format!("{high:02x}{low:02x}"),
        _ => beyond_hex(own, subnet, u16::from_be_bytes([high, low])),
    };
    format!("{DEVICE_PREFIX}{}{last}", beginning(network, 7))
}

/// Four characters for two numbers of subnets and a half of an address, the first of which is no
/// hexadecimal digit: so they are no bridge's of a network with a single subnet.
fn beyond_hex(own: usize, subnet: usize, half: u16) -> String {
    const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let digit = |at: usize| char::from(*DIGITS.get(at % 62).unwrap_or(&b'z'));
    let pair = own * MOST_SUBNETS + subnet;
    let all = pair * (1 << 16) + usize::from(half);
    let (first, rest) = (16 + all / 62_usize.pow(3), all % 62_usize.pow(3));
    let digits = [first, rest / 62 / 62, rest / 62, rest];
    digits.map(digit).iter().collect()
}

/// What the device is called that leads from the bridge to other nodes. Nodes that share a network
/// namespace share it.
pub fn vxlan_name(network: &Id) -> String {
    format!("skvx{}", beginning(network, 11))
}

fn beginning(network: &Id, length: usize) -> String {
    network.chars().take(length).collect()
}

/// The hardware address of whoever has this address: what engines made of it when they chose for
/// themselves, so that other nodes need not be told.
pub fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A key of an encrypted network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkKey {
    /// Names it among the network's; higher ones are newer.
    pub number: u32,
    /// The key: text with more than 256 bits of chance in it.
    pub secret: Secret,
    /// When it was made.
    pub made: Timestamp,
}

/// A network that each node's engine makes for itself, of a driver that leads to no other node as
/// far as the swarm knows. Its addresses are the engine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalDriver {
    /// The driver.
    pub name: String,
    /// The network of the node's own that says how to make it; without one, the engine chooses.
    pub config_from: Option<String>,
    /// Whether it has IPv6 too.
    pub ipv6: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Whether a network's driver, as it is named in a request, is one that every engine uses for
/// itself.
pub fn is_engines(driver: &str) -> bool {
    !matches!(driver, "" | OVERLAY)
}

impl NetworkObject {
    /// How nodes make it, if each does so for itself. As in the original, subnets and options that
    /// were asked for play no part: they are those of the network that configures it.
    pub fn local_driver(&self) -> Option<LocalDriver> {
        if self.is_predefined() || !is_engines(self.driver()) {
            return None;
        }
        let config_from = self.spec.config_from.as_ref();
        Some(LocalDriver {
            name: self.driver().to_owned(),
            config_from: config_from.map(|from| from.network.clone()),
            ipv6: self.spec.ipv6_enabled,
            labels: self.spec.labels.clone(),
        })
    }

    /// Whether its driver says of itself that it leads to other nodes, although the swarm does not
    /// know how.
    pub fn reaches_far(&self) -> bool {
        matches!(self.driver(), OVERLAY | "macvlan" | "ipvlan")
    }

    /// Its driver's name.
    pub fn driver(&self) -> &str {
        self.driver_state
            .as_ref()
            .map_or(OVERLAY, |driver| &driver.name)
    }

    /// Whether it stands for a network that every engine has of its own.
    pub fn is_predefined(&self) -> bool {
        self.spec.labels.contains_key(PREDEFINED)
    }

    /// Its IPv4 subnets; none for networks that are the engines' own.
    pub fn pools(&self) -> impl Iterator<Item = Pool> {
        let configs = self.ipam.iter().flat_map(ipv4_configs);
        configs.filter_map(|config| {
            Some(Pool {
                subnet: config.subnet.parse::<Cidr>().ok()?.subnet(),
                range: config.range.parse().ok(),
                gateway: config.gateway.parse().ok(),
            })
        })
    }

    /// Its first subnet; `None` for networks that are the engines' own.
    pub fn subnet(&self) -> Option<Cidr> {
        Some(self.pools().next()?.subnet)
    }

    /// Its IPv4 subnets in words.
    pub(crate) fn subnets_in_words(&self) -> String {
        let all = self.pools().map(|pool| pool.subnet.to_string());
        all.collect::<Vec<_>>().join(", ")
    }

    /// What its IPv4 subnets have of IPv6, in the same order; nothing without IPv6.
    pub fn sides(&self) -> Vec<Ipv6> {
        let ipv4: Vec<Cidr> = self.pools().map(|pool| pool.subnet).collect();
        let ipv6: Vec<Pool6> = self.configs6().filter_map(pool6).collect();
        // One without room has not been made.
        sides(&ipv4, &ipv6).unwrap_or_default()
    }

    /// Its IPv6 subnets.
    pub fn subnets6(&self) -> impl Iterator<Item = Cidr6> {
        let pools = self.configs6().filter_map(pool6);
        pools.map(|(subnet, _)| subnet.subnet())
    }

    /// The IPv6 addresses that are shown as its gateways, and that nobody gets.
    pub fn ipv6_gateways(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.configs6().filter_map(|it| it.gateway.parse().ok())
    }

    fn configs6(&self) -> impl Iterator<Item = &IpamConfig> {
        let ipam = self.ipam.iter().filter(|_| self.spec.ipv6_enabled);
        ipam.flat_map(ipv6_configs)
    }

    fn option(&self, name: &str) -> Option<&str> {
        let options = &self.driver_state.as_ref()?.options;
        options.get(name).map(String::as_str)
    }

    /// Its VXLAN id: the first of its own, since one does for all of its subnets.
    pub fn vni(&self) -> Option<u32> {
        self.vnis().next()
    }

    /// The VXLAN ids that are its own, as in the original one for each of its IPv4 subnets.
    pub fn vnis(&self) -> impl Iterator<Item = u32> {
        let list = self.option(VNI_OPTION).unwrap_or_default().split(',');
        list.filter_map(|vni| vni.trim().parse().ok())
    }

    /// Whether what it sends between nodes is encrypted. As in the original the option is enough,
    /// unless it says no.
    pub fn is_encrypted(&self) -> bool {
        let asked = self.option(ENCRYPTED);
        asked.is_some_and(|value| !matches!(value, "false" | "False" | "FALSE" | "f" | "F" | "0"))
    }

    /// The largest packet that its containers are to send, in bytes; `None` if nobody asked.
    pub fn mtu(&self) -> Option<u32> {
        self.option(MTU_OPTION).and_then(|mtu| mtu.parse().ok())
    }

    /// That where packets between nodes may have an Ethernet's 1500 bytes.
    pub fn usual_mtu(&self) -> u32 {
        match self.is_encrypted() {
            true => ENCRYPTED_MTU,
            false => MTU,
        }
    }
}

/// One of a network's IPv4 subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The subnet.
    pub subnet: Cidr,
    /// The part of it that addresses are given out of, if not all of it.
    pub range: Option<Cidr>,
    /// The address that is shown as its gateway, and that nobody gets.
    pub gateway: Option<Ipv4Addr>,
}

/// The IPv4 subnets among those of a network.
pub(crate) fn ipv4_configs(ipam: &IpamOptions) -> impl Iterator<Item = &IpamConfig> {
    let configs = ipam.configs.iter();
    configs.filter(|config| config.subnet.parse::<Cidr>().is_ok())
}

/// The IPv6 subnets among those of a network.
pub(crate) fn ipv6_configs(ipam: &IpamOptions) -> impl Iterator<Item = &IpamConfig> {
    let configs = ipam.configs.iter();
    configs.filter(|config| config.subnet.parse::<Cidr6>().is_ok())
}

/// An IPv6 subnet, and the part of it that addresses are to come from, as a network says it.
pub(crate) fn pool6(config: &IpamConfig) -> Option<Pool6> {
    Some((config.subnet.parse().ok()?, config.range.parse().ok()))
}

impl Node {
    /// Where other nodes send packets of networks to: what the node says, or else where it is
    /// reached for everything else.
    pub fn data_address(&self) -> Option<IpAddr> {
        let reached = || self.address().parse().ok();
        self.data_path.or_else(reached)
    }

    /// The address that a manager advertises, or else the one that the node's session comes from.
    /// Without a port.
    pub fn address(&self) -> &str {
        let advertised = self
            .manager
            .as_ref()
            .and_then(|it| it.addr.rsplit_once(':'));
        let host = advertised.map(|(host, _)| host.trim_matches(['[', ']']));
        host.unwrap_or(&self.status.addr)
    }
}

/// The networks that a swarm begins with: the one that ports are published on, with `subnet`, and
/// mirrors of those that every engine has.
pub fn first_networks(subnet: Option<Cidr>, ids: &mut dyn IdSource) -> Vec<NetworkObject> {
    let mut networks: Vec<NetworkObject> = subnet.map(|it| ingress(it, ids)).into_iter().collect();
    networks.extend(LOCAL.map(|name| NetworkObject {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            labels: BTreeMap::from([(PREDEFINED.to_owned(), "true".to_owned())]),
            driver_configuration: Some(driver(name, BTreeMap::new())),
            scope: "node".to_owned(),
            ..NetworkSpec::default()
        },
        driver_state: Some(driver(name, BTreeMap::new())),
        ipam: None,
        keys: Vec::new(),
    }));
    networks
}

fn ingress(subnet: Cidr, ids: &mut dyn IdSource) -> NetworkObject {
    let vni = BTreeMap::from([(VNI_OPTION.to_owned(), FIRST_VNI.to_string())]);
    NetworkObject {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: "ingress".to_owned(),
            driver_configuration: Some(Driver::default()),
            ingress: true,
            ipam_options: Some(IpamOptions::default()),
            scope: SCOPE.to_owned(),
            ..NetworkSpec::default()
        },
        driver_state: Some(driver(OVERLAY, vni)),
        ipam: Some(addressing([pool(subnet, "", None)])),
        keys: Vec::new(),
    }
}

/// Addressing by these subnets.
pub(crate) fn addressing(configs: impl IntoIterator<Item = IpamConfig>) -> IpamOptions {
    IpamOptions {
        driver: driver("default", BTreeMap::new()),
        configs: configs.into_iter().collect(),
    }
}

/// One subnet of a network. Without a gateway that is the subnet's first address.
pub(crate) fn pool(subnet: Cidr, range: &str, gateway: Option<Ipv4Addr>) -> IpamConfig {
    let first = Ipv4Addr::from(subnet.first().saturating_add(1));
    IpamConfig {
        subnet: subnet.subnet().to_string(),
        range: range.to_owned(),
        gateway: gateway.unwrap_or(first).to_string(),
    }
}

pub(crate) fn driver(name: &str, options: BTreeMap<String, String>) -> Driver {
    Driver {
        name: name.to_owned(),
        options,
    }
}
