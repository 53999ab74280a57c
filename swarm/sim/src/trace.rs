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
        match &mut self.lines {
            None => {
                // Writing to a hash never fails.
                let _ = write!(Hasher(&mut self.hash), "{elapsed} {what}");
            }
            Some(lines) => {
                let line = format!("{elapsed} {what}");
                let _ = Hasher(&mut self.hash).write_str(&line);
                lines.push(line);
            }
        }
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

/// FNV-1a over the text.
struct Hasher<'a>(&'a mut u64);

impl fmt::Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        Ok(())
    }
}
