//! The root that takes another one's place: the user's own, looked at closely, or a fresh one; and
//! the certificate that leads from it to its predecessor. Never talks to an external authority.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use skep_core::object::Rotation;
use x509_parser::prelude::{ParsedExtension, X509Certificate, X509Name};

use super::issuer::signed;
use super::peer::{system_time, unix_time};
use super::root::{BACKDATE, csr_key, params};
use super::{KeyRequest, Leaf, Peer, PkiError, Role, RootCa, Secret, keys, pem, verify};

/// A root that a cluster moves to must live at least so long, as in the original.
const MIN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

impl RootCa {
    /// A root that the user brings, with or without its key. The certificate is written anew, so
    /// that tokens do not depend on line breaks and comments.
    ///
    /// # Errors
    /// swarmkit's texts where it has one; otherwise what a root must be like.
    pub fn adopt(
        cert_pem: &str,
        key_pem: Option<&Secret>,
        now: SystemTime,
    ) -> Result<RootCa, PkiError> {
        let unread = |_| PkiError::invalid("could not parse the desired CA certificate");
        let certs = pem::certificates(cert_pem, "desired CA certificate").map_err(unread)?;
        let [der] = certs.as_slice() else {
            return Err(PkiError::invalid(
                "the desired CA certificate cannot contain multiple certificates",
            ));
        };
        let cert = pem::x509(der, "desired CA certificate").map_err(unread)?;
        if !cert.is_ca() || !signed(&cert, &cert) {
            return Err(PkiError::invalid(
                "the desired CA certificate is not a self-signed certificate of a CA",
            ));
        }
        let root = RootCa {
            cert_pem: pem::encode("CERTIFICATE", der),
            key_pem: key_pem.map(keys::pkcs8).transpose()?,
        };
        if root.key_pem.is_some() {
            let root = RootCa::from_pem(&root.cert_pem, root.key_pem.clone())
                .map_err(|_| PkiError::invalid("certificate key mismatch"))?;
            try_out(&root, now)?;
        }
        if system_time(cert.validity().not_after.timestamp()) < now + MIN_LIFE {
            return Err(PkiError::invalid("CA certificate expires too soon"));
        }
        Ok(root)
    }

    /// Certifies the name and the key of another root with this root's key. Whoever trusts this
    /// root then trusts what the other one issues, if this certificate comes along.
    pub fn cross_sign(&self, next: &RootCa, now: SystemTime) -> Result<String, PkiError> {
        let issuer = Issuer::from_ca_cert_der(&self.issuer()?, self.key()?)?;
        let der = next.issuer()?;
        let cert = pem::x509(&der, "root CA certificate")?;
        let key = SubjectPublicKeyInfo::from_der(cert.public_key().raw)?;
        let pem = like(&cert, now)?.signed_by(&key, &issuer)?.pem();
        self.check_cross_signed(next, &pem)?;
        Ok(pem)
    }

    /// A request for the name and the key of this root, for an external authority to sign.
    pub fn cross_request(&self, now: SystemTime) -> Result<String, PkiError> {
        let der = self.issuer()?;
        let cert = pem::x509(&der, "root CA certificate")?;
        let mut params = like(&cert, now)?;
        // A request has neither.
        params.serial_number = None;
        params.key_identifier_method = KeyIdMethod::Sha256;
        Ok(params.serialize_request(&self.key()?)?.pem()?)
    }

    /// Whether a cross-signed certificate leads from `next` to this root.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_cross_signed(&self, next: &RootCa, pem: &str) -> Result<(), PkiError> {
        let what = "cross-signed certificate";
        let certs = pem::certificates(pem, what)?;
        let (own, other) = (self.issuer()?, next.issuer()?);
        let (own, other) = (pem::x509(&own, what)?, pem::x509(&other, what)?);
        let [cross] = certs.as_slice() else {
            return Err(PkiError::invalid(
                "there must be one cross-signed certificate",
            ));
        };
        let cross = pem::x509(cross, what)?;
        if !cross.is_ca() || !signed(&cross, &own) {
            return Err(PkiError::invalid(
                "the cross-signed certificate is not one of a CA by the current root CA",
            ));
        }
        let same = cross.subject().as_raw() == other.subject().as_raw()
            && cross.public_key().raw == other.public_key().raw;
        match same {
            true => Ok(()),
            false => Err(PkiError::invalid(
                "the cross-signed certificate has another name or key than the new root CA",
            )),
        }
    }

    /// The common name of this root's subject; empty if it has none.
    pub fn common_name(&self) -> Result<String, PkiError> {
        let der = self.issuer()?;
        let cert = pem::x509(&der, "root CA certificate")?;
        let name = cert.subject().iter_common_name().next();
        Ok(name
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned())
    }

    /// Whether a certificate that somebody else has signed is the one that was asked for.
    ///
    /// # Errors
    /// What is wrong with it: its names, its key, its issuer.
    pub fn check_leaf(
        &self,
        csr_pem: &str,
        leaf: &Leaf<'_>,
        cert_pem: &str,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        let chain = pem::certificates(cert_pem, "signed certificate")?;
        let first = chain
            .first()
            .ok_or_else(|| PkiError::invalid("there is no certificate"))?;
        let peer = Peer::from_der(first)?;
        let named = peer.node_id == leaf.node_id
            && peer.role == leaf.role
            && peer.cluster_id == leaf.cluster_id;
        if !named {
            return Err(PkiError::invalid(
                "the signed certificate does not bear the names that were asked for",
            ));
        }
        let cert = pem::x509(first, "signed certificate")?;
        if cert.public_key().raw != csr_key(csr_pem)?.subject_public_key_info() {
            return Err(PkiError::invalid(
                "the signed certificate has another key than its request",
            ));
        }
        verify::check_chain(&self.cert_pem, &chain, unix_time(now))
    }

    /// This root on its way in.
    pub fn rotation(&self, cross_signed_pem: String) -> Rotation {
        Rotation {
            cert_pem: self.cert_pem.clone(),
            key_pem: self.key_pem.clone(),
            cross_signed_pem,
            token_prefix: super::token::prefix(self),
        }
    }
}

/// Signs a certificate and verifies it: a key of a kind that nobody here can verify, or a name that
/// comes out otherwise than it went in, must not become a cluster's root.
fn try_out(root: &RootCa, now: SystemTime) -> Result<(), PkiError> {
    let leaf = Leaf {
        node_id: "trial",
        role: Role::Manager,
        cluster_id: "trial",
    };
    let request = KeyRequest::fresh()?;
    let signed = root.sign(&request.csr_pem, &leaf, BACKDATE, now)?;
    let chain: Vec<CertificateDer<'static>> = pem::certificates(&signed, "certificate")?;
    verify::check_joined(&root.cert_pem, &chain, unix_time(now))
        .map(drop)
        .map_err(|_| PkiError::invalid("the desired CA certificate cannot sign certificates here"))
}

/// What a certificate for the same name and with the same life as `cert` is made of.
fn like(cert: &X509Certificate<'_>, now: SystemTime) -> Result<CertificateParams, PkiError> {
    let ends = system_time(cert.validity().not_after.timestamp());
    let mut params = params(now, ends.duration_since(now).unwrap_or_default())?;
    params.distinguished_name = names(cert.subject())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key_id = cert
        .extensions()
        .iter()
        .find_map(|found| match found.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    if let Some(key_id) = key_id {
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
    }
    Ok(params)
}

/// A name, part by part, in the kinds of strings that it is written in.
fn names(name: &X509Name<'_>) -> Result<DistinguishedName, PkiError> {
    let strange = || {
        PkiError::invalid(format!(
            "the CA certificate's subject {name} has parts that cannot be written"
        ))
    };
    let mut names = DistinguishedName::new();
    for part in name.iter_attributes() {
        let oid: Vec<u64> = part.attr_type().iter().ok_or_else(strange)?.collect();
        let text = part.as_str().map_err(|_| strange())?;
        let value = match part.attr_value().tag().0 {
            12 => DnValue::Utf8String(text.to_owned()),
            19 => DnValue::PrintableString(text.try_into().map_err(|_| strange())?),
            22 => DnValue::Ia5String(text.try_into().map_err(|_| strange())?),
            _ => return Err(strange()),
        };
        names.push(DnType::from_oid(&oid), value);
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
