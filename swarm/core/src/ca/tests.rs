//! Rotations from their beginning to their end: what is refused, what is asked for, and that an end
//! comes only when every node is there. Certificates made with `openssl req -x509`.

use skep_api::cluster::{CaConfig, ExternalCa};

use super::*;
use crate::control::testing::{NOW, cluster, manager, node, state};
use crate::id::{CountingIds, Id};
use crate::object::{Cluster, Object, Rotation};
use crate::reconcile::Reconciler;
use crate::store::{Author, Change, State, Tx};
use crate::wire::{self, tls_info};

const OLD: &str = include_str!("testdata/old.pem");
const NEXT: &str = include_str!("testdata/next.pem");
const OTHER: &str = include_str!("testdata/other.pem");
const SAME_KEY: &str = include_str!("testdata/same-key.pem");

fn rotation(cert_pem: &str, key: Option<&str>) -> Rotation {
    Rotation {
        cert_pem: cert_pem.into(),
        key_pem: key.map(Secret::from),
        cross_signed_pem: "cross".into(),
        token_prefix: "SWMTKN-1-next".into(),
    }
}

fn with_root(key: Option<&str>, rotation: Option<Rotation>) -> Cluster {
    let mut cluster = cluster();
    cluster.root_ca = RootCa {
        cert_pem: OLD.into(),
        key_pem: key.map(Secret::from),
        rotation,
    };
    cluster
}

fn sent(cert: &str, key: &str, force_rotate: u64, externals: &[&str]) -> CaConfig {
    let external = |ca_cert: &&str| ExternalCa {
        protocol: "cfssl".into(),
        url: "https://ca:8888/sign".into(),
        ca_cert: (*ca_cert).into(),
        ..ExternalCa::default()
    };
    CaConfig {
        signing_ca_cert: cert.into(),
        signing_ca_key: Secret::from(key),
        force_rotate,
        external_cas: externals.iter().map(external).collect(),
        ..CaConfig::default()
    }
}

#[test]
fn wishes() {
    let key = |text: &str| Some(Secret::from(text));
    let fresh = Wish::Rotate { cert_pem: None };
    let to = |cert: &str| Wish::Rotate {
        cert_pem: Some(cert.trim().to_owned()),
    };
    let own = || with_root(Some("k"), None);
    let outside = || with_root(None, None);
    let under_way = || with_root(Some("k"), Some(rotation(NEXT, Some("n"))));
    let crlf = OLD.replace('\n', "\r\n");
    for (what, cluster, sent, expected) in [
        ("nothing", own(), sent("", "", 0, &[]), Wish::Keep),
        ("force", own(), sent("", "", 1, &[]), fresh.clone()),
        ("the user's", own(), sent(NEXT, "n", 1, &[]), to(NEXT)),
        ("outward", own(), sent(NEXT, "", 0, &[NEXT]), to(NEXT)),
        ("inward", outside(), sent("", "", 1, &[OLD]), fresh.clone()),
        (
            "unnamed is current",
            outside(),
            sent(NEXT, "n", 0, &[""]),
            to(NEXT),
        ),
        (
            "the key comes in",
            outside(),
            sent(OLD, "k", 0, &[]),
            Wish::Stay(key("k")),
        ),
        (
            "the key goes out",
            own(),
            sent(OLD, "", 0, &[OLD]),
            Wish::Stay(None),
        ),
        (
            "back again, in another form",
            under_way(),
            sent(&crlf, "k", 1, &[]),
            Wish::Stay(key("k")),
        ),
        (
            "the same again",
            under_way(),
            sent(NEXT, "n2", 0, &[]),
            Wish::GoOn(key("n2")),
        ),
        ("another", under_way(), sent(OTHER, "o", 0, &[]), to(OTHER)),
        (
            "once more",
            under_way(),
            sent("", "", 1, &[]),
            fresh.clone(),
        ),
    ] {
        assert_eq!(wish(&cluster, &sent), Ok(expected), "{what}");
    }
}

#[test]
fn refusals() {
    let none = |which: &str| {
        format!(
            "there must be at least one valid, reachable external CA corresponding to the {which} \
             CA certificate"
        )
    };
    let rubbish = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let own = || with_root(Some("k"), None);
    let outside = || with_root(None, None);
    let bundle = format!("{NEXT}{OTHER}");
    for (cluster, sent, text) in [
        (
            own(),
            sent(" \n", "k", 0, &[]),
            "if a signing CA key is provided, the signing CA cert must also be provided".to_owned(),
        ),
        (
            own(),
            sent(&bundle, "k", 0, &[]),
            "the desired CA certificate cannot contain multiple certificates".to_owned(),
        ),
        (
            own(),
            sent(rubbish, "k", 0, &[]),
            "could not parse the desired CA certificate".to_owned(),
        ),
        (
            own(),
            sent("rubbish", "k", 0, &[]),
            "could not parse the desired CA certificate".to_owned(),
        ),
        (
            own(),
            sent(SAME_KEY, "k", 0, &[]),
            "Cannot update to a cert with an identical key".to_owned(),
        ),
        (own(), sent(NEXT, "", 0, &[]), none("desired")),
        (own(), sent(NEXT, "", 0, &[OTHER, ""]), none("desired")),
        (outside(), sent("", "", 0, &[]), none("current")),
        (outside(), sent(NEXT, "n", 0, &[NEXT]), none("current")),
        (
            outside(),
            sent(NEXT, "", 0, &[OLD, NEXT]),
            "rotating from one external CA to a different external CA is not supported".to_owned(),
        ),
        (
            with_root(Some("k"), Some(rotation(NEXT, None))),
            sent("", "", 0, &[OLD]),
            none("next"),
        ),
    ] {
        let error = wish(&cluster, &sent).unwrap_err();
        let expected = format!("rpc error: code = InvalidArgument desc = {text}");
        assert_eq!(error.message, expected);
        assert_eq!(error.kind, skep_api::Kind::InvalidParameter);
    }
}

#[test]
fn only_what_was_asked_for_is_taken() {
    let own = with_root(Some("k"), None);
    let made = rotation(NEXT, Some("n"));
    let force = sent("", "", 1, &[]);
    assert!(updated(&own, &force, None).is_err());
    assert!(updated(&own, &sent(OTHER, "o", 0, &[]), Some(&made)).is_err());
    assert!(updated(&own, &force, Some(&rotation(NEXT, None))).is_err());
    let root = updated(&own, &force, Some(&made)).unwrap();
    assert_eq!(
        (root.rotation, root.cert_pem.as_str()),
        (Some(made.clone()), OLD)
    );
    // A root that nobody asked for changes nothing.
    let root = updated(&own, &sent("", "", 0, &[]), Some(&made)).unwrap();
    assert_eq!(root, own.root_ca);
    // Back to where it began.
    let under_way = with_root(Some("k"), Some(made));
    let root = updated(&under_way, &sent(OLD, "k", 0, &[]), None).unwrap();
    assert_eq!(root, own.root_ca);
}

#[test]
fn keys_do_not_stay_in_the_spec() {
    let kept = stored(&sent(NEXT, "n", 3, &[NEXT]));
    assert_eq!(
        (kept.signing_ca_cert.as_str(), &*kept.signing_ca_key),
        ("", "")
    );
    assert_eq!((kept.force_rotate, kept.external_cas.len()), (3, 1));
}

#[test]
fn clients_see_the_old_root_and_the_new_issuer() {
    let mut cluster = with_root(Some("k"), None);
    assert!(!wire::cluster_info(&cluster).root_rotation_in_progress);
    assert_eq!(wire::cluster_info(&cluster).tls_info, tls_info(OLD));
    cluster.root_ca.rotation = Some(rotation(NEXT, Some("n")));
    let info = wire::cluster_info(&cluster);
    assert!(info.root_rotation_in_progress);
    assert_eq!(info.tls_info.trust_root, OLD);
    let key = info.tls_info.cert_issuer_public_key;
    assert_eq!(key, tls_info(NEXT).cert_issuer_public_key);
}

/// A manager and two workers with certificates of the old root, in the midst of a rotation.
fn rotating() -> State {
    let mut objects: Vec<Object> =
        vec![with_root(Some("k"), Some(rotation(NEXT, Some("n")))).into()];
    for mut node in [manager("m"), node("a", "a"), node("b", "b")] {
        let description = node.description.as_mut().unwrap();
        description.tls_info = tls_info(OLD);
        objects.push(node.into());
    }
    state(objects)
}

fn write(state: &mut State, reconciler: &mut Rotations, changes: Vec<Change>) {
    let tx = Tx {
        author: Author::Ca,
        at: NOW,
        changes,
    };
    for event in state.apply(&tx).unwrap() {
        reconciler.observe(&event, state);
    }
}

fn renew(state: &mut State, reconciler: &mut Rotations, id: &str) {
    let mut node = state.nodes().get(&Id::from(id)).unwrap().as_ref().clone();
    node.description.as_mut().unwrap().tls_info = tls_info(NEXT);
    write(state, reconciler, vec![Change::Update(node.into())]);
}

/// What is planned, and that a leader which has just begun plans the same.
fn plan(state: &State, reconciler: &mut Rotations) -> Vec<Change> {
    let planned = reconciler.plan(state, NOW, &mut CountingIds::default());
    let mut fresh = Rotations::default();
    fresh.mark_all(state);
    let from_scratch = fresh.plan(state, NOW, &mut CountingIds::default());
    assert_eq!(planned, from_scratch);
    planned.changes
}

#[test]
fn a_rotation_ends_with_the_last_node() {
    let (mut state, mut rotations) = (rotating(), Rotations::default());
    rotations.mark_all(&state);
    assert_eq!(plan(&state, &mut rotations), []);
    for id in ["m", "b"] {
        renew(&mut state, &mut rotations, id);
        assert_eq!(plan(&state, &mut rotations), [], "{id} is not the last");
    }
    renew(&mut state, &mut rotations, "a");
    let changes = plan(&state, &mut rotations);
    let [Change::Update(Object::Cluster(after))] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    let root = RootCa {
        cert_pem: NEXT.into(),
        key_pem: Some(Secret::from("n")),
        rotation: None,
    };
    assert_eq!(after.root_ca, root);
    let tokens = &after.join_tokens;
    for token in [&tokens.worker, &tokens.manager] {
        assert!(token.starts_with("SWMTKN-1-next-"), "the digest is new");
        assert_eq!(token.len(), "SWMTKN-1-next-".len() + 25);
    }
    assert_ne!(tokens.worker, tokens.manager);
    write(&mut state, &mut rotations, changes);
    assert_eq!(plan(&state, &mut rotations), [], "it ends once");
}

#[test]
fn a_node_that_is_removed_holds_nothing_up() {
    let (mut state, mut rotations) = (rotating(), Rotations::default());
    renew(&mut state, &mut rotations, "m");
    renew(&mut state, &mut rotations, "a");
    assert_eq!(plan(&state, &mut rotations), []);
    let gone = state.nodes().get(&Id::from("b")).unwrap().meta.version;
    let removal = Change::Remove(crate::object::Kind::Node, Id::from("b"), gone);
    write(&mut state, &mut rotations, vec![removal]);
    assert_eq!(plan(&state, &mut rotations).len(), 1);
}

#[test]
fn a_node_that_never_registered_holds_it_up() {
    let (mut state, mut rotations) = (rotating(), Rotations::default());
    let mut silent = node("c", "c");
    silent.description = None;
    write(
        &mut state,
        &mut rotations,
        vec![Change::Create(silent.into())],
    );
    for id in ["m", "a", "b"] {
        renew(&mut state, &mut rotations, id);
    }
    assert_eq!(plan(&state, &mut rotations), []);
}
