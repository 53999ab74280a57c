//! Networks of the swarm: create and remove. A network has its subnet and its VXLAN id from the
//! first, so that what cannot be had is refused to whoever asks for it. Never touches a task.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/controlapi/network.go`. There the
//! allocator comes later, and a network without a subnet stays one without a word.

use std::net::Ipv6Addr;

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
use crate::ipv6::{Cidr6, Ipv6};
use crate::network::{
    OVERLAY, VNI_OPTION, addressing, driver, ipv4_config, ipv6_config, is_engines,
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
    let asked = spec.ipam_options.as_ref().and_then(ipv4_config);
    let subnet = subnet(view, asked.map(|config| config.subnet.as_str()))?;
    let gateway = asked.and_then(|config| config.gateway.parse().ok());
    let range = asked.map_or("", |config| &config.range);
    let mut options = spec
        .driver_configuration
        .clone()
        .unwrap_or_default()
        .options;
    let vni = vni(view, subnet, options.get(VNI_OPTION))?;
    options.insert(VNI_OPTION.to_owned(), vni.to_string());
    let mut ipam = addressing(subnet, range, gateway);
    if spec.ipv6_enabled {
        let asked = spec.ipam_options.as_ref().and_then(ipv6_config);
        ipam.configs.push(ipv6(view, subnet, vni, asked)?);
    }
    Ok((driver(OVERLAY, options), ipam))
}

/// The subnet that was asked for, or else one out of the pools.
fn subnet(view: &State, asked: Option<&str>) -> Result<Cidr, Error> {
    let mut taken = subnets::taken(view);
    let Some(asked) = asked else {
        taken.extend(subnets::remains(view));
        // What nodes have themselves is avoided as long as there is anything else.
        let wider = [taken.clone(), subnets::of_nodes(view)].concat();
        let choose = |taken| view.cluster().and_then(|it| subnets::choose(it, taken));
        let chosen = choose(wider).or_else(|| choose(taken));
        let text = "could not find an available, non-overlapping IPv4 address pool among the \
                    defaults to assign to the network";
        return chosen.ok_or_else(|| Error::rpc(Code::FailedPrecondition, text));
    };
    let asked: Cidr = asked.parse().map_err(refused)?;
    if taken.iter().any(|other| other.overlaps(asked)) {
        return Err(Error::rpc(Code::FailedPrecondition, OVERLAPS));
    }
    Ok(asked.subnet())
}

/// The IPv6 subnet that was asked for, or else one of the swarm's own.
fn ipv6(
    view: &State,
    ipv4: Cidr,
    vni: u32,
    asked: Option<&IpamConfig>,
) -> Result<IpamConfig, Error> {
    let taken = subnets6::taken(view);
    let chosen = match asked {
        Some(config) => config.subnet.parse::<Cidr6>().map_err(refused)?.subnet(),
        None => {
            // What nodes have themselves is avoided as long as there is anything else.
            let wider = [taken.clone(), subnets6::of_nodes(view)].concat();
            let choose = |taken: &[Cidr6]| subnets6::choose(&view.cluster()?.id, vni, taken);
            let chosen = choose(&wider).or_else(|| choose(&taken));
            let text = "could not find an available, non-overlapping IPv6 address pool among the \
                        defaults to assign to the network";
            chosen.ok_or_else(|| Error::rpc(Code::FailedPrecondition, text))?
        }
    };
    if taken.iter().any(|other| other.overlaps(chosen)) {
        return Err(Error::rpc(Code::FailedPrecondition, OVERLAPS));
    }
    let range = asked.map_or("", |config| &config.range);
    if Ipv6::new(ipv4, chosen, range.parse().ok()).is_none() {
        let part = match range {
            "" => format!("subnet {chosen}"),
            range => format!("range {range}"),
        };
        let text = format!("{part} has less room than subnet {ipv4}");
        return Err(refused(format!("ipam configuration: {text}")));
    }
    let gateway = asked.map(|config| config.gateway.clone());
    let gateway = gateway.filter(|gateway| !gateway.is_empty());
    Ok(IpamConfig {
        subnet: chosen.to_string(),
        range: range.to_owned(),
        gateway: gateway.unwrap_or_else(|| {
            let first = Ipv6Addr::from_bits(chosen.first().saturating_add(1));
            first.to_string()
        }),
    })
}

fn vni(view: &State, subnet: Cidr, asked: Option<&String>) -> Result<u32, Error> {
    let Some(asked) = asked.and_then(|text| text.parse::<u32>().ok()) else {
        let none = || Error::rpc(Code::ResourceExhausted, "no VXLAN id is left");
        return subnets::next_vni(view, subnet).ok_or_else(none);
    };
    match view.networks().iter().find(|it| it.vni() == Some(asked)) {
        None => Ok(asked),
        Some(other) => {
            let text = format!("VXLAN id {asked} is that of network {}", other.spec.name);
            Err(Error::rpc(Code::FailedPrecondition, text))
        }
    }
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
