//! Tasks that stand for containers of others: which of these are being started or connected, and
//! what whoever does that has to know. Never touches such a container.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskState;

use super::Worker;
use super::lanes::Target;
use crate::cidr::Cidr;
use crate::controller::Controller;
use crate::id::Id;
use crate::ipv6::Cidr6;
use crate::object::Place;
use crate::plane;
use crate::wire::{PeerInfo, ServiceInfo};

/// Containers of others that are on networks of the swarm.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// The tasks that stand for each, by the container's id.
    tasks: BTreeMap<String, BTreeSet<Id>>,
    /// How many are at work on each now.
    held: BTreeMap<String, u32>,
    /// Something of it is another way than it was last told.
    changed: bool,
}

/// A container's place on a network, as its node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The task that stands for it.
    pub task: Id,
    /// The container.
    pub container: String,
    /// The network.
    pub network: Id,
    /// What the engine calls its part of it.
    pub engines: String,
    /// Its name; empty while it is not known here.
    pub name: String,
    /// The container's address there.
    pub address: Cidr,
    /// Its address on the network's IPv6 side, if that has one.
    pub ipv6: Option<Cidr6>,
    /// The network is here: the container may be connected.
    pub ready: bool,
    /// Why it never will be.
    pub error: Option<String>,
}

impl Attachments {
    pub(super) fn enter(&mut self, controller: &Controller) {
        if let Some(container) = controller.attached() {
            let tasks = self.tasks.entry(container.id.clone()).or_default();
            self.changed |= tasks.insert(controller.task().id.clone());
        }
    }

    /// The container of a task that is no more, if it stood for one.
    fn leave(&mut self, id: &Id) -> Option<String> {
        let found = self.tasks.iter_mut().find(|(_, tasks)| tasks.contains(id));
        let (container, tasks) = found?;
        let container = container.clone();
        tasks.remove(id);
        if tasks.is_empty() {
            self.tasks.remove(&container);
        }
        self.changed = true;
        Some(container)
    }

    pub(super) fn holds(&self, controller: &Controller) -> bool {
        let container = controller.attached();
        container.is_some_and(|container| self.held.contains_key(&container.id))
    }
}

impl Worker {
    /// Somebody begins to work on a container.
    pub(super) fn hold(&mut self, container: String) {
        *self.attachments.held.entry(container).or_default() += 1;
    }

    /// Somebody's work on a container is over: what the engine shows of it counts again.
    pub(super) fn let_go(&mut self, container: &str) {
        let Some(count) = self.attachments.held.get_mut(container) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.attachments.held.remove(container);
        }
        self.look_at_container(container);
    }

    /// Something happened to a container that may be one of others.
    pub(super) fn look_at_container(&mut self, container: &str) {
        for id in self.attachments.tasks.get(container).into_iter().flatten() {
            if let Some(controller) = self.tasks.get_mut(id) {
                controller.happened(None);
                self.awake.insert(Target::Task(id.clone()));
            }
        }
    }

    /// The engine may have done anything meanwhile.
    pub(super) fn look_at_all_attached(&mut self) {
        let all: Vec<String> = self.attachments.tasks.keys().cloned().collect();
        all.iter().for_each(|it| self.look_at_container(it));
    }

    /// All places of containers on networks, if anything about them has changed since it was last
    /// told.
    pub fn standings(&mut self) -> Option<Vec<Standing>> {
        if !std::mem::take(&mut self.attachments.changed) {
            return None;
        }
        let tasks = self.attachments.tasks.values().flatten();
        let all = tasks.filter_map(|id| standing(self.tasks.get(id)?));
        let named = all.map(|it| Standing {
            name: self.networks.name(&it.network).to_owned(),
            ..it
        });
        Some(named.collect())
    }

    /// Nodes that have a part in a network, as far as this one has a part in it.
    pub fn peers(&self, network: &Id) -> Vec<PeerInfo> {
        self.networks.peers(network)
    }

    /// Services on a network by their names, as far as this node has a part in it.
    pub fn services(&self, network: &Id) -> BTreeMap<String, ServiceInfo> {
        let overlay = self.networks.wanted(network);
        let services = overlay.and_then(|it| self.directories.described(it));
        services.unwrap_or_default()
    }

    /// A task is no more.
    pub(super) fn leave_attached(&mut self, id: &Id) {
        if let Some(container) = self.attachments.leave(id) {
            self.show_container(&container);
        }
    }

    /// The data plane knows a container once, with all its places.
    pub(super) fn show_attached(&mut self, id: &Id) {
        let container = self.tasks.get(id).and_then(Controller::attached);
        if let Some(container) = container.map(|it| it.id.clone()) {
            self.show_container(&container);
        }
    }

    fn show_container(&mut self, container: &str) {
        let tasks = self.attachments.tasks.get(container).into_iter().flatten();
        let places = tasks.filter_map(|id| self.tasks.get(id)?.in_plane());
        let whole = places.reduce(|mut whole, place| {
            // One that runs runs, also while it is to be on one more network.
            if whole.starting {
                (whole.pid, whole.starting) = (place.pid, place.starting);
            }
            whole.addresses.extend(place.addresses);
            whole
        });
        let id = Id::from(container);
        let whole = whole.map(|it| plane::Container {
            id: id.clone(),
            ..it
        });
        self.directories.local(&id, false, whole);
    }

    /// A step of one of their tasks may have changed something.
    pub(super) fn note_attached(&mut self, id: &Id) {
        let is_one = self.tasks.get(id).is_some_and(|it| it.attached().is_some());
        self.attachments.changed |= is_one;
    }
}

fn standing(controller: &Controller) -> Option<Standing> {
    let task = controller.task();
    let attachment = task.attachments.first()?;
    let address = match &attachment.place {
        Place::Address(address) => *address,
        Place::Engine(_) => Cidr::NONE,
    };
    let status = controller.status();
    let failed = status.state.is_terminal() && status.state != TaskState::Shutdown;
    Some(Standing {
        task: task.id.clone(),
        container: controller.attached()?.id.clone(),
        network: attachment.network.clone(),
        engines: attachment.engine_name(false),
        name: String::new(),
        address,
        ipv6: attachment.ipv6,
        ready: controller.is_ready(),
        error: failed.then(|| status.err.clone()),
    })
}

#[cfg(test)]
#[path = "attached_tests.rs"]
mod tests;
