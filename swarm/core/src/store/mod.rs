//! The replicated store: every manager applies the same transactions in the same order and gets the
//! same state. Never decides what to write; it only refuses what must not be written.

mod index;
mod table;
mod tx;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use index::folded;
pub use table::Table;
#[cfg(test)]
pub(crate) use table::reads;
pub use tx::{Author, Batch, Change, Event, Reject, Tx};

use crate::Timestamp;
use crate::id::Id;
use crate::object::{
    Cluster, ConfigObject, Kind, Meta, NetworkObject, Node, Object, SecretObject, Service, Task,
};
use crate::task;

/// Everything the cluster knows. Clones share their structure and cost next to nothing, so a clone
/// is a consistent read view.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Tables", into = "Tables")]
pub struct State {
    tables: Tables,
    /// Services, secrets, configs and networks by name, each kind for itself.
    by_name: OrdMap<(Kind, Arc<str>), Id>,
    /// With their slots.
    tasks_of_service: OrdMap<Id, OrdSet<(u64, Id)>>,
    tasks_of_node: OrdMap<Id, OrdSet<Id>>,
    tasks_of_network: OrdMap<Id, OrdSet<Id>>,
    /// Tasks by the ids of their containers.
    by_container: OrdMap<Id, Id>,
}

/// What is written to a snapshot; the indexes are made from it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Tables {
    revision: u64,
    #[serde(default)]
    written_at: Timestamp,
    cluster: Option<Arc<Cluster>>,
    nodes: Table<Node>,
    services: Table<Service>,
    tasks: Table<Task>,
    #[serde(default)]
    secrets: Table<SecretObject>,
    #[serde(default)]
    configs: Table<ConfigObject>,
    #[serde(default)]
    networks: Table<NetworkObject>,
}

impl State {
    /// Counts transactions: the version that the next one gives to what it writes is one more.
    pub fn revision(&self) -> u64 {
        self.tables.revision
    }

    /// The swarm, once there is one.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.tables.cluster.as_ref()
    }

    /// All nodes.
    pub fn nodes(&self) -> &Table<Node> {
        &self.tables.nodes
    }

    /// All services.
    pub fn services(&self) -> &Table<Service> {
        &self.tables.services
    }

    /// All tasks.
    pub fn tasks(&self) -> &Table<Task> {
        &self.tables.tasks
    }

    /// All secrets.
    pub fn secrets(&self) -> &Table<SecretObject> {
        &self.tables.secrets
    }

    /// All configs.
    pub fn configs(&self) -> &Table<ConfigObject> {
        &self.tables.configs
    }

    /// All networks.
    pub fn networks(&self) -> &Table<NetworkObject> {
        &self.tables.networks
    }

    /// The service of this name; names are compared without regard to case, as swarmkit does.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services().get(self.named(Kind::Service, name)?)
    }

    /// The secret of this name, without regard to case.
    pub fn secret_named(&self, name: &str) -> Option<&Arc<SecretObject>> {
        self.secrets().get(self.named(Kind::Secret, name)?)
    }

    /// The config of this name, without regard to case.
    pub fn config_named(&self, name: &str) -> Option<&Arc<ConfigObject>> {
        self.configs().get(self.named(Kind::Config, name)?)
    }

    /// The network of this name, without regard to case.
    pub fn network_named(&self, name: &str) -> Option<&Arc<NetworkObject>> {
        self.networks().get(self.named(Kind::Network, name)?)
    }

    fn named(&self, kind: Kind, name: &str) -> Option<&Id> {
        self.by_name.get(&(kind, folded(name)))
    }

    /// The tasks of a service, in the order of slots and, within one, of ids.
    pub fn tasks_of_service<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Arc<Task>> {
        let ids = self.tasks_of_service.get(service);
        ids.into_iter()
            .flatten()
            .filter_map(|(_, id)| self.tasks().get(id))
    }

    /// The tasks of one slot of a service, in the order of ids. Those that have no slot are in 0.
    pub fn tasks_of_slot<'a>(
        &'a self,
        service: &str,
        slot: u64,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        let ids = self.tasks_of_service.get(service);
        ids.into_iter()
            .flat_map(move |ids| ids.range((slot, Id::from(""))..))
            .take_while(move |(number, _)| *number == slot)
            .filter_map(|(_, id)| self.tasks().get(id))
    }

    /// The tasks assigned to a node, in the order of ids.
    pub fn tasks_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Task>> {
        self.indexed(self.tasks_of_node.get(node))
    }

    /// The tasks attached to a network, in the order of ids.
    pub fn tasks_of_network<'a>(&'a self, network: &str) -> impl Iterator<Item = &'a Arc<Task>> {
        self.indexed(self.tasks_of_network.get(network))
    }

    /// The tasks whose containers' ids begin so, in the order of these ids; none for an empty one.
    pub fn tasks_of_container<'a>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<Task>> {
        let prefix = Id::from(prefix);
        let all = self.by_container.range(prefix.clone()..);
        all.take_while(move |(id, _)| !prefix.is_empty() && id.starts_with(prefix.as_str()))
            .filter_map(|(_, task)| self.tasks().get(task))
    }

    fn indexed<'a>(&'a self, ids: Option<&'a OrdSet<Id>>) -> impl Iterator<Item = &'a Arc<Task>> {
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.tasks().get(id))
    }

    /// Applies a batch: all of its transactions or, if the store is not at the revision that the
    /// batch was planned on or one of them is refused, none.
    pub fn apply_batch(&mut self, batch: &Batch) -> Result<Vec<Event>, Reject> {
        if batch.base != self.revision() {
            return Err(Reject::OutOfSequence);
        }
        let mut next = self.clone();
        let mut events = Vec::new();
        for tx in &batch.txs {
            next.write(tx, &mut events)?;
        }
        *self = next;
        Ok(events)
    }

    /// Applies one transaction, all of its changes or none. Moves the revision by one if it
    /// succeeds.
    ///
    /// # Errors
    /// See [`Reject`]; the state is as before.
    pub fn apply(&mut self, tx: &Tx) -> Result<Vec<Event>, Reject> {
        let mut next = self.clone();
        let mut events = Vec::with_capacity(tx.changes.len());
        next.write(tx, &mut events)?;
        *self = next;
        Ok(events)
    }

    /// Applies one transaction and gives it back with the bookkeeping of its objects filled in, to
    /// be written in this form: then whoever applies it on the same state has these very objects,
    /// and copies none.
    ///
    /// # Errors
    /// See [`Reject`]; the state is as before.
    pub fn prepare(&mut self, tx: Tx) -> Result<(Tx, Vec<Event>), Reject> {
        let mut next = self.clone();
        next.turn(&tx);
        let (author, at) = (tx.author, tx.at);
        let events = tx
            .changes
            .into_iter()
            .map(|change| next.change(&author, at, change))
            .collect::<Result<Vec<_>, _>>()?;
        *self = next;
        let tx = Tx {
            author,
            at,
            changes: events.iter().filter_map(Event::again).collect(),
        };
        Ok((tx, events))
    }

    /// Applies a transaction; what is refused leaves some of it behind.
    fn write(&mut self, tx: &Tx, events: &mut Vec<Event>) -> Result<(), Reject> {
        self.turn(tx);
        for change in &tx.changes {
            events.push(self.change(&tx.author, tx.at, change.clone())?);
        }
        Ok(())
    }

    /// Begins a transaction.
    fn turn(&mut self, tx: &Tx) {
        self.tables.revision += 1;
        self.tables.written_at = self.tables.written_at.max(tx.at);
    }

    /// The latest moment that a transaction names; whatever is newer is unknown here.
    pub fn written_at(&self) -> Timestamp {
        self.tables.written_at
    }

    fn change(&mut self, author: &Author, at: Timestamp, change: Change) -> Result<Event, Reject> {
        let version = self.revision();
        let mut meta = Meta {
            version,
            created_at: at,
            updated_at: at,
        };
        match change {
            Change::Create(mut object) => {
                if self.object(object.kind(), object.id()).is_some() {
                    return Err(Reject::Exists(object.kind(), object.id().to_string()));
                }
                object.set_meta(meta);
                self.put(author, None, object)
            }
            Change::Update(mut object) => {
                let read = object.meta().version;
                // What was prepared bears the version that it gets: nobody can have read that.
                let read = Some(read).filter(|read| *read != version);
                let before = self.expect(object.kind(), object.id(), read)?;
                meta.created_at = before.meta().created_at;
                object.set_meta(meta);
                self.put(author, Some(before), object)
            }
            Change::Remove(kind, id, version) => {
                let before = self.expect(kind, &id, Some(version))?;
                if let Object::Task(task) = &before {
                    task::check_removal(author, task)?;
                }
                self.index(Some(&before), None)?;
                match kind {
                    Kind::Cluster => self.tables.cluster = None,
                    Kind::Node => drop(self.tables.nodes.remove(&id)),
                    Kind::Service => drop(self.tables.services.remove(&id)),
                    Kind::Task => drop(self.tables.tasks.remove(&id)),
                    Kind::Secret => drop(self.tables.secrets.remove(&id)),
                    Kind::Config => drop(self.tables.configs.remove(&id)),
                    Kind::Network => drop(self.tables.networks.remove(&id)),
                }
                Ok(Event {
                    before: Some(before),
                    after: None,
                })
            }
        }
    }

    /// Stores an object whose bookkeeping is right, in place of `before`.
    fn put(
        &mut self,
        author: &Author,
        before: Option<Object>,
        mut object: Object,
    ) -> Result<Event, Reject> {
        if let Object::Task(after) = &object {
            let before = before.as_ref().and_then(|object| match object {
                Object::Task(task) => Some(task.as_ref()),
                _ => None,
            });
            task::check_transition(author, before, after)?;
        }
        self.share(before.as_ref(), &mut object);
        self.index(before.as_ref(), Some(&object))?;
        match &object {
            Object::Cluster(cluster) => self.tables.cluster = Some(cluster.clone()),
            Object::Node(node) => drop(self.tables.nodes.insert(node.clone())),
            Object::Service(service) => drop(self.tables.services.insert(service.clone())),
            Object::Task(task) => drop(self.tables.tasks.insert(task.clone())),
            Object::Secret(secret) => drop(self.tables.secrets.insert(secret.clone())),
            Object::Config(config) => drop(self.tables.configs.insert(config.clone())),
            Object::Network(network) => drop(self.tables.networks.insert(network.clone())),
        }
        Ok(Event {
            before,
            after: Some(object),
        })
    }

    /// The object, if it exists in the version that the writer read, or in any for `None`.
    fn expect(&self, kind: Kind, id: &Id, version: Option<u64>) -> Result<Object, Reject> {
        let object = self
            .object(kind, id)
            .ok_or_else(|| Reject::NotFound(kind, id.clone()))?;
        if version.is_none_or(|version| object.meta().version == version) {
            Ok(object)
        } else {
            Err(Reject::OutOfSequence)
        }
    }

    /// The object of this kind and id.
    pub fn object(&self, kind: Kind, id: &str) -> Option<Object> {
        match kind {
            Kind::Cluster => self
                .cluster()
                .filter(|c| &*c.id == id)
                .cloned()
                .map(Object::Cluster),
            Kind::Node => self.nodes().get(id).cloned().map(Object::Node),
            Kind::Service => self.services().get(id).cloned().map(Object::Service),
            Kind::Task => self.tasks().get(id).cloned().map(Object::Task),
            Kind::Secret => self.secrets().get(id).cloned().map(Object::Secret),
            Kind::Config => self.configs().get(id).cloned().map(Object::Config),
            Kind::Network => self.networks().get(id).cloned().map(Object::Network),
        }
    }
}

#[cfg(test)]
mod tests;
