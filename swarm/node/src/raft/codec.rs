//! Encryption at rest of what raft writes to disk. Knows neither what is sealed nor where the
//! result is kept; the keys are the node's.

use std::fmt;
use std::io;
use std::path::Path;

use crate::disk::Keys;

/// Seals values before they are written and opens them after they are read.
pub trait Codec: Send + Sync + 'static {
    /// Seals `plain`; `label` says what it is and where it belongs, and is needed to open it again.
    ///
    /// # Errors
    /// Only if the system has no randomness.
    fn seal(&self, label: &[u8], plain: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Opens a sealed value; `None` if it is damaged, belongs elsewhere or has another key.
    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

impl Codec for Keys {
    fn seal(&self, label: &[u8], plain: Vec<u8>) -> io::Result<Vec<u8>> {
        Keys::seal(self, label, plain)
    }

    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        Keys::open(self, label, sealed)
    }
}

/// An error that names its file.
pub(super) fn named(path: &Path, error: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
