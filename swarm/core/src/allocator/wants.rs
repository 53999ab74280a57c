//! What a service, a node and a task get of their networks. Each gets all that it needs or nothing;
//! who finds no address left waits until one becomes free, and a task says so.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use skep_api::network::{Endpoint, EndpointVirtualIp, ResolutionMode};
use skep_api::service::ServiceSpec;
use skep_api::task::TaskState;

use super::{Allocator, Want, ports};
use crate::Timestamp;
use crate::cidr::Cidr;
use crate::id::Id;
use crate::ipv6::Cidr6;
use crate::network::engine_name;
use crate::object::{Attachment, NetworkObject, Node, Place, Service, Task};
use crate::ports::publishes;
use crate::store::{Change, State};

/// What swarmkit writes when a task waits for the scheduler.
const PENDING: &str = "pending task scheduling";

/// The networks that a service's spec names and that exist, each once.
fn networks<'a>(spec: &'a [NetworkTarget], view: &'a State) -> Vec<&'a Arc<NetworkObject>> {
    let mut found: Vec<&Arc<NetworkObject>> = Vec::new();
    for wanted in spec {
        if let Some(network) = view.networks().get(&wanted.target)
            && !found.iter().any(|known| known.id == network.id)
        {
            found.push(network);
        }
    }
    found
}

type NetworkTarget = skep_api::network::NetworkAttachmentConfig;

/// The networks on which a service has an address of its own. The one on which it publishes ports
/// comes first.
fn vip_networks<'a>(
    spec: &'a ServiceSpec,
    ingress: Option<&Id>,
    view: &'a State,
) -> Vec<&'a Arc<NetworkObject>> {
    let mode = spec.endpoint_spec.as_ref().map(|endpoint| &endpoint.mode);
    if mode == Some(&ResolutionMode::DnsRr) {
        return Vec::new();
    }
    let ingress = ingress.filter(|_| publishes(spec));
    let ingress = ingress.and_then(|id| view.networks().get(id));
    let others = networks(&spec.task_template.networks, view);
    let mut all: Vec<_> = ingress.into_iter().chain(others).collect();
    all.retain(|network| !network.is_predefined());
    all
}

/// Whether a service has the addresses and ports that it should have.
pub(super) fn has_endpoint(service: &Service, ingress: Option<&Id>, view: &State) -> bool {
    let wanted = vip_networks(&service.spec, ingress, view);
    let Some(endpoint) = &service.endpoint else {
        return wanted.is_empty() && !publishes(&service.spec);
    };
    let have = &endpoint.virtual_ips;
    let given = |network: &Id| have.iter().any(|vip| vip.network_id == **network);
    let known = |id: &str| wanted.iter().any(|network| *network.id == *id);
    wanted.iter().all(|network| given(&network.id))
        && have.iter().all(|vip| known(&vip.network_id))
        && ports::are_right(service, &endpoint.ports)
        && endpoint.spec == service.spec.endpoint_spec.clone().unwrap_or_default()
}

impl Allocator {
    pub(super) fn give_service(
        &mut self,
        service: &Arc<Service>,
        view: &State,
        want: &Want,
    ) -> Option<Change> {
        let ingress = self.publishing.network().cloned();
        if has_endpoint(service, ingress.as_ref(), view) {
            return None;
        }
        let wanted = vip_networks(&service.spec, ingress.as_ref(), view);
        let old = service.endpoint.iter().flat_map(|it| &it.virtual_ips);
        // Addresses stay, and so does their order.
        let mut virtual_ips: Vec<EndpointVirtualIp> = old
            .filter(|vip| wanted.iter().any(|network| *network.id == vip.network_id))
            .cloned()
            .collect();
        let mut taken = Vec::new();
        for network in wanted {
            if virtual_ips.iter().any(|vip| *network.id == vip.network_id) {
                continue;
            }
            if network.local_driver().is_some() {
                // As the original shows it: on the network, without an address of its own.
                virtual_ips.push(EndpointVirtualIp {
                    network_id: network.id.to_string(),
                    addr: String::new(),
                });
                continue;
            }
            let Some(cidr) = self.take(&network.id) else {
                self.wait(&network.id, taken, want);
                return None;
            };
            taken.push((network.id.clone(), cidr));
            let ipv6 = self.ipv6(&network.id, cidr);
            let both = [Some(cidr.to_string()), ipv6.map(|it| it.to_string())];
            let both = both.into_iter().flatten();
            virtual_ips.extend(both.map(|addr| EndpointVirtualIp {
                network_id: network.id.to_string(),
                addr,
            }));
        }
        let Some(ports) = self.publishing.choose(service) else {
            self.give_back(taken);
            return None;
        };
        let mut service = service.as_ref().clone();
        service.endpoint = Some(Endpoint {
            spec: service.spec.endpoint_spec.clone().unwrap_or_default(),
            ports,
            virtual_ips,
        });
        Some(Change::Update(service.into()))
    }

    /// A node has one address on every network of which it has live tasks, and on the one on which
    /// ports are published. One that is down may merely be cut off, so that it still has them; one
    /// that left has a part in nothing, whatever was never heard of its tasks.
    pub(super) fn give_node(&mut self, node: &Arc<Node>, want: &Want) -> Option<Change> {
        let here = (node.id.clone(), Id::from(""))..;
        let crowds = self.crowds.range(here);
        let crowds = crowds.take_while(|((of, _), _)| *of == node.id);
        let mut wanted: BTreeSet<Id> = crowds.map(|((_, network), _)| network.clone()).collect();
        wanted.extend(self.publishing.everywhere().cloned());
        if node.has_left() {
            wanted.clear();
        }
        let mut gateways = node.gateways.clone();
        gateways.retain(|network, _| wanted.contains(network));
        for network in wanted {
            if gateways.contains_key(&network) {
                continue;
            }
            if !self.networks.contains_key(&network) {
                // A part in it without an address: its addresses are the engine's.
                gateways.insert(network, Ipv4Addr::UNSPECIFIED);
                continue;
            }
            match self.take(&network) {
                Some(cidr) => drop(gateways.insert(network, cidr.address)),
                // The others do not have to wait for this one.
                None => self.wait(&network, Vec::new(), want),
            }
        }
        if gateways == node.gateways {
            return None;
        }
        let mut node = node.as_ref().clone();
        node.gateways = gateways;
        Some(Change::Update(node.into()))
    }

    pub(super) fn give_task(
        &mut self,
        task: &Arc<Task>,
        view: &State,
        want: &Want,
        now: Timestamp,
    ) -> Option<Change> {
        // Nobody is going to run it.
        let unwanted = task.desired_state > TaskState::Complete;
        let mut attachments = Vec::new();
        if !unwanted {
            match self.attach(task, view, want) {
                Ok(given) => attachments = given,
                Err(why) if task.status.err == why => return None,
                Err(why) => {
                    let mut task = task.as_ref().clone();
                    task.status.err = why;
                    task.status.timestamp = now;
                    return Some(Change::Update(task.into()));
                }
            }
        }
        let mut task = task.as_ref().clone();
        task.attachments = attachments;
        task.status.state = TaskState::Pending;
        task.status.message = PENDING.to_owned();
        task.status.err.clear();
        task.status.timestamp = now;
        Some(Change::Update(task.into()))
    }

    fn attach(
        &mut self,
        task: &Task,
        view: &State,
        want: &Want,
    ) -> Result<Vec<Attachment>, String> {
        if self.publishing.is_waiting(&task.service_id) {
            return Err("no port is left to publish between 30000 and 32767".to_owned());
        }
        let mut attachments = Vec::new();
        let mut taken = Vec::new();
        let targets = task.spec.networks.iter().map(|wanted| &*wanted.target);
        if let Some(gone) = targets
            .into_iter()
            .find(|id| view.networks().get(id).is_none())
        {
            self.wait(&gone.into(), taken, want);
            return Err(format!("network {gone} not found"));
        }
        let ingress = self.publishing.network().filter(|_| task.publishes());
        let ingress = ingress.and_then(|id| view.networks().get(id));
        let others = networks(&task.spec.networks, view);
        for network in ingress.into_iter().chain(others) {
            let place = if network.local_driver().is_some() {
                Place::Engine(engine_name(&network.id, false))
            } else if network.subnet().is_none() {
                Place::Engine(network.spec.name.clone())
            } else if let Some(address) = task.attached.as_ref().and_then(|it| it.address) {
                let Some(cidr) = self.take_this(&network.id, address) else {
                    let waiting = self.pinned.entry((network.id.clone(), address));
                    waiting.or_default().insert(task.id.clone());
                    return Err(not_to_be_had(network, address));
                };
                taken.push((network.id.clone(), cidr));
                Place::Address(cidr)
            } else if let Some(cidr) = self.take_last(&network.id, task) {
                taken.push((network.id.clone(), cidr));
                Place::Address(cidr)
            } else {
                self.wait(&network.id, taken, want);
                return Err(exhausted(network));
            };
            let (ipv6, branch) = match &place {
                Place::Address(cidr) => (
                    self.ipv6(&network.id, *cidr),
                    self.branch(&network.id, *cidr),
                ),
                Place::Engine(_) => (None, 0),
            };
            attachments.push(Attachment {
                network: network.id.clone(),
                place,
                ipv6,
                branch,
            });
        }
        Ok(attachments)
    }

    fn take(&mut self, network: &Id) -> Option<Cidr> {
        self.networks.get_mut(network)?.take()
    }

    fn take_this(&mut self, network: &Id, address: Ipv4Addr) -> Option<Cidr> {
        self.networks.get_mut(network)?.take_this(address)
    }

    /// Which of its network's subnets an address is in.
    fn branch(&self, network: &Id, cidr: Cidr) -> usize {
        let pools = self.networks.get(network);
        pools
            .and_then(|pools| pools.branch(cidr.address))
            .unwrap_or_default()
    }

    /// What an address stands for on its network's IPv6 side.
    fn ipv6(&self, network: &Id, cidr: Cidr) -> Option<Cidr6> {
        self.networks.get(network)?.ipv6(cidr.address)
    }

    /// The address that the task's container had before, or else the next one.
    fn take_last(&mut self, network: &Id, task: &Task) -> Option<Cidr> {
        let last = task.attached.as_ref().and_then(|it| it.last);
        let same = last.and_then(|address| self.take_this(network, address));
        same.or_else(|| self.take(network))
    }

    /// Gives back what was taken so far and waits for the network.
    fn wait(&mut self, network: &Id, taken: Vec<(Id, Cidr)>, want: &Want) {
        self.give_back(taken);
        let waiting = self.waiting.entry(network.clone()).or_default();
        waiting.insert(want.clone());
    }

    fn give_back(&mut self, taken: Vec<(Id, Cidr)>) {
        for (network, cidr) in taken {
            self.release(&network, cidr.address);
        }
    }
}

/// What a task says that waits for an address. The original leaves the user without a reason.
fn exhausted(network: &NetworkObject) -> String {
    let (name, subnets) = (&network.spec.name, network.subnets_in_words());
    format!("no address is left on network {name} ({subnets})")
}

/// What a task says whose container must have an address that it cannot have now.
fn not_to_be_had(network: &NetworkObject, address: Ipv4Addr) -> String {
    let (name, subnets) = (&network.spec.name, network.subnets_in_words());
    format!("address {address} is taken, or none of network {name} ({subnets})")
}
