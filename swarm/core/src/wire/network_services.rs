//! The services on a network, as `docker network inspect --verbose` shows them. Knows of no engine, and
//! so of no id that an engine has given.
//!
//! Source of the behaviour: moby `daemon/libnetwork/service_common.go`, asked of a real engine
//! (`fixtures/wire/networks/verbose.json`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use serde::Serialize;
use skep_api::network::PublishMode;
use skep_api::task::TaskState;

use crate::assignment::Overlay;
use crate::id::Id;
use crate::object::{NetworkObject, Node, Place, Service, Task};
use crate::plane;
use crate::store::State;

/// What the original says of a virtual address that there is not.
const NO_ADDRESS: &str = "<nil>";

/// A service on one network.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are Docker's own")]
pub struct ServiceInfo {
    #[serde(rename = "VIP")]
    pub vip: String,
    #[serde(rename = "Ports")]
    pub ports: Vec<String>,
    /// The original's mark in the packet filter of a node. Ours has none.
    #[serde(rename = "LocalLBIndex")]
    pub local_lb_index: u32,
    #[serde(rename = "Tasks")]
    pub tasks: Vec<ServiceTask>,
}

/// A task on one network.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are Docker's own")]
pub struct ServiceTask {
    #[serde(rename = "Name")]
    pub name: String,
    /// Its engine's; only that knows.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    #[serde(rename = "Info")]
    pub info: BTreeMap<&'static str, String>,
}

/// The services that have running tasks on the network, by their names. Where ports are published,
/// the nodes are there too, under no name.
pub(super) fn services(view: &State, network: &NetworkObject) -> BTreeMap<String, ServiceInfo> {
    let mut found: BTreeMap<String, ServiceInfo> = BTreeMap::new();
    for task in view.tasks_of_network(&network.id) {
        let runs =
            task.status.state == TaskState::Running && task.desired_state <= TaskState::Running;
        let Some(told) = told(view, task, &network.id).filter(|_| runs) else {
            continue;
        };
        let service = view.services().get(&task.service_id);
        let info = found.entry(task.service_name.to_string());
        let info = info.or_insert_with(|| about(service.map(|it| &**it), network));
        info.tasks.push(told);
    }
    if network.spec.ingress {
        found.insert(String::new(), nodes(view, network));
    }
    found
}

/// The same as a node knows it that has a part in the network, without all the state. Where its nodes
/// are is in what it was told of the network; an endpoint without a node is on this one.
pub fn network_services<'a>(
    overlay: &Overlay,
    services: &BTreeMap<Id, plane::Service>,
    endpoints: impl Iterator<Item = &'a plane::Endpoint>,
) -> BTreeMap<String, ServiceInfo> {
    let mut found: BTreeMap<String, ServiceInfo> = BTreeMap::new();
    for task in endpoints {
        let service = task.service.as_ref().and_then(|id| services.get(id));
        let name = service.map_or("", |it| &it.name).to_owned();
        let info = found.entry(name);
        let info = info.or_insert_with(|| known_about(service, overlay));
        let host = match task.host {
            Some(node) => overlay.peers.get(&node).map(|it| it.ip.clone()),
            None => Some(overlay.local.to_string()),
        };
        let name = task.names.first().cloned().unwrap_or_default();
        let address = task.addresses.first().map(IpAddr::to_string);
        let host = host.unwrap_or_default();
        let told = with_host(name, address.unwrap_or_default(), host);
        info.tasks.push(told);
    }
    if overlay.ingress {
        let name = format!("{}-endpoint", overlay.name);
        let nodes = overlay.peers.iter();
        let nodes = nodes.map(|(own, it)| with_host(name.clone(), own.to_string(), it.ip.clone()));
        found.insert(String::new(), all_nodes(nodes.collect()));
    }
    found
}

fn known_about(service: Option<&plane::Service>, overlay: &Overlay) -> ServiceInfo {
    let vip = service.and_then(|it| it.vips.first());
    let ports = service.into_iter().flat_map(|it| &it.ports);
    let ports = ports.filter(|_| overlay.ingress);
    ServiceInfo {
        vip: vip.map_or_else(|| NO_ADDRESS.to_owned(), IpAddr::to_string),
        ports: ports.map(|it| port(it.target, it.published)).collect(),
        local_lb_index: 0,
        tasks: Vec::new(),
    }
}

fn port(target: impl Display, published: impl Display) -> String {
    format!("Target: {target}, Publish: {published}")
}

fn about(service: Option<&Service>, network: &NetworkObject) -> ServiceInfo {
    let endpoint = service.and_then(|service| service.endpoint.as_ref());
    let addresses = endpoint.into_iter().flat_map(|it| &it.virtual_ips);
    let mut own = addresses.filter(|it| *it.network_id == *network.id);
    let vip = own.next().map(|it| without_prefix(&it.addr));
    let ports = endpoint.into_iter().flat_map(|it| &it.ports);
    let ports = ports.filter(|it| network.spec.ingress && it.publish_mode != PublishMode::Host);
    ServiceInfo {
        vip: vip.unwrap_or(NO_ADDRESS).to_owned(),
        ports: ports
            .map(|it| port(it.target_port, it.published_port))
            .collect(),
        local_lb_index: 0,
        tasks: Vec::new(),
    }
}

fn told(view: &State, task: &Task, network: &Id) -> Option<ServiceTask> {
    let mut places = task.attachments.iter();
    let place = &places.find(|it| it.network == *network)?.place;
    let Place::Address(cidr) = place else {
        return None;
    };
    let node = task.node_id.as_ref().and_then(|id| view.nodes().get(id));
    Some(endpoint(
        task.name(),
        cidr.address.to_string(),
        node.map(|it| &**it),
    ))
}

fn endpoint(name: String, address: String, node: Option<&Node>) -> ServiceTask {
    let host = node.and_then(Node::data_address);
    with_host(
        name,
        address,
        host.map_or_else(String::new, |host| host.to_string()),
    )
}

fn with_host(name: String, address: String, host: String) -> ServiceTask {
    ServiceTask {
        name,
        endpoint_id: String::new(),
        endpoint_ip: address,
        info: BTreeMap::from([("Host IP", host)]),
    }
}

fn nodes(view: &State, network: &NetworkObject) -> ServiceInfo {
    let name = format!("{}-endpoint", network.spec.name);
    let nodes = view.nodes().iter().filter_map(|node| {
        let own = node.gateways.get(&network.id)?;
        Some(endpoint(name.clone(), own.to_string(), Some(node)))
    });
    all_nodes(nodes.collect())
}

fn all_nodes(tasks: Vec<ServiceTask>) -> ServiceInfo {
    ServiceInfo {
        vip: NO_ADDRESS.to_owned(),
        ports: Vec::new(),
        local_lb_index: 0,
        tasks,
    }
}

fn without_prefix(cidr: &str) -> &str {
    cidr.split_once('/').map_or(cidr, |(address, _)| address)
}
