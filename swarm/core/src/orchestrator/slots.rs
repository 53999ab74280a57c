//! The places of a service, as its tasks show them: numbered slots, or nodes where it has one task
//! on each. Only sorts; decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::id::Id;
use crate::object::{Service, Task};
use crate::store::State;

/// What a task stands for: history, restarts and updates are counted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// One of so many that are alike.
    Slot(u64),
    /// The one on this node.
    Node(Id),
}

impl Place {
    /// The place of a task, in a service whose tasks have numbers or one where each has its node.
    pub fn of(task: &Task, by_number: bool) -> Self {
        match &task.node_id {
            Some(node) if task.slot == 0 && !by_number => Self::Node(node.clone()),
            _ => Self::Slot(task.slot),
        }
    }
}

/// The places of a service with their tasks.
pub(super) type Slots = BTreeMap<Place, Slot>;

/// The tasks of one place, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(pub Vec<Arc<Task>>);

impl Slot {
    /// Tasks that are meant to run now or soon: one, or two while an update starts the new one
    /// first.
    pub fn wanted(&self) -> impl DoubleEndedIterator<Item = &Arc<Task>> {
        self.0
            .iter()
            .filter(|task| task.desired_state <= TaskState::Complete)
    }

    /// The task that stands for the place: the youngest that is wanted, else the one that ended
    /// last and is not replaced. `None` if the place is free.
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

/// All places of a service, those that hold nothing but history included.
pub(super) fn of_service(view: &State, id: &Id) -> Slots {
    let by_number = numbers(view, id);
    let mut slots = Slots::new();
    for task in view.tasks_of_service(id) {
        let place = Place::of(task, by_number);
        slots.entry(place).or_default().0.push(task.clone());
    }
    for slot in slots.values_mut() {
        slot.0.sort_by_key(age);
    }
    slots
}

/// One place of a service; an empty one if there is nothing.
pub(super) fn of_place(view: &State, id: &Id, place: &Place) -> Slot {
    let mut slot = match place {
        Place::Slot(number) => {
            let by_number = *number > 0 || numbers(view, id);
            let tasks = view.tasks_of_slot(id, *number);
            let here = tasks.filter(|task| by_number || task.node_id.is_none());
            Slot(here.cloned().collect())
        }
        Place::Node(node) => {
            let tasks = view.tasks_of_node(node);
            let here = tasks.filter(|task| task.service_id == *id && task.slot == 0);
            Slot(here.cloned().collect())
        }
    };
    slot.0.sort_by_key(age);
    slot
}

/// Whether the service's tasks have numbers; otherwise each has its node.
pub(super) fn numbers(view: &State, id: &Id) -> bool {
    view.services()
        .get(id)
        .is_some_and(|service| !is_everywhere(service))
}

/// Whether a service has a task on every node that suits.
pub(super) fn is_everywhere(service: &Service) -> bool {
    let mode = &service.spec.mode;
    mode.global.is_some() || mode.global_job.is_some()
}

/// Sorts oldest first; tasks of one moment by what was written first, then by id.
pub(super) fn age(task: &Arc<Task>) -> (crate::Timestamp, Id) {
    (task.meta.created_at, task.id.clone())
}
