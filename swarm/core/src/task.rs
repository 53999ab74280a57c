//! Which author may move a task from where to where. Never moves one: the store asks here before
//! it writes.
//!
//! | author | may |
//! |---|---|
//! | orchestrator | create (new; ready, running or complete desired); move the desired state forward; reject a task that its node no longer suits; open the start gate |
//! | allocator | new → pending |
//! | scheduler | pending → assigned, explain why not yet, choose the node once unless it has one |
//! | agent | move the observed state forward, on its own node, from assigned on |
//! | dispatcher | orphan the tasks of a node that is gone |
//! | reaper | remove |

use skep_api::task::{TaskState, TaskStatus};

use crate::object::Task;
use crate::store::{Author, Reject};

/// Whether the task is meant to run and may still do so.
pub fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && !task.status.state.is_terminal()
}

/// How the error of a running task begins whose node cannot give a port that its service publishes:
/// that port is then another program's on this node alone.
pub(crate) const PORT_TAKEN: &str = "published port not to be had on this node: ";

/// Whether the error of a running task says that it is about to be stopped.
pub(crate) fn is_failing(status: &TaskStatus) -> bool {
    !status.err.is_empty() && !status.err.starts_with(PORT_TAKEN)
}

/// Refuses a write that its author does not own, or that moves a task backwards.
pub(crate) fn check_transition(
    author: &Author,
    before: Option<&Task>,
    after: &Task,
) -> Result<(), Reject> {
    let refuse = |why: String| Err(Reject::Transition(after.id.clone(), why));
    let Some(before) = before else {
        return match author {
            Author::Orchestrator => Ok(()),
            other => refuse(format!("{other:?} may not create it")),
        };
    };
    if after.desired_state < before.desired_state {
        let (from, to) = (before.desired_state, after.desired_state);
        return refuse(format!("desired state may not go back from {from} to {to}"));
    }
    if after.status.state < before.status.state {
        let (from, to) = (before.status.state, after.status.state);
        return refuse(format!(
            "observed state may not go back from {from} to {to}"
        ));
    }
    if !owns(author, before, after) {
        let (from, to) = (before.status.state, after.status.state);
        return refuse(format!("{author:?} may not move it from {from} to {to}"));
    }
    Ok(())
}

/// Whether the author may make this difference.
fn owns(author: &Author, before: &Task, after: &Task) -> bool {
    let (from, to) = (before.status.state, after.status.state);
    let placed = before.node_id == after.node_id;
    let wanted = before.desired_state == after.desired_state;
    match author {
        Author::Orchestrator => placed && (from == to || to == TaskState::Rejected),
        Author::Allocator => placed && wanted && from == TaskState::New && to <= TaskState::Pending,
        Author::Scheduler => {
            // A task of a global service has its node from the start.
            wanted
                && from == TaskState::Pending
                && to <= TaskState::Assigned
                && (placed || before.node_id.is_none())
                && (placed && to == TaskState::Pending
                    || (to == TaskState::Assigned) == after.node_id.is_some())
        }
        Author::Agent(node) => {
            placed
                && wanted
                && before.node_id.as_ref() == Some(node)
                && from >= TaskState::Assigned
                && to < TaskState::Orphaned
        }
        Author::Dispatcher => placed && (from == to || to == TaskState::Orphaned),
        Author::Control | Author::Reaper | Author::Ca => false,
    }
}

/// Refuses to remove a task for anyone but the reaper.
pub(crate) fn check_removal(author: &Author, task: &Task) -> Result<(), Reject> {
    match author {
        Author::Reaper => Ok(()),
        other => Err(Reject::Transition(
            task.id.clone(),
            format!("{other:?} may not remove it"),
        )),
    }
}
