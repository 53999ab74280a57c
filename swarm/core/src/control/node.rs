//! Nodes: update, remove, membership in raft, goodbye. Never touches raft itself: it records what
//! raft has done, and refuses what would cost the quorum.

use skep_api::node::{Availability, NodeSpec, NodeState, Role as WishedRole};
use skep_api::task::{TaskState, TaskStatus};
use skep_api::{Code, Error};

use super::{Outcome, in_sequence, not_found};
use crate::Timestamp;
use crate::command::Reply;
use crate::id::Id;
use crate::object::{Kind, LEFT, ManagerMember, Node, Role, Task};
use crate::store::{Author, Change, State};

fn precondition(text: impl std::fmt::Display) -> Error {
    Error::rpc(Code::FailedPrecondition, text)
}

pub(super) fn update(
    view: &State,
    id: &Id,
    version: u64,
    spec: &NodeSpec,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let node = view.nodes().get(id).ok_or_else(|| not_found("node", id))?;
    if node.spec.role == WishedRole::Manager && spec.role == WishedRole::Worker {
        may_be_demoted(view, node)?;
    }
    in_sequence(&node.meta, version)?;
    let mut node = node.as_ref().clone();
    let active = |spec: &NodeSpec| spec.availability == Availability::Active;
    if active(spec) && !active(&node.spec) {
        node.active_since = now;
    }
    node.spec = spec.clone();
    if spec.role == WishedRole::Manager {
        // Its certificate may follow at once; raft has it when it has joined. The reverse is for
        // the leader to say, once raft has no seat for it: see `node/src/roles.rs`. One without a
        // record may well have one whose record is on its way.
        node.role = Role::Manager;
    }
    Ok((
        vec![Change::Update(node.into())],
        Author::Control,
        Reply::Done,
    ))
}

/// Checks by what is desired, so that managers that are on their way out do not count any more:
/// demoting all of them at once stops at the last.
fn may_be_demoted(view: &State, node: &Node) -> Result<(), Error> {
    if node.manager.is_none() {
        // It never joined raft, or has left it: no vote is lost. The original insists on finding it
        // among raft's members and so can never demote one whose joining failed.
        return Ok(());
    }
    let others = || {
        view.nodes().iter().filter(|other| {
            other.id != node.id && other.manager.is_some() && other.spec.role == WishedRole::Manager
        })
    };
    if others().next().is_none() {
        return Err(precondition(
            "attempting to demote the last manager of the swarm",
        ));
    }
    // A manager whose agent is down is taken for one that raft cannot reach either: the state
    // alone decides, so that every replica would decide alike.
    let reachable = others().filter(|other| other.status.state != NodeState::Down);
    if reachable.count() < others().count() / 2 + 1 {
        return Err(precondition(
            "can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

/// Removes a node and orphans the tasks that nobody will report on any more. Its certificate is
/// worthless from then on, since peers are admitted by the table of nodes.
pub(super) fn remove(view: &State, id: &Id, force: bool, now: Timestamp) -> Result<Outcome, Error> {
    let node = view.nodes().get(id).ok_or_else(|| not_found("node", id))?;
    // One that is on its way out may go: the leader takes members without a row out of raft.
    if node.spec.role == WishedRole::Manager && node.manager.is_some() {
        return Err(precondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be \
             demoted to worker before removal"
        )));
    }
    if !force && node.status.state == NodeState::Ready {
        return Err(precondition(format!(
            "node {id} is not down and can't be removed"
        )));
    }
    let mut changes = vec![Change::Remove(Kind::Node, id.clone(), node.meta.version)];
    for task in view
        .tasks_of_node(id)
        .filter(|task| !task.status.state.is_terminal())
    {
        let message = "Task belonged to a node that has been deleted";
        changes.push(orphaned(task, message, now));
    }
    // Only the dispatcher may orphan tasks; on the control's behalf here, since node and tasks
    // must go in one transaction.
    Ok((changes, Author::Dispatcher, Reply::Done))
}

fn orphaned(task: &Task, message: &str, now: Timestamp) -> Change {
    let mut task = task.clone();
    task.status = TaskStatus {
        timestamp: now,
        state: TaskState::Orphaned,
        message: message.to_owned(),
        ..TaskStatus::default()
    };
    Change::Update(task.into())
}

/// Records that a node has become a member of raft, or has left it. Saying it twice writes nothing.
pub(super) fn set_member(
    view: &State,
    id: &Id,
    member: Option<&ManagerMember>,
) -> Result<Outcome, Error> {
    let node = view.nodes().get(id).ok_or_else(|| not_found("node", id))?;
    // Its certificate follows; but one whose joining failed half-way is to be a manager still.
    let role = match member {
        Some(_) => Role::Manager,
        None if node.spec.role == WishedRole::Worker => Role::Worker,
        None => node.role,
    };
    if node.manager.as_ref() == member && node.role == role {
        return Ok((Vec::new(), Author::Ca, Reply::Done));
    }
    let mut node = node.as_ref().clone();
    (node.manager, node.role) = (member.cloned(), role);
    Ok((vec![Change::Update(node.into())], Author::Ca, Reply::Done))
}

/// A node that says goodbye is down at once instead of after three missed heartbeats; it stays
/// listed until it is removed. A node that is gone already is no error: its wish is fulfilled.
pub(crate) fn left(view: &State, id: &Id, now: Timestamp) -> Result<Outcome, Error> {
    let author = Author::Dispatcher;
    match view.nodes().get(id) {
        Some(node) if node.status.state != NodeState::Down => {
            let mut node = node.as_ref().clone();
            node.status.state = NodeState::Down;
            node.status.message = LEFT.into();
            node.status.since = now;
            let mut changes = vec![Change::Update(node.into())];
            // Its containers are on no network any more.
            let attached = view.tasks_of_node(id).filter(|it| it.attached.is_some());
            let attached = attached.filter(|task| !task.status.state.is_terminal());
            changes.extend(attached.map(|task| orphaned(task, LEFT, now)));
            Ok((changes, author, Reply::Done))
        }
        _ => Ok((Vec::new(), author, Reply::Done)),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
