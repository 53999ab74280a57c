//! The root CA of a cluster: making it, signing leaves with it, what `TLSInfo` tells about it.
//! Never decides who deserves a certificate, and trusts nothing in a CSR but its key.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber, SigningKey,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::base36::random_bytes;
use super::{PkiError, Role, Secret, ou, pem};

/// How long a node certificate lives unless the cluster says otherwise.
pub const DEFAULT_LEAF_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates start this much in the past, for nodes whose clocks run behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(3600);
/// 20 years of 365 days, as swarmkit's 630720000s.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// A CSR of ours has about 400 bytes; an RSA one stays below 2 KiB.
const MAX_CSR: usize = 16 * 1024;

/// A root CA. Without the key it can still be trusted and described, but not sign.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// The certificate bundle exactly as it is served; tokens carry the digest of these bytes.
    pub cert_pem: String,
    /// PKCS#8 PEM of the signing key; `None` with an external CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<Secret>,
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key_pem.is_some() {
            "held"
        } else {
            "none"
        };
        f.debug_struct("RootCa")
            .field("cert_pem", &self.cert_pem)
            .field("key", &key)
            .finish()
    }
}

/// Whom a leaf certificate is for.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// CN.
    pub node_id: &'a str,
    /// OU.
    pub role: Role,
    /// O.
    pub cluster_id: &'a str,
}

/// The parts of Docker's `TLSInfo`, before base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The root bundle's PEM.
    pub trust_root: String,
    /// DER of the root's subject, which is the issuer of every leaf.
    pub issuer_subject: Vec<u8>,
    /// DER of the root's SubjectPublicKeyInfo.
    pub issuer_public_key: Vec<u8>,
}

impl RootCa {
    /// A new root: CN swarm-ca, P-256, 20 years.
    pub fn create(now: SystemTime) -> Result<RootCa, PkiError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(now, ROOT_VALIDITY)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "swarm-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?;
        Ok(RootCa {
            cert_pem: cert.pem(),
            key_pem: Some(Secret(key.serialize_pem())),
        })
    }

    /// A root from PEM; the key, if any, must belong to the first certificate of the bundle.
    pub fn from_pem(cert_pem: &str, key_pem: Option<Secret>) -> Result<RootCa, PkiError> {
        let root = RootCa {
            cert_pem: cert_pem.to_owned(),
            key_pem,
        };
        let public_key = root.tls_info()?.issuer_public_key;
        if root.key_pem.is_some() && root.key()?.subject_public_key_info() != public_key {
            return Err(PkiError::invalid(
                "the root CA's key does not belong to its certificate",
            ));
        }
        Ok(root)
    }

    /// SHA-256 of the PEM bytes exactly as served.
    pub fn digest(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, self.cert_pem.as_bytes());
        out.copy_from_slice(digest.as_ref());
        out
    }

    /// Signs a leaf for the key in `csr_pem` and returns its PEM. Everything else in the CSR is
    /// ignored. `validity` counts from `now`.
    pub fn sign(
        &self,
        csr_pem: &str,
        leaf: &Leaf<'_>,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, PkiError> {
        let public_key = csr_key(csr_pem)?;
        let issuer = Issuer::from_ca_cert_der(&self.issuer()?, self.key()?)?;
        sign_leaf(&issuer, &public_key, leaf, validity, now)
    }

    /// What Docker's API shows as TLSInfo.
    pub fn tls_info(&self) -> Result<TlsInfo, PkiError> {
        let issuer = self.issuer()?;
        let cert = pem::x509(&issuer, "root CA certificate")?;
        Ok(TlsInfo {
            trust_root: self.cert_pem.clone(),
            issuer_subject: cert.subject().as_raw().to_vec(),
            issuer_public_key: cert.public_key().raw.to_vec(),
        })
    }

    pub(super) fn issuer(&self) -> Result<CertificateDer<'static>, PkiError> {
        let certs = pem::certificates(&self.cert_pem, "root CA certificate")?;
        certs
            .into_iter()
            .next()
            .ok_or_else(|| PkiError::invalid("there is no root certificate"))
    }

    pub(super) fn key(&self) -> Result<KeyPair, PkiError> {
        let secret = self.key_pem.as_ref().ok_or(PkiError::NoSigningKey)?;
        KeyPair::from_pem(secret).map_err(|_| PkiError::invalid("the root CA's key cannot be read"))
    }
}

/// The public key of a CSR whose own signature proves possession of the private one.
pub(super) fn csr_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, PkiError> {
    let bad = || PkiError::invalid("the certificate signing request is not valid");
    if csr_pem.len() > MAX_CSR {
        return Err(bad());
    }
    let der =
        CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).map_err(|_| bad())?;
    let (_, csr) = X509CertificationRequest::from_der(&der).map_err(|_| bad())?;
    csr.verify_signature().map_err(|_| bad())?;
    let spki = csr.certification_request_info.subject_pki.raw;
    SubjectPublicKeyInfo::from_der(spki).map_err(|_| bad())
}

/// The DNS names of a leaf: those that swarmkit's nodes expect of each other.
pub fn hosts<'a>(leaf: &Leaf<'a>) -> Vec<&'a str> {
    let mut hosts = vec![ou(leaf.role), leaf.node_id];
    if leaf.role == Role::Manager {
        hosts.push("swarm-ca");
    }
    hosts
}

fn sign_leaf(
    issuer: &Issuer<'_, impl SigningKey>,
    key: &impl PublicKeyData,
    leaf: &Leaf<'_>,
    validity: Duration,
    now: SystemTime,
) -> Result<String, PkiError> {
    let mut params = params(now, validity)?;
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, leaf.cluster_id);
    name.push(DnType::OrganizationalUnitName, ou(leaf.role));
    name.push(DnType::CommonName, leaf.node_id);
    for host in hosts(leaf) {
        let host = host
            .try_into()
            .map_err(|_| PkiError::invalid("a node id must be ASCII"))?;
        params.subject_alt_names.push(rcgen::SanType::DnsName(host));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, issuer)?.pem())
}

/// Parameters with nothing but a validity and a random serial number.
pub(super) fn params(now: SystemTime, validity: Duration) -> Result<CertificateParams, PkiError> {
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = Duration::from_secs(since_1970.as_secs());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now.saturating_add(validity);
    params.distinguished_name = DistinguishedName::new();
    let mut serial = random_bytes::<20>()?;
    if let Some(first) = serial.first_mut() {
        // Positive and of full length, whatever the dice say.
        *first = *first & 0x7f | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests;
