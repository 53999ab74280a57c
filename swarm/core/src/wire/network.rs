//! Networks of the swarm as clients see them: on their own, in lists, and inside tasks. Knows
//! nothing of the engine's own networks, which the proxy puts beside them.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/network.go` and `daemon/network/filter.go`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_api::filters::Filters;
use skep_api::go::{Labels, Timestamp, Version};
use skep_api::network::{Ipam, IpamPool, Network, NetworkConfigReference};
use skep_api::task::{NetworkAttachment, TaskState};

use super::list::labels_match;
use super::network_services::{ServiceInfo, services};
use crate::network::SCOPE;
use crate::object::{NetworkObject, Node, Place, Task};
use crate::store::State;

/// Among the options of an encrypted network as clients see them: how it is encrypted.
const ENCRYPTION: &str = "skep.encryption";
/// The one way there is, on every kernel.
const SEALED: &str = "chacha20-poly1305 in user space";

/// `GET /networks/{id}`, in the order of dockerd's keys.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's own")]
pub struct NetworkResource {
    pub name: String,
    pub id: String,
    pub created: Timestamp,
    pub scope: &'static str,
    pub driver: String,
    /// For clients from API 1.48 on; older ones know no network without.
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: NetworkConfigReference,
    pub config_only: bool,
    /// What the node that answers has of it; only its engine knows.
    pub containers: Option<BTreeMap<String, String>>,
    pub options: Option<Labels>,
    pub labels: Option<Labels>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeMap<String, ServiceInfo>>,
}

/// What filters of lists look at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's own")]
pub struct NetworkFacts {
    pub name: String,
    pub id: String,
    pub driver: String,
    pub labels: Option<Labels>,
}

impl NetworkFacts {
    /// Whether a list with these filters shows the network. Keys that are not known filter nothing:
    /// the engine refuses them. No network of a swarm counts as built in.
    pub fn is_listed(&self, filters: &Filters, unused: impl Fn() -> bool) -> bool {
        filters.matches_exact("driver", &self.driver)
            && filters.matches_exact("scope", SCOPE)
            && filters.matches_exact("type", "custom")
            && mentions(filters, "name", &self.name)
            && mentions(filters, "id", &self.id)
            && labels_match(filters, "label", self.labels.as_ref())
            && dangles(filters, unused)
    }
}

/// A node that has a part in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PeerInfo {
    /// The beginning of its id.
    pub name: String,
    /// Its address.
    #[serde(rename = "IP")]
    pub ip: String,
}

/// A node, as one that has a part in a network.
pub(crate) fn peer(node: &Node) -> PeerInfo {
    PeerInfo {
        name: node.id.chars().take(12).collect(),
        ip: node.address().to_owned(),
    }
}

/// One network, as lists show it.
pub fn network(network: &NetworkObject) -> NetworkResource {
    let ipam = network.ipam.clone().unwrap_or_default();
    let some = |labels: &Labels| (!labels.is_empty()).then(|| labels.clone());
    let options = network.driver_state.as_ref();
    let mut options = options.map(|driver| driver.options.clone());
    if network.is_encrypted()
        && let Some(options) = &mut options
    {
        options.insert(ENCRYPTION.to_owned(), SEALED.to_owned());
    }
    NetworkResource {
        name: network.spec.name.clone(),
        id: network.id.to_string(),
        created: network.meta.created_at,
        scope: SCOPE,
        driver: network.driver().to_owned(),
        enable_ipv4: None,
        enable_ipv6: network.spec.ipv6_enabled,
        ipam: Ipam {
            driver: ipam.driver.name,
            options: some(&ipam.driver.options),
            config: ipam
                .configs
                .into_iter()
                .map(|config| IpamPool {
                    subnet: config.subnet,
                    ip_range: config.range,
                    gateway: config.gateway,
                    auxiliary: Labels::new(),
                })
                .collect(),
        },
        internal: network.spec.internal,
        attachable: network.spec.attachable,
        ingress: network.spec.ingress,
        config_from: network.spec.config_from.clone().unwrap_or_default(),
        config_only: false,
        containers: None,
        options: options.filter(|options| !options.is_empty()),
        labels: some(&network.spec.labels),
        peers: Vec::new(),
        services: None,
    }
}

/// One network with the nodes that have a part in it and, if it is to be verbose, with the services
/// there.
pub fn network_in_full(view: &State, of: &NetworkObject, verbose: bool) -> NetworkResource {
    let nodes = view.nodes().iter();
    let known = of.reaches_far();
    let nodes = nodes.filter(|node| known && node.gateways.contains_key(&of.id));
    NetworkResource {
        peers: nodes.map(|node| peer(node)).collect(),
        services: (verbose && of.local_driver().is_none()).then(|| services(view, of)),
        ..network(of)
    }
}

/// The swarm's part of `GET /networks`, in the order of ids. The mirrors of the engines' own
/// networks are left out. Keys that are not known filter nothing: the engine refuses them.
pub fn networks(view: &State, filters: &Filters) -> Vec<NetworkResource> {
    let all = view.networks().iter().filter(|it| !it.is_predefined());
    let listed = all.filter(|it| {
        let facts = NetworkFacts {
            name: it.spec.name.clone(),
            id: it.id.to_string(),
            driver: it.driver().to_owned(),
            labels: Some(it.spec.labels.clone()),
        };
        facts.is_listed(filters, || !is_in_use(view, it))
    });
    listed.map(|it| network(it)).collect()
}

fn dangles(filters: &Filters, unused: impl Fn() -> bool) -> bool {
    let mut terms = filters.get("dangling");
    terms.all(|term| matches!(term, "1" | "true") == unused())
}

/// Whether a term is a part of the text or, as a regular expression, matches it.
fn mentions(filters: &Filters, key: &str, text: &str) -> bool {
    let matches = |term: &str| {
        text.contains(term) || regex_lite::Regex::new(term).is_ok_and(|term| term.is_match(text))
    };
    !filters.contains(key) || filters.get(key).any(matches)
}

/// Whether a service names the network or a task is on it.
pub fn is_in_use(view: &State, network: &NetworkObject) -> bool {
    let named = |networks: &[skep_api::network::NetworkAttachmentConfig]| {
        networks.iter().any(|used| *used.target == *network.id)
    };
    let live = |task: &Task| {
        task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
    };
    let mut services = view.services().iter();
    services.any(|service| named(&service.spec.task_template.networks))
        || view.tasks_of_network(&network.id).any(|task| live(task))
}

/// The networks of a task with its addresses there. One that has been removed since the task ended
/// is left out.
pub(super) fn attachments(view: &State, task: &Task) -> Vec<NetworkAttachment> {
    let attachments = task.attachments.iter().filter_map(|attachment| {
        let network = view.networks().get(&attachment.network)?;
        let ipv4 = match &attachment.place {
            Place::Address(cidr) => Some(cidr.to_string()),
            Place::Engine(_) => None,
        };
        let ipv6 = attachment.ipv6.map(|cidr| cidr.to_string());
        let addresses = ipv4.into_iter().chain(ipv6).collect();
        Some(NetworkAttachment {
            network: whole(network),
            addresses,
        })
    });
    attachments.collect()
}

fn whole(network: &NetworkObject) -> Network {
    Network {
        id: network.id.to_string(),
        version: Version::from(network.meta.version),
        created_at: network.meta.created_at,
        updated_at: network.meta.updated_at,
        spec: network.spec.clone(),
        driver_state: network.driver_state.clone().unwrap_or_default(),
        ipam_options: network.ipam.clone(),
    }
}
