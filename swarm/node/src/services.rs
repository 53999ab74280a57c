//! The services a manager offers to other nodes: sorts incoming streams and says who may come in.
//! The table of roles is the endpoint's; here is what only the replicated state can tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use skep_core::State;
use tracing::debug;

use crate::ca::{self, CaRequest};
use crate::control::ControlRequest;
use crate::manager::Manager;
use crate::pki::Peer;
use crate::quic::{CallError, Gate, Handler, Incoming, Refusal, Service};
use crate::raft::{self, Leadership, MemberStatus, Raft};
use crate::sessions;

impl Handler for Manager {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let manager = self.clone();
        Box::pin(async move {
            let service = incoming.service;
            let outcome = match service {
                Service::Raft => {
                    raft::serve(&manager.raft, incoming).await;
                    Ok(())
                }
                Service::Control => manager.serve_control(incoming).await,
                Service::Ca => manager.serve_ca(incoming).await,
                Service::Dispatch => {
                    manager.serve_session(incoming).await;
                    Ok(())
                }
                Service::Http => {
                    incoming
                        .stream
                        .refuse("this node does not offer its engine")
                        .await;
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                debug!(%service, %error, "a call was not answered");
            }
        })
    }
}

impl Manager {
    async fn serve_control(&self, mut incoming: Incoming) -> Result<(), CallError> {
        let from = caller(&incoming);
        let request: ControlRequest = incoming.stream.request().await?;
        let response = self.control(&from, request).await;
        incoming.stream.reply(&response).await
    }

    async fn serve_ca(&self, mut incoming: Incoming) -> Result<(), CallError> {
        let caller = caller(&incoming);
        let request: CaRequest = incoming.stream.request().await?;
        let response = ca::serve(self, &caller, request).await;
        incoming.stream.reply(&response).await
    }

    async fn serve_session(&self, incoming: Incoming) {
        let leader = || {
            if self.leads() {
                Ok(())
            } else {
                Err(self.leader_addr())
            }
        };
        sessions::serve(incoming, self.sessions.clone(), self.desk.clone(), leader).await;
    }
}

/// The caller's node id; empty for one without a certificate, whom the table of roles lets nowhere
/// but to the CA.
fn caller(incoming: &Incoming) -> String {
    incoming
        .peer()
        .map(|peer| peer.node_id.clone())
        .unwrap_or_default()
}

/// Admits the nodes that the store knows, in the role that it knows them in. A removed node is in
/// no table, so its certificate is worth nothing, for ever and without a list of the removed.
///
/// A manager that comes back after a while knows less than the others, perhaps not even its leader:
/// towards raft, which brings it up to date, certificates alone count until it has one. While there
/// is no state at all, they do for every service.
#[derive(Clone, Default)]
pub struct StoreGate(Arc<Mutex<Option<Raft>>>);

impl StoreGate {
    /// Looks at this manager's state from now on; `None` to let go of it.
    pub fn follow(&self, raft: Option<Raft>) {
        *self.raft() = raft;
    }

    fn raft(&self) -> MutexGuard<'_, Option<Raft>> {
        // A panic elsewhere leaves the option whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for StoreGate {
    fn admit(&self, service: Service, peer: Option<&Peer>) -> Result<(), Refusal> {
        let (Some(peer), Some(raft)) = (peer, self.raft().clone()) else {
            return Ok(());
        };
        let verdict = belongs(&raft.state(), peer);
        if service == Service::Raft
            && verdict.is_err()
            && may_be_new(&raft.leadership().borrow(), peer)
        {
            return Ok(());
        }
        verdict
    }
}

fn belongs(state: &State, peer: &Peer) -> Result<(), Refusal> {
    if state.cluster().is_none() {
        return Ok(());
    }
    let Some(node) = state.nodes().get(&peer.node_id) else {
        return Err(Refusal(format!(
            "node {} was removed from swarm",
            peer.node_id
        )));
    };
    if peer.role == node.role {
        return Ok(());
    }
    Err(Refusal(format!(
        "node {} does not have the role of its certificate",
        peer.node_id
    )))
}

/// Whether the peer may have become a manager without this one having heard of it: raft counts it
/// among its members already, or there is no leader to hear such news from.
fn may_be_new(leadership: &Leadership, peer: &Peer) -> bool {
    let member = |known: &MemberStatus| known.member.node_id.as_str() == peer.node_id;
    leadership.leader.is_none() || leadership.members.iter().any(member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Role;
    use crate::raft::Member;

    fn peer(node_id: &str, role: Role) -> Peer {
        let not_after = std::time::SystemTime::UNIX_EPOCH;
        Peer {
            node_id: node_id.into(),
            role,
            cluster_id: "c".into(),
            not_after,
        }
    }

    fn member(node_id: &str) -> Member {
        Member {
            raft_id: 1,
            node_id: node_id.into(),
            addr: "10.0.0.1:2377".into(),
        }
    }

    #[test]
    fn without_a_cluster_certificates_decide() {
        assert_eq!(
            belongs(&State::default(), &peer("n1", Role::Manager)),
            Ok(())
        );
    }

    #[test]
    fn a_manager_that_lags_listens_to_a_leader_it_does_not_know_yet() {
        let mut leadership = Leadership::default();
        assert!(may_be_new(&leadership, &peer("new", Role::Manager)));
        leadership.leader = Some(member("old"));
        assert!(!may_be_new(&leadership, &peer("new", Role::Manager)));
        let status = MemberStatus {
            member: member("new"),
            voter: true,
            reachable: None,
        };
        leadership.members.push(status);
        assert!(may_be_new(&leadership, &peer("new", Role::Manager)));
    }
}
