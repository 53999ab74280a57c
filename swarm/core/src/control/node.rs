//! Nodes: update, remove, membership in raft, goodbye. Never touches raft itself: it records what
//! raft has done, and refuses what would cost the quorum.

use skep_api::node::{NodeSpec, NodeState, Role as WishedRole};
use skep_api::task::{TaskState, TaskStatus};
use skep_api::{Code, Error};

use super::{Outcome, in_sequence, not_found};
use crate::Timestamp;
use crate::command::Reply;
use crate::id::Id;
use crate::object::{Kind, ManagerMember, Node, Role};
use crate::store::{Author, Change, State};
use crate::validate::missing;

fn precondition(text: impl std::fmt::Display) -> Error {
    Error::rpc(Code::FailedPrecondition, text)
}

pub(super) fn update(
    view: &State,
    id: &Id,
    version: u64,
    spec: &NodeSpec,
) -> Result<Outcome, Error> {
    let node = view.nodes().get(id).ok_or_else(|| not_found("node", id))?;
    if node.spec.role == WishedRole::Manager && spec.role == WishedRole::Worker {
        may_be_demoted(view, node)?;
    }
    if node.spec.role != spec.role {
        // Nobody would act on it: certificates and raft stay as they are.
        return Err(missing("changing the role of a node"));
    }
    in_sequence(&node.meta, version)?;
    let mut node = node.as_ref().clone();
    node.spec = spec.clone();
    Ok((
        vec![Change::Update(node.into())],
        Author::Control,
        Reply::Done,
    ))
}

fn may_be_demoted(view: &State, node: &Node) -> Result<(), Error> {
    let managers = || {
        view.nodes()
            .iter()
            .filter(|node| node.role == Role::Manager)
    };
    if managers().count() == 1 && managers().all(|manager| manager.id == node.id) {
        return Err(precondition(
            "attempting to demote the last manager of the swarm",
        ));
    }
    if node.manager.is_none() {
        return Err(Error::rpc(
            Code::NotFound,
            "can't find manager in raft memberlist",
        ));
    }
    let members = || view.nodes().iter().filter(|node| node.manager.is_some());
    // A manager whose agent is down is taken for one that raft cannot reach either: the state
    // alone decides, so that every replica would decide alike.
    let others = members()
        .filter(|member| member.id != node.id && !matches!(member.status.state, NodeState::Down));
    let quorum = (members().count() - 1) / 2 + 1;
    if others.count() < quorum {
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
    // Stricter than the original, which looks at the desired role too: a member of raft that is on
    // its way out would otherwise vanish from the table and stay in raft.
    if node.manager.is_some() {
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
        let mut task = task.as_ref().clone();
        task.status = TaskStatus {
            timestamp: now,
            state: TaskState::Orphaned,
            message: "Task belonged to a node that has been deleted".into(),
            ..TaskStatus::default()
        };
        changes.push(Change::Update(task.into()));
    }
    // Only the dispatcher may orphan tasks; on the control's behalf here, since node and tasks
    // must go in one transaction.
    Ok((changes, Author::Dispatcher, Reply::Done))
}

/// Records that a node has become a member of raft, or has left it. Saying it twice writes nothing.
pub(super) fn set_member(
    view: &State,
    id: &Id,
    member: Option<&ManagerMember>,
) -> Result<Outcome, Error> {
    let node = view.nodes().get(id).ok_or_else(|| not_found("node", id))?;
    if node.manager.as_ref() == member {
        return Ok((Vec::new(), Author::Ca, Reply::Done));
    }
    let mut node = node.as_ref().clone();
    node.manager = member.cloned();
    // Its certificate follows; but one whose joining failed half-way is to be a manager still.
    node.role = match member {
        Some(_) => Role::Manager,
        None if node.spec.role == WishedRole::Worker => Role::Worker,
        None => node.role,
    };
    Ok((vec![Change::Update(node.into())], Author::Ca, Reply::Done))
}

/// A node that says goodbye is down at once instead of after three missed heartbeats; it stays
/// listed until it is removed. A node that is gone already is no error: its wish is fulfilled.
pub(super) fn left(view: &State, id: &Id) -> Result<Outcome, Error> {
    let author = Author::Dispatcher;
    match view.nodes().get(id) {
        Some(node) if node.status.state != NodeState::Down => {
            let mut node = node.as_ref().clone();
            node.status.state = NodeState::Down;
            node.status.message = "node left the swarm".into();
            Ok((vec![Change::Update(node.into())], author, Reply::Done))
        }
        _ => Ok((Vec::new(), author, Reply::Done)),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
