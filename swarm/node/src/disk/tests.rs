//! The data directory under crashes, a second daemon and damage.

use std::os::unix::fs::PermissionsExt;

use skep_api::node::Availability;

use super::*;

fn state() -> NodeState {
    NodeState {
        node_id: "n".into(),
        raft_id: 7,
        listen: "0.0.0.0:2377".into(),
        advertise: "10.0.0.1:2377".into(),
        managers: vec!["10.0.0.2:2377".into()],
        availability: Availability::Drain,
        ..NodeState::default()
    }
}

#[test]
fn state_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/b");
    let dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.load().unwrap(), None);
    dir.save(&state()).unwrap();
    assert_eq!(dir.load().unwrap(), Some(state()));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(STATE)), 0o600);
    assert_eq!(state().listen().unwrap().port(), 2377);
    assert_eq!(state().advertise_host(), "10.0.0.1");
    let v6 = NodeState {
        advertise: "[fd00::1]:2377".into(),
        ..state()
    };
    assert_eq!(v6.advertise_host(), "fd00::1");
    assert!(NodeState::default().listen().is_err());
}

#[test]
fn one_daemon_a_directory() {
    let temp = tempfile::tempdir().unwrap();
    let first = DataDir::open(temp.path()).unwrap();
    let clone = first.clone();
    drop(first);
    let error = DataDir::open(temp.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another skepd"), "{error}");
    assert!(
        error.contains(&format!("(pid {})", std::process::id())),
        "{error}"
    );
    // One that is ending is waited for.
    let next = std::thread::spawn({
        let path = temp.path().to_owned();
        move || DataDir::open(&path).map(drop)
    });
    drop(clone);
    next.join().unwrap().unwrap();
}

#[test]
fn damage_names_the_file_and_quotes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    for bad in [
        "",
        "{",
        "{\"node_id\":{\"x\":\"quoted\"}",
        "{\"raft_id\":\"quoted\"}",
        "{\"version\":99}",
        "\u{0}\u{0}\u{0}",
    ] {
        std::fs::write(temp.path().join(STATE), bad).unwrap();
        let error = dir.load().unwrap_err().to_string();
        assert!(error.contains("state.json is damaged"), "{error}");
        assert!(!error.contains("quoted"), "{error}");
    }
    // Fields of a later version and missing ones are no damage.
    std::fs::write(temp.path().join(STATE), "{\"raft_id\":3,\"later\":true}").unwrap();
    assert_eq!(dir.load().unwrap().unwrap().raft_id, 3);
}

#[test]
fn a_wipe_leaves_what_is_not_ours() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    dir.save(&state()).unwrap();
    for sub in [dir.certificates(), dir.raft(), dir.worker()] {
        create_private_dir(&sub).unwrap();
        std::fs::write(sub.join("file"), "x").unwrap();
    }
    std::fs::write(temp.path().join("mine"), "x").unwrap();
    dir.wipe().unwrap();
    let names = || {
        let entries = std::fs::read_dir(temp.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["mine", LOCK]);
    dir.wipe().unwrap();
    // A crash in the middle of a wipe.
    dir.save(&state()).unwrap();
    std::fs::write(temp.path().join(WIPING), "").unwrap();
    drop(dir);
    let dir = DataDir::open(temp.path()).unwrap();
    assert_eq!(dir.load().unwrap(), None);
    assert_eq!(names(), ["mine", LOCK]);
}

#[test]
fn a_leftover_temporary_file_does_no_harm() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    std::fs::write(temp.path().join("file.tmp"), "half").unwrap();
    write_atomic(&path, b"whole", 0o600).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    assert!(!temp.path().join("file.tmp").exists());
}
