//! What the engine says of itself, as the node's description and as networks to keep away from.
//! Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bollard::models::{Network, PluginsInfo, SystemInfo};
use skep_api::node::{EngineDescription, NodeDescription, PluginDescription};
use skep_api::task::{
    DiscreteGenericResource, GenericResource, NamedGenericResource, Platform, Resources,
};

/// `GET /info` as swarm mode shows it in `docker node inspect`.
pub(super) fn description(info: SystemInfo, generic: &[GenericResource]) -> NodeDescription {
    // The last of several labels with one key counts; what has no value is no label.
    let labels = info.labels.unwrap_or_default();
    let labels = labels.iter().filter_map(|label| label.split_once('='));
    NodeDescription {
        hostname: info.name.unwrap_or_default(),
        platform: Platform {
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
        },
        resources: Resources {
            nano_cpus: info.ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
            memory_bytes: info.mem_total.unwrap_or_default(),
            generic_resources: generic.to_vec(),
        },
        engine: EngineDescription {
            engine_version: info.server_version.unwrap_or_default(),
            labels: labels.map(|(k, v)| (k.into(), v.into())).collect(),
            plugins: plugins(info.plugins.unwrap_or_default()),
        },
        ..NodeDescription::default()
    }
}

/// Sorted by kind and name, each once. `overlay` is there whether or not the engine lists it: it
/// is what a swarm's networks are made with.
fn plugins(info: PluginsInfo) -> Vec<PluginDescription> {
    let kinds = [
        ("Volume", info.volume),
        ("Network", info.network),
        ("Network", Some(vec!["overlay".to_owned()])),
        ("Authorization", info.authorization),
        ("Log", info.log),
    ];
    let mut plugins = BTreeSet::new();
    for (kind, names) in kinds {
        for name in names.unwrap_or_default() {
            let kind = kind.to_owned();
            plugins.insert(PluginDescription { kind, name });
        }
    }
    plugins.into_iter().collect()
}

/// Reads `NAME=VALUE` each, in their order: a number is an amount, anything else is the name of one
/// piece.
pub(super) fn generic_resources(flags: &[String]) -> Vec<GenericResource> {
    let parse = |flag: &String| {
        let parsed = flag
            .split_once('=')
            .and_then(|(kind, value)| generic_resource(kind.trim(), value.trim()));
        if parsed.is_none() {
            tracing::warn!(
                "generic resource {flag:?} is not NAME=VALUE; the node does not offer it"
            );
        }
        parsed
    };
    flags.iter().filter_map(parse).collect()
}

fn generic_resource(kind: &str, value: &str) -> Option<GenericResource> {
    if kind.is_empty() || value.is_empty() {
        return None;
    }
    let (kind, value) = (kind.to_owned(), value.to_owned());
    Some(match value.parse::<i64>() {
        Ok(amount) if amount < 0 => return None,
        Ok(value) => GenericResource {
            discrete_resource_spec: Some(DiscreteGenericResource { kind, value }),
            ..GenericResource::default()
        },
        Err(_) => GenericResource {
            named_resource_spec: Some(NamedGenericResource { kind, value }),
            ..GenericResource::default()
        },
    })
}

/// Subnets of bridge networks. Those of macvlan and ipvlan networks are the LAN's own: addresses
/// in them may be this host's.
pub(super) fn subnets(networks: Vec<Network>) -> Vec<(IpAddr, u8)> {
    let bridges = networks
        .into_iter()
        .filter(|network| network.driver.as_deref() == Some("bridge"));
    let configs = bridges.flat_map(|bridge| bridge.ipam.and_then(|ipam| ipam.config));
    configs
        .flatten()
        .filter_map(|config| subnet(&config.subnet?))
        .collect()
}

fn subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const LOG: [&str; 4] = ["syslog", "json-file", "awslogs", "awslogs"];

    #[test]
    fn info_becomes_what_a_real_engine_shows() {
        let info = json!({
            "Name": "n1", "NCPU": 2, "MemTotal": 25276510208_i64, "Architecture": "x86_64",
            "OSType": "linux", "ServerVersion": "20.10.24+dfsg1",
            "Labels": ["disk=hdd", "bare", "disk=ssd", "a=b=c"],
            "Plugins": {
                "Volume": ["local"], "Network": ["null", "bridge"], "Authorization": null, "Log": LOG,
            },
        });
        let flags = ["gpu=UUID1", "ssd=3"].map(str::to_owned);
        let node = description(
            serde_json::from_value(info).unwrap(),
            &generic_resources(&flags),
        );
        let plugin = |kind: &str, name: &str| json!({"Type": kind, "Name": name});
        let expected = json!({
            "Hostname": "n1",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {
                "NanoCPUs": 2_000_000_000, "MemoryBytes": 25276510208_i64,
                "GenericResources": [
                    {"NamedResourceSpec": {"Kind": "gpu", "Value": "UUID1"}},
                    {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
                ],
            },
            "Engine": {
                "EngineVersion": "20.10.24+dfsg1",
                "Labels": {"a": "b=c", "disk": "ssd"},
                "Plugins": [
                    plugin("Log", "awslogs"), plugin("Log", "json-file"), plugin("Log", "syslog"),
                    plugin("Network", "bridge"), plugin("Network", "null"),
                    plugin("Network", "overlay"), plugin("Volume", "local"),
                ],
            },
        });
        let mut node = serde_json::to_value(&node).unwrap();
        node.as_object_mut().unwrap().remove("TLSInfo");
        assert_eq!(node, expected);
    }

    #[test]
    fn an_engine_that_says_little_is_described_all_the_same() {
        let node = description(SystemInfo::default(), &[]);
        assert_eq!(node.resources, Resources::default());
        assert_eq!(node.engine.plugins.len(), 1);
    }

    #[test]
    fn malformed_generic_resources_are_left_out() {
        let flags = ["gpu", "=1", "gpu=", "ssd=-1", " ssd = 2 "].map(str::to_owned);
        let parsed: Vec<Value> = generic_resources(&flags)
            .iter()
            .map(|resource| serde_json::to_value(resource).unwrap())
            .collect();
        assert_eq!(
            parsed,
            [json!({"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}})]
        );
    }

    #[test]
    fn only_bridges_have_subnets_of_their_own() {
        let network = |driver: &str, subnets: &[&str]| {
            let config: Vec<Value> = subnets.iter().map(|s| json!({"Subnet": s})).collect();
            serde_json::from_value(json!({"Driver": driver, "IPAM": {"Config": config}})).unwrap()
        };
        let networks = vec![
            network("bridge", &["172.17.0.0/16", "fd00::/64"]),
            network("macvlan", &["192.168.1.0/24"]),
            network("bridge", &["", "nonsense/1"]),
            serde_json::from_value(json!({"Driver": "bridge", "IPAM": {"Config": null}})).unwrap(),
            network("host", &[]),
        ];
        let expected = [
            ("172.17.0.0".parse().unwrap(), 16),
            ("fd00::".parse().unwrap(), 64),
        ];
        assert_eq!(subnets(networks), expected);
    }
}
