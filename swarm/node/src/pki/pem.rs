//! Reading PEM with errors that name what was read. Writes nothing; rcgen does that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{PkiError, Secret};

/// More certificates than any bundle of ours has: a root, its predecessor and cross-signed forms.
const MAX_CERTS: usize = 16;

/// Every certificate of a PEM text, at least one; `what` names it in errors.
pub(super) fn certificates(
    pem: &str,
    what: &str,
) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let certs = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CERTS + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::invalid(format!("the {what} is not valid PEM: {error}")))?;
    if certs.is_empty() || certs.len() > MAX_CERTS {
        return Err(PkiError::invalid(format!(
            "the {what} must contain between 1 and {MAX_CERTS} certificates"
        )));
    }
    for cert in &certs {
        x509(cert, what)?;
    }
    Ok(certs)
}

/// A parsed view of one certificate.
pub(super) fn x509<'a>(der: &'a [u8], what: &str) -> Result<X509Certificate<'a>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(PkiError::invalid(format!(
            "the {what} cannot be parsed as X.509"
        ))),
    }
}

/// The private key of a PEM text. The error never quotes the text.
pub(super) fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| PkiError::invalid("the private key is not valid PEM"))
}

/// PEM of some DER, as OpenSSL and Go write it: 64 characters a line.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
