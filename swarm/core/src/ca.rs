//! What the cluster's certificate authority asks of nodes, and how a rotation of the root comes to
//! its end. Signs nothing and makes no keys: those need randomness.

use crate::assignment::Trust;
use crate::object::RootCa;

/// Whom nodes are to trust at the moment, and who issues their certificates.
pub fn trust(root: &RootCa) -> Trust {
    match &root.rotation {
        None => Trust {
            roots_pem: root.cert_pem.clone(),
            issuer_pem: root.cert_pem.clone(),
        },
        Some(rotation) => Trust {
            roots_pem: format!("{}{}", root.cert_pem, rotation.cert_pem),
            issuer_pem: rotation.cert_pem.clone(),
        },
    }
}
