//! The manager's side of the CA service: has the leader decide, then signs. Decides nothing itself.

use skep_api::{Code, Error};
use skep_core::command::{Command, Reply};
use skep_core::object::Role;
use skep_core::{State, ca};

use super::{CaRequest, CaResponse, Returning, issue_as};
use crate::manager::Manager;
use crate::pki::{self, Identity};
use crate::texts;

/// Answers a node. `caller` is the node that its certificate proves; nobody for a joiner.
pub async fn serve(manager: &Manager, caller: &str, request: CaRequest) -> CaResponse {
    let answer = match request {
        CaRequest::Join {
            token,
            csr_pem,
            availability,
        } => {
            let command = Command::AdmitNode {
                token,
                availability,
            };
            admit(manager, command, &csr_pem).await
        }
        CaRequest::Renew { csr_pem } => renew(manager, caller, &csr_pem).await,
        CaRequest::Return(returning) => readmit(manager, returning).await,
    };
    answer.unwrap_or_else(CaResponse::Refused)
}

/// Has the leader let a node in, then signs its key.
async fn admit(manager: &Manager, command: Command, csr_pem: &str) -> Result<CaResponse, Error> {
    match manager.execute(command).await? {
        Reply::Admitted { node, role } => {
            let me = manager.endpoint.identity();
            signed(me.as_deref(), &manager.raft.state(), &node, role, csr_pem).await
        }
        other => Err(Error::rpc(
            Code::Internal,
            format!("the leader answered {other:?} to a joining node"),
        )),
    }
}

/// Lets a node in again whose certificate has expired, as the node that its old one proves it to
/// be. The leader looks at its token and at the node table.
async fn readmit(manager: &Manager, returning: Returning) -> Result<CaResponse, Error> {
    let state = manager.raft.state();
    let cluster = state
        .cluster()
        .ok_or_else(|| Error::system("there is no cluster yet"))?;
    let peer = pki::vouched_for(
        &ca::trust(&cluster.root_ca).roots_pem,
        &cluster.id,
        &returning.old_cert_pem,
        &returning.csr_pem,
        &returning.signature,
    );
    let peer = peer.map_err(|error| Error::rpc(Code::PermissionDenied, error))?;
    let command = Command::ReturnNode {
        node: peer.node_id.into(),
        token: returning.token,
    };
    admit(manager, command, &returning.csr_pem).await
}

/// Signs the next key of a node, in the role that the node table has for it now: a manager that
/// lags behind must not hand out what was taken away.
async fn renew(manager: &Manager, caller: &str, csr_pem: &str) -> Result<CaResponse, Error> {
    if caller.is_empty() {
        return Err(Error::rpc(
            Code::PermissionDenied,
            "a certificate is renewed for the node that shows one",
        ));
    }
    renewed(manager, caller, csr_pem).await
}

/// The next certificate of a node, by a manager that makes sure that it is up to date.
///
/// # Errors
/// swarmkit's text for a node that is not in the table; why the manager cannot tell, or why there
/// is no signature.
pub async fn renewed(manager: &Manager, node: &str, csr_pem: &str) -> Result<CaResponse, Error> {
    let fresh = manager.raft.read_barrier().await;
    fresh.map_err(|error| Error::unavailable(error.to_string()))?;
    let (me, state) = (manager.endpoint.identity(), manager.raft.state());
    let row = state.nodes().get(node);
    let row = row.ok_or_else(|| Error::rpc(Code::PermissionDenied, texts::removed(node)))?;
    signed(me.as_deref(), &state, node, row.role, csr_pem).await
}

async fn signed(
    me: Option<&Identity>,
    state: &State,
    node: &str,
    role: Role,
    csr_pem: &str,
) -> Result<CaResponse, Error> {
    let cert_pem = issue_as(me, state, node, role, csr_pem).await?;
    let roots = state
        .cluster()
        .map(|cluster| ca::trust(&cluster.root_ca).roots_pem);
    Ok(CaResponse::Issued {
        cert_pem,
        roots_pem: roots.unwrap_or_default(),
    })
}
