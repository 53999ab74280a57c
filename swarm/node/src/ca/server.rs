//! The manager's side of the CA service: has the leader decide, then signs. Decides nothing itself.

use skep_api::{Code, Error};
use skep_core::State;
use skep_core::command::{Command, Reply};

use super::{CaRequest, CaResponse, issue};

/// Answers a joiner: has the leader admit it, then signs its key with the cluster's root.
pub async fn serve<E, F>(request: CaRequest, state: impl Fn() -> State, execute: E) -> CaResponse
where
    E: FnOnce(Command) -> F,
    F: Future<Output = Result<Reply, Error>>,
{
    let CaRequest::Join {
        token,
        csr_pem,
        availability,
    } = request;
    let admitted = match execute(Command::AdmitNode {
        token,
        availability,
    })
    .await
    {
        Ok(Reply::Admitted { node, role }) => (node, role),
        Ok(other) => return CaResponse::Refused(unexpected(&other)),
        Err(error) => return CaResponse::Refused(error),
    };
    match issue(&state(), &admitted.0, admitted.1, &csr_pem) {
        Ok(cert_pem) => CaResponse::Issued { cert_pem },
        Err(error) => CaResponse::Refused(error),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::rpc(
        Code::Internal,
        format!("the leader answered {reply:?} to a joining node"),
    )
}
