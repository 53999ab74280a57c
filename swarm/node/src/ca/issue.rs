//! Signs nodes' certificates with the key of the cluster's root, or has an authority outside of the
//! swarm sign them. Never decides who deserves one.

use std::time::{Duration, SystemTime};

use skep_api::Error;
use skep_core::State;
use skep_core::object::{Cluster, Role};

use super::external::Externals;
use super::system;
use crate::pki::{self, Identity, Leaf, RootCa};

/// A certificate for a node, with what leads from it to the root that nodes know already: in the
/// midst of a rotation the new root issues and the cross-signed certificate comes along.
///
/// # Errors
/// When the cluster has no signing key and no authority signs, or the request is no good.
pub async fn issue(state: &State, node: &str, role: Role, csr_pem: &str) -> Result<String, Error> {
    issue_as(None, state, node, role, csr_pem).await
}

/// [`issue`] by a manager with this certificate, which authorities outside may ask for.
///
/// # Errors
/// As [`issue`].
pub async fn issue_as(
    me: Option<&Identity>,
    state: &State,
    node: &str,
    role: Role,
    csr_pem: &str,
) -> Result<String, Error> {
    let cluster = state
        .cluster()
        .ok_or_else(|| Error::system("there is no cluster yet"))?;
    let (root, intermediate) = issuer(&cluster.root_ca);
    let leaf = Leaf {
        node_id: node,
        role,
        cluster_id: &cluster.id,
    };
    let config = &cluster.spec.ca_config;
    let outside = skep_core::ca::externals(&cluster.root_ca, config, &root.cert_pem);
    let signed = if outside.is_empty() {
        root.sign(csr_pem, &leaf, validity(cluster), SystemTime::now())
    } else {
        let externals = Externals::new(&outside, &root, me);
        externals.sign(csr_pem, &leaf).await
    };
    Ok(signed.map_err(|error| system(&error))? + intermediate)
}

/// The root that issues at the moment, and what goes with its certificates.
fn issuer(root: &skep_core::object::RootCa) -> (RootCa, &str) {
    let (cert_pem, key_pem, intermediate) = match &root.rotation {
        None => (&root.cert_pem, &root.key_pem, ""),
        Some(next) => (&next.cert_pem, &next.key_pem, &*next.cross_signed_pem),
    };
    let root = RootCa {
        cert_pem: cert_pem.clone(),
        key_pem: key_pem.clone(),
    };
    (root, intermediate)
}

/// How long the cluster lets a node's certificate live.
pub fn validity(cluster: &Cluster) -> Duration {
    match u64::try_from(cluster.spec.ca_config.node_cert_expiry) {
        Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => pki::DEFAULT_LEAF_VALIDITY,
    }
}
