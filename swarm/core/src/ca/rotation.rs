//! What an update of the spec asks of the certificate authority, and what becomes of the root then.
//! Compares certificates and checks nothing else in them: dates, keys and reachability are looked
//! at by the manager that takes the request, which has a clock and a network.
//!
//! Source of the behaviour: swarmkit `manager/controlapi/ca_rotation.go`.

use skep_api::cluster::{CaConfig, ExternalCa};
use skep_api::{Code, Error};

use crate::object::{Cluster, RootCa, Rotation, Secret};
use crate::validate::refused;
use crate::wire::cert::{certificates, subject_and_key};

/// What is to become of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Keep,
    /// The current root stays, with this key; a rotation that is under way is called off.
    Stay(Option<Secret>),
    /// The root that is on its way in gets this key.
    GoOn(Option<Secret>),
    /// Another root takes its place: the user's, or a fresh one.
    Rotate {
        /// The user's certificate, PEM.
        cert_pem: Option<String>,
    },
}

/// What the spec in an update asks for, by the state it is made in.
///
/// # Errors
/// swarmkit's texts for everything that specs and certificates alone can tell.
pub fn wish(cluster: &Cluster, sent: &CaConfig) -> Result<Wish, Error> {
    let root = &cluster.root_ca;
    let key = Some(sent.signing_ca_key.clone()).filter(|key| !key.is_empty());
    let cert = sent.signing_ca_cert.trim();
    if cert.is_empty() && key.is_some() {
        return Err(refused(
            "if a signing CA key is provided, the signing CA cert must also be provided",
        ));
    }
    let stays = !cert.is_empty() && same(cert, &root.cert_pem);
    if root.key_pem.is_none() {
        if stays && key.is_some() {
            return Ok(Wish::Stay(key));
        }
        need_external(cluster, sent, &root.cert_pem, "current")?;
    }
    if cert.is_empty() {
        if sent.force_rotate != cluster.spec.ca_config.force_rotate {
            return Ok(Wish::Rotate { cert_pem: None });
        }
        if let Some(next) = root.rotation.as_ref().filter(|next| next.key_pem.is_none()) {
            need_external(cluster, sent, &next.cert_pem, "next")?;
        }
        return Ok(Wish::Keep);
    }
    check_certificate(cert)?;
    if key.is_none() {
        need_external(cluster, sent, cert, "desired")?;
    }
    if stays {
        return Ok(Wish::Stay(key));
    }
    if key_of(cert) == key_of(&root.cert_pem) {
        return Err(refused("Cannot update to a cert with an identical key"));
    }
    if let Some(next) = &root.rotation
        && same(cert, &next.cert_pem)
    {
        return Ok(Wish::GoOn(key));
    }
    if root.key_pem.is_none() && key.is_none() {
        return Err(refused(
            "rotating from one external CA to a different external CA is not supported",
        ));
    }
    Ok(Wish::Rotate {
        cert_pem: Some(cert.to_owned()),
    })
}

/// The root after an update. `made` is what the manager that took the request made for it.
///
/// # Errors
/// As [`wish`]; and if what was made is not what is needed.
pub fn updated(
    cluster: &Cluster,
    sent: &CaConfig,
    made: Option<&Rotation>,
) -> Result<RootCa, Error> {
    let mut root = cluster.root_ca.clone();
    match wish(cluster, sent)? {
        Wish::Keep => {}
        Wish::Stay(key) => {
            root.key_pem = key;
            root.rotation = None;
        }
        Wish::GoOn(key) => {
            if let Some(next) = &mut root.rotation {
                next.key_pem = key;
            }
        }
        Wish::Rotate { cert_pem } => {
            let fits = |made: &&Rotation| {
                let asked = cert_pem.as_deref();
                asked.is_none_or(|asked| same(asked, &made.cert_pem))
                    && made.key_pem.is_some() == (asked.is_none() || has_key(sent))
            };
            let made = made.filter(fits).ok_or_else(|| {
                Error::rpc(
                    Code::Internal,
                    "the manager that took this request made no root CA for it; try again",
                )
            })?;
            root.rotation = Some(made.clone());
        }
    }
    Ok(root)
}

/// The settings as they are stored: without what is not to be read back.
pub fn stored(sent: &CaConfig) -> CaConfig {
    CaConfig {
        signing_ca_cert: String::new(),
        signing_ca_key: Secret::default(),
        ..sent.clone()
    }
}

/// The external authorities that sign for a root. One that names no root is taken to sign for the
/// current one.
pub fn externals<'a>(root: &RootCa, config: &'a CaConfig, cert_pem: &str) -> Vec<&'a ExternalCa> {
    let signs_for = |external: &&ExternalCa| {
        let own = external.ca_cert.trim();
        let own = if own.is_empty() { &root.cert_pem } else { own };
        external.protocol.eq_ignore_ascii_case("cfssl") && same(own, cert_pem)
    };
    config.external_cas.iter().filter(signs_for).collect()
}

/// swarmkit's refusal of an authority that nobody could sign for; `which` is `current`, `next` or
/// `desired`.
pub fn no_external(which: &str) -> Error {
    refused(format!(
        "there must be at least one valid, reachable external CA corresponding to the {which} CA \
         certificate"
    ))
}

fn need_external(
    cluster: &Cluster,
    sent: &CaConfig,
    cert_pem: &str,
    which: &str,
) -> Result<(), Error> {
    match externals(&cluster.root_ca, sent, cert_pem).is_empty() {
        true => Err(no_external(which)),
        false => Ok(()),
    }
}

fn check_certificate(pem: &str) -> Result<(), Error> {
    let found = certificates(pem);
    match found.as_deref() {
        Some([one]) if subject_and_key(one).is_some() => Ok(()),
        Some([_, _, ..]) => Err(refused(
            "the desired CA certificate cannot contain multiple certificates",
        )),
        _ => Err(refused("could not parse the desired CA certificate")),
    }
}

fn has_key(sent: &CaConfig) -> bool {
    !sent.signing_ca_key.is_empty()
}

/// Whether two PEM texts hold the same certificates, however they are written.
fn same(one: &str, other: &str) -> bool {
    let one = certificates(one);
    one.is_some() && one == certificates(other)
}

/// The name and the public key of the first certificate.
pub(super) fn issuer(pem: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    subject_and_key(certificates(pem)?.first()?)
}

fn key_of(pem: &str) -> Option<Vec<u8>> {
    issuer(pem).map(|(_, key)| key)
}
