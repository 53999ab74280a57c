//! The one thread that writes the log's file: drains its queue, commits once, reports. Never
//! reorders writes and never reports one that is not on disk. A full disk it waits out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk_log::{DiskLog, Mark, Write};
use super::space::{Space, no_space};

/// Most entries and bytes in one commit, so that an early write is not held up by a flood.
const MAX_JOBS: usize = 4096;
const MAX_BYTES: usize = 16 << 20;
/// Entries removed from the log's start in one commit, so that appends do not wait for a purge.
const PURGE_STEP: usize = 512;
/// A committed mark that nothing else carries to disk is written after so long.
const IDLE: Duration = Duration::from_secs(1);

/// Pauses between attempts to write to a full disk: doubled from the first up to the last.
const FULL_MIN: Duration = Duration::from_millis(50);
const FULL_MAX: Duration = Duration::from_secs(1);
/// How soon a pause notices that the thread is to end.
const STEP: Duration = Duration::from_millis(25);

/// Told once a write is on disk, or that it failed.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the thread is asked to do.
pub enum Job {
    /// Writes in this order.
    Write(Vec<Write>, Done),
    /// The committed mark: rides along with the next write, it is not worth a commit of its own.
    Committed(Vec<u8>),
    /// Removes entries up to this one, little by little.
    Purge(u64),
    /// Ends the thread after everything queued before.
    Stop,
}

/// The thread's queue.
pub struct Writer {
    queue: Sender<Job>,
    /// The thread is to end even if what is queued cannot be written.
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(disk: Arc<DiskLog>, space: Arc<Space>) -> io::Result<Self> {
        let (queue, jobs) = channel();
        let ending = Arc::<AtomicBool>::default();
        let told = ending.clone();
        let thread = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || {
                Worker {
                    disk,
                    space,
                    ending: told,
                    jobs,
                    committed: None,
                    purge: None,
                }
                .run()
            })?;
        Ok(Self {
            queue,
            ending,
            thread: Some(thread),
        })
    }

    /// Queues a job. After the thread has ended, `done` of a write is told so.
    pub fn send(&self, job: Job) {
        if let Err(refused) = self.queue.send(job)
            && let Job::Write(_, done) = refused.0
        {
            done(Err(io::Error::other("the log is closed")));
        }
    }

    /// Writes everything queued and ends the thread; a full disk is not waited for. Blocks.
    pub fn stop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        self.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            drop(thread.join());
        }
    }
}

struct Worker {
    disk: Arc<DiskLog>,
    space: Arc<Space>,
    ending: Arc<AtomicBool>,
    jobs: Receiver<Job>,
    committed: Option<Vec<u8>>,
    purge: Option<u64>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let (writes, waiting, stop) = self.collect();
            self.commit(writes, waiting);
            if stop {
                return;
            }
        }
    }

    /// Waits for work and takes what is there.
    fn collect(&mut self) -> (Vec<Write>, Vec<Done>, bool) {
        let (mut writes, mut waiting) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut next = if self.purge.is_some() {
            match self.jobs.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return (writes, waiting, true),
            }
        } else {
            match self.jobs.recv_timeout(IDLE) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return (writes, waiting, true),
            }
        };
        while let Some(job) = next {
            match job {
                Job::Write(more, done) => {
                    bytes += more.iter().map(size).sum::<usize>();
                    writes.extend(more);
                    waiting.push(done);
                }
                Job::Committed(mark) => self.committed = Some(mark),
                Job::Purge(upto) => self.purge = self.purge.max(Some(upto)),
                Job::Stop => return (writes, waiting, true),
            }
            let full = waiting.len() >= MAX_JOBS || bytes >= MAX_BYTES;
            next = if full {
                None
            } else {
                self.jobs.try_recv().ok()
            };
        }
        (writes, waiting, false)
    }

    fn commit(&mut self, mut writes: Vec<Write>, waiting: Vec<Done>) {
        if let Some(mark) = self.committed.take() {
            writes.push(Write::Mark(Mark::Committed, mark));
        }
        if let Some(upto) = self.purge {
            writes.push(Write::Purge(upto, PURGE_STEP));
        }
        if writes.is_empty() {
            return;
        }
        let outcome = self.write(&writes);
        self.purge = match (self.purge, &outcome) {
            (Some(upto), Ok(())) if self.has_upto(upto) => Some(upto),
            _ => None,
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "cannot write the raft log");
        }
        for done in waiting {
            // An `io::Error` cannot be cloned, and everyone who waits must know.
            done(match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    /// Writes, and tries again for as long as the disk is full.
    fn write(&self, writes: &[Write]) -> io::Result<()> {
        let mut outcome = self.disk.commit(writes);
        let mut pause = FULL_MIN;
        while let Err(error) = &outcome {
            if !no_space(error) {
                return outcome;
            }
            self.space.report(Some(error));
            if !self.pause(pause) {
                return outcome;
            }
            pause = (pause * 2).min(FULL_MAX);
            let again = |error: &io::Error| no_space(error) && self.pause(FULL_MAX);
            self.disk.reopen(again)?;
            outcome = self.disk.commit(writes);
        }
        self.space.report(None);
        outcome
    }

    /// False if the thread is to end.
    fn pause(&self, how_long: Duration) -> bool {
        let end = std::time::Instant::now() + how_long;
        while std::time::Instant::now() < end {
            if self.ending.load(Ordering::SeqCst) {
                return false;
            }
            std::thread::sleep(STEP);
        }
        !self.ending.load(Ordering::SeqCst)
    }

    fn has_upto(&self, upto: u64) -> bool {
        self.disk
            .entries(0..upto.saturating_add(1), 0)
            .is_ok_and(|found| !found.is_empty())
    }
}

fn size(write: &Write) -> usize {
    match write {
        Write::Entry(_, plain) => plain.len(),
        _ => 0,
    }
}
