//! What a cluster's trust rests on: its root certificate and key, the root that is about to take their
//! place, and the join tokens. Signs nothing and checks nothing.

use serde::{Deserialize, Serialize};
use skep_api::Secret;

/// The cluster's certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RootCa {
    /// The root certificate, PEM, byte for byte as nodes receive it.
    pub cert_pem: String,
    /// The root's private key, PEM; `None` if an external CA holds it.
    pub key_pem: Option<Secret>,
    /// The root that is about to take this one's place, until every node has its certificate from
    /// it.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

/// A root certificate on its way in. Until it is there, nodes trust both: certificates are issued
/// by the new one and carry `cross_signed_pem`, which leads to the old one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    /// The new root certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM; `None` if an external CA holds it.
    pub key_pem: Option<Secret>,
    /// The new root's name and key, certified by the old root, PEM.
    pub cross_signed_pem: String,
    /// `SWMTKN-1-<digest of the new root>`: what both join tokens begin with afterwards.
    pub token_prefix: String,
}

/// The two join tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: Secret,
    /// Admits managers.
    pub manager: Secret,
}
