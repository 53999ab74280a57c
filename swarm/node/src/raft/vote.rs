//! The vote's file: two copies, overwritten in place, so that neither a full disk nor a queue of
//! log entries ever holds up an election. Never knows what a vote means.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::codec::{Codec, named};
use crate::disk;

/// Bytes of one copy; a vote with its seal takes about 100.
const SLOT: u64 = 4096;
const COPIES: u64 = 2;
/// Sequence and length before the sealed vote.
const HEADER: usize = 12;

/// The open file.
pub struct VoteFile {
    path: PathBuf,
    file: File,
    codec: Arc<dyn Codec>,
    /// Of the last write; locked while writing.
    sequence: Mutex<u64>,
}

impl VoteFile {
    /// Opens the file and reads the vote, or makes a file without one if `fresh`: there is no log.
    ///
    /// # Errors
    /// A file that is missing beside a log, or of which no copy can be read; names it.
    pub fn open(
        path: &Path,
        codec: Arc<dyn Codec>,
        fresh: bool,
    ) -> io::Result<(Self, Option<Vec<u8>>)> {
        if !path.exists() {
            if !fresh {
                return Err(damaged(path, "the file of the vote is missing"));
            }
            let blank = vec![0; usize::try_from(SLOT * COPIES).unwrap_or_default()];
            disk::write_atomic(path, &blank, 0o600).map_err(|error| named(path, &error))?;
        }
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path);
        let file = open.map_err(|error| named(path, &error))?;
        let mut newest: Option<(u64, Vec<u8>)> = None;
        let mut unused = false;
        for copy in 0..COPIES {
            let mut slot = Vec::new();
            read_slot(&file, copy * SLOT, &mut slot).map_err(|error| named(path, &error))?;
            unused |= slot.len() as u64 == SLOT && slot.iter().all(|byte| *byte == 0);
            if let Some(found) = parse(&*codec, &slot)
                && newest.as_ref().is_none_or(|newest| newest.0 < found.0)
            {
                newest = Some(found);
            }
        }
        // A crash tears one copy at most: the second is written after the first is on disk.
        if newest.is_none() && !unused {
            return Err(damaged(path, "the vote cannot be decrypted"));
        }
        let sequence = Mutex::new(newest.as_ref().map_or(0, |newest| newest.0));
        let vote = newest.map(|(_, vote)| vote);
        let path = path.to_owned();
        let opened = Self {
            path,
            file,
            codec,
            sequence,
        };
        Ok((opened, vote))
    }

    /// Writes both copies, one after the other; on disk when it returns. Blocks for the disk.
    pub fn save(&self, plain: &[u8]) -> io::Result<()> {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *sequence + 1;
        let sealed = self.codec.seal(&label(next), plain.to_vec())?;
        let mut slot = next.to_be_bytes().to_vec();
        slot.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        slot.extend_from_slice(&sealed);
        if slot.len() as u64 > SLOT {
            return Err(named(&self.path, &"the vote is too large for its file"));
        }
        for copy in 0..COPIES {
            let written = self.file.write_all_at(&slot, copy * SLOT);
            written
                .and_then(|()| self.file.sync_data())
                .map_err(|error| named(&self.path, &error))?;
        }
        *sequence = next;
        Ok(())
    }
}

/// A slot, or what there is of it.
fn read_slot(file: &File, at: u64, slot: &mut Vec<u8>) -> io::Result<()> {
    let length = file.metadata()?.len().saturating_sub(at).min(SLOT);
    slot.resize(usize::try_from(length).unwrap_or_default(), 0);
    file.read_exact_at(slot, at)
}

fn parse(codec: &dyn Codec, slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (header, rest) = slot.split_at_checked(HEADER)?;
    let (sequence, length) = header.split_first_chunk::<8>()?;
    let sequence = u64::from_be_bytes(*sequence);
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let plain = codec.open(&label(sequence), rest.get(..length)?)?;
    Some((sequence, plain))
}

/// Binds a sealed vote to its sequence.
fn label(sequence: u64) -> Vec<u8> {
    format!("vote {sequence}").into_bytes()
}

/// The error for a file that cannot be trusted; says what to do.
pub(super) fn damaged(path: &Path, what: &str) -> io::Error {
    let text = format!(
        "{}: {what}: the file is damaged or belongs to another key; restore it from a backup, or \
         let this node leave the swarm and join again",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}
