//! The services a manager offers to other nodes: sorts incoming streams and says who may come in.
//! The table of roles is the endpoint's; here is what only the replicated state can tell.

use futures_util::future::BoxFuture;
use skep_core::State;
use tracing::debug;

use crate::ca::{self, CaRequest};
use crate::control::ControlRequest;
use crate::manager::Manager;
use crate::pki::Peer;
use crate::quic::{CallError, Gate, Handler, Incoming, Refusal, Service};
use crate::raft;
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
                    incoming.stream.refuse("this node does not offer its engine").await;
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
        let request: CaRequest = incoming.stream.request().await?;
        let execute = |command| async move { self.execute(command).await };
        let response = ca::serve(request, || self.raft.state(), execute).await;
        incoming.stream.reply(&response).await
    }

    async fn serve_session(&self, incoming: Incoming) {
        let leader = || {
            if self.raft.leadership().borrow().i_lead { Ok(()) } else { Err(self.leader_addr()) }
        };
        sessions::serve(incoming, self.sessions.clone(), self.requests.clone(), leader).await;
    }
}

/// The caller's node id; empty for one without a certificate, whom the table of roles lets nowhere
/// but to the CA.
fn caller(incoming: &Incoming) -> String {
    incoming.peer().map(|peer| peer.node_id.clone()).unwrap_or_default()
}

/// Admits the nodes that the store knows, in the role that it knows them in. A removed node is in
/// no table, so its certificate is worth nothing, for ever and without a list of the removed.
pub struct StoreGate(Box<dyn Fn() -> Option<State> + Send + Sync>);

impl StoreGate {
    /// A gate over a state that is looked at anew for every caller; `None` while there is none yet
    /// (a manager that is still catching up), when certificates alone decide.
    pub fn new(state: impl Fn() -> Option<State> + Send + Sync + 'static) -> Self {
        Self(Box::new(state))
    }
}

impl Gate for StoreGate {
    fn admit(&self, _service: Service, peer: Option<&Peer>) -> Result<(), Refusal> {
        let (Some(peer), Some(state)) = (peer, (self.0)()) else { return Ok(()) };
        if state.cluster().is_none() {
            return Ok(());
        }
        let Some(node) = state.nodes().get(&peer.node_id) else {
            return Err(Refusal(format!("node {} was removed from swarm", peer.node_id)));
        };
        if skep_core::object::Role::from(peer.role) == node.role {
            return Ok(());
        }
        Err(Refusal(format!("node {} does not have the role of its certificate", peer.node_id)))
    }
}
