//! The swarm as clients see it. The CA's key never leaves; the tokens only through [`swarm`].

use skep_api::cluster::{ClusterInfo, JoinTokens, Swarm};
use skep_api::go::Version;

use super::cert::issued_by;
use crate::ca;
use crate::object::Cluster;

/// What `/info` shows of the swarm.
pub fn cluster_info(cluster: &Cluster) -> ClusterInfo {
    let mut spec = cluster.spec.clone();
    // Write-only: with the certificate but without the key, a client that reads the spec and sends
    // it back would ask for something else.
    spec.ca_config.signing_ca_cert = Default::default();
    spec.ca_config.signing_ca_key = Default::default();
    let root = &cluster.root_ca.cert_pem;
    ClusterInfo {
        id: cluster.id.to_string(),
        version: Version::from(cluster.meta.version),
        created_at: cluster.meta.created_at,
        updated_at: cluster.meta.updated_at,
        spec,
        // In the midst of a rotation: the old root beside the new issuer, as in the original.
        tls_info: issued_by(root, &ca::trust(&cluster.root_ca).issuer_pem),
        root_rotation_in_progress: cluster.root_ca.rotation.is_some(),
        default_addr_pool: cluster.default_addr_pool.clone(),
        subnet_size: cluster.subnet_size,
        data_path_port: cluster.data_path_port,
    }
}

/// `GET /swarm`: the same with the join tokens.
pub fn swarm(cluster: &Cluster) -> Swarm {
    let tokens = JoinTokens {
        worker: cluster.join_tokens.worker.clone(),
        manager: cluster.join_tokens.manager.clone(),
    };
    Swarm::new(cluster_info(cluster), tokens)
}
