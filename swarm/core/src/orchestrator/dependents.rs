//! Who waits for whom: from the name of a service to those that want it to be there before they
//! start. A cache of what their labels say; decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::Id;
use crate::labels::depends;
use crate::object::{Object, Service};
use crate::store::{Event, State};

/// Services that wait, by the lower-case names of what they wait for.
#[derive(Debug, Default)]
pub(super) struct Dependents(BTreeMap<String, BTreeSet<Id>>);

impl Dependents {
    /// What the services of a state wait for.
    pub fn of(view: &State) -> Self {
        let mut all = Self::default();
        for service in view.services().iter() {
            all.enter(service);
        }
        all
    }

    /// Takes note of what an event changes, and gives the services that it may have waited for to
    /// become dirty.
    pub fn follow(&mut self, event: &Event) -> Vec<Id> {
        if let Some(Object::Service(before)) = &event.before {
            self.leave(before);
        }
        if let Some(Object::Service(after)) = &event.after {
            self.enter(after);
        }
        let name = match (&event.before, &event.after) {
            (Some(Object::Task(before)), Some(Object::Task(after)))
                if before.status.state != after.status.state =>
            {
                &*after.service_name
            }
            (_, Some(Object::Service(service))) => &service.spec.name,
            _ => return Vec::new(),
        };
        if self.0.is_empty() {
            return Vec::new();
        }
        let waiting = self.0.get(&name.to_lowercase());
        waiting.into_iter().flatten().cloned().collect()
    }

    fn enter(&mut self, service: &Service) {
        for name in names(service) {
            self.0.entry(name).or_default().insert(service.id.clone());
        }
    }

    fn leave(&mut self, service: &Service) {
        for name in names(service) {
            if let Some(waiting) = self.0.get_mut(&name) {
                waiting.remove(&service.id);
                if waiting.is_empty() {
                    self.0.remove(&name);
                }
            }
        }
    }
}

/// Every name that what a service waits for may have.
fn names(service: &Service) -> Vec<String> {
    let labels = &service.spec.labels;
    let wanted = depends::of(labels);
    let names = wanted.iter().flat_map(|wish| wish.names(labels));
    names.map(|name| name.to_lowercase()).collect()
}
