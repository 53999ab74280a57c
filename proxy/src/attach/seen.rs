//! What the engine says of a container and its networks: which of them it is to get a place on, and
//! how it is to be connected there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use skep_core::attachment::{Attached, Wish};
use skep_core::container::{LABEL_TASK_ID, ipam_config};
use skep_core::network::mac;
use skep_node::agent::Standing;

use super::kept::Entry;

/// Among the options of a container's connection: the name of the swarm's network.
pub(crate) const NAME_OPTION: &str = "skep.network.name";
/// Likewise: that the swarm chose the address, which need not be the same the next time.
pub(crate) const CHOSEN_OPTION: &str = "skep.network.address-chosen";
/// What clients are not shown: none of them asked for it.
pub(crate) const OWN_OPTIONS: [&str; 2] = [NAME_OPTION, CHOSEN_OPTION];
/// How much of a container's id is a name.
const SHORT_ID: usize = 12;
/// Networks of every engine's own, and what is none.
const OWN: [&str; 5] = ["bridge", "host", "none", "default", "nat"];

/// A container, as `GET /containers/{id}/json` describes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Seen {
    pub id: String,
    pub name: String,
    state: State,
    config: Config,
    host_config: HostConfig,
    network_settings: Settings,
    /// The networks that the engine itself has it on.
    #[serde(skip)]
    connected: BTreeSet<String>,
    #[serde(skip)]
    kept: Option<Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    auto_remove: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    networks: Option<BTreeMap<String, Endpoint>>,
}

/// A container's connection with a network, made or only meant.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<Ipam>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    driver_opts: Option<BTreeMap<String, String>>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
struct Ipam {
    #[serde(
        rename = "IPv4Address",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    ipv4: String,
    #[serde(
        rename = "IPv6Address",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    ipv6: String,
}

impl Seen {
    /// From the engine's answer; `None` for what is no container, and for a task's: these have their
    /// places.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let mut seen: Self = serde_json::from_slice(json).ok()?;
        let networks = seen.network_settings.networks.iter().flatten();
        seen.connected = networks.map(|(name, _)| name.clone()).collect();
        let labels = seen.config.labels.as_ref();
        let is_task = labels.is_some_and(|labels| labels.contains_key(LABEL_TASK_ID));
        (!is_task && !seen.id.is_empty()).then_some(seen)
    }

    /// With what the engine does not say of it.
    pub(super) fn recalled(mut self, entry: Entry) -> Self {
        let networks = self.network_settings.networks.get_or_insert_default();
        for (name, config) in &entry.networks {
            let endpoint = Endpoint::parse(config);
            let there = networks.remove(name).unwrap_or_default();
            let network_id = there.network_id;
            let endpoint = Endpoint {
                network_id,
                ..endpoint
            };
            networks.insert(name.clone(), endpoint);
        }
        self.kept = Some(entry);
        self
    }

    /// What is kept of it, for engines that forget.
    pub(super) fn kept(&self) -> Option<&Entry> {
        self.kept.as_ref()
    }

    /// Whether it is to be on a network that the engine does not know of.
    pub(super) fn is_kept(&self, network: &str) -> bool {
        let networks = self.kept.as_ref().map(|it| &it.networks);
        networks.is_some_and(|it| it.contains_key(network))
    }

    /// Whether it is still on the network that stands in for one of the swarm's.
    pub(super) fn has_stand_in(&self) -> bool {
        ["podman", "bridge"].iter().any(|it| self.is_connected(it))
    }

    /// Whether the engine has it on this network, by its own name for that.
    pub(super) fn is_connected(&self, network: &str) -> bool {
        self.connected.contains(network)
    }

    pub(super) fn runs(&self) -> bool {
        self.state.running
    }

    /// Whether nobody wants it any more once it does not run: `--rm`.
    pub(super) fn is_removed_at_its_end(&self) -> bool {
        self.host_config.auto_remove
    }

    /// Its name, as clients write it.
    pub(super) fn plain_name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    /// Its networks by the engine's names for them, or by what somebody called them.
    pub(super) fn networks(&self) -> impl Iterator<Item = (&String, &Endpoint)> {
        self.network_settings.networks.iter().flatten()
    }

    /// What it is to be called on a network.
    fn names(&self, endpoint: &Endpoint) -> Vec<String> {
        let short: String = self.id.chars().take(SHORT_ID).collect();
        let mut names = vec![self.plain_name().to_owned()];
        let aliases = endpoint.aliases.iter().flatten().cloned();
        for name in aliases.chain([short]) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The place that it needs for this connection.
    pub(super) fn wish(&self, network: &str, endpoint: &Endpoint) -> Wish {
        let address = endpoint.address();
        let chosen = endpoint.option(CHOSEN_OPTION).is_some();
        Wish {
            network: network.to_owned(),
            container: Attached {
                id: self.id.clone(),
                names: self.names(endpoint),
                address: address.filter(|_| !chosen),
                ipv6: endpoint.ipv6().filter(|_| !chosen),
                last: address.filter(|_| chosen),
            },
        }
    }
}

impl Endpoint {
    /// From the body of a client's request.
    pub(super) fn parse(value: &Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.ipam.as_ref()?.ipv4.parse().ok()
    }

    fn ipv6(&self) -> Option<Ipv6Addr> {
        self.ipam.as_ref()?.ipv6.parse().ok()
    }

    /// Whether that is the address of a place, if the engine does not choose it.
    pub(super) fn is_at(&self, place: &Standing) -> bool {
        let address = place.address.address;
        address.is_unspecified() || self.address() == Some(address)
    }

    pub(super) fn option(&self, name: &str) -> Option<&String> {
        self.driver_opts.as_ref()?.get(name)
    }

    /// Whether the engine has only been told of it, so that the network may be one that it does not
    /// know.
    pub(super) fn is_meant(&self) -> bool {
        self.network_id.is_empty()
    }
}

/// Whether an engine may know a network that is none of its own by this name.
pub(super) fn may_be_ours(name: &str) -> bool {
    !OWN.contains(&name) && !name.is_empty() && !name.starts_with("container:")
}

/// The connection that the engine is to make for a place, with all that the container asked for.
pub(super) fn connection(endpoint: &Endpoint, place: &Standing, asked: bool) -> Value {
    let address = place.address.address;
    let mut options = endpoint.driver_opts.clone().unwrap_or_default();
    options.insert(NAME_OPTION.to_owned(), place.name.clone());
    match asked {
        true => drop(options.remove(CHOSEN_OPTION)),
        false => drop(options.insert(CHOSEN_OPTION.to_owned(), "true".to_owned())),
    }
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| drop(config.insert(name.to_owned(), value));
    let ipv6 = place.ipv6.map(|it| it.address);
    if !address.is_unspecified() {
        set("IPAMConfig", ipam_config(address, ipv6));
        set("MacAddress", json!(mac(address)));
    } else if asked {
        // The network's addresses are the engine's to give.
        set("IPAMConfig", json!(endpoint.ipam));
    }
    set("Aliases", json!(endpoint.aliases));
    set("Links", json!(endpoint.links));
    set("DriverOpts", json!(options));
    if endpoint.gw_priority != 0 {
        set("GwPriority", json!(endpoint.gw_priority));
    }
    Value::Object(config)
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
