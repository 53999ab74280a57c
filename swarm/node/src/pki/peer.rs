//! What a verified leaf certificate says about the node that holds it. Verifies nothing itself.

use std::time::{Duration, SystemTime};

use rustls_pki_types::UnixTime;
use x509_parser::prelude::X509Name;
use x509_parser::x509::AttributeTypeAndValue;

use super::root::BACKDATE;
use super::{PkiError, Role, pem, role_of};

/// The other end of a connection, as its verified certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// CN: the node id.
    pub node_id: String,
    /// OU: the role that the certificate grants.
    pub role: Role,
    /// O: the cluster id.
    pub cluster_id: String,
    /// When the certificate was issued.
    pub issued_at: SystemTime,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl Peer {
    /// Reads the subject of a leaf. The caller has verified the chain or is about to.
    pub fn from_der(leaf: &[u8]) -> Result<Peer, PkiError> {
        let cert = pem::x509(leaf, "peer's certificate")?;
        let subject = cert.subject();
        let node_id = single(subject.iter_common_name(), subject, "common name")?;
        let ou = single(
            subject.iter_organizational_unit(),
            subject,
            "organisational unit",
        )?;
        let cluster_id = single(subject.iter_organization(), subject, "organisation")?;
        let role = role_of(&ou).ok_or_else(|| {
            PkiError::invalid(format!("the certificate's role {ou:?} is not a swarm role"))
        })?;
        let issued_at = system_time(cert.validity().not_before.timestamp()) + BACKDATE;
        let not_after = system_time(cert.validity().not_after.timestamp());
        Ok(Peer {
            node_id,
            role,
            cluster_id,
            issued_at,
            not_after,
        })
    }
}

/// Seconds since 1970 as a time; before 1970 counts as 1970, which is long expired anyway.
pub(super) fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// A time as webpki wants it; before 1970 counts as 1970.
pub(super) fn unix_time(at: SystemTime) -> UnixTime {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since_1970.unwrap_or_default())
}

/// Exactly one value: two organisations in one subject would let a check look at the wrong one.
fn single<'a>(
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
    subject: &X509Name<'_>,
    what: &str,
) -> Result<String, PkiError> {
    let first = values.next().and_then(|value| value.as_str().ok());
    match (first, values.next()) {
        (Some(text), None) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(PkiError::invalid(format!(
            "the certificate of {subject} does not have exactly one {what}"
        ))),
    }
}
