//! Signs nodes' certificates with the key of the cluster's root. Never decides who deserves one.

use std::time::{Duration, SystemTime};

use skep_api::Error;
use skep_core::State;
use skep_core::object::{Cluster, Role};

use super::system;
use crate::pki::{self, Leaf, RootCa};

/// Signs a certificate for a node with the key of the cluster's root.
///
/// # Errors
/// When the cluster has no signing key or the request is no good.
#[expect(
    clippy::unused_async,
    reason = "an external authority is asked over the network"
)]
pub async fn issue(state: &State, node: &str, role: Role, csr_pem: &str) -> Result<String, Error> {
    let cluster = state
        .cluster()
        .ok_or_else(|| Error::system("there is no cluster yet"))?;
    let root = RootCa {
        cert_pem: cluster.root_ca.cert_pem.clone(),
        key_pem: cluster.root_ca.key_pem.clone(),
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
