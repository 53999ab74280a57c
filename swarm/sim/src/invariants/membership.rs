//! At rest, every node is what it is meant to be: those that are to be managers have a seat and a
//! vote, and nobody else has one; the store says so too.

use skep_api::node::Role as WishedRole;
use skep_core::State;
use skep_core::object::Role;

use super::Verdict;
use crate::members::Members;

/// Holds the members of the log against the nodes. `seat` is a host's own raft id.
pub fn check(state: &State, members: &Members, seat: impl Fn(usize) -> Option<u64>) -> Verdict {
    if let Some(id) = members.learners.keys().next() {
        return Err(format!("seat {id} still learns"));
    }
    for (id, at) in &members.voters {
        let node = state.nodes().get(&at.node);
        let known = node.and_then(|node| node.manager.as_ref());
        if known.map(|member| member.raft_id) != Some(*id) {
            return Err(format!("seat {id} is not that of node {}", at.node));
        }
        if seat(at.host) != Some(*id) {
            return Err(format!(
                "seat {id} is empty: host {} does not know it",
                at.host
            ));
        }
    }
    for node in state.nodes().iter() {
        let wished = node.spec.role == WishedRole::Manager;
        let (is, votes) = (node.role == Role::Manager, node.manager.is_some());
        let sits = members.voters.values().any(|seat| seat.node == node.id);
        if [is, votes, sits] != [wished; 3] {
            return Err(format!(
                "node {} should manage: {wished}; its role: {is}, a member: {votes}, a seat: {sits}",
                node.id
            ));
        }
    }
    Ok(())
}
