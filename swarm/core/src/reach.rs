//! From what a client calls a container to the task whose container it is, wherever that runs. A few
//! look-ups in indexes, since it is asked for every request about a container. Decides nothing about
//! who may reach it.

use std::sync::Arc;

use skep_api::task::TaskState;

use crate::object::{Service, Task};
use crate::store::State;

/// A container of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'a> {
    /// The task.
    pub task: &'a Arc<Task>,
    /// The engine's id of its container.
    pub container: &'a str,
    /// What kind of name led to it.
    pub by: By,
}

/// What a client called a container by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Something that its own engine knows: its id, the beginning of it, its name.
    Engine,
    /// The task's id or the beginning of it.
    Task,
    /// A service's slot, `web.1`, or node, `web.<node>`.
    Slot,
}

/// The task's container that is called so; `None` if there is none, or more than one. The kinds of
/// names are tried in the order of [`By`].
pub fn container<'a>(state: &'a State, name: &'a str) -> Option<Found<'a>> {
    let by_id = only(state.tasks_of_container(name));
    if let Some(found) = by_id.and_then(|task| found(task, By::Engine)) {
        return Some(found);
    }
    let Some((service, rest)) = name.split_once('.') else {
        let exact = state.tasks().get(name);
        let task = exact.or_else(|| only(state.tasks().with_prefix(name)));
        return task.and_then(|task| found(task, By::Task));
    };
    let last = rest.rsplit('.').next().unwrap_or_default();
    match state.tasks().get(last).filter(|task| task.name() == name) {
        Some(task) => found(task, By::Engine),
        None => found(
            in_slot(state, state.service_named(service)?, rest)?,
            By::Slot,
        ),
    }
}

fn found(task: &Arc<Task>, by: By) -> Option<Found<'_>> {
    let container = task.status.container_status.as_ref()?.container_id.as_str();
    task.node_id.as_ref()?;
    (!container.is_empty()).then_some(Found {
        task,
        container,
        by,
    })
}

/// The task of a slot or, where slots have no numbers, of a node by its id or host name: the one
/// that runs, else the youngest that has a container. Looks at the tasks of one slot or node.
fn in_slot<'a>(state: &'a State, service: &Service, place: &str) -> Option<&'a Arc<Task>> {
    let number = place.parse::<u64>().ok().filter(|slot| *slot > 0);
    if let Some(slot) = number {
        return likeliest(state.tasks_of_slot(&service.id, slot));
    }
    let called = |node: &&Arc<crate::object::Node>| {
        let description = node.description.as_ref();
        description.is_some_and(|it| it.hostname == place)
    };
    let node = state.nodes().get(place);
    let node = node.or_else(|| only(state.nodes().iter().filter(called)))?;
    let tasks = state.tasks_of_node(&node.id);
    likeliest(tasks.filter(|task| task.service_id == service.id && task.slot == 0))
}

fn likeliest<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> Option<&'a Arc<Task>> {
    tasks
        .filter(|task| found(task, By::Slot).is_some())
        .max_by_key(|task| {
            (
                task.status.state == TaskState::Running,
                task.meta.created_at,
            )
        })
}

fn only<'a, T>(mut all: impl Iterator<Item = &'a Arc<T>>) -> Option<&'a Arc<T>> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use skep_api::task::{ContainerStatus, TaskStatus};

    use super::*;
    use crate::Timestamp;
    use crate::store::{Author, Change, Tx};
    use crate::testing;

    fn task(id: &str, slot: u64, node: &str, container: &str) -> Change {
        let container = ContainerStatus {
            container_id: container.into(),
            ..ContainerStatus::default()
        };
        let mut task = testing::task(id, "s", slot);
        (task.service_id, task.service_name) = ("s".into(), "web".into());
        task.node_id = Some(node.into());
        task.status = TaskStatus {
            state: TaskState::New,
            container_status: Some(container),
            ..TaskStatus::default()
        };
        task.desired_state = TaskState::Running;
        Change::Create(task.into())
    }

    fn service() -> Change {
        let service = crate::control::testing::service("s", "web");
        Change::Create(service.into())
    }

    #[test]
    fn names_lead_to_tasks() {
        let mut state = State::default();
        for (at, author, change) in [
            (1, Author::Control, service()),
            (2, Author::Orchestrator, task("t1old", 1, "n1", "aa11")),
            (3, Author::Orchestrator, task("t1new", 1, "n2", "ab22")),
            (4, Author::Orchestrator, task("t2", 2, "n2", "cc33")),
            (5, Author::Orchestrator, task("t3", 3, "n2", "")),
        ] {
            let tx = Tx {
                author,
                at: Timestamp::from_nanos(at),
                changes: vec![change],
            };
            state.apply(&tx).unwrap();
        }
        for (name, expected) in [
            ("ab22", Some(("t1new", By::Engine))),
            ("ab", Some(("t1new", By::Engine))),
            ("a", None),
            ("t2", Some(("t2", By::Task))),
            ("t1n", Some(("t1new", By::Task))),
            ("t1", None),
            ("web.1.t1old", Some(("t1old", By::Engine))),
            ("web.2.t1old", None),
            ("web.1", Some(("t1new", By::Slot))),
            ("web.2", Some(("t2", By::Slot))),
            ("web.3", None),
            ("t3", None),
            ("web.9", None),
            ("web.n2", None),
            ("db.1", None),
            ("web", None),
            (".", None),
            ("", None),
        ] {
            let found = container(&state, name);
            let found = found.map(|it| (it.task.id.as_str(), it.by));
            assert_eq!(found, expected, "{name}");
        }
        // The index goes with the task's container.
        let gone = state.tasks().get("t2").cloned().unwrap();
        let mut other = (*gone).clone();
        other.status.container_status = None;
        let tx = Tx {
            author: Author::Orchestrator,
            at: Timestamp::from_nanos(6),
            changes: vec![Change::Update(other.into())],
        };
        state.apply(&tx).unwrap();
        assert_eq!(container(&state, "cc33"), None);
    }
}
