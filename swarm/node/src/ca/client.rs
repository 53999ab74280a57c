//! The node's side of the CA service. Trusts a manager that it does not know by the digest in its
//! token only.

use skep_api::node::Availability;
use skep_api::{Error, Secret};

use super::{CaRequest, CaResponse, Returning, TIMEOUT, system};
use crate::pki::{self, Identity, JoinToken, KeyRequest};
use crate::quic::{Endpoint, Service};

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
    let KeyRequest { key_pem, csr_pem } = KeyRequest::fresh().map_err(|error| system(&error))?;
    let request = CaRequest::Join {
        token: token.clone(),
        csr_pem,
        availability,
    };
    by_token(endpoint, addr, token, &request, key_pem).await
}

/// Asks the manager at `addr` to be let in again, as the node that `old` was until it expired.
///
/// # Errors
/// As [`join`]; and if the manager takes this node for another one.
pub async fn come_back(
    endpoint: &Endpoint,
    addr: &str,
    token: &Secret,
    old: &Identity,
) -> Result<Identity, Error> {
    let KeyRequest { key_pem, csr_pem } = KeyRequest::fresh().map_err(|error| system(&error))?;
    let signature = old.vouch(&csr_pem).map_err(|error| system(&error))?;
    let request = CaRequest::Return(Returning {
        token: token.clone(),
        csr_pem,
        old_cert_pem: old.cert_pem.clone(),
        signature,
    });
    let identity = by_token(endpoint, addr, token, &request, key_pem).await?;
    if identity.node_id != old.node_id {
        return Err(Error::system("the manager took this node for another one"));
    }
    Ok(identity)
}

/// One request to a manager of which only a token is known.
async fn by_token(
    endpoint: &Endpoint,
    addr: &str,
    token: &Secret,
    request: &CaRequest,
    key_pem: Secret,
) -> Result<Identity, Error> {
    let parsed: JoinToken = token
        .parse()
        .map_err(|error: pki::PkiError| system(&error))?;
    let dialled = endpoint.dial_joining(addr, &parsed, TIMEOUT).await;
    let (link, root_pem) = dialled.map_err(|error| system(&error))?;
    let answer = link
        .call(Service::Ca, TIMEOUT, request)
        .await
        .map_err(|error| system(&error))?;
    link.close("joined");
    match answer {
        CaResponse::Issued {
            cert_pem,
            roots_pem,
        } => {
            // In the midst of a rotation there are more than the one that the token knows.
            let roots = if roots_pem.is_empty() {
                &root_pem
            } else {
                &roots_pem
            };
            Identity::new(roots, &cert_pem, key_pem).map_err(|error| system(&error))
        }
        CaResponse::Refused(error) => Err(error),
    }
}

/// Asks the manager at `addr` for the next certificate of this node, as which the endpoint calls.
///
/// # Errors
/// What went wrong with whom; the manager's refusal.
pub async fn renew(endpoint: &Endpoint, addr: &str, csr_pem: &str) -> Result<CaResponse, Error> {
    let csr_pem = csr_pem.to_owned();
    let request = CaRequest::Renew { csr_pem };
    let answer = endpoint
        .call(addr, Service::Ca, None, TIMEOUT, &request)
        .await;
    match answer.map_err(|error| system(&error))? {
        CaResponse::Refused(error) => Err(error),
        issued @ CaResponse::Issued { .. } => Ok(issued),
    }
}
