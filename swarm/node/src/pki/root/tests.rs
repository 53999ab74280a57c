//! Leaves and roots, read back with an independent parser.
use super::*;
use crate::pki::{JoinToken, KeyRequest, Peer};
use x509_parser::extensions::GeneralName;

const CLUSTER: &str = "k0fjxg8rh43ym2zo0sdcq5smi";
const NODE: &str = "t33nwn2y5gkm9pqwz5kkh0mlf";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn signed(root: &RootCa, role: Role) -> Vec<u8> {
    let request = KeyRequest::fresh().unwrap();
    let leaf = Leaf {
        node_id: NODE,
        role,
        cluster_id: CLUSTER,
    };
    let pem = root
        .sign(&request.csr_pem, &leaf, DEFAULT_LEAF_VALIDITY, now())
        .unwrap();
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn the_root_is_swarmkits() {
    let root = RootCa::create(now()).unwrap();
    let der = root.issuer().unwrap();
    let cert = pem::x509(&der, "root").unwrap();
    assert_eq!(cert.subject().to_string(), "CN=swarm-ca");
    assert_eq!(cert.issuer(), cert.subject());
    assert!(cert.is_ca());
    let usage = cert.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign());
    assert_eq!(
        cert.validity().not_after.timestamp(),
        1_800_000_000 + 630_720_000
    );
    assert_eq!(
        cert.public_key().algorithm.algorithm.to_id_string(),
        "1.2.840.10045.2.1"
    );
    assert_eq!(
        root.key().unwrap().algorithm(),
        &rcgen::PKCS_ECDSA_P256_SHA256
    );
    assert_eq!(JoinToken::generate(&root).unwrap().digest(), root.digest());
}

#[test]
fn the_leaf_is_swarmkits() {
    let root = RootCa::create(now()).unwrap();
    for (role, names) in [
        (Role::Manager, vec!["swarm-manager", NODE, "swarm-ca"]),
        (Role::Worker, vec!["swarm-worker", NODE]),
    ] {
        let der = signed(&root, role);
        let cert = pem::x509(&der, "leaf").unwrap();
        let expected = format!("O={CLUSTER}, OU={}, CN={NODE}", ou(role));
        assert_eq!(cert.subject().to_string(), expected);
        assert_eq!(cert.issuer().to_string(), "CN=swarm-ca");
        assert_eq!(
            cert.issuer().as_raw(),
            root.tls_info().unwrap().issuer_subject
        );
        let san = cert.subject_alternative_name().unwrap().unwrap();
        let wanted: Vec<_> = names.into_iter().map(GeneralName::DNSName).collect();
        assert_eq!(san.value.general_names, wanted);
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let extended = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        assert!(!cert.is_ca());
        assert_eq!(cert.validity().not_before.timestamp(), 1_800_000_000 - 3600);
        assert_eq!(
            cert.validity().not_after.timestamp(),
            1_800_000_000 + 90 * 24 * 3600
        );
        let issuer = root.issuer().unwrap();
        let issuer = pem::x509(&issuer, "root").unwrap();
        cert.verify_signature(Some(issuer.public_key())).unwrap();
        let peer = Peer::from_der(&der).unwrap();
        assert_eq!((peer.node_id.as_str(), peer.role), (NODE, role));
        assert_eq!(peer.cluster_id, CLUSTER);
    }
}

#[test]
fn serials_differ() {
    let root = RootCa::create(now()).unwrap();
    let serial = |der: &[u8]| pem::x509(der, "leaf").unwrap().raw_serial().to_vec();
    let (one, two) = (signed(&root, Role::Worker), signed(&root, Role::Worker));
    assert_ne!(serial(&one), serial(&two));
    assert_eq!(serial(&one).len(), 20);
}

#[test]
fn only_the_key_of_a_csr_counts() {
    let root = RootCa::create(now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec!["swarm-ca".to_owned()]).unwrap();
    wanted
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "swarm-manager");
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let leaf = Leaf {
        node_id: NODE,
        role: Role::Worker,
        cluster_id: CLUSTER,
    };
    let pem = root
        .sign(&csr, &leaf, DEFAULT_LEAF_VALIDITY, now())
        .unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let cert = pem::x509(&der, "leaf").unwrap();
    assert_eq!(Peer::from_der(&der).unwrap().role, Role::Worker);
    assert!(!cert.is_ca());
    assert_eq!(
        cert.subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len(),
        2
    );
    assert_eq!(cert.public_key().raw, key.subject_public_key_info());
}

#[test]
fn bad_requests_and_keys_are_refused() {
    let root = RootCa::create(now()).unwrap();
    let leaf = Leaf {
        node_id: NODE,
        role: Role::Worker,
        cluster_id: CLUSTER,
    };
    let good = KeyRequest::fresh().unwrap().csr_pem;
    // A flipped byte in the middle breaks the structure or the signature.
    let mut forged = good.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for csr in [
        String::new(),
        "nonsense".into(),
        forged,
        "x".repeat(100_000),
    ] {
        assert!(
            root.sign(&csr, &leaf, DEFAULT_LEAF_VALIDITY, now())
                .is_err()
        );
    }
    let public = RootCa::from_pem(&root.cert_pem, None).unwrap();
    let error = public
        .sign(&good, &leaf, DEFAULT_LEAF_VALIDITY, now())
        .unwrap_err();
    assert!(matches!(error, PkiError::NoSigningKey));
    let other = RootCa::create(now()).unwrap();
    assert!(RootCa::from_pem(&root.cert_pem, other.key_pem.clone()).is_err());
    assert!(RootCa::from_pem("garbage", None).is_err());
    assert!(RootCa::from_pem(&root.cert_pem, root.key_pem.clone()).is_ok());
}

#[test]
fn keys_stay_out_of_debug() {
    let root = RootCa::create(now()).unwrap();
    let text = format!("{root:?} {:?}", root.key_pem);
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}
