//! `swarm leave`: out of raft, containers away, nothing on disk. Works for a membership that could
//! not be resumed as well. Never fails because the rest of the swarm cannot be reached.

use std::time::Duration;

use skep_api::Error;
use skep_core::Id;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{system, to_the_end};
use crate::agent::{self, Parting};
use crate::control::{self, ControlRequest, ControlResponse};
use crate::manager::Manager;
use crate::node::{Node, Phase};
use crate::pki::Identity;
use crate::texts;

/// How long a leaving manager tries to be taken out of raft.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pause before it asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the engine may take to remove the swarm's containers.
const REMOVAL: Duration = Duration::from_secs(60);

impl Node {
    /// Leaves the swarm: its containers are removed and nothing of it stays on disk.
    ///
    /// # Errors
    /// dockerd's refusals for a node in no swarm and, without force, for a manager.
    pub async fn leave(&self, force: bool) -> Result<(), Error> {
        let node = self.clone();
        to_the_end(async move { node.leave_now(force).await }).await
    }

    async fn leave_now(&self, force: bool) -> Result<(), Error> {
        let _moving = self.0.moving.lock().await;
        let phase = self.0.phase.borrow().clone();
        let id = match phase {
            Phase::Inactive | Phase::Joining(_) => return Err(texts::not_part()),
            Phase::Locked if !force => return Err(texts::leaving_locked()),
            Phase::Broken(_) | Phase::Locked | Phase::Expired => self.recorded_id(),
            Phase::Member(membership) => {
                if let Some(manager) = membership.manager() {
                    if !force {
                        let members = manager.members_as_leader_sees().await;
                        let reachable = members.iter().filter(|member| member.reachable).count();
                        return Err(texts::leaving_manager(reachable, members.len() - reachable));
                    }
                    // Whoever keeps it a member of raft must not undo what follows.
                    membership.quiet();
                    say_farewell(manager).await;
                }
                membership.attachments().give_back().await;
                membership.stop(Parting::ForGood).await;
                Some(membership.node_id().clone())
            }
        };
        if let Some(id) = id {
            let worker = self.0.disk.worker();
            let removal = agent::forget_everything(self.engine(), &id, &worker);
            match timeout(REMOVAL, removal).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(error, "containers of the swarm were left behind"),
                Err(_) => warn!("the engine was too slow to remove the swarm's containers"),
            }
        }
        // From here on the node is in no swarm, and what the disk refuses is swept by the next move.
        self.0.phase.send_replace(Phase::Inactive);
        self.0.disk.wipe().map_err(|error| system(&error))?;
        info!("left the swarm");
        Ok(())
    }

    /// Who the node was, if either file that says so can be read.
    fn recorded_id(&self) -> Option<Id> {
        let state = self.0.disk.load().ok().flatten().map(|state| state.node_id);
        let state = state.filter(|id| !id.is_empty());
        let identity = || Identity::load(&self.0.disk).ok().flatten();
        let id = state.or_else(|| identity().map(|identity| identity.node_id));
        id.map(|id| Id::from(id.as_str()))
    }
}

/// Has the leader take this manager out of raft, if there is time; a leader hands over first.
async fn say_farewell(manager: &Manager) {
    if manager.members().len() < 2 {
        return;
    }
    let farewell = async {
        manager.hand_over().await;
        let mut leadership = manager.raft.leadership();
        loop {
            let leader = leadership.borrow_and_update().leader.clone();
            if let Some(leader) = leader.filter(|leader| *leader != manager.me) {
                let request = ControlRequest::LeaveRaft;
                match control::call(&manager.endpoint, &leader.addr, FAREWELL, &request).await {
                    Ok(ControlResponse::Done) => return,
                    other => warn!(answer = ?other, "not out of raft yet"),
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if timeout(FAREWELL, leadership.changed())
                .await
                .is_ok_and(|seen| seen.is_err())
            {
                return;
            }
        }
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        warn!("left without being taken out of raft; the others see an unreachable manager");
    }
}
