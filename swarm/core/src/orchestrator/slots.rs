//! The slots of a replicated service, as its tasks show them. Only sorts; decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::id::Id;
use crate::object::Task;
use crate::store::State;

/// The tasks of one slot, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(pub Vec<Arc<Task>>);

impl Slot {
    /// Tasks that are meant to run now or soon: one, or two while an update starts the new one
    /// first.
    pub fn wanted(&self) -> impl DoubleEndedIterator<Item = &Arc<Task>> {
        self.0
            .iter()
            .filter(|task| task.desired_state <= TaskState::Running)
    }

    /// The task that stands for the slot: the youngest that is wanted, else the one that ended last
    /// and is not replaced. `None` if the slot is free.
    pub fn current(&self) -> Option<&Arc<Task>> {
        let ended = || {
            self.0
                .last()
                .filter(|task| task.desired_state < TaskState::Remove)
        };
        self.wanted().next_back().or_else(ended)
    }

    /// Whether one of its wanted tasks is observed running.
    pub fn runs(&self) -> bool {
        self.wanted()
            .any(|task| task.status.state == TaskState::Running)
    }

    /// The node of its wanted task.
    pub fn node(&self) -> Option<&Id> {
        self.wanted().find_map(|task| task.node_id.as_ref())
    }
}

/// All slots of a service, those that hold nothing but history included.
pub(super) fn of_service(view: &State, service: &Id) -> BTreeMap<u64, Slot> {
    let mut slots: BTreeMap<u64, Slot> = BTreeMap::new();
    for task in view.tasks_of_service(service) {
        slots.entry(task.slot).or_default().0.push(task.clone());
    }
    for slot in slots.values_mut() {
        slot.0.sort_by_key(age);
    }
    slots
}

/// Sorts oldest first; tasks of one moment by what was written first, then by id.
pub(super) fn age(task: &Arc<Task>) -> (crate::Timestamp, Id) {
    (task.meta.created_at, task.id.clone())
}
