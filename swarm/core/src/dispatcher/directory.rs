//! Who is on the networks that nodes have a part in: services, and tasks while they serve. What
//! changed is gathered once, network by network, and is the same for every node but for where the
//! tasks are. Never decides who is told: see `networks`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_api::network::{PortConfig, Protocol as Named, PublishMode};
use skep_api::node::NodeState;
use skep_api::task::TaskState;

use crate::assignment::Directory;
use crate::id::Id;
use crate::labels;
use crate::object::{Attachment, Node, Object, Service, Task};
use crate::plane::{self, Endpoint, Port};
use crate::store::{Event, State};
use crate::task::is_failing;
use crate::template::Context;

/// Bytes of a message after which what is left of a directory goes into the next.
const FULL: usize = 1 << 20;
/// Bytes of an entry besides its names, in a round figure.
const ENTRY: usize = 128;
/// Of a container's id this much is a name.
const SHORT_ID: usize = 12;

/// What changed since it was last told.
#[derive(Default)]
pub(super) struct Directories {
    /// Services by network, with tasks or without.
    on: BTreeMap<Id, BTreeSet<Id>>,
    changed: BTreeMap<Id, Changed>,
}

#[derive(Default)]
struct Changed {
    services: BTreeSet<Id>,
    tasks: BTreeSet<Id>,
}

/// A directory, or what changed of it, before it is known which node is told.
#[derive(Default)]
pub(super) struct Page {
    services: Vec<plane::Service>,
    services_removed: Vec<Id>,
    /// With the node that each is on.
    endpoints: Vec<(Id, Endpoint)>,
    endpoints_removed: Vec<Id>,
}

impl Directories {
    /// Learns which services are on which network: the start of a leadership.
    pub(super) fn start(&mut self, view: &State) {
        *self = Self::default();
        for service in view.services().iter() {
            for network in networks_of(service) {
                self.enter(network, &service.id);
            }
        }
    }

    fn enter(&mut self, network: Id, service: &Id) {
        let services = self.on.entry(network).or_default();
        services.insert(service.clone());
    }

    /// Takes in what happened. Whoever is told of a network later is told all of it, so only those
    /// count that somebody `listens` to.
    pub(super) fn observe(&mut self, event: &Event, view: &State, listens: impl Fn(&Id) -> bool) {
        let mut noted = Vec::new();
        match (&event.before, &event.after) {
            (before, Some(Object::Task(after))) => {
                let before = match before {
                    Some(Object::Task(before)) => Some(before.as_ref()),
                    _ => None,
                };
                if !before.map_or(!may_serve(after), |before| is_same(before, after)) {
                    noted.extend(before.into_iter().flat_map(on_networks));
                    noted.extend(on_networks(after));
                }
            }
            (Some(Object::Task(before)), None) if may_serve(before) => {
                noted.extend(on_networks(before));
            }
            (before, Some(Object::Node(after))) => {
                let before = match before {
                    Some(Object::Node(before)) => Some(before.as_ref()),
                    _ => None,
                };
                let is_same = before.is_some_and(|before| {
                    is_there(before) == is_there(after) && before.gateways == after.gateways
                });
                if !is_same {
                    noted.extend(of_node(view, &after.id));
                }
            }
            (Some(Object::Node(before)), None) => noted.extend(of_node(view, &before.id)),
            (Some(Object::Network(network)), None) => drop(self.changed.remove(&network.id)),
            (before, after) => self.service(before.as_ref(), after.as_ref(), &listens),
        }
        for (network, task) in noted.into_iter().filter(|(network, _)| listens(network)) {
            let changed = self.changed.entry(network).or_default();
            changed.tasks.insert(task);
        }
    }

    fn service(
        &mut self,
        before: Option<&Object>,
        after: Option<&Object>,
        listens: &impl Fn(&Id) -> bool,
    ) {
        let service = |object: Option<&Object>| match object {
            Some(Object::Service(service)) => Some(service.clone()),
            _ => None,
        };
        let (before, after) = (service(before), service(after));
        let of = |service: &Option<_>| service.as_deref().map(networks_of).unwrap_or_default();
        let (from, to) = (of(&before), of(&after));
        let Some(id) = before.as_ref().or(after.as_ref()).map(|it| it.id.clone()) else {
            return;
        };
        for network in from.difference(&to) {
            if let Some(services) = self.on.get_mut(network) {
                services.remove(&id);
                if services.is_empty() {
                    self.on.remove(network);
                }
            }
        }
        to.iter()
            .for_each(|network| self.enter(network.clone(), &id));
        if let (Some(before), Some(after)) = (&before, &after)
            && before.endpoint == after.endpoint
            && before.spec.labels == after.spec.labels
            && before.spec.task_template.networks == after.spec.task_template.networks
        {
            return;
        }
        for network in from.union(&to).filter(|network| listens(network)) {
            let changed = self.changed.entry(network.clone()).or_default();
            changed.services.insert(id.clone());
        }
    }

    /// What changed, by network; it counts as told.
    pub(super) fn take(&mut self, state: &State) -> BTreeMap<Id, Page> {
        let changed = std::mem::take(&mut self.changed);
        let pages = changed.into_iter().map(|(network, changed)| {
            let mut page = Page::default();
            for id in changed.services {
                match service_on(state, &network, &id) {
                    Some(service) => page.services.push(service),
                    None => page.services_removed.push(id),
                }
            }
            for id in changed.tasks {
                let task = state.tasks().get(&id);
                match task.and_then(|task| endpoint_on(state, &network, task)) {
                    Some(endpoint) => page.endpoints.push(endpoint),
                    None => page.endpoints_removed.push(id),
                }
            }
            (network, page)
        });
        pages.collect()
    }

    /// All of a network's directory.
    pub(super) fn whole(&self, state: &State, network: &Id) -> Page {
        let services = self.on.get(network).into_iter().flatten();
        let endpoints = state.tasks_of_network(network);
        Page {
            services: services
                .filter_map(|id| service_on(state, network, id))
                .collect(),
            endpoints: endpoints
                .filter_map(|task| endpoint_on(state, network, task))
                .collect(),
            ..Page::default()
        }
    }
}

impl Page {
    /// As one node is told it.
    pub(super) fn seen_from(&self, node: &Id, network: &Id, complete: bool) -> Directory {
        let seen = |(on, endpoint): &(Id, Endpoint)| Endpoint {
            host: endpoint.host.filter(|_| on != node),
            ..endpoint.clone()
        };
        Directory {
            services: self.services.clone(),
            services_removed: self.services_removed.clone(),
            endpoints: self.endpoints.iter().map(seen).collect(),
            endpoints_removed: self.endpoints_removed.clone(),
            ..Directory::of(network.clone(), complete)
        }
    }
}

/// Whether a task serves, as far as it and its orchestrator know.
fn may_serve(task: &Task) -> bool {
    task.status.state == TaskState::Running
        && !is_failing(&task.status)
        && task.desired_state <= TaskState::Complete
        && task.node_id.is_some()
}

/// Whether a task's node may be relied upon.
fn is_there(node: &Node) -> bool {
    node.status.state != NodeState::Down
}

/// Whether it makes no difference to any directory.
fn is_same(before: &Task, after: &Task) -> bool {
    may_serve(before) == may_serve(after)
        && (!may_serve(after)
            || (before.node_id == after.node_id
                && before.attachments == after.attachments
                && container_id(before) == container_id(after)))
}

fn on_networks(task: &Task) -> impl Iterator<Item = (Id, Id)> {
    let attachments = task.attachments.iter();
    attachments.map(|attachment| (attachment.network.clone(), task.id.clone()))
}

/// Tasks of a node that may serve, by network.
fn of_node(view: &State, node: &Id) -> Vec<(Id, Id)> {
    let tasks = view.tasks_of_node(node).filter(|task| may_serve(task));
    tasks.flat_map(|task| on_networks(task)).collect()
}

/// The networks that a service is on, or that it is to be on.
fn networks_of(service: &Service) -> BTreeSet<Id> {
    let wanted = &service.spec.task_template.networks;
    let vips = service.endpoint.iter().flat_map(|it| &it.virtual_ips);
    let vips = vips.map(|vip| vip.network_id.as_str());
    let all = wanted.iter().map(|it| it.target.as_str()).chain(vips);
    all.map(Id::from).collect()
}

fn service_on(state: &State, network: &Id, id: &Id) -> Option<plane::Service> {
    let service = state.services().get(id)?;
    if !networks_of(service).contains(network) {
        return None;
    }
    let of = state.networks().get(network)?;
    let wanted = service.spec.task_template.networks.iter();
    let aliases = wanted.filter(|it| it.target == **network);
    let endpoint = service.endpoint.as_ref();
    let vips = endpoint.into_iter().flat_map(|it| &it.virtual_ips);
    let vips = vips.filter(|vip| vip.network_id == **network);
    let vips = vips.filter_map(|vip| vip.addr.split_once('/')?.0.parse::<IpAddr>().ok());
    let ports = endpoint.into_iter().filter(|_| of.spec.ingress);
    let ports = ports.flat_map(|it| it.ports.iter().filter_map(published));
    let says =
        |label: &str, text: &str| service.spec.labels.get(label).is_some_and(|it| it == text);
    Some(plane::Service {
        id: id.clone(),
        name: service.spec.name.clone(),
        aliases: aliases.flat_map(|it| it.aliases.clone()).collect(),
        vips: vips.collect(),
        ports: ports.collect(),
        snat: says(labels::INGRESS_SNAT, "true"),
        proxy_protocol: says(labels::INGRESS_PROXY_PROTOCOL, "v2"),
    })
}

/// A port that every node publishes.
fn published(port: &PortConfig) -> Option<Port> {
    if port.publish_mode == PublishMode::Host {
        return None;
    }
    let protocol = match port.protocol {
        Named::Udp => plane::Protocol::Udp,
        Named::Sctp => plane::Protocol::Sctp,
        _ => plane::Protocol::Tcp,
    };
    let number = |port: u32| u16::try_from(port).ok().filter(|port| *port > 0);
    Some(Port {
        protocol,
        published: number(port.published_port)?,
        target: number(port.target_port)?,
    })
}

/// A task as it is to be found on a network, with its node; `None` if it is not.
fn endpoint_on(state: &State, network: &Id, task: &Task) -> Option<(Id, Endpoint)> {
    if !may_serve(task) {
        return None;
    }
    let node = state.nodes().get(task.node_id.as_ref()?)?;
    let host: Ipv4Addr = *node.gateways.get(network)?;
    if !is_there(node) {
        return None;
    }
    let here = task.attachments.iter().filter(|it| it.network == *network);
    let addresses = here.flat_map(Attachment::addresses);
    let endpoint = Endpoint {
        id: task.id.clone(),
        service: (!task.service_id.is_empty()).then(|| task.service_id.clone()),
        names: names(task, node),
        addresses: addresses.collect(),
        host: Some(host),
    };
    (!endpoint.addresses.is_empty()).then(|| (node.id.clone(), endpoint))
}

/// What a task's container is called: its name, its short id, its host name.
fn names(task: &Task, node: &Node) -> Vec<String> {
    if let Some(container) = &task.attached {
        return container.names.clone();
    }
    let short = container_id(task).map(|id| id.chars().take(SHORT_ID).collect());
    let spec = task.spec.container_spec.as_ref();
    let host = spec.and_then(|spec| Context::new(task, node).expand(&spec.hostname).ok());
    let host = host.filter(|host| !host.is_empty());
    let mut names: Vec<String> = vec![task.name()];
    for name in short.into_iter().chain(host) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn container_id(task: &Task) -> Option<&str> {
    let id = task.status.container_status.as_ref()?.container_id.as_str();
    (!id.is_empty()).then_some(id)
}

/// Something that a directory says.
enum Entry {
    Service(plane::Service),
    NoService(Id),
    Endpoint(Endpoint),
    NoEndpoint(Id),
}

impl Entry {
    /// About how many bytes it takes.
    fn size(&self) -> usize {
        let names = |names: &[String]| names.iter().map(String::len).sum::<usize>();
        ENTRY
            + match self {
                Self::Service(it) => it.name.len() + names(&it.aliases) + ENTRY * it.ports.len(),
                Self::Endpoint(it) => names(&it.names),
                Self::NoService(_) | Self::NoEndpoint(_) => 0,
            }
    }

    fn enter(self, directory: &mut Directory) {
        match self {
            Self::Service(service) => directory.services.push(service),
            Self::NoService(id) => directory.services_removed.push(id),
            Self::Endpoint(endpoint) => directory.endpoints.push(endpoint),
            Self::NoEndpoint(id) => directory.endpoints_removed.push(id),
        }
    }
}

/// Puts directories into as many messages as it takes.
pub(super) fn in_messages(directories: Vec<Directory>) -> Vec<Vec<Directory>> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    let mut size = 0;
    for directory in directories {
        let (network, complete) = (directory.network, directory.complete);
        let services = directory.services.into_iter().map(Entry::Service);
        let no_services = directory.services_removed.into_iter().map(Entry::NoService);
        let endpoints = directory.endpoints.into_iter().map(Entry::Endpoint);
        let no_endpoints = directory.endpoints_removed.into_iter();
        let entries = services.chain(no_services).chain(endpoints);
        let entries = entries.chain(no_endpoints.map(Entry::NoEndpoint));
        let mut page = Directory::of(network.clone(), complete);
        for entry in entries {
            if size >= FULL {
                page.more = complete;
                let full = std::mem::replace(&mut page, Directory::of(network.clone(), complete));
                message.push(full);
                messages.push(std::mem::take(&mut message));
                size = 0;
            }
            size += entry.size();
            entry.enter(&mut page);
        }
        message.push(page);
    }
    messages.push(message);
    messages
}

#[cfg(test)]
mod tests;
