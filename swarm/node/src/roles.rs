//! Who takes part in raft: the leader lets managers in that ask for it, and takes out those that
//! were demoted or removed, as soon as the quorum allows. Touches no certificate: a node renews its
//! own when its row says another role.

use std::time::Duration;

use skep_api::node::Role as WishedRole;
use skep_core::command::Command;
use skep_core::object::{Kind, ManagerMember, Node, Role};
use skep_core::{Event, Id, State};
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use crate::control::ControlRequest;
use crate::manager::Manager;
use crate::quic::{CallError, Service};
use crate::raft::{AppliedRef, Leadership, Member, MemberStatus};

/// How long a manager that wants to join may take to answer.
const REACH: Duration = Duration::from_secs(5);
/// Pause before a demotion that could not be carried out is tried again, as in the original.
const RETRY: Duration = Duration::from_secs(5);

/// swarmkit's refusal (`manager/controlapi/node.go`).
const LOSS_OF_QUORUM: &str =
    "can't remove member from the raft: this would result in a loss of quorum";

/// A node that is to leave raft.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaving {
    node: Id,
    /// Its members of raft: none if only the record of it is left.
    raft_ids: Vec<u64>,
    /// Whether its row does not say yet that it is a worker.
    recorded: bool,
}

/// Takes nodes out of raft while this manager leads, until raft stops.
pub async fn run(manager: Manager) {
    let mut leadership = manager.raft.leadership();
    let mut steps = manager.raft.subscribe();
    loop {
        let open = manager.leads() && !manager.dismiss_surplus().await;
        let news = async {
            // What has piled up meanwhile was looked at already, but is cheap to look at again.
            loop {
                match steps.recv().await {
                    Ok(step) if !about_nodes(&step) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return true,
                    Err(RecvError::Closed) => return false,
                }
            }
        };
        tokio::select! {
            alive = news => if !alive { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if open => {}
        }
    }
}

fn about_nodes(step: &AppliedRef) -> bool {
    let node = |event: &Event| {
        let object = event.after.as_ref().or(event.before.as_ref());
        object.is_some_and(|object| object.kind() == Kind::Node)
    };
    step.whole || step.events.iter().any(node)
}

/// Not a worker yet, but to become one.
fn is_demoted(row: &Node) -> bool {
    row.spec.role == WishedRole::Worker && row.role == Role::Manager
}

/// Who has to leave, in the order in which they should: this manager last.
fn surplus(state: &State, leadership: &Leadership, me: &Id) -> Vec<Leaving> {
    if state.cluster().is_none() {
        return Vec::new();
    }
    let mut all: Vec<Leaving> = Vec::new();
    for status in &leadership.members {
        let member = &status.member;
        let row = state.nodes().get(&member.node_id);
        let goes = row.is_none_or(|row| {
            // A node that was wiped and has joined anew has another raft id.
            let another = |known: &ManagerMember| known.raft_id != member.raft_id;
            row.spec.role == WishedRole::Worker || row.manager.as_ref().is_some_and(another)
        });
        let recorded = row.is_some_and(|row| is_demoted(row));
        match all
            .iter_mut()
            .find(|leaving| leaving.node == member.node_id)
        {
            Some(leaving) if goes => leaving.raft_ids.push(member.raft_id),
            None if goes => all.push(Leaving {
                node: member.node_id.clone(),
                raft_ids: vec![member.raft_id],
                recorded,
            }),
            _ => {}
        }
    }
    for row in state.nodes().iter() {
        if is_demoted(row) && !all.iter().any(|leaving| leaving.node == row.id) {
            all.push(Leaving {
                node: row.id.clone(),
                raft_ids: Vec::new(),
                recorded: true,
            });
        }
    }
    all.sort_by_key(|leaving| leaving.node == *me);
    all
}

/// Whether those that stay and can be reached are a quorum of those that stay: swarmkit's
/// arithmetic (`CanRemoveMember`). Members without a vote may always go.
fn keeps_quorum(leadership: &Leadership, leaving: &[u64]) -> bool {
    let voter = |status: &&MemberStatus| status.voter;
    let goes = |status: &&MemberStatus| leaving.contains(&status.member.raft_id);
    if !leadership.members.iter().filter(voter).any(|it| goes(&it)) {
        return true;
    }
    let stay = || {
        leadership
            .members
            .iter()
            .filter(voter)
            .filter(|it| !goes(it))
    };
    let heard = stay().filter(|it| it.heard).count();
    heard > stay().count() / 2
}

impl Manager {
    /// Takes everybody out of raft who does not belong there any more. False if somebody is left
    /// for whom it has to be tried again.
    async fn dismiss_surplus(&self) -> bool {
        let mut done = true;
        for leaving in surplus(&self.raft.state(), &self.known(), &self.me.node_id) {
            let outcome = if leaving.node == self.me.node_id {
                self.pass_on().await
            } else {
                self.dismiss_demoted(&leaving.node).await
            };
            if let Err(error) = outcome {
                warn!(node = %leaving.node, error, "a manager cannot leave raft yet");
                done = false;
            }
        }
        done
    }

    /// Takes one node out, if it still is to leave.
    async fn dismiss_demoted(&self, node: &Id) -> Result<(), String> {
        let _one_at_a_time = self.membership.lock().await;
        let all = surplus(&self.raft.state(), &self.known(), &self.me.node_id);
        let Some(leaving) = all.into_iter().find(|leaving| leaving.node == *node) else {
            return Ok(());
        };
        info!(%node, "taking a manager out of raft");
        self.take_out(&leaving).await
    }

    /// The leader itself is to leave: another one, that stays, has to see to it.
    async fn pass_on(&self) -> Result<(), String> {
        let leadership = self.known();
        if !keeps_quorum(&leadership, &[self.me.raft_id]) {
            return Err(LOSS_OF_QUORUM.to_owned());
        }
        let leaving = surplus(&self.raft.state(), &leadership, &self.me.node_id);
        let stays = |status: &&MemberStatus| {
            let node = &status.member.node_id;
            status.voter && status.heard && !leaving.iter().any(|it| it.node == *node)
        };
        let heirs = leadership.members.iter().filter(stays);
        let mut last = "no other manager can be reached".to_owned();
        for heir in heirs {
            match self.raft.transfer_leader(heir.member.raft_id).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// Takes a manager out that says goodbye, and records that.
    ///
    /// # Errors
    /// That the others would not be a quorum, or what raft says.
    pub(crate) async fn dismiss(&self, node: &Id) -> Result<(), String> {
        let _one_at_a_time = self.membership.lock().await;
        let members = self.known().members;
        let members = members.iter().filter(|it| it.member.node_id == *node);
        let leaving = Leaving {
            node: node.clone(),
            raft_ids: members.map(|it| it.member.raft_id).collect(),
            recorded: true,
        };
        self.take_out(&leaving).await
    }

    async fn take_out(&self, leaving: &Leaving) -> Result<(), String> {
        // A change that no quorum agrees to would hold up everything after it.
        if !keeps_quorum(&self.known(), &leaving.raft_ids) {
            return Err(LOSS_OF_QUORUM.to_owned());
        }
        for raft_id in &leaving.raft_ids {
            let removed = self.raft.remove_member(*raft_id).await;
            removed.map_err(|error| error.to_string())?;
        }
        if !leaving.recorded {
            return Ok(());
        }
        let (node, member) = (leaving.node.clone(), None);
        self.record(Command::SetMember { node, member }).await
    }

    /// Makes a manager a voter: first a learner that catches up, then a vote, then the record of it
    /// in the store. Each step is harmless when it was done before.
    ///
    /// # Errors
    /// Why it cannot be; nothing that a second attempt could not put right is left.
    pub(crate) async fn admit_member(&self, member: Member) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let known = self.known().member(member.raft_id).cloned();
        if known.is_none_or(|known| known.member != member) {
            // Before the lock: one that cannot be reached must not hold up the others.
            self.reach(&member).await.map_err(|error| {
                format!("the joining manager does not answer at its advertised address: {error}")
            })?;
        }
        self.may_be_member(&member.node_id)?;
        if member != self.me {
            // Catching up takes its time, in which others may come and go.
            self.raft
                .add_learner(member.clone())
                .await
                .map_err(|error| text(&error))?;
        }
        let _one_at_a_time = self.membership.lock().await;
        self.may_be_member(&member.node_id)?;
        if member != self.me {
            self.raft
                .promote_voter(member.raft_id)
                .await
                .map_err(|error| text(&error))?;
        }
        let record = record_of(&member);
        self.record(Command::SetMember {
            node: member.node_id,
            member: Some(record),
        })
        .await
    }

    fn may_be_member(&self, node: &Id) -> Result<(), String> {
        match self.raft.state().nodes().get(node) {
            None => Err(crate::texts::removed(node)),
            Some(row) if row.spec.role == WishedRole::Worker => {
                Err(format!("node {node} is not to be a manager"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a node answers at its address. What it answers does not matter.
    async fn reach(&self, member: &Member) -> Result<(), CallError> {
        let (addr, node) = (&member.addr, Some(member.node_id.as_str()));
        let request = ControlRequest::Members;
        let answer = self
            .endpoint
            .call(addr, Service::Control, node, REACH, &request)
            .await;
        answer.map(|_: crate::control::ControlResponse| ())
    }

    async fn record(&self, command: Command) -> Result<(), String> {
        match self.execute_here(command).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.message),
            None => Err("the leader changed meanwhile; try again".to_owned()),
        }
    }

    fn known(&self) -> Leadership {
        self.raft.leadership().borrow().clone()
    }
}

/// What the node table says of a member of raft.
pub(crate) fn record_of(member: &Member) -> ManagerMember {
    ManagerMember {
        raft_id: member.raft_id,
        addr: member.addr.clone(),
    }
}

#[cfg(test)]
mod tests;
