//! The file that holds the node's data key: open to whoever can read the file, or wrapped with the
//! unlock key. Never holds anything else, and is replaced as a whole: a crash leaves the old
//! wrapping or the new one.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};
use skep_api::Secret;

use super::seal::{KEY_LEN, Keys, is_sealed};
use super::unlock_key::{Wrapped, parse};
use super::{CERTIFICATES, DataDir, DiskError, RAFT, at, write_atomic};

/// The file, below the data directory.
pub(super) const KEYS: &str = "keys";
/// The layout that this code writes. A larger number on disk is of a newer skepd.
const VERSION: u32 = 1;
/// Where the data key lay before there was this file, below raft's directory.
const OLD_KEY: &str = "key";
/// What raft has sealed, below its directory.
const SEALED_BY_RAFT: [&str; 2] = ["log.redb", "snapshot"];
/// The node's private key, below the certificates' directory.
const NODE_KEY: &str = "swarm-node.key";

/// The content of the file, before the digest of it.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// The data key itself, without autolock.
    #[serde(default)]
    plain: Option<Vec<u8>>,
    /// The data key under the unlock key, with autolock.
    #[serde(default)]
    wrapped: Option<Wrapped>,
}

/// What this process knows of the keys.
#[derive(Debug, Default)]
pub(super) struct Ring(Mutex<Option<Opened>>);

#[derive(Debug)]
struct Opened {
    keys: Keys,
    /// The unlock key that the file is wrapped with.
    unlock_key: Option<Secret>,
}

impl Ring {
    fn get(&self) -> MutexGuard<'_, Option<Opened>> {
        // What is in there is replaced as a whole, so a panic elsewhere has not left half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self) {
        *self.get() = None;
    }
}

/// Why an unlock key did not unlock.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// It has not the form of one. The text is dockerd's.
    #[error("invalid key string")]
    Malformed,
    /// It is not the one that the keys are wrapped with.
    #[error("invalid key provided")]
    Wrong,
    /// The key file cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl DataDir {
    /// The keys that seal what is secret in this directory. Made at the first call in a directory
    /// that has none; the plain key of an older layout is taken over.
    ///
    /// # Errors
    /// [`DiskError::Locked`] until [`unlock`](Self::unlock) has succeeded, and whatever is wrong
    /// with the file: a key that is lost is never replaced.
    pub fn keys(&self) -> Result<Keys, DiskError> {
        let mut ring = self.keyring.get();
        if let Some(opened) = ring.as_ref() {
            return Ok(opened.keys.clone());
        }
        let path = self.path.join(KEYS);
        let keys = match read(&path)? {
            Some(Stored {
                wrapped: Some(_), ..
            }) => return Err(DiskError::Locked),
            Some(stored) => plain(&path, stored.plain)?,
            None => {
                let keys = self.first_keys()?;
                store(&path, &keys, None)?;
                keys
            }
        };
        // Its work is done once the key is in the new file.
        remove(&self.raft().join(OLD_KEY))?;
        *ring = Some(Opened {
            keys: keys.clone(),
            unlock_key: None,
        });
        Ok(keys)
    }

    /// Opens the keys with their unlock key; they stay wrapped on disk. Keys that are open already
    /// stay so, whatever the key.
    ///
    /// # Errors
    /// See [`UnlockError`].
    pub fn unlock(&self, unlock_key: &Secret) -> Result<Keys, UnlockError> {
        let bytes = parse(unlock_key).ok_or(UnlockError::Malformed)?;
        let mut ring = self.keyring.get();
        if let Some(opened) = ring.as_ref() {
            return Ok(opened.keys.clone());
        }
        let stored = read(&self.path.join(KEYS))?;
        let Some(wrapped) = stored.and_then(|stored| stored.wrapped) else {
            drop(ring);
            return Ok(self.keys()?);
        };
        let keys = wrapped.open(&bytes).ok_or(UnlockError::Wrong)?;
        *ring = Some(Opened {
            keys: keys.clone(),
            unlock_key: Some(unlock_key.clone()),
        });
        Ok(keys)
    }

    /// Wraps the keys with this unlock key from now on, or with none: after the next start they are
    /// locked, or not. Durable when it returns; false if nothing had to change. Blocks on the disk.
    ///
    /// # Errors
    /// When the keys have not been opened, the unlock key is none, or the disk refuses; nothing has
    /// changed then.
    pub fn lock_with(&self, unlock_key: Option<&Secret>) -> Result<bool, DiskError> {
        let mut ring = self.keyring.get();
        let opened = ring.as_mut().ok_or(DiskError::Locked)?;
        if opened.unlock_key.as_ref() == unlock_key {
            return Ok(false);
        }
        store(&self.path.join(KEYS), &opened.keys, unlock_key)?;
        opened.unlock_key = unlock_key.cloned();
        Ok(true)
    }

    /// The keys of a directory without a key file.
    fn first_keys(&self) -> Result<Keys, DiskError> {
        let raft = self.path.join(RAFT);
        let old = raft.join(OLD_KEY);
        if let Some(bytes) = read_file(&old)? {
            return plain(&old, Some(bytes));
        }
        let node_key = self.path.join(CERTIFICATES).join(NODE_KEY);
        let sealed = SEALED_BY_RAFT.map(|name| raft.join(name));
        let mut sealed = sealed.into_iter().filter(|path| path.exists());
        let sealed = match read_file(&node_key)? {
            Some(key) if is_sealed(&key) => Some(node_key),
            _ => sealed.next(),
        };
        let path = self.path.join(KEYS);
        match sealed {
            Some(sealed) => Err(DiskError::Damaged {
                path,
                reason: format!("it is missing, and {} needs it", sealed.display()),
            }),
            None => Keys::generate().map_err(|error| at(&path, error)),
        }
    }
}

fn plain(path: &Path, bytes: Option<Vec<u8>>) -> Result<Keys, DiskError> {
    let bytes: Option<[u8; KEY_LEN]> = bytes.and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| damaged(path, "it holds no key"))?;
    Keys::from_bytes(bytes).map_err(|error| at(path, error))
}

fn store(path: &Path, keys: &Keys, unlock_key: Option<&Secret>) -> Result<(), DiskError> {
    let mut stored = Stored {
        version: VERSION,
        plain: None,
        wrapped: None,
    };
    match unlock_key {
        None => stored.plain = Some(keys.bytes().to_vec()),
        Some(unlock_key) => {
            let bytes = parse(unlock_key)
                .ok_or_else(|| at(path, io::Error::other("the swarm's unlock key is none")))?;
            let wrapped = Wrapped::new(keys, &bytes).map_err(|error| at(path, error))?;
            stored.wrapped = Some(wrapped);
        }
    }
    let mut file = rmp_serde::to_vec_named(&stored)
        .map_err(|error| at(path, io::Error::other(error.to_string())))?;
    // Tells a damaged file from a wrong key.
    let sum = digest(&SHA256, &file);
    file.extend_from_slice(sum.as_ref());
    write_atomic(path, &file, 0o600).map_err(|error| at(path, error))
}

fn read(path: &Path) -> Result<Option<Stored>, DiskError> {
    let Some(file) = read_file(path)? else {
        return Ok(None);
    };
    let whole = file
        .split_last_chunk::<SHA256_OUTPUT_LEN>()
        .filter(|(body, sum)| digest(&SHA256, body).as_ref() == *sum);
    let Some((body, _)) = whole else {
        return Err(damaged(path, "its checksum is wrong"));
    };
    let stored: Stored = rmp_serde::from_slice(body)
        .map_err(|_| damaged(path, "it is not a key file of this version"))?;
    if stored.version > VERSION {
        let version = stored.version;
        return Err(damaged(
            path,
            &format!("its version {version} is of a newer skepd"),
        ));
    }
    Ok(Some(stored))
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, error)),
        _ => Ok(()),
    }
}

fn damaged(path: &Path, reason: &str) -> DiskError {
    DiskError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
