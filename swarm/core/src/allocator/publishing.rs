//! What services publish on every node: which of them do, on which network, and who waits for a
//! port. Every node has a part in that network from the first service on until none is left, so
//! that a swarm without published ports carries nothing of it. Never touches a store.

use std::collections::BTreeSet;

use skep_api::network::PortConfig;

use super::ports::Ports;
use crate::id::Id;
use crate::object::{NetworkObject, Service};
use crate::ports::publishes;

/// The published ports of a swarm.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    ports: Ports,
    /// Services that publish ports on every node.
    services: BTreeSet<Id>,
    /// Services for which no port was left.
    waiting: BTreeSet<Id>,
    /// The network on which ports are published.
    network: Option<Id>,
    /// A port has become free.
    eased: bool,
    /// Where nodes had a part when that was last told.
    told: Option<Id>,
}

impl Publishing {
    pub(super) fn network_came(&mut self, network: &NetworkObject) {
        if network.spec.ingress {
            self.network = Some(network.id.clone());
        }
    }

    pub(super) fn network_went(&mut self, network: &NetworkObject) {
        self.network.take_if(|id| *id == network.id);
    }

    /// These UDP ports are the nodes' own.
    pub(super) fn reserve(&mut self, udp: [u32; 2]) {
        self.ports.reserve(udp);
    }

    pub(super) fn enter(&mut self, service: &Service) {
        self.ports.enter(service);
        if publishes(&service.spec) {
            self.services.insert(service.id.clone());
        }
    }

    /// The reverse. One that has merely changed enters again at once.
    pub(super) fn exit(&mut self, service: &Service) {
        self.eased |= self.ports.exit(service);
        self.services.remove(&service.id);
    }

    /// The network on which ports are published, if there is one.
    pub(super) fn network(&self) -> Option<&Id> {
        self.network.as_ref()
    }

    /// The network in which every node has a part now.
    pub(super) fn everywhere(&self) -> Option<&Id> {
        self.network().filter(|_| !self.services.is_empty())
    }

    /// Whether the service found no port left.
    pub(super) fn is_waiting(&self, service: &Id) -> bool {
        self.waiting.contains(service)
    }

    /// The ports of a service; `None` if it has to wait for one.
    pub(super) fn choose(&mut self, service: &Service) -> Option<Vec<PortConfig>> {
        let ports = self.ports.choose(service);
        match ports {
            Some(_) => self.waiting.remove(&service.id),
            None => self.waiting.insert(service.id.clone()),
        };
        ports
    }

    /// Services that may try again, with their tasks, and whether it is all nodes' turn, since the
    /// last time.
    pub(super) fn news(&mut self) -> (BTreeSet<Id>, bool) {
        let services = match std::mem::take(&mut self.eased) {
            true => std::mem::take(&mut self.waiting),
            false => BTreeSet::new(),
        };
        let everywhere = self.everywhere().cloned();
        let nodes = everywhere != self.told;
        self.told = everywhere;
        (services, nodes)
    }
}
