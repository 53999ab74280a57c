//! The store's indexes: kept with every write, made anew from the tables of a snapshot. Decides
//! nothing but whether a name is free.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{Reject, State, Tables};
use crate::id::Id;
use crate::object::{Kind, Object, Task};

/// Tasks on either side of one, by slot, that are looked at for one with the same spec.
const NEARBY: usize = 8;

impl State {
    /// An object changed, came or went: moves it in the indexes, and leaves those alone where it
    /// stays.
    pub(super) fn index(
        &mut self,
        before: Option<&Object>,
        after: Option<&Object>,
    ) -> Result<(), Reject> {
        self.index_name(before, after)?;
        let (before, after) = (before.and_then(task), after.and_then(task));
        let Some(id) = after.or(before).map(|task| &task.id) else {
            return Ok(());
        };
        self.index_slot(before, after);
        let (from, to) = (before.and_then(node_of), after.and_then(node_of));
        move_task(&mut self.tasks_of_node, from, to, id);
        let (from, to) = (networks_of(before), networks_of(after));
        if !from.clone().eq(to.clone()) {
            from.for_each(|key| move_task(&mut self.tasks_of_network, Some(key), None, id));
            to.for_each(|key| move_task(&mut self.tasks_of_network, None, Some(key), id));
        }
        let (from, to) = (before.and_then(container_of), after.and_then(container_of));
        if from != to {
            from.map(|container| self.by_container.remove(container));
            to.map(|container| self.by_container.insert(container.into(), id.clone()));
        }
        Ok(())
    }

    fn index_slot(&mut self, before: Option<&Task>, after: Option<&Task>) {
        if before.map(slot_of) == after.map(slot_of) {
            return;
        }
        if let Some(task) = before
            && let Some(tasks) = self.tasks_of_service.get_mut(&task.service_id)
        {
            tasks.remove(&(task.slot, task.id.clone()));
            if tasks.is_empty() {
                self.tasks_of_service.remove(&task.service_id);
            }
        }
        if let Some(task) = after {
            let tasks = self.tasks_of_service.entry(task.service_id.clone());
            tasks.or_default().insert((task.slot, task.id.clone()));
        }
    }

    fn index_name(
        &mut self,
        before: Option<&Object>,
        after: Option<&Object>,
    ) -> Result<(), Reject> {
        let (from, to) = (before.and_then(name_key), after.and_then(name_key));
        if from == to {
            return Ok(());
        }
        if let Some(key) = &from {
            self.by_name.remove(key);
        }
        if let (Some(key), Some(object)) = (to, after) {
            if self.by_name.contains_key(&key) {
                let name = unique_name(object).unwrap_or_default();
                return Err(Reject::Exists(object.kind(), name.to_owned()));
            }
            self.by_name.insert(key, object.id().clone());
        }
        Ok(())
    }

    /// Lets a task have its spec and labels in common with what it was before, or with others of
    /// its service: thousands are made of one template, and each that comes from the network or
    /// from disk brings its own.
    pub(super) fn share(&self, before: Option<&Object>, object: &mut Object) {
        let Object::Task(task) = object else { return };
        let before = before.and_then(self::task);
        let alike = |other: &&Task| other.spec_version == task.spec_version;
        let Some(other) = before.or_else(|| {
            let tasks = self.tasks_of_service.get(&task.service_id)?;
            let here = (task.slot, task.id.clone());
            // An update comes to the slots in their order.
            let near = tasks.range(..here.clone()).rev().take(NEARBY);
            let near = near.chain(tasks.range(here..).take(NEARBY));
            let others = near.filter_map(|(_, id)| self.tasks().get(id));
            others.map(Arc::as_ref).find(alike)
        }) else {
            return;
        };
        let one = task.spec.is_one_with(&other.spec);
        if one && task.service_labels.is_one_with(&other.service_labels) {
            return;
        }
        let task = Arc::make_mut(task);
        task.spec.join(&other.spec);
        task.service_labels.join(&other.service_labels);
    }
}

impl From<State> for Tables {
    fn from(state: State) -> Self {
        state.tables
    }
}

impl From<Tables> for State {
    fn from(tables: Tables) -> Self {
        let mut state = State {
            tables: tables.clone(),
            ..State::default()
        };
        let services = tables.services.iter().cloned().map(Object::Service);
        let secrets = tables.secrets.iter().cloned().map(Object::Secret);
        let configs = tables.configs.iter().cloned().map(Object::Config);
        let networks = tables.networks.iter().cloned().map(Object::Network);
        for object in services.chain(secrets).chain(configs).chain(networks) {
            // Names were unique when they were written.
            drop(state.index(None, Some(&object)));
        }
        for task in tables.tasks.iter() {
            let mut object = Object::Task(task.clone());
            state.share(None, &mut object);
            drop(state.index(None, Some(&object)));
            if let Object::Task(task) = object {
                state.tables.tasks.insert(task);
            }
        }
        state
    }
}

fn task(object: &Object) -> Option<&Task> {
    match object {
        Object::Task(task) => Some(task),
        _ => None,
    }
}

fn move_task(index: &mut OrdMap<Id, OrdSet<Id>>, from: Option<&Id>, to: Option<&Id>, task: &Id) {
    if from == to {
        return;
    }
    if let Some(key) = from
        && let Some(ids) = index.get_mut(key)
    {
        ids.remove(task);
        if ids.is_empty() {
            index.remove(key);
        }
    }
    if let Some(key) = to {
        index.entry(key.clone()).or_default().insert(task.clone());
    }
}

fn slot_of(task: &Task) -> (&Id, u64) {
    (&task.service_id, task.slot)
}

fn node_of(task: &Task) -> Option<&Id> {
    task.node_id.as_ref()
}

fn networks_of(task: Option<&Task>) -> impl Iterator<Item = &Id> + Clone {
    let attachments = task.into_iter().flat_map(|task| &task.attachments);
    attachments.map(|attachment| &attachment.network)
}

/// The id of a task's container, if it has one.
fn container_of(task: &Task) -> Option<&str> {
    let id = &task.status.container_status.as_ref()?.container_id;
    (!id.is_empty()).then_some(id)
}

fn name_key(object: &Object) -> Option<(Kind, Arc<str>)> {
    Some((object.kind(), folded(unique_name(object)?)))
}

/// The name that no other object of its kind may have.
fn unique_name(object: &Object) -> Option<&str> {
    match object {
        Object::Service(service) => Some(&service.spec.name),
        Object::Secret(secret) => Some(&secret.spec.name),
        Object::Config(config) => Some(&config.spec.name),
        Object::Network(network) => Some(&network.spec.name),
        Object::Cluster(_) | Object::Node(_) | Object::Task(_) => None,
    }
}

/// A name as names are compared.
pub(super) fn folded(name: &str) -> Arc<str> {
    name.to_lowercase().into()
}
