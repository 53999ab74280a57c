//! Wrapping, unwrapping, what crashes leave and what older layouts have left.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::disk::create_private_dir;

fn unlock_key(byte: u8) -> Secret {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode([byte; 32]);
    Secret::from(format!("SWMKEY-1-{text}"))
}

/// A directory whose daemon can be restarted.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> DataDir {
        DataDir::open(self.0.path()).unwrap()
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join(KEYS)
    }
}

fn is_locked(dir: &DataDir) -> bool {
    matches!(dir.keys(), Err(DiskError::Locked))
}

#[test]
fn keys_stay_the_same_through_every_wrapping() {
    let home = Home::new();
    let dir = home.open();
    let bytes = *dir.keys().unwrap().bytes();
    assert_eq!(
        home.file().metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (first, second) = (unlock_key(1), unlock_key(2));
    assert!(dir.lock_with(Some(&first)).unwrap());
    assert!(!dir.lock_with(Some(&first)).unwrap(), "nothing to do");
    // Unlocked as long as this process lives.
    assert_eq!(dir.keys().unwrap().bytes(), &bytes);
    drop(dir);

    let dir = home.open();
    assert!(is_locked(&dir));
    let file = std::fs::read(home.file()).unwrap();
    assert!(!file.windows(8).any(|window| bytes.starts_with(window)));
    let refusals = [
        (Secret::from("nonsense"), "invalid key string"),
        (second.clone(), "invalid key provided"),
    ];
    for (wrong, text) in refusals {
        assert_eq!(dir.unlock(&wrong).unwrap_err().to_string(), text);
        assert!(is_locked(&dir));
    }
    assert!(dir.lock_with(None).is_err(), "the keys are not known");
    assert_eq!(dir.unlock(&first).unwrap().bytes(), &bytes);
    assert_eq!(dir.keys().unwrap().bytes(), &bytes);
    assert!(
        !dir.lock_with(Some(&first)).unwrap(),
        "still wrapped with it"
    );
    assert!(dir.lock_with(Some(&second)).unwrap());
    drop(dir);

    let dir = home.open();
    assert!(matches!(dir.unlock(&first), Err(UnlockError::Wrong)));
    assert_eq!(dir.unlock(&second).unwrap().bytes(), &bytes);
    assert!(dir.lock_with(None).unwrap());
    drop(dir);
    assert_eq!(home.open().keys().unwrap().bytes(), &bytes);
}

#[test]
fn a_crash_leaves_the_old_wrapping_or_the_new_one() {
    let home = Home::new();
    let dir = home.open();
    let bytes = *dir.keys().unwrap().bytes();
    let before = std::fs::read(home.file()).unwrap();
    dir.lock_with(Some(&unlock_key(1))).unwrap();
    let after = std::fs::read(home.file()).unwrap();
    drop(dir);
    // Killed before the rename: half of the new file lies beside the old one.
    let half = home.file().with_file_name("keys.tmp");
    for length in [0, 1, after.len() / 2, after.len()] {
        std::fs::write(home.file(), &before).unwrap();
        std::fs::write(&half, &after[..length]).unwrap();
        let dir = home.open();
        assert_eq!(dir.keys().unwrap().bytes(), &bytes);
        assert!(dir.lock_with(Some(&unlock_key(3))).unwrap());
        drop(dir);
        let dir = home.open();
        assert_eq!(dir.unlock(&unlock_key(3)).unwrap().bytes(), &bytes);
    }
    // Killed right after it.
    std::fs::write(home.file(), &after).unwrap();
    let dir = home.open();
    assert!(is_locked(&dir));
    assert_eq!(dir.unlock(&unlock_key(1)).unwrap().bytes(), &bytes);
}

#[test]
fn unlocking_what_is_open_changes_nothing() {
    let home = Home::new();
    let dir = home.open();
    let bytes = *dir.unlock(&unlock_key(1)).unwrap().bytes();
    assert_eq!(dir.unlock(&unlock_key(2)).unwrap().bytes(), &bytes);
    assert!(!dir.lock_with(None).unwrap());
}

#[test]
fn a_key_that_is_lost_or_damaged_is_not_replaced() {
    let home = Home::new();
    home.open().keys().unwrap();
    let good = std::fs::read(home.file()).unwrap();
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    for bad in [&b""[..], b"short", &good[..good.len() - 1], &flipped] {
        std::fs::write(home.file(), bad).unwrap();
        let error = home.open().keys().unwrap_err().to_string();
        assert!(error.contains("keys is damaged"), "{error}");
        let error = home.open().unlock(&unlock_key(1)).unwrap_err().to_string();
        assert!(error.contains("keys is damaged"), "{error}");
        assert_eq!(std::fs::read(home.file()).unwrap(), bad);
    }
    std::fs::remove_file(home.file()).unwrap();
    for (dir, sealed) in [
        (RAFT, "log.redb"),
        (RAFT, "snapshot"),
        (CERTIFICATES, NODE_KEY),
    ] {
        let path = home.0.path().join(dir);
        create_private_dir(&path).unwrap();
        std::fs::write(path.join(sealed), [1, 2, 3]).unwrap();
        let error = home.open().keys().unwrap_err().to_string();
        assert!(
            error.contains("it is missing") && error.contains(sealed),
            "{error}"
        );
        assert!(!home.file().exists());
        std::fs::remove_file(path.join(sealed)).unwrap();
    }
    home.open().keys().unwrap();
}

#[test]
fn the_plain_key_of_an_older_layout_is_taken_over() {
    let home = Home::new();
    let old = home.0.path().join(RAFT).join(OLD_KEY);
    create_private_dir(old.parent().unwrap()).unwrap();
    std::fs::write(&old, [5; KEY_LEN]).unwrap();
    std::fs::write(old.with_file_name("log.redb"), b"sealed").unwrap();
    assert_eq!(home.open().keys().unwrap().bytes(), &[5; KEY_LEN]);
    assert!(!old.exists(), "autolock would be in vain");
    // Killed before the old file was gone.
    std::fs::write(&old, [5; KEY_LEN]).unwrap();
    assert_eq!(home.open().keys().unwrap().bytes(), &[5; KEY_LEN]);
    assert!(!old.exists());
    std::fs::remove_file(home.file()).unwrap();
    std::fs::write(&old, b"short").unwrap();
    let error = home.open().keys().unwrap_err().to_string();
    assert!(error.contains("raft/key is damaged"), "{error}");
}

#[test]
fn a_wipe_takes_the_keys_along() {
    let home = Home::new();
    let dir = home.open();
    let bytes = *dir.keys().unwrap().bytes();
    dir.lock_with(Some(&unlock_key(1))).unwrap();
    dir.wipe().unwrap();
    assert!(!home.file().exists());
    assert!(dir.lock_with(None).is_err());
    assert_ne!(dir.keys().unwrap().bytes(), &bytes);
    drop(dir);
    assert!(home.open().keys().is_ok());
}
