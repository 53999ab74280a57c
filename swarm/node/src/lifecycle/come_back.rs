//! A node whose certificate has expired: out of work until `swarm join` with a fresh token gives it
//! another one. It is the same node then: its id, its raft log and its tasks are where they were.
//! Never removes anything: a refusal leaves the node expired, as it was; once the certificate is
//! on disk, the next start tries again what has failed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_api::Error;
use skep_api::cluster::JoinRequest;
use tracing::{error, info};

use super::system;
use crate::agent::Parting;
use crate::ca;
use crate::disk::NodeState;
use crate::membership::Membership;
use crate::node::{Node, Phase};
use crate::pki::Identity;
use crate::quic::{Endpoint, OpenGate};
use crate::texts;

/// How often a node looks at the clock: a host that slept wakes up with an expired certificate.
const LOOK: Duration = Duration::from_secs(2);

impl Node {
    /// Whether the certificate has expired and `swarm join` means to come back.
    pub(super) fn is_expired(&self) -> bool {
        matches!(&*self.0.phase.borrow(), Phase::Expired)
    }

    /// Gets another certificate for the node that is on disk, and takes up its membership. Called
    /// while the node is held.
    ///
    /// # Errors
    /// swarmkit's texts for a bad token or a foreign root; the manager's refusal of a node that was
    /// removed. The node is expired still, then.
    pub(super) async fn come_back(
        &self,
        request: &JoinRequest,
        remote: &str,
    ) -> Result<Arc<Membership>, Error> {
        let disk = &self.0.disk;
        let state = disk.load().map_err(|error| system(&error))?;
        let old = Identity::load(disk).map_err(|error| system(&error))?;
        let (Some(state), Some(old)) = (state, old) else {
            return Err(texts::expired());
        };
        let dialling = Endpoint::bind(None, Arc::new(OpenGate)).map_err(|error| system(&error))?;
        let asked = ca::come_back(&dialling, remote, &request.join_token, &old).await;
        dialling.shutdown("back again").await;
        let identity = asked?;
        identity.save(disk).map_err(|error| system(&error))?;
        let state = knowing(state, remote);
        disk.save(&state).map_err(|error| system(&error))?;
        info!(node = %identity.node_id, "came back with a new certificate");
        match self.begin(state, identity).await {
            Ok(membership) => {
                membership.settle(disk.clone());
                self.0.phase.send_replace(Phase::Member(membership.clone()));
                Ok(membership)
            }
            Err(error) => {
                // The new certificate is on disk: a restart of the daemon tries again.
                self.0
                    .phase
                    .send_replace(Phase::Broken(error.message.clone()));
                Err(error)
            }
        }
    }

    /// Ends a membership when its certificate does, for as long as the node lives.
    pub(crate) fn watch_the_clock(&self) {
        let node = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(inner) = node.upgrade() else { return };
                Node(inner).stop_if_expired().await;
            }
        });
    }

    async fn stop_if_expired(&self) {
        let expired = |membership: &Membership| membership.expired(SystemTime::now());
        if !self.member().as_deref().is_some_and(expired) {
            return;
        }
        let _moving = self.0.moving.lock().await;
        // It may have become another one while we waited.
        if let Some(membership) = self.member().filter(|membership| expired(membership)) {
            error!("the node's certificate has expired");
            membership.stop(Parting::Wordless).await;
            self.0.phase.send_replace(Phase::Expired);
        }
    }
}

/// The state with one more manager to ask: the others may have moved while the node was away.
fn knowing(mut state: NodeState, remote: &str) -> NodeState {
    if !state.managers.iter().any(|addr| addr == remote) {
        state.managers.push(remote.to_owned());
    }
    state
}
