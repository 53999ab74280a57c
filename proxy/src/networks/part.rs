//! A network of the swarm on a node that has a part in it: the swarm's description with what the node's
//! engine knows, as the original shows an overlay of which there are tasks. Pure: text in, text out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use skep_core::network::{LABEL_SHOWN, is_engines, mac};
use skep_core::wire::{PeerInfo, ServiceInfo};

use crate::rewrite::Object;

/// What only nodes that have a part in a network know.
const OF_PARTS: [&str; 2] = ["Peers", "Services"];

/// What is to be known of the engine's network that realises one of ours.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Engines {
    id: String,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    config: Option<Vec<Pool>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pool {
    subnet: String,
    #[serde(default)]
    gateway: String,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "Labels")]
    labels: BTreeMap<String, String>,
}

/// The swarm's description of a network, which the engine's network has as a label.
pub(super) fn described(engines: &str) -> Option<String> {
    let mut labels = serde_json::from_str::<Labels>(engines).ok()?.labels;
    let shown = labels.remove(LABEL_SHOWN)?;
    Object::parse(shown.as_bytes()).is_ok().then_some(shown)
}

/// A network in the list of a node that has a part in it.
pub(super) fn listed(engines: &str) -> Option<String> {
    let network = described(engines)?;
    with(&network, engines, "{}")
}

/// A network on a node that has a part in it.
pub(super) fn shown(network: &str, engines: &str) -> Option<String> {
    let object = Object::parse(network.as_bytes()).ok()?;
    let containers = containers(&object, engines)?;
    with(network, engines, &containers)
}

/// A network's description with the nodes that have a part in it, where any are known.
pub(super) fn with_peers(network: &str, peers: &[PeerInfo]) -> Option<String> {
    let object = Object::parse(network.as_bytes()).ok()?;
    let peers = serde_json::to_string(peers)
        .ok()
        .filter(|_| !peers.is_empty());
    let peers: Vec<(&str, &str)> = peers.iter().map(|it| ("Peers", it.as_str())).collect();
    Some(object.with(&peers).trim_end().to_owned())
}

/// A network's description with the services on it.
pub(super) fn with_services(
    network: &str,
    services: &BTreeMap<String, ServiceInfo>,
) -> Option<String> {
    let object = Object::parse(network.as_bytes()).ok()?;
    let services = serde_json::to_string(services).ok()?;
    Some(
        object
            .with(&[("Services", &services)])
            .trim_end()
            .to_owned(),
    )
}

/// A network's IPv4 subnets, by what is said of it.
fn pools(network: &str) -> Vec<Pool> {
    #[derive(Deserialize)]
    struct Described {
        #[serde(rename = "IPAM")]
        ipam: Ipam,
    }
    let described = serde_json::from_str::<Described>(network);
    let pools = described.ok().and_then(|it| it.ipam.config);
    let mut pools = pools.unwrap_or_default();
    pools.retain(|pool| !pool.subnet.contains(':'));
    pools
}

/// How many IPv4 subnets a network has, by its description.
pub(super) fn subnets(network: &str) -> usize {
    pools(network).len()
}

/// What the engine says of its networks that realise one of ours, as if they were one: the first,
/// with whoever is on one of the others, and with the addresses of that on which the node has one of
/// its own. On the others it has the address that is shown as the gateway.
pub(super) fn gathered(network: &str, first: &str, others: &[String]) -> Option<String> {
    let shown = pools(network);
    let is_own = |engines: &str| {
        let is_shown = |pool: &Pool| shown.iter().any(|it| it.gateway == pool.gateway);
        pools(engines).first().is_some_and(|it| !is_shown(it))
    };
    let object = Object::parse(first.as_bytes()).ok()?;
    let mut containers = object.get("Containers")?.get().to_owned();
    let mut addresses = object.get("IPAM")?.get().to_owned();
    for other in others {
        let engines = Object::parse(other.as_bytes()).ok()?;
        if is_own(other) {
            addresses = engines.get("IPAM")?.get().to_owned();
        }
        let more = Object::parse(engines.get("Containers")?.get().as_bytes()).ok()?;
        let more: Vec<(&str, &str)> = more.pairs().collect();
        let all = Object::parse(containers.as_bytes()).ok()?.with(&more);
        containers = all.trim_end().to_owned();
    }
    Some(object.with(&[("Containers", &containers), ("IPAM", &addresses)]))
}

/// A network on a manager that has no part in it: of containers there nothing is known.
pub(super) fn from_afar(network: &str) -> Option<String> {
    let object = Object::parse(network.as_bytes()).ok()?;
    Some(object.without(&OF_PARTS).with(&[]))
}

fn with(network: &str, engines: &str, containers: &str) -> Option<String> {
    let object = Object::parse(network.as_bytes()).ok()?;
    let engines = Object::parse(engines.as_bytes()).ok()?;
    let created = engines.get("Created").map(RawValue::get);
    // For clients from API 1.48 on.
    let ipv4 = engines.get("EnableIPv4").map(RawValue::get);
    // Empty where the swarm's own description has none at all.
    let some = |key: &'static str| match object.get(key).map(RawValue::get) {
        Some("null") | None => (key, "{}"),
        Some(labels) => (key, labels),
    };
    let mut values = vec![("Containers", containers), some("Labels")];
    match is_made_by_engines(&object) {
        false => values.push(some("Options")),
        // The addresses and the options are the engine's there, and the node's configuration's.
        true => {
            let own = |key: &'static str| Some((key, engines.get(key)?.get()));
            values.extend(
                ["IPAM", "Options", "EnableIPv6"]
                    .into_iter()
                    .filter_map(own),
            );
        }
    }
    values.extend(created.map(|it| ("Created", it)));
    values.extend(ipv4.map(|it| ("EnableIPv4", it)));
    Some(object.with(&values).trim_end().to_owned())
}

fn is_made_by_engines(network: &Object<'_>) -> bool {
    let driver = network.get("Driver").map(RawValue::get);
    driver.is_some_and(|driver| is_engines(driver.trim_matches('"')))
}

/// The engine's containers on the network and, as one more, the node itself: it balances there.
fn containers(network: &Object<'_>, engines: &str) -> Option<String> {
    let name: String = serde_json::from_str(network.get("Name")?.get()).ok()?;
    let ingress = network.get("Ingress").is_some_and(|it| it.get() == "true");
    let text = Object::parse(engines.as_bytes()).ok()?;
    let containers = text.get("Containers").map_or("{}", RawValue::get);
    if is_made_by_engines(network) {
        return Some(containers.to_owned());
    }
    let known: Engines = serde_json::from_str(engines).ok()?;
    let pools = known.ipam.config.unwrap_or_default();
    let ipv6 = pools.iter().find_map(in_ipv6).unwrap_or_default();
    let own = pools.into_iter().find_map(|pool| {
        let address = pool.gateway.parse().ok()?;
        let bits = pool.subnet.split_once('/')?.1.to_owned();
        let own = serde_json::json!({
            "Name": format!("{name}-endpoint"),
            "EndpointID": known.id,
            "MacAddress": mac(address),
            "IPv4Address": format!("{address}/{bits}"),
            "IPv6Address": ipv6,
        });
        serde_json::to_string(&own).ok()
    });
    let key = match ingress {
        true => "ingress-sbox".to_owned(),
        false => format!("lb-{name}"),
    };
    let object = Object::parse(containers.as_bytes()).ok()?;
    let own: Vec<(&str, &str)> = own.iter().map(|own| (key.as_str(), own.as_str())).collect();
    Some(object.with(&own).trim_end().to_owned())
}

/// The node's own address, if the subnet is one of IPv6.
fn in_ipv6(pool: &Pool) -> Option<String> {
    let address: std::net::Ipv6Addr = pool.gateway.parse().ok()?;
    let (_, bits) = pool.subnet.split_once('/')?;
    Some(format!("{address}/{bits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd showed them, from a manager without and a node with a task.
    const AFAR: &str = include_str!("../../../fixtures/wire/networks/afar.json");
    const HERE: &str = include_str!("../../../fixtures/wire/networks/here.json");

    fn engines(shown: &str) -> String {
        let here = Object::parse(HERE.as_bytes()).unwrap();
        let containers: serde_json::Value =
            serde_json::from_str(here.get("Containers").unwrap().get()).unwrap();
        let (mut containers, mut id) = (containers, String::new());
        containers.as_object_mut().unwrap().retain(|key, endpoint| {
            if key == "lb-ovl" {
                id = endpoint["EndpointID"].as_str().unwrap().to_owned();
            }
            key != "lb-ovl"
        });
        serde_json::json!({
            "Name": "skep-civsdk9fqnup8pfjxcvow62gx", "Id": id, "Driver": "bridge",
            "Created": serde_json::from_str::<String>(here.get("Created").unwrap().get()).unwrap(),
            "Scope": "local", "Containers": containers,
            "IPAM": {"Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.6"}]},
            "Options": {"com.docker.network.bridge.name": "skepcivsdk9fqnu"},
            "Labels": {"skep.network": "civsdk9fqnup8pfjxcvow62gx", "skep.network.name": "ovl",
                "skep.network.shown": shown},
        })
        .to_string()
    }

    #[test]
    fn a_node_with_tasks_shows_what_the_original_shows() {
        let peers = Object::parse(HERE.as_bytes()).unwrap();
        let peers = peers.get("Peers").unwrap().get();
        let full = Object::parse(AFAR.as_bytes())
            .unwrap()
            .with(&[("Peers", peers)]);
        let found = shown(&full, &engines("{}")).unwrap();
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&found), parse(HERE));
        assert_eq!(from_afar(&full).unwrap().trim_end(), AFAR.trim_end());
    }

    #[test]
    fn a_worker_shows_who_else_has_a_part() {
        let peer = |name: &str, ip: &str| PeerInfo {
            name: name.to_owned(),
            ip: ip.to_owned(),
        };
        let peers = [
            peer("686057be943e", "10.201.0.1"),
            peer("576d4dceabfb", "10.201.0.3"),
        ];
        let found = with_peers(AFAR, &peers).unwrap();
        let found = shown(&found, &engines("{}")).unwrap();
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&found), parse(HERE));
        assert_eq!(with_peers(AFAR, &[]).unwrap(), AFAR.trim_end());
    }

    #[test]
    fn what_realises_a_network_is_shown_as_one() {
        let pool = |subnet: &str, gateway: &str| {
            format!(r#"{{"Subnet":"{subnet}","Gateway":"{gateway}"}}"#)
        };
        let ipam = |pools: &[String]| format!(r#"{{"Config":[{}]}}"#, pools.join(","));
        let described = ipam(&[
            pool("10.5.0.0/24", "10.5.0.1"),
            pool("10.6.0.0/24", "10.6.0.1"),
            pool("fd00::/64", "fd00::1"),
        ]);
        let network = format!(r#"{{"IPAM":{described}}}"#);
        assert_eq!(subnets(&network), 2);
        assert_eq!(subnets(r#"{"IPAM":{"Config":null}}"#), 0);
        let engines = |ipam: &str, containers: &str| {
            format!(r#"{{"Id":"e","IPAM":{ipam},"Containers":{containers},"Labels":{{}}}}"#)
        };
        let (one, other) = (r#"{"a":{"Name":"x"}}"#, r#"{"b":{"Name":"y"},"c":{}}"#);
        let both = r#"{"a":{"Name":"x"},"b":{"Name":"y"},"c":{}}"#;
        let first = |own: &str| ipam(&[pool("10.5.0.0/24", own)]);
        let second = |own: &str| ipam(&[pool("10.6.0.0/24", own)]);
        let table = [
            ("10.5.0.3", "10.6.0.1", first("10.5.0.3")),
            ("10.5.0.1", "10.6.0.3", second("10.6.0.3")),
        ];
        for (on_first, on_second, own) in table {
            let second = engines(&second(on_second), other);
            let found = gathered(&network, &engines(&first(on_first), one), &[second]);
            assert_eq!(found.unwrap().trim_end(), engines(&own, both));
        }
        let alone = engines(&first("10.5.0.3"), "{}");
        assert_eq!(gathered(&network, &alone, &[]).unwrap().trim_end(), alone);
    }

    #[test]
    fn of_what_the_engine_makes_it_says_most() {
        let afar = r#"{"Name":"lan","Driver":"macvlan","Created":"x","Scope":"swarm",
            "IPAM":{"Driver":"","Options":null,"Config":[]},"EnableIPv6":false,
            "Containers":null,"Options":null,"Labels":null}"#;
        let engines = r#"{"Id":"e","Driver":"macvlan","Created":"y","Scope":"local",
            "IPAM":{"Driver":"default","Config":[{"Subnet":"10.77.0.0/24"}]},"EnableIPv6":false,
            "Containers":{"c":{}},"Options":{"parent":"eth0"},"Labels":{"skep.network":"n"}}"#;
        let found: serde_json::Value =
            serde_json::from_str(&shown(afar, engines).unwrap()).unwrap();
        assert_eq!(found["IPAM"]["Config"][0]["Subnet"], "10.77.0.0/24");
        assert_eq!(found["Options"], serde_json::json!({"parent": "eth0"}));
        assert_eq!(found["Labels"], serde_json::json!({}));
        assert_eq!(found["Containers"], serde_json::json!({"c": {}}));
        assert_eq!(found["Scope"], "swarm");
    }

    #[test]
    fn the_engines_network_brings_its_description_along() {
        let bare = AFAR.replace(r#""Labels":{"a":"b"}"#, r#""Labels":null"#);
        let listed = listed(&engines(bare.trim_end())).unwrap();
        assert!(listed.contains(r#""Labels":{}"#) && listed.contains(r#""Containers":{}"#));
        assert!(
            listed.contains(r#""Name":"ovl""#) && !listed.contains("skep"),
            "{listed}"
        );
        assert_eq!(described(&engines("x")), None);
        assert_eq!(described(r#"{"Labels":null}"#), None);
    }

    #[test]
    fn the_node_has_an_address_of_ipv6_too() {
        let mut both: serde_json::Value = serde_json::from_str(&engines("{}")).unwrap();
        let pools = both.pointer_mut("/IPAM/Config").unwrap();
        let second = serde_json::json!({"Subnet": "fd00:1::/64", "Gateway": "fd00:1::6"});
        pools.as_array_mut().unwrap().push(second);
        let found = shown(AFAR, &both.to_string()).unwrap();
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let own = &found["Containers"]["lb-ovl"];
        assert_eq!(own["IPv4Address"], "10.0.1.6/24");
        assert_eq!(own["IPv6Address"], "fd00:1::6/64");
    }

    #[test]
    fn the_node_is_on_the_network_of_ports_under_another_name() {
        let ingress = AFAR.replace(r#""Ingress":false"#, r#""Ingress":true"#);
        let found = shown(&ingress, &engines("{}")).unwrap();
        assert!(found.contains("\"ingress-sbox\":{") && !found.contains("lb-ovl"));
    }
}
