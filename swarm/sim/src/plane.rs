//! A data plane that is not there: it remembers what it was told. Never decides who is on a network.

use std::collections::BTreeMap;

use skep_core::Id;
use skep_core::plane::{Change, Container, Endpoint, Network, Service};

/// What a host's data plane knows.
#[derive(Default)]
pub struct Plane {
    /// Networks by id.
    pub networks: BTreeMap<Id, Network>,
    /// By network and service.
    pub services: BTreeMap<(Id, Id), Service>,
    /// By network and task.
    pub endpoints: BTreeMap<(Id, Id), Endpoint>,
    /// By task.
    pub containers: BTreeMap<Id, Container>,
}

impl Plane {
    /// Takes in what is another way now.
    pub fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Network(it) => drop(self.networks.insert(it.id.clone(), it)),
                Change::NetworkGone(id) => {
                    self.networks.remove(&id);
                    self.services.retain(|(network, _), _| *network != id);
                    self.endpoints.retain(|(network, _), _| *network != id);
                }
                Change::Service(network, it) => {
                    self.services.insert((network, it.id.clone()), it);
                }
                Change::ServiceGone(network, id) => drop(self.services.remove(&(network, id))),
                Change::Endpoint(network, it) => {
                    self.endpoints.insert((network, it.id.clone()), it);
                }
                Change::EndpointGone(network, id) => drop(self.endpoints.remove(&(network, id))),
                Change::Container(it) => drop(self.containers.insert(it.id.clone(), it)),
                Change::ContainerGone(id) => drop(self.containers.remove(&id)),
            }
        }
    }

    /// Whether a task is to be found on any network.
    pub fn shows(&self, task: &str) -> bool {
        self.endpoints.keys().any(|(_, id)| **id == *task)
    }
}
