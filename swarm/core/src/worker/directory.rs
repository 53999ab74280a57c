//! Who is on this node's networks, as the dispatcher told and as far as this node knows better: of
//! its own tasks only those are shown that serve. Says what the data plane is to be told. Never
//! asks the engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::assignment::{Assignments, Directory, Overlay};
use crate::id::Id;
use crate::plane::{Change, Container, Endpoint, Network, Port, Service};
use crate::wire::{ServiceInfo, network_services};

/// The networks of a node.
#[derive(Debug, Default)]
pub(super) struct Directories {
    known: BTreeMap<Id, Known>,
    /// Tasks of this node that serve.
    serving: BTreeSet<Id>,
    /// Containers of this node that run or are about to, as the plane was told.
    containers: BTreeMap<Id, Container>,
    /// What the plane is still to be told.
    changes: Vec<Change>,
}

/// One network.
#[derive(Debug, Default)]
struct Known {
    listed: Listed,
    /// The first parts of all of it; they count once the last one is there.
    coming: Option<Listed>,
    /// What the network is in the plane, once it is there.
    there: Option<Network>,
    /// Endpoints that the plane was told of.
    shown: BTreeSet<Id>,
}

/// Who is on a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Listed {
    pub services: BTreeMap<Id, Service>,
    pub endpoints: BTreeMap<Id, Endpoint>,
}

impl Listed {
    fn take(&mut self, directory: Directory) {
        let services = directory.services.into_iter();
        self.services.extend(services.map(|it| (it.id.clone(), it)));
        let endpoints = directory.endpoints.into_iter();
        self.endpoints
            .extend(endpoints.map(|it| (it.id.clone(), it)));
        for id in &directory.services_removed {
            self.services.remove(id);
        }
        for id in &directory.endpoints_removed {
            self.endpoints.remove(id);
        }
    }
}

impl Directories {
    /// A network that is there from before a restart, with who was on it.
    pub(super) fn restore(&mut self, overlay: &Overlay, listed: Listed) {
        let known = Known {
            listed,
            ..Known::default()
        };
        self.known.insert(overlay.id.clone(), known);
        self.there(overlay);
    }

    /// Takes in what was assigned. Returns the networks that it is about.
    pub(super) fn assign(&mut self, assignments: &mut Assignments) -> BTreeSet<Id> {
        let mut touched = BTreeSet::new();
        let mut gone = assignments.networks_removed.clone();
        if assignments.complete {
            let told: BTreeSet<&Id> = assignments.networks.iter().map(|it| &it.id).collect();
            gone.extend(self.known.keys().filter(|id| !told.contains(id)).cloned());
        }
        for id in gone {
            self.gone(&id);
            self.known.remove(&id);
            touched.insert(id);
        }
        for overlay in &assignments.networks {
            self.known.entry(overlay.id.clone()).or_default();
        }
        for directory in std::mem::take(&mut assignments.directories) {
            touched.insert(directory.network.clone());
            self.told(directory);
        }
        touched
    }

    fn told(&mut self, directory: Directory) {
        let network = directory.network.clone();
        let Some(known) = self.known.get_mut(&network) else {
            return;
        };
        if !directory.complete {
            let services: Vec<Id> = ids(&directory.services, |it| &it.id)
                .chain(directory.services_removed.iter().cloned())
                .collect();
            let endpoints: Vec<Id> = ids(&directory.endpoints, |it| &it.id)
                .chain(directory.endpoints_removed.iter().cloned())
                .collect();
            known.listed.take(directory);
            for id in services {
                self.show_service(&network, &id);
            }
            for id in endpoints {
                self.show(&network, &id);
            }
            return;
        }
        let more = directory.more;
        known.coming.get_or_insert_default().take(directory);
        if !more && let Some(all) = known.coming.take() {
            let before = std::mem::replace(&mut known.listed, all);
            let now = &known.listed;
            let services = different(&before.services, &now.services);
            let endpoints = different(&before.endpoints, &now.endpoints);
            for id in services {
                self.show_service(&network, &id);
            }
            for id in endpoints {
                self.show(&network, &id);
            }
        }
    }

    /// A network is there: the plane is told all of it.
    pub(super) fn there(&mut self, overlay: &Overlay) {
        if overlay.driver.is_some() {
            // All that is done there the engine does.
            return;
        }
        let Some(known) = self.known.get_mut(&overlay.id) else {
            return;
        };
        let network = Network::from(overlay);
        if known.there.as_ref() == Some(&network) {
            return;
        }
        self.changes.push(Change::Network(network.clone()));
        let is_new = known.there.replace(network).is_none();
        if is_new {
            self.show_all(&overlay.id);
        }
    }

    /// A network is not there any more.
    pub(super) fn gone(&mut self, id: &Id) {
        if let Some(known) = self.known.get_mut(id)
            && known.there.take().is_some()
        {
            known.shown.clear();
            self.changes.push(Change::NetworkGone(id.clone()));
        }
    }

    /// Whether a task of this node serves, and its container while it runs or is about to.
    pub(super) fn local(&mut self, task: &Id, serves: bool, container: Option<Container>) {
        if self.containers.get(task) != container.as_ref() {
            self.changes.push(match container {
                Some(container) => {
                    self.containers.insert(task.clone(), container.clone());
                    Change::Container(container)
                }
                None => {
                    self.containers.remove(task);
                    Change::ContainerGone(task.clone())
                }
            });
        }
        let changed = match serves {
            true => self.serving.insert(task.clone()),
            false => self.serving.remove(task),
        };
        if changed {
            let networks: Vec<Id> = self.known.keys().cloned().collect();
            networks.iter().for_each(|network| self.show(network, task));
        }
    }

    /// The plane has just started and knows nothing.
    pub(super) fn tell_all(&mut self) {
        self.changes.clear();
        let networks: Vec<Id> = self.known.keys().cloned().collect();
        for id in networks {
            if let Some(known) = self.known.get_mut(&id) {
                known.shown.clear();
                let network = known.there.clone().map(Change::Network);
                self.changes.extend(network);
            }
            self.show_all(&id);
        }
        let containers = self.containers.values().cloned();
        self.changes.extend(containers.map(Change::Container));
    }

    /// What the plane is to be told now.
    pub(super) fn take(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The services on a network, with those that serve, in the form of `docker network inspect`.
    pub(super) fn described(&self, overlay: &Overlay) -> Option<BTreeMap<String, ServiceInfo>> {
        let known = self.known.get(&overlay.id)?;
        let shown = known.shown.iter();
        let shown = shown.filter_map(|id| known.listed.endpoints.get(id));
        Some(network_services(overlay, &known.listed.services, shown))
    }

    /// Who is on a network; `None` if the node has no part in it.
    pub(super) fn listed(&self, network: &Id) -> Option<&Listed> {
        self.known.get(network).map(|known| &known.listed)
    }

    /// The ports that a service publishes on every node, as far as this node has a part in that.
    pub(super) fn ports_of(&self, service: &Id) -> impl Iterator<Item = &Port> {
        let listed = self.known.values();
        let services = listed.filter_map(|known| known.listed.services.get(service));
        services.flat_map(|service| &service.ports)
    }

    fn show_all(&mut self, network: &Id) {
        let Some(known) = self.known.get(network) else {
            return;
        };
        let services: Vec<Id> = known.listed.services.keys().cloned().collect();
        let endpoints: Vec<Id> = known.listed.endpoints.keys().cloned().collect();
        services
            .iter()
            .for_each(|id| self.show_service(network, id));
        endpoints.iter().for_each(|id| self.show(network, id));
    }

    fn show_service(&mut self, network: &Id, id: &Id) {
        let Some(known) = self.known.get(network).filter(|it| it.there.is_some()) else {
            return;
        };
        self.changes.push(match known.listed.services.get(id) {
            Some(service) => Change::Service(network.clone(), service.clone()),
            None => Change::ServiceGone(network.clone(), id.clone()),
        });
    }

    fn show(&mut self, network: &Id, id: &Id) {
        let Some(known) = self.known.get_mut(network) else {
            return;
        };
        if known.there.is_none() {
            return;
        }
        // The dispatcher knows best of the others' tasks, and this node of its own.
        let listed = known.listed.endpoints.get(id);
        let shown = listed.filter(|it| it.host.is_some() || self.serving.contains(id));
        match shown {
            Some(endpoint) => {
                known.shown.insert(id.clone());
                let endpoint = endpoint.clone();
                self.changes
                    .push(Change::Endpoint(network.clone(), endpoint));
            }
            None if known.shown.remove(id) => {
                let gone = Change::EndpointGone(network.clone(), id.clone());
                self.changes.push(gone);
            }
            None => {}
        }
    }
}

fn ids<T>(all: &[T], id: impl Fn(&T) -> &Id) -> impl Iterator<Item = Id> {
    all.iter().map(move |it| id(it).clone())
}

/// Keys whose values are not the same on both sides.
fn different<T: PartialEq>(before: &BTreeMap<Id, T>, now: &BTreeMap<Id, T>) -> Vec<Id> {
    let came = now.iter().filter(|(id, it)| before.get(*id) != Some(*it));
    let went = before.keys().filter(|id| !now.contains_key(*id));
    came.map(|(id, _)| id).chain(went).cloned().collect()
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
