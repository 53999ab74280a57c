//! Gives tasks, services and nodes their addresses on the swarm's networks, services the ports that
//! they leave open, and tasks leave to be scheduled. Never chooses a node, a subnet or a network.
//!
//! What is taken is read from the store: live tasks, the virtual addresses and ports of services,
//! and the gateways of nodes. What is here is a cache of that.

mod addresses;
mod keys;
mod pools;
mod ports;
mod publishing;
pub(crate) mod subnets;
pub(crate) mod subnets6;
mod wants;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::Timestamp;
use crate::id::{Id, IdSource};
use crate::object::{Node, Object, Place, Service, Task};
use crate::ports::of_data_path;
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};

pub use keys::Keys;
use pools::Pools;
use publishing::Publishing;
use wants::has_endpoint;

/// Who needs addresses, in the order in which they get them: a service's come before its tasks'.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Service(Id),
    Node(Id),
    Task(Id),
}

/// Gives out addresses, and moves tasks from new to pending.
#[derive(Debug, Default)]
pub struct Allocator {
    networks: BTreeMap<Id, Pools>,
    dirty: BTreeSet<Want>,
    /// Who found no address left, by network.
    waiting: BTreeMap<Id, BTreeSet<Want>>,
    /// Who waits for one address and no other.
    pinned: BTreeMap<(Id, Ipv4Addr), BTreeSet<Id>>,
    /// Networks with addresses that have become free.
    eased: BTreeSet<Id>,
    /// Live tasks by node and network.
    crowds: BTreeMap<(Id, Id), usize>,
    publishing: Publishing,
}

impl Reconciler for Allocator {
    fn mark_all(&mut self, view: &State) {
        *self = Self::default();
        self.publishing.reserve(of_data_path(view));
        for network in view.networks().iter() {
            let addresses = Pools::of(network).map(|it| (network.id.clone(), it));
            self.networks.extend(addresses);
            self.publishing.network_came(network);
        }
        for service in view.services().iter() {
            self.hold(vips(service));
            self.publishing.enter(service);
            self.touch_service(service, view);
        }
        for node in view.nodes().iter() {
            self.hold(gateways(node));
            self.dirty.insert(Want::Node(node.id.clone()));
        }
        for task in view.tasks().iter() {
            self.enter(task);
            self.touch_task(task);
        }
        // All nodes have their turn; what comes next is news again.
        self.publishing.news();
    }

    fn observe(&mut self, event: &Event, view: &State) {
        match (&event.before, &event.after) {
            (before, Some(Object::Task(after))) => {
                let before = match before {
                    Some(Object::Task(before)) => Some(before),
                    _ => None,
                };
                if !before.is_some_and(|before| holds_the_same(before, after)) {
                    before.into_iter().for_each(|before| self.exit(before));
                    self.enter(after);
                }
                self.touch_task(after);
            }
            (Some(Object::Task(before)), None) => {
                self.exit(before);
                self.give_up(&Want::Task(before.id.clone()));
                self.unpin(before);
            }
            (before, Some(Object::Service(after))) => {
                let before = match before {
                    Some(Object::Service(before)) => Some(before),
                    _ => None,
                };
                self.service_changed(before, after, view);
            }
            (Some(Object::Service(before)), None) => {
                self.drop(vips(before));
                self.give_up(&Want::Service(before.id.clone()));
                self.publishing.exit(before);
                self.publishing_changed(view);
            }
            (before, Some(Object::Node(after))) => {
                match before {
                    Some(Object::Node(before)) => self.node_changed(before, after),
                    _ => drop(self.dirty.insert(Want::Node(after.id.clone()))),
                }
                self.hold(gateways(after));
            }
            (Some(Object::Node(before)), None) => self.drop(gateways(before)),
            (None, Some(Object::Network(network))) => {
                let addresses = Pools::of(network).map(|it| (network.id.clone(), it));
                self.networks.extend(addresses);
                self.eased.insert(network.id.clone());
                self.publishing.network_came(network);
                self.publishing_changed(view);
            }
            (Some(Object::Network(network)), None) => {
                self.networks.remove(&network.id);
                self.publishing.network_went(network);
                self.publishing_changed(view);
            }
            (_, Some(Object::Cluster(_))) => self.publishing.reserve(of_data_path(view)),
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, _ids: &mut dyn IdSource) -> Plan {
        let eased = std::mem::take(&mut self.eased);
        let mut changes = Vec::new();
        loop {
            // Whoever is called may need nothing any more: then it is the next one's turn.
            eased.iter().for_each(|network| self.call(network));
            let dirty = std::mem::take(&mut self.dirty);
            if dirty.is_empty() {
                break;
            }
            for want in &dirty {
                changes.extend(self.give(want, view, now));
            }
        }
        Plan {
            changes,
            wake_at: None,
        }
    }
}

impl Allocator {
    fn give(&mut self, want: &Want, view: &State, now: Timestamp) -> Option<Change> {
        match want {
            Want::Service(id) => self.give_service(view.services().get(id)?, view, want),
            Want::Node(id) => self.give_node(view.nodes().get(id)?, want),
            Want::Task(id) => {
                let task = view.tasks().get(id).filter(|task| is_new(task))?;
                self.give_task(task, view, want, now)
            }
        }
    }

    /// A task that has come, or changed: its addresses are taken while it lives.
    fn enter(&mut self, task: &Task) {
        for (network, address) in held(task) {
            if let Some(addresses) = self.networks.get_mut(network) {
                addresses.mark(address);
            }
            let Some(node) = &task.node_id else { continue };
            let crowd = self.crowds.entry((node.clone(), network.clone()));
            let crowd = crowd.or_default();
            *crowd += 1;
            if *crowd == 1 {
                self.dirty.insert(Want::Node(node.clone()));
            }
        }
    }

    /// The reverse. One that has merely changed enters again at once, so that nobody notices.
    fn exit(&mut self, task: &Task) {
        for (network, address) in held(task) {
            self.release(network, address);
            let Some(node) = &task.node_id else { continue };
            let key = (node.clone(), network.clone());
            let Some(crowd) = self.crowds.get_mut(&key) else {
                continue;
            };
            *crowd -= 1;
            if *crowd == 0 {
                self.crowds.remove(&key);
                self.dirty.insert(Want::Node(node.clone()));
            }
        }
    }

    fn node_changed(&mut self, before: &Node, after: &Node) {
        if before.gateways != after.gateways {
            self.drop(gateways(before));
        }
        if before.has_left() != after.has_left() {
            self.dirty.insert(Want::Node(after.id.clone()));
        }
    }

    fn touch_task(&mut self, task: &Arc<Task>) {
        if is_new(task) {
            self.dirty.insert(Want::Task(task.id.clone()));
        }
    }

    fn touch_service(&mut self, service: &Service, view: &State) {
        if !has_endpoint(service, self.publishing.network(), view) {
            self.dirty.insert(Want::Service(service.id.clone()));
        }
    }

    fn service_changed(&mut self, before: Option<&Arc<Service>>, after: &Service, view: &State) {
        if let Some(before) = before {
            if before.endpoint != after.endpoint {
                self.drop(vips(before));
            }
            self.publishing.exit(before);
        }
        self.hold(vips(after));
        self.publishing.enter(after);
        self.publishing_changed(view);
        self.touch_service(after, view);
    }

    /// Whoever waits for what services publish, or for that they do, has its turn.
    fn publishing_changed(&mut self, view: &State) {
        let (services, nodes) = self.publishing.news();
        for id in services {
            let tasks = view.tasks_of_service(&id);
            tasks.for_each(|task| self.touch_task(task));
            self.dirty.insert(Want::Service(id));
        }
        if nodes {
            let all = view.nodes().iter();
            self.dirty
                .extend(all.map(|node| Want::Node(node.id.clone())));
        }
    }

    fn hold<'a>(&mut self, held: impl Iterator<Item = (Id, Ipv4Addr)> + 'a) {
        for (network, address) in held {
            if let Some(addresses) = self.networks.get_mut(&network) {
                addresses.mark(address);
            }
        }
    }

    fn drop<'a>(&mut self, held: impl Iterator<Item = (Id, Ipv4Addr)> + 'a) {
        for (network, address) in held {
            self.release(&network, address);
        }
    }

    fn release(&mut self, network: &Id, address: Ipv4Addr) {
        if let Some(addresses) = self.networks.get_mut(network) {
            addresses.release(address);
        }
        if let Some(tasks) = self.pinned.remove(&(network.clone(), address)) {
            self.dirty.extend(tasks.into_iter().map(Want::Task));
        }
        if self.waiting.contains_key(network) {
            self.eased.insert(network.clone());
        }
    }

    /// One that is gone waits for nothing.
    fn give_up(&mut self, want: &Want) {
        for waiting in self.waiting.values_mut() {
            waiting.remove(want);
        }
    }

    fn unpin(&mut self, task: &Task) {
        let Some(address) = task.attached.as_ref().and_then(|it| it.address) else {
            return;
        };
        for network in &task.spec.networks {
            let key = (Id::from(network.target.as_str()), address);
            if let Some(tasks) = self.pinned.get_mut(&key) {
                tasks.remove(&task.id);
                if tasks.is_empty() {
                    self.pinned.remove(&key);
                }
            }
        }
    }

    /// Lets as many try again as there are addresses.
    fn call(&mut self, network: &Id) {
        let free = self.networks.get(network).map_or(0, Pools::free);
        let Some(waiting) = self.waiting.get_mut(network) else {
            return;
        };
        for _ in 0..free {
            let Some(want) = waiting.pop_first() else {
                break;
            };
            self.dirty.insert(want);
        }
        if waiting.is_empty() {
            self.waiting.remove(network);
        }
    }
}

/// A task that is no longer wanted becomes pending all the same: the scheduler passes over it.
fn is_new(task: &Task) -> bool {
    task.status.state == TaskState::New
}

fn holds_the_same(one: &Task, other: &Task) -> bool {
    one.node_id == other.node_id && held(one).eq(held(other))
}

/// The networks that its node makes for a task as long as it lives, with the task's addresses there;
/// no address where engines choose.
fn held(task: &Task) -> impl Iterator<Item = (&Id, Ipv4Addr)> {
    let live = !task.status.state.is_terminal();
    let attachments = task.attachments.iter().filter(move |_| live);
    attachments.filter_map(|attachment| match &attachment.place {
        Place::Address(cidr) => Some((&attachment.network, cidr.address)),
        Place::Engine(_) if attachment.is_made_here() => {
            Some((&attachment.network, Ipv4Addr::UNSPECIFIED))
        }
        Place::Engine(_) => None,
    })
}

fn vips(service: &Service) -> impl Iterator<Item = (Id, Ipv4Addr)> {
    let endpoint = service.endpoint.iter();
    let vips = endpoint.flat_map(|endpoint| &endpoint.virtual_ips);
    vips.filter_map(|vip| {
        let cidr: crate::cidr::Cidr = vip.addr.parse().ok()?;
        Some((vip.network_id.as_str().into(), cidr.address))
    })
}

fn gateways(node: &Node) -> impl Iterator<Item = (Id, Ipv4Addr)> {
    let gateways = node.gateways.iter();
    gateways.map(|(network, address)| (network.clone(), *address))
}

#[cfg(test)]
mod tests;
