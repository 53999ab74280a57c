//! Cross-signed certificates in both directions, and roots that users bring, made by OpenSSL.

use rustls_pki_types::UnixTime;

use super::*;
use crate::pki::{Identity, JoinToken};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const P256: &str = include_str!("testdata/p256.pem");
const P256_KEY: &str = include_str!("testdata/p256.key");
const RSA: &str = include_str!("testdata/rsa.pem");
const RSA_KEY: &str = include_str!("testdata/rsa.key");

fn now() -> SystemTime {
    SystemTime::now()
}

fn root() -> RootCa {
    RootCa::create(now()).unwrap()
}

fn verifies(roots_pem: &str, chain_pem: &str) -> bool {
    let chain = pem::certificates(chain_pem, "chain").unwrap();
    verify::check_chain(roots_pem, &chain, UnixTime::now()).is_ok()
}

/// A leaf of `root`, followed by `intermediate`.
fn leaf(root: &RootCa, intermediate: &str) -> Identity {
    let request = KeyRequest::fresh().unwrap();
    let leaf = Leaf {
        node_id: "node",
        role: Role::Manager,
        cluster_id: "cluster",
    };
    let cert = root.sign(&request.csr_pem, &leaf, YEAR, now()).unwrap();
    let chain = format!("{cert}{intermediate}");
    Identity::new(&root.cert_pem, &chain, request.key_pem).unwrap()
}

#[test]
fn a_cross_signed_leaf_is_good_for_nodes_of_either_root() {
    let users = RootCa::adopt(RSA, Some(&Secret::from(RSA_KEY)), now()).unwrap();
    for (old, new) in [(root(), root()), (root(), users.clone()), (users, root())] {
        let cross = old.cross_sign(&new, now()).unwrap();
        let (before, after) = (leaf(&old, ""), leaf(&new, &cross));
        let bundle = format!("{}{}", old.cert_pem, new.cert_pem);
        for roots in [&old.cert_pem, &new.cert_pem, &bundle] {
            assert!(verifies(roots, &after.cert_pem), "the new leaf");
        }
        assert!(verifies(&old.cert_pem, &before.cert_pem));
        assert!(verifies(&bundle, &before.cert_pem));
        assert!(
            !verifies(&new.cert_pem, &before.cert_pem),
            "not the old leaf"
        );
        assert!(
            !verifies(&root().cert_pem, &after.cert_pem),
            "a foreign root"
        );
        // Without the cross-signed certificate only the new root verifies.
        assert!(!verifies(&old.cert_pem, &leaf(&new, "").cert_pem));
        assert!(after.issued_by(&new.cert_pem) && !after.issued_by(&old.cert_pem));
        let during = after.with_roots(&old.cert_pem).unwrap();
        assert!(during.issued_by(&new.cert_pem), "by the intermediate");
        assert_eq!(during.tls_info().trust_root, old.cert_pem);
        assert!(before.issued_by(&old.cert_pem) && !before.issued_by(&new.cert_pem));
    }
}

#[test]
fn a_cross_signed_certificate_is_looked_at() {
    let (old, new, other) = (root(), root(), root());
    let cross = old.cross_sign(&new, now()).unwrap();
    old.check_cross_signed(&new, &cross).unwrap();
    let text = |root: &RootCa, next: &RootCa, pem: &str| {
        root.check_cross_signed(next, pem).unwrap_err().to_string()
    };
    assert!(text(&other, &new, &cross).contains("by the current root CA"));
    assert!(text(&old, &other, &cross).contains("another name or key"));
    assert!(text(&old, &new, &leaf(&old, "").cert_pem).contains("not one of a CA"));
    let without_key = RootCa {
        key_pem: None,
        ..old
    };
    assert!(without_key.cross_sign(&new, now()).is_err());
}

#[test]
fn keys_of_every_form_are_taken() {
    let key = |text: &str| Some(Secret::from(text));
    let sec1 = include_str!("testdata/p256-sec1.key");
    let pkcs1 = include_str!("testdata/rsa-pkcs1.key");
    assert!(sec1.contains("BEGIN EC PRIVATE") && pkcs1.contains("BEGIN RSA PRIVATE"));
    for (cert, key) in [
        (P256, key(P256_KEY)),
        (P256, key(sec1)),
        (RSA, key(RSA_KEY)),
        (RSA, key(pkcs1)),
    ] {
        let root = RootCa::adopt(cert, key.as_ref(), now()).unwrap();
        assert!(verifies(&root.cert_pem, &leaf(&root, "").cert_pem));
        assert_eq!(root.cert_pem, cert, "written as OpenSSL writes it");
        let stored = root.key_pem.unwrap();
        assert!(stored.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }
    let crlf = format!("a comment\r\n{}", P256.replace('\n', "\r\n"));
    let root = RootCa::adopt(&crlf, None, now()).unwrap();
    assert_eq!((root.cert_pem.as_str(), root.key_pem), (P256, None));
}

#[test]
fn bad_roots_are_refused() {
    let text = |cert: &str, key: Option<&str>, now: SystemTime| {
        let key = key.map(Secret::from);
        RootCa::adopt(cert, key.as_ref(), now)
            .unwrap_err()
            .to_string()
    };
    let bundle = format!("{P256}{RSA}");
    assert!(text(&bundle, None, now()).contains("cannot contain multiple certificates"));
    assert_eq!(
        text("x", None, now()),
        "could not parse the desired CA certificate"
    );
    assert_eq!(text(P256, Some(RSA_KEY), now()), "certificate key mismatch");
    let late = now() + YEAR * 19 + YEAR / 2;
    assert_eq!(text(P256, None, late), "CA certificate expires too soon");
    let leaf = leaf(&root(), "").cert_pem;
    assert!(text(&leaf, None, now()).contains("not a self-signed certificate of a CA"));
    let quoted = text(P256, Some("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"), now());
    assert!(
        quoted.contains("cannot be used") && !quoted.contains("c2VjcmV0"),
        "{quoted}"
    );
}

#[test]
fn a_token_knows_its_root_among_several() {
    let (old, new) = (root(), root());
    let token = JoinToken::generate(&old).unwrap();
    for served in [
        old.cert_pem.clone(),
        format!("{}{}", old.cert_pem, new.cert_pem),
        format!("{}{}", new.cert_pem, old.cert_pem),
    ] {
        assert_eq!(token.check_root(served.as_bytes()).unwrap(), old.cert_pem);
    }
    let error = token.check_root(new.cert_pem.as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("remote CA does not match"));
    let cross = old.cross_sign(&new, now()).unwrap();
    let next = JoinToken::generate(&new).unwrap().to_string();
    let prefix = new.rotation(cross).token_prefix;
    assert_eq!(next.rsplit_once('-').unwrap().0, prefix);
}
