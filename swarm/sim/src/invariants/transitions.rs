//! Tasks only move forward, and only by those whose move it is. Held against every committed
//! transaction with a table of its own, so that a hole in the store's does not go unnoticed.

use std::collections::BTreeMap;

use skep_api::task::TaskState;
use skep_core::object::{Object, Task};
use skep_core::{Author, Event, Id};

use super::{Verdict, Write};

/// What was seen of every task that ever was.
#[derive(Default)]
pub struct Transitions(BTreeMap<Id, Seen>);

struct Seen {
    state: TaskState,
    desired: TaskState,
    node: Option<Id>,
    removed: bool,
}

impl Transitions {
    /// Looks at one transaction.
    pub fn check(&mut self, write: &Write<'_>) -> Verdict {
        for event in write.events {
            self.event(&write.tx.author, event)?;
        }
        Ok(())
    }

    fn event(&mut self, author: &Author, event: &Event) -> Verdict {
        match (&event.before, &event.after) {
            (before, Some(Object::Task(after))) => {
                let before = match before {
                    Some(Object::Task(before)) => Some(before.as_ref()),
                    _ => None,
                };
                if !owned(author, before, after) {
                    return Err(format!(
                        "{author:?} moved task {} from {:?} to {:?}",
                        after.id,
                        before.map(|task| (task.status.state, task.desired_state)),
                        (after.status.state, after.desired_state)
                    ));
                }
                self.moved(after)
            }
            (Some(Object::Task(before)), None) => {
                if let Some(seen) = self.0.get_mut(&before.id) {
                    seen.removed = true;
                }
                may_go(author, before)
            }
            _ => Ok(()),
        }
    }

    fn moved(&mut self, task: &Task) -> Verdict {
        let (state, desired) = (task.status.state, task.desired_state);
        let Some(seen) = self.0.get_mut(&task.id) else {
            let node = task.node_id.clone();
            self.0.insert(
                task.id.clone(),
                Seen {
                    state,
                    desired,
                    node,
                    removed: false,
                },
            );
            return Ok(());
        };
        let back = state < seen.state || desired < seen.desired;
        let elsewhere = seen.node.is_some() && seen.node != task.node_id;
        if back || elsewhere || seen.removed {
            return Err(format!(
                "task {} was {} (wanted {}) on {:?}, removed: {}, and is {state} (wanted \
                 {desired}) on {:?} now",
                task.id, seen.state, seen.desired, seen.node, seen.removed, task.node_id
            ));
        }
        (seen.state, seen.desired) = (state, desired);
        seen.node.clone_from(&task.node_id);
        Ok(())
    }
}

/// Who may make which move.
fn owned(author: &Author, before: Option<&Task>, after: &Task) -> bool {
    let Some(before) = before else {
        return *author == Author::Orchestrator;
    };
    let (from, to) = (before.status.state, after.status.state);
    let same_wish = before.desired_state == after.desired_state;
    let same_node = before.node_id == after.node_id;
    match author {
        Author::Orchestrator => same_node && (from == to || to == TaskState::Rejected),
        Author::Allocator => same_wish && same_node && to <= TaskState::Pending,
        Author::Scheduler => same_wish && from <= TaskState::Pending && to <= TaskState::Assigned,
        Author::Agent(node) => {
            same_wish
                && same_node
                && after.node_id.as_ref() == Some(node)
                && to > TaskState::Assigned
        }
        Author::Dispatcher => same_wish && same_node && (from == to || to == TaskState::Orphaned),
        _ => false,
    }
}

/// Only the reaper removes tasks, and none whose container may still run.
fn may_go(author: &Author, task: &Task) -> Verdict {
    let over = task.status.state.is_terminal() || task.status.state < TaskState::Assigned;
    if *author == Author::Reaper && (over || task.desired_state == TaskState::Remove) {
        return Ok(());
    }
    let (state, desired) = (task.status.state, task.desired_state);
    Err(format!(
        "{author:?} removed task {} which is {state}, wanted {desired}",
        task.id
    ))
}
