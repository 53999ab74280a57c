//! The log's file: entries and marks in one redb database, every value sealed. Knows raft's types
//! only as bytes; never decides what to write and never writes without being told.

use std::io;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
};

use super::codec::{Codec, named};
use super::vote::damaged;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const MARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("marks");
/// redb's page cache, in bytes: recent entries are kept in memory anyway.
const CACHE: usize = 16 << 20;
/// Free bytes in the file that are not worth the time to give back: the log will need them again.
const SPARE: u64 = 16 << 20;

/// A value beside the entries; replaced by each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The last entry known to be committed; may be behind.
    Committed,
    /// The last entry that was removed from the log's start.
    Purged,
}

impl Mark {
    fn name(self) -> &'static str {
        match self {
            Mark::Committed => "committed",
            Mark::Purged => "purged",
        }
    }
}

/// One change of the file.
#[derive(Clone)]
pub enum Write {
    /// Stores an encoded entry, in place of one that is there.
    Entry(u64, Vec<u8>),
    /// Removes this entry and everything after it.
    CutFrom(u64),
    /// Sets a mark.
    Mark(Mark, Vec<u8>),
    /// Removes at most so many entries up to this one, inclusive, from the start.
    Purge(u64, usize),
}

/// The open file.
pub struct DiskLog {
    path: PathBuf,
    /// `None` once closed.
    database: RwLock<Option<Database>>,
    codec: Arc<dyn Codec>,
}

impl DiskLog {
    /// Opens or creates the file; redb repairs it after a crash.
    ///
    /// # Errors
    /// Damage that cannot be repaired, or another process that has it open; names the file.
    pub fn open(path: &Path, codec: Arc<dyn Codec>) -> io::Result<Self> {
        let mut database = open_database(path)?;
        if mostly_empty(path, &database) {
            // Nobody else has it open yet, which compacting needs.
            if let Err(error) = database.compact() {
                tracing::warn!(%error, "could not make the raft log smaller");
            }
        }
        let log = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            codec,
        };
        // Readers expect the tables to exist.
        log.commit(&[])?;
        Ok(log)
    }

    /// Opens the file anew after a write has failed, since redb then refuses everything. Readers
    /// wait meanwhile. `again` is asked after each failure and may take its time.
    ///
    /// # Errors
    /// The last failure, after `again` has said no; the file is closed then.
    pub fn reopen(&self, again: impl Fn(&io::Error) -> bool) -> io::Result<()> {
        let mut place = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // redb locks the file, so the old one must go first.
        drop(place.take());
        loop {
            match open_database(&self.path) {
                Ok(database) => {
                    *place = Some(database);
                    return Ok(());
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all or nothing; on disk when it returns.
    ///
    /// # Errors
    /// Of the system's own kind where it is the system's error, so that a full disk shows.
    pub fn commit(&self, writes: &[Write]) -> io::Result<()> {
        self.with(|database| self.commit_to(database, writes))
    }

    fn commit_to(&self, database: &Database, writes: &[Write]) -> io::Result<()> {
        let transaction = database
            .begin_write()
            .map_err(|error| failed(&self.path, error))?;
        self.write(&transaction, writes)?;
        transaction
            .commit()
            .map_err(|error| failed(&self.path, error))
    }

    fn write(&self, transaction: &WriteTransaction, writes: &[Write]) -> io::Result<()> {
        let fail = |error: StorageError| failed(&self.path, error);
        {
            let mut log = transaction
                .open_table(LOG)
                .map_err(|error| failed(&self.path, error))?;
            let mut marks = transaction
                .open_table(MARKS)
                .map_err(|error| failed(&self.path, error))?;
            for write in writes {
                match write {
                    Write::Entry(index, plain) => {
                        let sealed = self.codec.seal(&entry_label(*index), plain.clone())?;
                        log.insert(index, sealed.as_slice()).map_err(fail)?;
                    }
                    Write::CutFrom(index) => {
                        log.retain_in(*index.., |_, _| false).map_err(fail)?;
                    }
                    Write::Mark(mark, plain) => {
                        let sealed = self.codec.seal(mark.name().as_bytes(), plain.clone())?;
                        let sealed = sealed.as_slice();
                        marks.insert(mark.name(), sealed).map_err(fail)?;
                    }
                    Write::Purge(upto, count) => {
                        for _ in 0..*count {
                            let first = log.first().map_err(fail)?;
                            let first = first.map(|(index, _)| index.value());
                            if first.is_none_or(|first| first > *upto) {
                                break;
                            }
                            log.pop_first().map_err(fail)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The entries of a range that are there, in order, decrypted. Stops after `limit` bytes, but
    /// never before the first entry.
    ///
    /// # Errors
    /// An entry that cannot be opened, by its index.
    pub fn entries(&self, range: Range<u64>, limit: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let mut found = Vec::new();
        let mut bytes = 0;
        self.scan(range, |index, sealed| {
            if bytes > 0 && bytes + sealed.len() > limit {
                return Ok(false);
            }
            bytes += sealed.len();
            found.push((index, self.open_entry(index, sealed)?));
            Ok(true)
        })?;
        Ok(found)
    }

    /// Checks that all entries can be opened and that none is missing between them.
    pub fn verify(&self) -> io::Result<()> {
        let mut expected = None;
        self.scan(0..u64::MAX, |index, sealed| {
            self.open_entry(index, sealed)?;
            if expected.is_some_and(|expected| expected != index) {
                let text = format!("log entries before {index} are missing");
                return Err(self.damaged(&text));
            }
            expected = Some(index + 1);
            Ok(true)
        })
    }

    /// The index of the last entry.
    pub fn last_index(&self) -> io::Result<Option<u64>> {
        self.with(|database| {
            let transaction = database
                .begin_read()
                .map_err(|error| named(&self.path, &error))?;
            let log = transaction
                .open_table(LOG)
                .map_err(|error| named(&self.path, &error))?;
            let last = log.last().map_err(|error| named(&self.path, &error))?;
            Ok(last.map(|(index, _)| index.value()))
        })
    }

    /// A mark's value, if it was ever set.
    pub fn mark(&self, mark: Mark) -> io::Result<Option<Vec<u8>>> {
        let fail = |error: &dyn std::fmt::Display| named(&self.path, error);
        self.with(|database| {
            let transaction = database.begin_read().map_err(|error| fail(&error))?;
            let marks = transaction
                .open_table(MARKS)
                .map_err(|error| fail(&error))?;
            let Some(sealed) = marks.get(mark.name()).map_err(|error| fail(&error))? else {
                return Ok(None);
            };
            let plain = self.codec.open(mark.name().as_bytes(), sealed.value());
            let what = || self.damaged(&format!("the {} cannot be decrypted", mark.name()));
            plain.ok_or_else(what).map(Some)
        })
    }

    /// Closes the file, so that it can be opened again. Everything after that fails.
    pub fn close(&self) {
        drop(
            self.database
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn scan(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let fail = |error: &dyn std::fmt::Display| named(&self.path, error);
        self.with(|database| {
            let transaction = database.begin_read().map_err(|error| fail(&error))?;
            let log = transaction.open_table(LOG).map_err(|error| fail(&error))?;
            for item in log.range(range).map_err(|error| fail(&error))? {
                let (index, sealed) = item.map_err(|error| fail(&error))?;
                if !each(index.value(), sealed.value())? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn open_entry(&self, index: u64, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let plain = self.codec.open(&entry_label(index), sealed);
        plain.ok_or_else(|| self.damaged(&format!("log entry {index} cannot be decrypted")))
    }

    /// An error for damage that the file's own checksums did not show.
    pub fn damaged(&self, what: &str) -> io::Error {
        damaged(&self.path, what)
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> io::Result<T>) -> io::Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match database.as_ref() {
            Some(database) => work(database),
            None => Err(named(&self.path, &"the log is closed")),
        }
    }
}

/// Opens or creates the file. redb reports most damage, but panics on some of it.
fn open_database(path: &Path) -> io::Result<Database> {
    let open = || {
        redb::Builder::new()
            .set_cache_size(CACHE)
            // Without it a damaged file may make redb panic.
            .set_check_integrity_on_open(true)
            .create(path)
    };
    match catch_unwind(open) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
            Err(failed(path, DatabaseError::DatabaseAlreadyOpen))
        }
        // What redb says of a file without its magic number, and of one that is cut off.
        Ok(Err(DatabaseError::Storage(StorageError::Io(error))))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Err(failed(path, error))
        }
        Ok(Err(error)) => Err(damaged(path, &format!("this is no whole log ({error})"))),
        Err(_) => Err(damaged(
            path,
            "the log is damaged beyond what can be checked",
        )),
    }
}

/// Whether the file is large for what is in it, so that making it smaller is worth the time.
fn mostly_empty(path: &Path, database: &Database) -> bool {
    let used = || -> Result<u64, redb::Error> {
        let transaction = database.begin_write()?;
        let stats = transaction.stats()?;
        transaction.abort()?;
        Ok(stats
            .allocated_pages()
            .saturating_mul(stats.page_size() as u64))
    };
    let size = path.metadata().map_or(0, |found| found.len());
    used().is_ok_and(|used| size.saturating_sub(used) > SPARE.max(used))
}

/// An error of redb that names the file and keeps the system's kind.
fn failed(path: &Path, error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        }
        error => named(path, &error),
    }
}

/// Binds a sealed entry to its place.
fn entry_label(index: u64) -> [u8; 11] {
    let mut label = *b"log\0\0\0\0\0\0\0\0";
    let (_, tail) = label.split_at_mut(3);
    tail.copy_from_slice(&index.to_be_bytes());
    label
}
