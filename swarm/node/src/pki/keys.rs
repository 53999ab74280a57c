//! Private keys of certificate authorities as users bring them: PKCS#8 as it is, and the two older
//! forms that OpenSSL still writes put into it. Errors never quote a key.

use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::{PkiError, Secret, pem};

/// DER of `AlgorithmIdentifier { rsaEncryption, NULL }`.
const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// DER of `AlgorithmIdentifier { ecPublicKey, prime256v1 }`.
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// DER of `AlgorithmIdentifier { ecPublicKey, secp384r1 }`.
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

/// The key as PKCS#8 PEM, which is what is stored.
///
/// # Errors
/// For a text that holds no key, and for kinds of keys that cannot sign here.
pub(super) fn pkcs8(key: &Secret) -> Result<Secret, PkiError> {
    let bad = || {
        PkiError::invalid(
            "the signing CA key cannot be used; it must be an unencrypted ECDSA (P-256, P-384), \
             Ed25519 or RSA (2048 bits or more) key in PEM",
        )
    };
    let candidates = match PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| bad())? {
        PrivateKeyDer::Pkcs8(der) => vec![der.secret_pkcs8_der().to_vec()],
        PrivateKeyDer::Pkcs1(der) => vec![wrap(RSA, der.secret_pkcs1_der())],
        PrivateKeyDer::Sec1(der) => {
            let der = der.secret_sec1_der();
            vec![wrap(P256, der), wrap(P384, der)]
        }
        _ => return Err(bad()),
    };
    candidates
        .into_iter()
        .find(|der| KeyPair::try_from(der.as_slice()).is_ok())
        .map(|der| Secret(pem::encode("PRIVATE KEY", &der)))
        .ok_or_else(bad)
}

/// `PrivateKeyInfo { 0, algorithm, key }`.
fn wrap(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let mut content = vec![0x02, 0x01, 0x00];
    content.extend_from_slice(algorithm);
    content.extend(element(0x04, key));
    element(0x30, &content)
}

/// One DER element; keys are below 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let low = (length & 0xff) as u8;
    let mut der = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, (length >> 8 & 0xff) as u8, low],
    };
    der.extend_from_slice(content);
    der
}
