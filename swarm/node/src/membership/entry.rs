//! How a manager becomes a member of raft, and one again if it was taken out and then promoted
//! anew. Asks; the leader decides.

use std::time::Duration;

use skep_api::node::Role as WishedRole;
use tracing::{debug, info, warn};

use super::{LOOK, Membership};
use crate::agent;
use crate::control::{self, ControlRequest, ControlResponse};
use crate::manager::Manager;
use crate::raft::Member;
use crate::roles::record_of;

/// Pauses between attempts to become a member of raft: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one attempt may take: the new member has to catch up.
const JOIN_TIMEOUT: Duration = Duration::from_secs(70);

impl Membership {
    /// Sees to it that a manager is a member of raft for as long as it is to be one.
    pub(super) async fn stay_member(&self, manager: Manager) {
        let mut view = self.agent_view.clone();
        if manager.raft.is_initialized().await {
            // A log that was there before brings the membership back by itself.
            let back = async {
                while !manager.is_member() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _ = tokio::time::timeout(LONGEST_PAUSE, back).await;
        }
        loop {
            self.become_member(&manager).await;
            info!("this manager is a member of raft");
            if view
                .wait_for(|view| left_out(view, &manager.me))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Asks one manager after the other until the leader has made this one a voter and written so.
    async fn become_member(&self, manager: &Manager) {
        let mut pause = FIRST_PAUSE;
        let mut leadership = manager.raft.leadership();
        let view = self.agent_view.clone();
        let inside = || manager.is_member() && !left_out(&view.borrow(), &manager.me);
        while !inside() {
            leadership.borrow_and_update();
            // One that is demoted again waits for its next certificate, not for raft.
            if !self.retired() {
                self.ask_for_membership(manager).await;
            }
            if inside() {
                break;
            }
            // Either there is news at once, or the next attempt waits its turn.
            let _ = tokio::time::timeout(pause, leadership.changed()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask_for_membership(&self, manager: &Manager) {
        let Member {
            raft_id,
            node_id,
            addr,
        } = manager.me.clone();
        let request = ControlRequest::JoinRaft { raft_id, addr };
        if manager.leads() {
            let answer = manager.control(&node_id, request).await;
            return debug!(?answer, "wrote down the leader's own membership");
        }
        for addr in self.addresses_to_ask() {
            match control::call(&self.endpoint, &addr, JOIN_TIMEOUT, &request).await {
                Ok(ControlResponse::Done) => return,
                Ok(ControlResponse::NotLeader(_)) => {}
                Ok(answer) => return warn!(?answer, addr, "not a member of raft yet"),
                // Another one may know the leader.
                Err(error) if error.not_executed() => {
                    warn!(%error, "could not ask for membership of raft");
                }
                Err(error) => return warn!(%error, "do not know yet whether in raft"),
            }
        }
    }

    /// Managers to ask, the likeliest leader first.
    pub(super) fn addresses_to_ask(&self) -> Vec<String> {
        let me = self.manager.as_ref().map(|manager| manager.me.addr.clone());
        let view = self.agent_view.borrow();
        let leader = view.leader.clone().into_iter();
        let told = view.managers.iter().map(|(_, addr)| addr.clone());
        let mut addrs: Vec<String> = Vec::new();
        for addr in leader.chain(told).chain(self.state.managers.clone()) {
            if Some(&addr) != me.as_ref() && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs
    }
}

/// Whether the leader says that this manager is to be one but is no member of raft: it was demoted
/// and promoted again before it had noticed. What raft itself knows here is old then.
fn left_out(view: &agent::View, me: &Member) -> bool {
    let row = view.node.as_ref().filter(|_| view.connected);
    row.is_some_and(|row| {
        row.spec.role == WishedRole::Manager && row.manager.as_ref() != Some(&record_of(me))
    })
}
