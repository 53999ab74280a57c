//! openraft's view of the log: what is in memory is readable at once, the writer thread makes it
//! durable and reports. Never waits for the disk except for votes; never applies an entry.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;
use super::config::Types;
use super::disk_log::{DiskLog, Mark, Write};
use super::space::Space;
use super::vote::{VoteFile, damaged};
use super::writer::{Job, Writer};

pub(super) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<Types>;

/// Encoded bytes of entries kept in memory although they are on disk.
const CACHE_BYTES: usize = 8 << 20;
/// Encoded bytes of entries in one message to a member.
const BATCH_BYTES: usize = 4 << 20;

/// The log; clones share it. Also its own reader.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<DiskLog>,
    space: Arc<Space>,
    vote: Arc<VoteFile>,
    memory: Mutex<Memory>,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Memory {
    /// The log's newest entries, without a gap up to `last`; all that are not on disk are here.
    recent: BTreeMap<u64, Recent>,
    /// Encoded size of `recent`.
    bytes: usize,
    /// Counts appends.
    appended: u64,
    /// Encoded bytes of all appends.
    total_bytes: u64,
    /// The newest append that is on disk.
    flushed: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

struct Recent {
    entry: Entry,
    bytes: usize,
    append: u64,
}

impl LogStore {
    /// Opens or creates the log's file and the vote's beside it, and checks both.
    ///
    /// # Errors
    /// Damage, a wrong key, or another process that has it open; names the file and the entry.
    pub fn open(path: &Path, codec: Arc<dyn Codec>) -> io::Result<Self> {
        let space = Arc::new(Space::new(path.parent().unwrap_or(path)));
        let vote = path.with_file_name("vote");
        let fresh = !path.exists();
        let (vote_file, vote) = VoteFile::open(&vote, codec.clone(), fresh)?;
        if fresh && vote.is_some() {
            return Err(damaged(path, "there is a vote, but no log beside it"));
        }
        let disk = Arc::new(DiskLog::open(path, codec)?);
        let decode = |plain: Vec<u8>| {
            let what = |_| disk.damaged("the vote cannot be decoded");
            rmp_serde::from_slice(&plain).map_err(what)
        };
        let mut memory = Memory {
            vote: vote.map(decode).transpose()?,
            committed: read_mark(&disk, Mark::Committed)?,
            purged: read_mark(&disk, Mark::Purged)?,
            ..Memory::default()
        };
        if let Some(purged) = memory.purged {
            // A purge is done in steps; a crash may have come between them.
            disk.commit(&[Write::Purge(purged.index, usize::MAX)])?;
        }
        disk.verify()?;
        memory.last = memory.purged;
        if let Some(last) = disk.last_index()? {
            let entries = read_entries(&disk, last..last + 1, usize::MAX)?;
            memory.last = entries.last().map(|entry| entry.log_id());
        }
        if memory.vote.is_none() && memory.last.is_some_and(|last| last.index > 0) {
            return Err(disk.damaged("there are entries, but no vote beside them"));
        }
        let writer = Mutex::new(Writer::start(disk.clone(), space.clone())?);
        Ok(Self {
            shared: Arc::new(Shared {
                disk,
                space,
                vote: Arc::new(vote_file),
                memory: Mutex::new(memory),
                writer,
            }),
        })
    }

    /// Whether anything was ever written to it.
    pub fn is_fresh(&self) -> bool {
        let memory = self.memory();
        memory.vote.is_none() && memory.last.is_none()
    }

    /// Writes what is queued and closes the file. Blocks for the disk.
    pub fn close(&self) {
        self.writer().stop();
        self.shared.disk.close();
    }

    /// Whether this very entry is certainly on disk, as far as memory knows.
    pub fn is_durable(&self, log_id: Option<LogId>) -> bool {
        let memory = self.memory();
        let Some(log_id) = log_id else { return true };
        match memory.recent.get(&log_id.index) {
            Some(recent) => recent.append <= memory.flushed && recent.entry.log_id() == log_id,
            None => memory.purged == Some(log_id),
        }
    }

    /// Checks that a snapshot covers what was purged.
    ///
    /// # Errors
    /// It does not, or is missing: names the file of the log.
    pub fn check_snapshot(&self, last: Option<LogId>) -> io::Result<()> {
        if self.memory().purged > last {
            let what = "the snapshot beside it is missing or too old for it";
            return Err(self.shared.disk.damaged(what));
        }
        Ok(())
    }

    /// The last entry, on disk or not.
    pub fn last(&self) -> Option<LogId> {
        self.memory().last
    }

    /// Encoded bytes that are not on disk yet.
    pub fn waiting_bytes(&self) -> usize {
        let memory = self.memory();
        let waiting = |recent: &&Recent| recent.append > memory.flushed;
        let newest_first = memory.recent.values().rev();
        newest_first
            .take_while(waiting)
            .map(|recent| recent.bytes)
            .sum()
    }

    /// Encoded bytes of everything that was appended since the log was opened.
    pub fn total_bytes(&self) -> u64 {
        self.memory().total_bytes
    }

    /// The room on the disk.
    pub fn space(&self) -> &Arc<Space> {
        &self.shared.space
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a part of the log, at most about `limit` encoded bytes but at least one entry.
    async fn read(&self, range: Range<u64>, limit: usize) -> io::Result<Vec<Entry>> {
        let (on_disk, mut newer) = self.memory().split(range.clone(), limit);
        let mut entries = Vec::new();
        if !on_disk.is_empty() {
            let disk = self.shared.disk.clone();
            let wanted = on_disk.clone();
            let read = move || read_entries(&disk, wanted, limit);
            entries = tokio::task::spawn_blocking(read)
                .await
                .map_err(io::Error::other)??;
            // If the limit ended the first part, then the rest must wait.
            if entries
                .last()
                .is_some_and(|entry| entry.log_id().index + 1 != on_disk.end)
            {
                newer.clear();
            }
        }
        entries.append(&mut newer);
        let first = entries.first().map_or(0, |entry| entry.log_id().index);
        let gap = (first..)
            .zip(&entries)
            .find(|(index, entry)| entry.log_id().index != *index);
        match gap {
            Some((index, _)) => Err(self
                .shared
                .disk
                .damaged(&format!("log entry {index} is missing"))),
            None => Ok(entries),
        }
    }
}

impl Memory {
    /// What of a range must be read from disk, and what is here: the newer part.
    fn split(&self, range: Range<u64>, limit: usize) -> (Range<u64>, Vec<Entry>) {
        let start = range.start.max(next(self.purged));
        let end = range.end.min(next(self.last)).max(start);
        let first_here = self
            .recent
            .first_key_value()
            .map_or(end, |(index, _)| *index);
        let middle = first_here.clamp(start, end);
        let mut bytes = 0;
        let fits = |recent: &&Recent| {
            bytes += recent.bytes;
            bytes <= limit || bytes == recent.bytes
        };
        let here = self
            .recent
            .range(middle..end)
            .map(|(_, recent)| recent)
            .take_while(fits);
        (
            start..middle,
            here.map(|recent| recent.entry.clone()).collect(),
        )
    }

    fn append(&mut self, entry: Entry, bytes: usize) {
        let log_id = entry.log_id();
        self.last = Some(log_id);
        self.bytes += bytes;
        self.total_bytes += bytes as u64;
        let recent = Recent {
            entry,
            bytes,
            append: self.appended,
        };
        if let Some(before) = self.recent.insert(log_id.index, recent) {
            self.bytes = self.bytes.saturating_sub(before.bytes);
        }
    }

    /// Removes an end of the recent entries.
    fn forget(&mut self, range: impl RangeBounds<u64>) {
        let gone: Vec<u64> = self.recent.range(range).map(|(index, _)| *index).collect();
        for index in gone {
            if let Some(recent) = self.recent.remove(&index) {
                self.bytes = self.bytes.saturating_sub(recent.bytes);
            }
        }
    }

    /// Lets go of the oldest entries that are on disk.
    fn shrink(&mut self) {
        while self.bytes > CACHE_BYTES {
            match self.recent.first_entry() {
                Some(first) if first.get().append <= self.flushed => {
                    self.bytes = self.bytes.saturating_sub(first.remove().bytes);
                }
                _ => return,
            }
        }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        self.read(to_range(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, BATCH_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let memory = self.memory();
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: memory.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (file, plain) = (self.shared.vote.clone(), encode(vote)?);
        tokio::task::spawn_blocking(move || file.save(&plain))
            .await
            .map_err(io::Error::other)??;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        if let Some(committed) = committed {
            self.writer().send(Job::Committed(encode(&committed)?));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut writes = Vec::new();
        let append = {
            let mut memory = self.memory();
            memory.appended += 1;
            for entry in entries {
                let plain = encode(&entry)?;
                let bytes = plain.len();
                writes.push(Write::Entry(entry.log_id().index, plain));
                memory.append(entry, bytes);
            }
            memory.appended
        };
        let shared = Arc::downgrade(&self.shared);
        let done = move |result: io::Result<()>| {
            if result.is_ok()
                && let Some(shared) = shared.upgrade()
            {
                let mut memory = shared.memory.lock().unwrap_or_else(PoisonError::into_inner);
                memory.flushed = memory.flushed.max(append);
                memory.shrink();
            }
            callback.io_completed(result);
        };
        self.writer().send(Job::Write(writes, Box::new(done)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let from = next(last_log_id);
        {
            let mut memory = self.memory();
            memory.forget(from..);
            memory.last = memory.last.min(last_log_id);
        }
        // Later appends are queued behind it, so it need not be waited for.
        self.writer()
            .send(Job::Write(vec![Write::CutFrom(from)], Box::new(drop)));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.forget(..=log_id.index);
            memory.purged = memory.purged.max(Some(log_id));
            // After a snapshot was installed the whole log may be older than the mark.
            memory.last = memory.last.max(Some(log_id));
        }
        let mark = Write::Mark(Mark::Purged, encode(&log_id)?);
        let writer = self.writer();
        writer.send(Job::Write(vec![mark], Box::new(drop)));
        writer.send(Job::Purge(log_id.index));
        Ok(())
    }
}

fn to_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

/// The index after a log id.
fn next(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index + 1)
}

fn read_entries(disk: &DiskLog, range: Range<u64>, limit: usize) -> io::Result<Vec<Entry>> {
    let plain = disk.entries(range, limit)?;
    let decode = |(index, plain): (u64, Vec<u8>)| {
        let what = |_| disk.damaged(&format!("log entry {index} cannot be decoded"));
        rmp_serde::from_slice(&plain).map_err(what)
    };
    plain.into_iter().map(decode).collect()
}

fn read_mark<T: DeserializeOwned>(disk: &DiskLog, mark: Mark) -> io::Result<Option<T>> {
    let Some(plain) = disk.mark(mark)? else {
        return Ok(None);
    };
    rmp_serde::from_slice(&plain)
        .map_err(|_| disk.damaged(&format!("the {mark:?} mark cannot be decoded")))
}

fn encode<T: Serialize + ?Sized>(value: &T) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(io::Error::other)
}
