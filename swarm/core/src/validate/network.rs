//! What is refused of a new network by looking at the request alone. Pure; whether a name or a
//! subnet is taken only the state knows.
//!
//! Source of the behaviour: moby `daemon/network.go` and `daemon/cluster/convert/network.go`,
//! swarmkit `manager/controlapi/network.go`.

use std::net::Ipv4Addr;

use skep_api::go::{Driver, Labels};
use skep_api::network::{CreateRequest, IpamConfig, IpamOptions, NetworkSpec};
use skep_api::{Code, Error};

use super::manager::name;
use super::refused;
use crate::allocator::subnets::LAST_VNI;
use crate::cidr::Cidr;
use crate::ipv6::Cidr6;
use crate::network::{
    MOST_SUBNETS, MTU_OPTION, OVERLAY, PREDEFINED, SCOPE, VNI_OPTION, is_engines,
};

/// The drivers that every engine has. Plugins are each engine's own, and none is known to the swarm.
const DRIVERS: [&str; 5] = [OVERLAY, BRIDGE, "macvlan", "ipvlan", "host"];
/// One that engines have for themselves alone.
const NULL: &str = "null";
/// The driver that engines take where none is named.
const BRIDGE: &str = "bridge";
/// The smallest MTU of IPv4, and the largest that the kernel takes.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;

/// The smallest MTU of IPv6.
const LEAST_OF_IPV6: u32 = 1280;

/// A request for a network of the swarm as it is kept.
///
/// # Errors
/// dockerd's texts for what no swarm-scoped network can be.
pub fn network_spec(asked: CreateRequest) -> Result<NetworkSpec, Error> {
    if asked.enable_ipv4 == Some(false) {
        return Err(Error::invalid(
            "IPv4 cannot be disabled in a Swarm scoped network",
        ));
    }
    if let Some(ipam) = &asked.ipam {
        ipam.config
            .iter()
            .try_for_each(|pool| legible(&pool.subnet))?;
    }
    if asked.name.trim().is_empty() {
        return Err(Error::system(format!("invalid name: {}", asked.name)));
    }
    let driver = match asked.driver.as_str() {
        "" => BRIDGE,
        driver => driver,
    };
    if driver == OVERLAY && !matches!(asked.scope.as_str(), "" | SCOPE | "global") {
        return Err(Error::forbidden(
            "cannot downgrade network scope for overlay networks",
        ));
    }
    if asked.ingress && driver != OVERLAY {
        let text = "Ingress network can only be global scope network";
        return Err(Error::forbidden(text));
    }
    if driver == NULL {
        return Err(refused(format!("error during lookup of plugin {driver}")));
    }
    if !DRIVERS.contains(&driver) {
        return Err(Error::not_found(format!("plugin {driver:?} not found")));
    }
    let config_from = asked.config_from.clone();
    let config_from = config_from.filter(|from| !from.network.is_empty());
    if config_from.is_some() && configures(&asked) {
        return Err(Error::forbidden(
            "user specified configurations are not supported if the network depends on a \
             configuration network",
        ));
    }
    let driver = driver.to_owned();
    let ipam_options = asked.ipam.map(|ipam| IpamOptions {
        driver: Driver {
            name: ipam.driver,
            options: ipam.options.unwrap_or_default(),
        },
        // Auxiliary addresses stay behind, as in the original.
        configs: ipam
            .config
            .into_iter()
            .map(|pool| IpamConfig {
                subnet: pool.subnet,
                range: pool.ip_range,
                gateway: pool.gateway,
            })
            .collect(),
    });
    Ok(NetworkSpec {
        name: asked.name,
        labels: asked.labels,
        driver_configuration: Some(Driver {
            name: driver,
            options: asked.options,
        }),
        ipv6_enabled: asked.enable_ipv6.unwrap_or_default(),
        internal: asked.internal,
        attachable: asked.attachable,
        ingress: asked.ingress,
        ipam_options,
        config_from,
        scope: SCOPE.to_owned(),
    })
}

/// Refuses what is no subnet, as the daemon does before anybody else looks at it: with 500.
fn legible(subnet: &str) -> Result<(), Error> {
    match subnet.parse::<Cidr>() {
        Err(error) if subnet.parse::<Cidr6>().is_err() => {
            Err(Error::system(format!("Invalid subnet {subnet} : {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether a request says itself what the network that it names as its configuration is to say.
fn configures(asked: &CreateRequest) -> bool {
    let ipam = asked.ipam.as_ref().is_some_and(|ipam| {
        !matches!(ipam.driver.as_str(), "" | "default")
            || !ipam.config.is_empty()
            || ipam.options.as_ref().is_some_and(|it| !it.is_empty())
    });
    let labels = !asked.labels.is_empty() || !asked.options.is_empty();
    ipam || labels || asked.enable_ipv6.unwrap_or_default()
}

/// Refuses a network's spec that no state could make good.
///
/// # Errors
/// swarmkit's texts; 501 for what skep cannot do yet.
pub fn check_network(spec: &NetworkSpec) -> Result<(), Error> {
    if spec.ingress && spec.attachable {
        return Err(refused("ingress network cannot be attachable"));
    }
    name(&spec.name)?;
    if spec.labels.contains_key(PREDEFINED) {
        let text = "is for internally created predefined networks and cannot be applied by users";
        return Err(Error::rpc(
            Code::PermissionDenied,
            format!("label {PREDEFINED} {text}"),
        ));
    }
    let driver = spec.driver_configuration.as_ref();
    let driver_name = driver.map_or("", |driver| &driver.name);
    let is_local = is_engines(driver_name);
    if is_local && spec.ingress {
        let text = "only overlay driver is currently supported for ingress network";
        return Err(Error::rpc(Code::Unimplemented, text));
    }
    if is_local {
        // Nothing that it says about addresses is heeded; its configuration is each node's.
        return Ok(());
    }
    if let Some(ipam) = &spec.ipam_options {
        addressing(ipam, spec.ipv6_enabled)?;
    }
    driver.map_or(Ok(()), |driver| options(&driver.options, spec.ipv6_enabled))
}

fn options(options: &Labels, ipv6: bool) -> Result<(), Error> {
    let is_in = |text: &str, range: &std::ops::RangeInclusive<u32>| {
        text.parse().is_ok_and(|number| range.contains(&number))
    };
    let check = |option: &str, is_valid: &dyn Fn(&str) -> bool| match options.get(option) {
        Some(text) if !is_valid(text) => Err(refused(format!(
            "invalid value {text:?} of option {option}"
        ))),
        _ => Ok(()),
    };
    check(MTU_OPTION, &|text| is_in(text, &MTUS))?;
    let mtu = options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok());
    if ipv6 && mtu.is_some_and(|mtu: u32| mtu < LEAST_OF_IPV6) {
        return Err(refused(format!(
            "IPv6 needs an MTU of at least {LEAST_OF_IPV6} (option {MTU_OPTION})"
        )));
    }
    // One for each subnet; those that are missing are chosen.
    check(VNI_OPTION, &|list| {
        list.split(',').all(|vni| is_in(vni, &(1..=LAST_VNI)))
    })
}

/// Refuses more subnets of a kind than a network can have.
fn few(subnets: usize, kind: &str) -> Result<(), Error> {
    if subnets > MOST_SUBNETS {
        let text = format!("a network has at most {MOST_SUBNETS} {kind} subnets");
        return Err(refused(format!("ipam configuration: {text}")));
    }
    Ok(())
}

/// Checks the subnets.
fn addressing(ipam: &IpamOptions, ipv6: bool) -> Result<(), Error> {
    let driver = ipam.driver.name.as_str();
    if !matches!(driver, "" | "default") {
        // Plugins are an engine's, and none of them could give out addresses for all nodes.
        return Err(refused(format!("error during lookup of plugin {driver}")));
    }
    let mut of_ipv6 = 0;
    for config in &ipam.configs {
        match config.subnet.parse() {
            Ok(subnet) => {
                super::network6::check_pool(config, subnet, ipv6)?;
                of_ipv6 += 1;
            }
            Err(_) => check_pool(config)?,
        }
    }
    few(ipam.configs.len() - of_ipv6, "IPv4")?;
    few(of_ipv6, "IPv6")
}

fn check_pool(config: &IpamConfig) -> Result<(), Error> {
    let (subnet, range, gateway) = (&config.subnet, &config.range, &config.gateway);
    let bad = |text: String| Err(refused(format!("ipam configuration: {text}")));
    let Ok(inside) = subnet.parse::<Cidr>() else {
        return bad(format!("invalid subnet {subnet}"));
    };
    if !range.is_empty() {
        let Ok(part) = range.parse::<Cidr>() else {
            return bad(format!("invalid range {range}"));
        };
        if !inside.contains(part.address) {
            return bad(format!("subnet {subnet} does not contain range {range}"));
        }
    }
    if !gateway.is_empty() {
        let Ok(address) = gateway.parse::<Ipv4Addr>() else {
            return bad(format!("invalid gateway {gateway}"));
        };
        if !inside.contains(address) {
            return bad(format!(
                "subnet {subnet} does not contain gateway {gateway}"
            ));
        }
    }
    if inside.bits < 8 || inside.bits > 29 {
        // Not the original's: it would make a network in which nothing fits, or fill its memory.
        return bad(format!(
            "subnet {subnet} must have a prefix of 8 to 29 bits"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
