//! What happened, as a hash that two runs of one seed share, and as text for people who look into a
//! failure. Never influences what happens.

use std::fmt::{self, Write as _};

use skep_core::{MILLISECOND, Nanos};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The record of a run.
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty record; `keep` says whether the lines are kept besides their hash.
    pub fn new(keep: bool) -> Self {
        Self {
            hash: FNV_OFFSET,
            lines: keep.then(Vec::new),
        }
    }

    /// Adds a line.
    pub fn note(&mut self, elapsed: Nanos, what: fmt::Arguments<'_>) {
        let elapsed = elapsed / MILLISECOND;
        // Writing to a hash never fails.
        let _ = write!(Hasher(&mut self.hash), "{elapsed} {what}");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{elapsed} {what}"));
        }
    }

    /// Adds a line of which only the beginning counts: the rest is long, and follows from what the
    /// hash has seen.
    pub fn full(&mut self, elapsed: Nanos, brief: fmt::Arguments<'_>, rest: &dyn fmt::Debug) {
        self.note(elapsed, brief);
        if let Some(line) = self.lines.as_mut().and_then(|lines| lines.last_mut()) {
            let _ = write!(line, " {rest:?}");
        }
    }

    /// Adds bytes to the hash.
    pub fn bytes(&mut self, bytes: &[u8]) {
        Hasher(&mut self.hash).add(bytes);
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, if they were kept: milliseconds since the start and what happened.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// FNV-1a.
struct Hasher<'a>(&'a mut u64);

impl Hasher<'_> {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            *self.0 = (*self.0 ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }
}

impl fmt::Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}
