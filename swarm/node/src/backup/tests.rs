//! What is restored and what is refused.

use std::os::unix::fs::PermissionsExt;

use super::*;

const PARTS: [(&str, &str); 4] = [
    ("state.json", "{}"),
    ("keys", "k"),
    ("certificates/swarm-node.crt", "c"),
    ("raft/snapshot", "s"),
];

/// An archive of these files; `change` may lie about them.
fn archive(parts: &[(&str, &str)], change: impl Fn(&mut Manifest)) -> Vec<u8> {
    let part = |(name, text): &(&str, &str)| Part::of(name, text.as_bytes().to_vec());
    let mut parts: Vec<Part> = parts.iter().map(part).collect();
    let files = parts.iter_mut().map(|part| part.sum().unwrap()).collect();
    let mut manifest = Manifest {
        version: VERSION,
        node_id: "n".to_owned(),
        files,
        ..Manifest::default()
    };
    change(&mut manifest);
    let mut bytes = Vec::new();
    pack(&mut bytes, &manifest, parts).unwrap();
    bytes
}

#[test]
fn a_backup_comes_back_with_the_right_modes() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("new/data");
    let manifest = restore(archive(&PARTS, |_| ()).as_slice(), &dir).unwrap();
    assert_eq!(manifest.node_id, "n");
    for (name, text) in PARTS {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), text);
        let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    for name in ["", "certificates", "raft"] {
        let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    let disk = DataDir::open(&dir).unwrap();
    assert!(disk.load().unwrap().is_some(), "no wipe is pending");
    // Somebody runs there.
    let refused = restore(archive(&PARTS, |_| ()).as_slice(), &dir).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    drop(disk);
    let refused = restore(archive(&PARTS, |_| ()).as_slice(), &dir).unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");
}

#[test]
fn what_is_not_whole_leaves_nothing() {
    let whole = archive(&PARTS, |_| ());
    let mut flipped = whole.clone();
    let place = flipped.len() - 2048;
    let snapshot = flipped[..place]
        .iter()
        .rposition(|byte| *byte == b's')
        .unwrap();
    flipped[snapshot] = b'x';
    let evil = |name: &'static str| {
        let mut parts = PARTS.to_vec();
        parts.push((name, "x"));
        archive(&parts, |_| ())
    };
    let table: [(Vec<u8>, &str); 11] = [
        (Vec::new(), "empty"),
        (b"noise".repeat(300), ""),
        (whole[..whole.len() / 2].to_vec(), ""),
        (flipped, ""),
        (archive(&PARTS[..3], |_| ()), "raft/snapshot is missing"),
        (evil("state.json.d"), "does not belong"),
        (evil("worker/x"), "does not belong"),
        (evil("keys/x"), "does not belong"),
        (evil("keys"), "twice"),
        (archive(&PARTS, |m| m.version = 2), "newer skepd"),
        (
            archive(&PARTS, |m| m.files[3].sha256 = "00".to_owned()),
            "the checksum of raft/snapshot is wrong",
        ),
    ];
    for (bytes, expected) in table {
        let home = tempfile::tempdir().unwrap();
        let error = restore(bytes.as_slice(), home.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{expected}: {text}");
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the lock: {left:?}");
    }
}

#[test]
fn paths_lead_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let manifest = Manifest {
        version: VERSION,
        files: vec![Part::of("../k", b"x".to_vec()).sum().unwrap()],
        ..Manifest::default()
    };
    let mut builder = Builder::new(Vec::new());
    let text = serde_json::to_vec(&manifest).unwrap();
    let mut first = header(text.len() as u64, 0);
    let written = builder.append_data(&mut first, MANIFEST, text.as_slice());
    written.unwrap();
    // The crate writes no such name, so it is put in by hand.
    let mut second = header(1, 0);
    second.as_old_mut().name[..4].copy_from_slice(b"../k");
    second.set_cksum();
    builder.append(&second, b"x".as_slice()).unwrap();
    let bytes = builder.into_inner().unwrap();
    let error = restore(bytes.as_slice(), &home.path().join("data")).unwrap_err();
    assert!(error.to_string().contains("does not belong"), "{error}");
    assert!(!home.path().join("k").exists());
}
