//! What clients are told of a certificate authority: its certificate, and from inside it the name
//! and the public key of the issuer. Verifies nothing.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as PlainError, StrDeserializer};
use skep_api::Base64;
use skep_api::cluster::TlsInfo;

/// DER's tag of a sequence.
const SEQUENCE: u8 = 0x30;
/// DER's tag of the optional version that opens a certificate.
const VERSION: u8 = 0xa0;

/// `TLSInfo` for a root certificate in PEM: the root is its own issuer. A certificate that cannot
/// be read leaves subject and key empty, as in the original.
pub fn tls_info(pem: &str) -> TlsInfo {
    issued_by(pem, pem)
}

/// `TLSInfo` where the roots to trust are not the one that issues: in the midst of a rotation.
pub fn issued_by(roots_pem: &str, issuer_pem: &str) -> TlsInfo {
    let (subject, key) = certificates(issuer_pem)
        .as_deref()
        .and_then(|certificates| subject_and_key(certificates.first()?))
        .unwrap_or_default();
    TlsInfo {
        trust_root: roots_pem.to_owned(),
        cert_issuer_subject: Base64(subject),
        cert_issuer_public_key: Base64(key),
    }
}

/// The bytes of every certificate in a PEM text; `None` if there is none or one is no base64.
pub(crate) fn certificates(pem: &str) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
        let (body, after) = after.split_once("-----END CERTIFICATE-----")?;
        let body: String = body.split_whitespace().collect();
        let text: StrDeserializer<'_, PlainError> = body.as_str().into_deserializer();
        found.push(Base64::deserialize(text).ok()?.0);
        rest = after;
    }
    Some(found).filter(|found| !found.is_empty())
}

/// The subject's name and the `SubjectPublicKeyInfo`, each with its own tag and length.
pub(crate) fn subject_and_key(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = content(der, SEQUENCE)?;
    let mut fields = content(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = split(fields)?.1;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        fields = split(fields)?.1;
    }
    let (subject, fields) = split(fields)?;
    let (key, _) = split(fields)?;
    Some((subject.to_vec(), key.to_vec()))
}

/// The content of the element at the beginning, if it has this tag.
fn content(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (header, length) = header(der)?;
    if der.first() == Some(&tag) {
        der.get(header..header + length)
    } else {
        None
    }
}

/// The first element, and what follows it.
fn split(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, length) = header(der)?;
    der.split_at_checked(header + length)
}

/// Lengths of the first element's header and content. Certificates are far below 64 KiB, hence
/// long forms of at most two bytes.
fn header(der: &[u8]) -> Option<(usize, usize)> {
    let byte = |at: usize| der.get(at).map(|byte| usize::from(*byte));
    Some(match byte(1)? {
        short @ ..=0x7f => (2, short),
        0x81 => (3, byte(2)?),
        0x82 => (4, byte(2)? << 8 | byte(3)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl req -x509` for CN=swarm-ca on P-256.
    const PEM: &str = include_str!("testdata/swarm-ca.pem");

    #[test]
    fn subject_and_key_are_found() {
        let info = tls_info(PEM);
        assert_eq!(info.trust_root, PEM);
        let subject = &info.cert_issuer_subject.0;
        assert_eq!(subject.first(), Some(&SEQUENCE));
        assert!(subject.ends_with(b"swarm-ca"));
        assert_eq!(
            info.cert_issuer_public_key.0.len(),
            91,
            "the key info of P-256"
        );
    }

    #[test]
    fn rubbish_leaves_both_empty() {
        let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        for pem in ["", "x", broken] {
            let info = tls_info(pem);
            assert!(info.cert_issuer_subject.0.is_empty(), "{pem}");
        }
    }
}
