//! Networks of the swarm: create and remove. A network has its subnet and its VXLAN id from the
//! first, so that what cannot be had is refused to whoever asks for it. Never touches a task.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/controlapi/network.go`. There the
//! allocator comes later, and a network without a subnet stays one without a word.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use skep_api::go::Driver;
use skep_api::network::{IpamConfig, IpamOptions, NetworkSpec};
use skep_api::service::ServiceSpec;
use skep_api::task::TaskState;
use skep_api::{Code, Error};

use super::{Outcome, not_found};
use crate::allocator::{subnets, subnets6};
use crate::cidr::Cidr;
use crate::command::Reply;
use crate::id::{Id, IdSource};
use crate::ipv6::{Cidr6, Pool6, sides};
use crate::network::{
    OVERLAY, VNI_OPTION, addressing, driver, ipv4_configs, ipv6_configs, is_engines, pool, pool6,
};
use crate::object::{Kind, Meta, NetworkObject};
use crate::ports::publishes;
use crate::store::{Author, Change, State};
use crate::validate::{check_network, refused};

/// dockerd's word for a subnet that another network has a part of.
const OVERLAPS: &str = "invalid pool request: Pool overlaps with other one on this address space";

pub(super) fn create(
    view: &State,
    spec: &NetworkSpec,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    check_network(spec)?;
    let exists = |text: String| Error::rpc(Code::AlreadyExists, text);
    if spec.ingress
        && let Some(other) = view.networks().iter().find(|it| it.spec.ingress)
    {
        let text = format!("ingress network ({}) is already present", other.id);
        return Err(exists(text));
    }
    if view.network_named(&spec.name).is_some() {
        return Err(exists(format!("network {} already exists", spec.name)));
    }
    let (driver_state, ipam) = match local(spec) {
        // The nodes' engines choose.
        Some(name) => (driver(name, Default::default()), IpamOptions::default()),
        None => chosen(view, spec)?,
    };
    let network = NetworkObject {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: spec.clone(),
        driver_state: Some(driver_state),
        ipam: Some(ipam),
        keys: Vec::new(),
    };
    let reply = Reply::Created(network.id.clone());
    Ok((vec![Change::Create(network.into())], Author::Control, reply))
}

/// The driver, if it is one that every engine uses for itself.
fn local(spec: &NetworkSpec) -> Option<&str> {
    let name = spec.driver_configuration.as_ref()?.name.as_str();
    is_engines(name).then_some(name)
}

/// What an overlay is given from the first.
fn chosen(view: &State, spec: &NetworkSpec) -> Result<(Driver, IpamOptions), Error> {
    let pools = ipv4(view, spec.ipam_options.as_ref())?;
    let subnets = pools.iter().filter_map(|pool| pool.subnet.parse().ok());
    let subnets: Vec<Cidr> = subnets.collect();
    let mut options = spec
        .driver_configuration
        .clone()
        .unwrap_or_default()
        .options;
    let vnis = vnis(view, &subnets, options.get(VNI_OPTION))?;
    let list: Vec<String> = vnis.iter().map(u32::to_string).collect();
    options.insert(VNI_OPTION.to_owned(), list.join(","));
    let mut ipam = addressing(pools);
    if let (true, Some(vni)) = (spec.ipv6_enabled, vnis.first()) {
        let pools = ipv6(view, *vni, spec.ipam_options.as_ref())?;
        has_room(&subnets, &pools)?;
        ipam.configs.extend(pools);
    }
    Ok((driver(OVERLAY, options), ipam))
}

/// The subnets that were asked for, or else one out of the pools.
fn ipv4(view: &State, asked: Option<&IpamOptions>) -> Result<Vec<IpamConfig>, Error> {
    let mut taken = subnets::taken(view);
    let mut pools = Vec::new();
    for config in asked.into_iter().flat_map(ipv4_configs) {
        let subnet: Cidr = config.subnet.parse().map_err(refused)?;
        if taken.iter().any(|other| other.overlaps(subnet)) {
            return Err(Error::rpc(Code::FailedPrecondition, OVERLAPS));
        }
        has_no_host(view, &config.subnet, |it| match it {
            IpAddr::V4(host) => subnet.contains(host),
            IpAddr::V6(_) => false,
        })?;
        taken.push(subnet.subnet());
        pools.push(pool(subnet, &config.range, config.gateway.parse().ok()));
    }
    if pools.is_empty() {
        pools.push(pool(any_subnet(view, taken)?, "", None));
    }
    Ok(pools)
}

/// Refuses a subnet with the address of a node's host in it: hosts have their networks themselves, not
/// in a namespace as with the original, and would not find that node any more.
fn has_no_host(view: &State, subnet: &str, has: impl Fn(IpAddr) -> bool) -> Result<(), Error> {
    let Some((host, name)) = subnets::hosts(view).find(|(host, _)| has(*host)) else {
        return Ok(());
    };
    let text = format!(
        "subnet {subnet} has the address of a node in it ({name}, {host}): choose another one"
    );
    Err(Error::rpc(Code::FailedPrecondition, text))
}

/// A subnet that nobody has asked for.
fn any_subnet(view: &State, mut taken: Vec<Cidr>) -> Result<Cidr, Error> {
    taken.extend(subnets::remains(view));
    taken.extend(subnets::hosts(view).filter_map(|(host, _)| match host {
        IpAddr::V4(address) => Some(Cidr { address, bits: 32 }),
        IpAddr::V6(_) => None,
    }));
    // What nodes have themselves is avoided as long as there is anything else.
    let wider = [taken.clone(), subnets::of_nodes(view)].concat();
    let choose = |taken| view.cluster().and_then(|it| subnets::choose(it, taken));
    let chosen = choose(wider).or_else(|| choose(taken));
    let text = "could not find an available, non-overlapping IPv4 address pool among the \
                defaults to assign to the network";
    chosen.ok_or_else(|| Error::rpc(Code::FailedPrecondition, text))
}

/// The IPv6 subnets that were asked for, or else one of the swarm's own.
fn ipv6(view: &State, vni: u32, asked: Option<&IpamOptions>) -> Result<Vec<IpamConfig>, Error> {
    let mut taken = subnets6::taken(view);
    let mut pools = Vec::new();
    for config in asked.into_iter().flat_map(ipv6_configs) {
        let subnet: Cidr6 = config.subnet.parse().map_err(refused)?;
        if taken.iter().any(|other| other.overlaps(subnet)) {
            return Err(Error::rpc(Code::FailedPrecondition, OVERLAPS));
        }
        has_no_host(view, &config.subnet, |it| match it {
            IpAddr::V6(host) => subnet.contains(host),
            IpAddr::V4(_) => false,
        })?;
        taken.push(subnet.subnet());
        pools.push(with_gateway(subnet, &config.range, &config.gateway));
    }
    if pools.is_empty() {
        let subnet = any_subnet6(view, vni, &taken)?;
        pools.push(with_gateway(subnet, "", ""));
    }
    Ok(pools)
}

/// An IPv6 subnet that nobody has asked for.
fn any_subnet6(view: &State, vni: u32, taken: &[Cidr6]) -> Result<Cidr6, Error> {
    // What nodes have themselves is avoided as long as there is anything else.
    let wider = [taken, &subnets6::of_nodes(view)].concat();
    let choose = |taken: &[Cidr6]| subnets6::choose(&view.cluster()?.id, vni, taken);
    let chosen = choose(&wider).or_else(|| choose(taken));
    let text = "could not find an available, non-overlapping IPv6 address pool among the \
                defaults to assign to the network";
    chosen.ok_or_else(|| Error::rpc(Code::FailedPrecondition, text))
}

/// One IPv6 subnet of a network. Without a gateway that is the subnet's first address.
fn with_gateway(subnet: Cidr6, range: &str, gateway: &str) -> IpamConfig {
    let first = Ipv6Addr::from_bits(subnet.first().saturating_add(1));
    IpamConfig {
        subnet: subnet.subnet().to_string(),
        range: range.to_owned(),
        gateway: match gateway {
            "" => first.to_string(),
            gateway => gateway.to_owned(),
        },
    }
}

/// Refuses IPv6 subnets that have less room than the IPv4 subnets together.
fn has_room(ipv4: &[Cidr], pools: &[IpamConfig]) -> Result<(), Error> {
    let ipv6: Vec<Pool6> = pools.iter().filter_map(pool6).collect();
    let Err(without) = sides(ipv4, &ipv6) else {
        return Ok(());
    };
    let text = match (ipv4, pools) {
        ([_], [only]) if only.range.is_empty() => {
            format!("subnet {} has less room than subnet {without}", only.subnet)
        }
        ([_], [only]) => format!("range {} has less room than subnet {without}", only.range),
        _ => format!("no IPv6 subnet has room left for subnet {without}"),
    };
    Err(refused(format!("ipam configuration: {text}")))
}

/// As in the original, an id for every subnet: those that were asked for, as far as they go, and
/// others. One would do.
fn vnis(view: &State, subnets: &[Cidr], asked: Option<&String>) -> Result<Vec<u32>, Error> {
    let networks = view.networks().iter();
    let mut taken: BTreeSet<u32> = networks.flat_map(|it| it.vnis()).collect();
    let refuse = |text: String| Error::rpc(Code::FailedPrecondition, text);
    let asked = asked.iter().flat_map(|list| list.split(','));
    let asked = asked.filter_map(|vni| vni.parse().ok());
    let mut vnis: Vec<u32> = asked.take(subnets.len()).collect();
    for vni in &vnis {
        let mut networks = view.networks().iter();
        if let Some(other) = networks.find(|it| it.vnis().any(|it| it == *vni)) {
            let name = &other.spec.name;
            return Err(refuse(format!("VXLAN id {vni} is that of network {name}")));
        }
        if !taken.insert(*vni) {
            return Err(refuse(format!("VXLAN id {vni} is asked for twice")));
        }
    }
    for subnet in subnets.iter().skip(vnis.len()) {
        let none = || Error::rpc(Code::ResourceExhausted, "no VXLAN id is left");
        let vni = subnets::next_vni(view, *subnet, &taken).ok_or_else(none)?;
        taken.insert(vni);
        vnis.push(vni);
    }
    Ok(vnis)
}

pub(super) fn remove(view: &State, id: &Id) -> Result<Outcome, Error> {
    let found = view.networks().get(id);
    let network = found.ok_or_else(|| not_found("network", id))?;
    let refuse = |text: String| Err(Error::rpc(Code::FailedPrecondition, text));
    if network.is_predefined() {
        let name = &network.spec.name;
        return refuse(format!(
            "network {id} ({name}) is a swarm predefined network and cannot be removed"
        ));
    }
    if network.spec.ingress {
        let mut services = view.services().iter();
        if let Some(service) = services.find(|service| publishes(&service.spec)) {
            return refuse(format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            ));
        }
    }
    let mut services = view.services().iter();
    if let Some(service) = services.find(|service| uses(&service.spec, id)) {
        return refuse(format!("network {id} is in use by service {}", service.id));
    }
    let mut tasks = view.tasks_of_network(id);
    let live = tasks.find(|task| {
        task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
    });
    if let Some(task) = live {
        return refuse(format!("network {id} is in use by task {}", task.id));
    }
    let change = Change::Remove(Kind::Network, id.clone(), network.meta.version);
    Ok((vec![change], Author::Control, Reply::Done))
}

fn uses(spec: &ServiceSpec, network: &Id) -> bool {
    let networks = &spec.task_template.networks;
    networks.iter().any(|used| *used.target == **network)
}

/// Refuses a service on networks that it cannot be on.
pub(super) fn usable(view: &State, spec: &ServiceSpec) -> Result<(), Error> {
    for used in &spec.task_template.networks {
        match view.networks().get(&used.target) {
            // Removed since the name was looked up.
            None => return Err(not_found("network", &used.target)),
            Some(network) if network.spec.ingress => {
                return Err(refused(format!(
                    "Service cannot be explicitly attached to the ingress network {:?}",
                    network.spec.name
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
