//! The CA service: how a node without a certificate gets in. A manager of the cluster answers; the
//! leader alone decides who is admitted. Never logs a token.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use skep_api::node::Availability;
use skep_api::{Code, Error, Secret};
use skep_core::State;
use skep_core::command::{Command, Reply};
use skep_core::object::{Cluster, Role};

use crate::pki::{self, Identity, JoinToken, KeyRequest, Leaf, RootCa};
use crate::quic::{Endpoint, Service};

/// How long a joiner waits for one answer of a manager.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a joiner asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum CaRequest {
    /// A certificate for the role of the token.
    Join {
        /// The whole join token.
        token: Secret,
        /// A request that proves possession of the key; its names are ignored.
        csr_pem: String,
        /// What the node wants to be at first.
        availability: Availability,
    },
}

/// What a manager answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum CaResponse {
    /// The node is in.
    Issued {
        /// Its certificate, with intermediates.
        cert_pem: String,
    },
    /// The exact refusal.
    Refused(Error),
}

/// Asks the manager at `addr` to be let in. Trusts it only by the digest in the token.
///
/// # Errors
/// swarmkit's texts for a bad token or a foreign root; otherwise what went wrong with whom.
pub async fn join(
    endpoint: &Endpoint,
    addr: &str,
    token: &Secret,
    availability: Availability,
) -> Result<Identity, Error> {
    let parsed: JoinToken = token
        .parse()
        .map_err(|error: pki::PkiError| system(&error))?;
    let dialled = endpoint.dial_joining(addr, &parsed, TIMEOUT).await;
    let (link, root_pem) = dialled.map_err(|error| system(&error))?;
    let KeyRequest { key_pem, csr_pem } = KeyRequest::fresh().map_err(|error| system(&error))?;
    let request = CaRequest::Join {
        token: token.clone(),
        csr_pem,
        availability,
    };
    let answer = link
        .call(Service::Ca, TIMEOUT, &request)
        .await
        .map_err(|error| system(&error))?;
    link.close("joined");
    match answer {
        CaResponse::Issued { cert_pem } => {
            Identity::new(&root_pem, &cert_pem, key_pem).map_err(|error| system(&error))
        }
        CaResponse::Refused(error) => Err(error),
    }
}

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

/// Signs a certificate for a node with the key of the cluster's root.
///
/// # Errors
/// When the cluster has no signing key or the request is no good.
pub fn issue(state: &State, node: &str, role: Role, csr_pem: &str) -> Result<String, Error> {
    let cluster = state
        .cluster()
        .ok_or_else(|| Error::system("there is no cluster yet"))?;
    let root = RootCa {
        cert_pem: cluster.root_ca.cert_pem.clone(),
        key_pem: Some(cluster.root_ca.key_pem.clone()),
    };
    let leaf = Leaf {
        node_id: node,
        role,
        cluster_id: &cluster.id,
    };
    let signed = root.sign(csr_pem, &leaf, validity(cluster), SystemTime::now());
    signed.map_err(|error| system(&error))
}

/// How long the cluster lets a node's certificate live.
pub fn validity(cluster: &Cluster) -> Duration {
    match u64::try_from(cluster.spec.ca_config.node_cert_expiry) {
        Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => pki::DEFAULT_LEAF_VALIDITY,
    }
}

fn system(error: &impl std::fmt::Display) -> Error {
    Error::system(error.to_string())
}

fn unexpected(reply: &Reply) -> Error {
    Error::rpc(
        Code::Internal,
        format!("the leader answered {reply:?} to a joining node"),
    )
}
