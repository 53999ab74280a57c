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
use super::{missing, refused};
use crate::allocator::subnets::LAST_VNI;
use crate::cidr::Cidr;
use crate::ipv6::Cidr6;
use crate::network::{MTU_OPTION, OVERLAY, PREDEFINED, SCOPE, VNI_OPTION, is_engines};

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
    if spec.ingress && spec.ipv6_enabled {
        return Err(missing("IPv6 on the network that ports are published on"));
    }
    if let Some(ipam) = &spec.ipam_options {
        addressing(ipam, spec.ipv6_enabled)?;
    }
    driver.map_or(Ok(()), |driver| options(&driver.options, spec.ipv6_enabled))
}

fn options(options: &Labels, ipv6: bool) -> Result<(), Error> {
    let within = |option: &str, range: &std::ops::RangeInclusive<u32>| match options.get(option) {
        Some(text) if text.parse().is_ok_and(|number| range.contains(&number)) => Ok(()),
        Some(text) => Err(refused(format!(
            "invalid value {text:?} of option {option}"
        ))),
        None => Ok(()),
    };
    within(MTU_OPTION, &MTUS)?;
    let mtu = options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok());
    if ipv6 && mtu.is_some_and(|mtu: u32| mtu < LEAST_OF_IPV6) {
        return Err(refused(format!(
            "IPv6 needs an MTU of at least {LEAST_OF_IPV6} (option {MTU_OPTION})"
        )));
    }
    within(VNI_OPTION, &(1..=LAST_VNI))
}

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
    if of_ipv6 > 1 {
        return Err(missing("a second IPv6 subnet of a network of the swarm"));
    }
    if ipam.configs.len() > of_ipv6 + 1 {
        return Err(missing("a second subnet of a network of the swarm"));
    }
    Ok(())
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
mod tests {
    use skep_api::{Kind, decode};

    use super::*;

    fn refusal(body: &str) -> Option<(Kind, String)> {
        let mut asked: CreateRequest = decode(body.as_bytes()).unwrap();
        if asked.driver.is_empty() {
            asked.driver = OVERLAY.to_owned();
        }
        let checked = network_spec(asked).and_then(|spec| check_network(&spec));
        checked.err().map(|error| (error.kind, error.message))
    }

    #[test]
    fn what_is_wrong_is_refused_in_the_originals_words() {
        let rpc = |code: &str, text: &str| format!("rpc error: code = {code} desc = {text}");
        let ipam = |config: &str| format!(r#"{{"Name":"n","IPAM":{{"Config":[{config}]}}}}"#);
        let invalid = |text: &str| rpc("InvalidArgument", text);
        let table = [
            (
                r#"{"Name":" "}"#.to_owned(),
                "invalid name:  ".to_owned(),
            ),
            (
                r#"{"Name":"a.b"}"#.to_owned(),
                invalid("name must be valid as a DNS name component"),
            ),
            (
                r#"{"Name":"n","Ingress":true,"Attachable":true}"#.to_owned(),
                invalid("ingress network cannot be attachable"),
            ),
            (
                ipam(r#"{"Subnet":"x"}"#),
                "Invalid subnet x : invalid CIDR address: x".to_owned(),
            ),
            (
                ipam(r#"{"Subnet":"fd00::/129"}"#),
                "Invalid subnet fd00::/129 : invalid CIDR address: fd00::/129".to_owned(),
            ),
            (
                ipam(r#"{"Subnet":"10.1.0.0/24","IPRange":"x"}"#),
                invalid("ipam configuration: invalid range x"),
            ),
            (
                ipam(r#"{"Subnet":"10.1.0.0/24","IPRange":"10.2.0.0/25"}"#),
                invalid(
                    "ipam configuration: subnet 10.1.0.0/24 does not contain range 10.2.0.0/25",
                ),
            ),
            (
                ipam(r#"{"Subnet":"10.1.0.0/24","Gateway":"10.2.0.1"}"#),
                invalid("ipam configuration: subnet 10.1.0.0/24 does not contain gateway 10.2.0.1"),
            ),
            (
                r#"{"Name":"n","Labels":{"com.docker.swarm.predefined":""}}"#.to_owned(),
                rpc(
                    "PermissionDenied",
                    "label com.docker.swarm.predefined is for internally created predefined \
                     networks and cannot be applied by users",
                ),
            ),
            (
                r#"{"Name":"n","Driver":"overlay","Scope":"local"}"#.to_owned(),
                "cannot downgrade network scope for overlay networks".to_owned(),
            ),
            (
                r#"{"Name":"n","Driver":"macvlan","Ingress":true,"Attachable":true}"#.to_owned(),
                "Ingress network can only be global scope network".to_owned(),
            ),
            (
                r#"{"Name":"n","Driver":"odd","Scope":"swarm"}"#.to_owned(),
                "plugin \"odd\" not found".to_owned(),
            ),
            (
                r#"{"Name":"n","Driver":"null","Scope":"swarm"}"#.to_owned(),
                invalid("error during lookup of plugin null"),
            ),
            (
                r#"{"Name":"n","IPAM":{"Driver":"mine"}}"#.to_owned(),
                invalid("error during lookup of plugin mine"),
            ),
            (
                r#"{"Name":"n","ConfigFrom":{"Network":"c"},"IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]}}"#
                    .to_owned(),
                "user specified configurations are not supported if the network depends on a \
                 configuration network"
                    .to_owned(),
            ),
            (
                r#"{"Name":"n","EnableIPv4":false}"#.to_owned(),
                "IPv4 cannot be disabled in a Swarm scoped network".to_owned(),
            ),
        ];
        for (body, text) in table {
            assert_eq!(refusal(&body).map(|(_, text)| text), Some(text), "{body}");
        }
    }

    #[test]
    fn what_skep_cannot_do_is_refused_by_name() {
        let text = "IPv6 on the network that ports are published on is not supported by this version of skep";
        assert_eq!(
            refusal(r#"{"Name":"n","EnableIPv6":true,"Ingress":true}"#),
            Some((Kind::NotImplemented, text.to_owned()))
        );
    }

    #[test]
    fn drivers_of_engines_make_what_they_like() {
        for driver in ["bridge", "macvlan", "ipvlan", "host"] {
            let body =
                format!(r#"{{"Name":"n","Driver":"{driver}","Scope":"swarm","EnableIPv6":true}}"#);
            assert_eq!(refusal(&body), None, "{driver}");
        }
    }

    #[test]
    fn a_network_may_name_another_as_its_configuration() {
        let body = r#"{"Name":"n","IPAM":{"Driver":"default"},"ConfigFrom":{"Network":"c"}}"#;
        assert_eq!(refusal(body), None);
    }

    #[test]
    fn what_the_cli_sends_passes() {
        let body = r#"{"Name":"n","CheckDuplicate":true,"Driver":"overlay","Scope":"",
            "EnableIPv6":false,"IPAM":{"Driver":"default","Options":{},"Config":[]},
            "Internal":false,"Attachable":true,"Ingress":false,"ConfigOnly":false,
            "ConfigFrom":null,"Options":{},"Labels":{}}"#;
        assert_eq!(refusal(body), None);
    }
}
