//! The services a manager offers to other nodes: sorts incoming streams and answers them. Who may
//! come in is for the gate to say.

use std::time::Duration;

use futures_util::future::BoxFuture;
use skep_api::{Code, Error, Kind};
use tokio::time::Instant;
use tracing::debug;

use crate::ca::{self, CaRequest, CaResponse};
use crate::control::ControlRequest;
use crate::manager::Manager;
use crate::quic::{CallError, Handler, Incoming, Service};
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
                Service::Http => manager.serve_engine(incoming).await,
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
        let from = caller(&incoming);
        let request: CaRequest = incoming.stream.request().await?;
        // Whoever renews is known; everybody else shows a token.
        let renews = matches!(request, CaRequest::Renew { .. });
        let stranger = (!renews).then(|| incoming.link.remote().ip());
        let wait = stranger.and_then(|addr| self.attempts.wait(addr, Instant::now()));
        let response = match wait {
            Some(wait) => CaResponse::Refused(too_many_attempts(wait)),
            None => ca::serve(self, &from, request).await,
        };
        if let (Some(addr), None, CaResponse::Refused(error)) = (stranger, wait, &response)
            && error.kind == Kind::InvalidParameter
        {
            self.attempts.failed(addr, Instant::now());
        }
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

fn too_many_attempts(wait: Duration) -> Error {
    let seconds = wait.as_secs() + 1;
    Error::rpc(
        Code::ResourceExhausted,
        format!(
            "too many attempts to join from this address have failed; wait {seconds}s and try \
             again with a token that docker swarm join-token shows"
        ),
    )
}

/// The caller's node id; empty for one without a certificate, whom the table of roles lets nowhere
/// but to the CA.
fn caller(incoming: &Incoming) -> String {
    incoming
        .peer()
        .map(|peer| peer.node_id.clone())
        .unwrap_or_default()
}
