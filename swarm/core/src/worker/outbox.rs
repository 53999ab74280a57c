//! Statuses on their way to the dispatcher: one per task, the newest, kept until acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::task::TaskStatus;

use super::io::Report;
use crate::id::Id;

/// Statuses in one report.
const MAX_REPORT: usize = 500;

/// Statuses that are not safe yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: BTreeMap<Id, Waiting>,
    unsent: BTreeSet<Id>,
    open: bool,
    sequence: u64,
}

#[derive(Debug)]
struct Waiting {
    status: TaskStatus,
    /// The report it went out with.
    sent: u64,
}

impl Outbox {
    /// A task has a new status.
    pub(super) fn put(&mut self, task: Id, status: TaskStatus) {
        self.unsent.insert(task.clone());
        self.waiting.insert(task, Waiting { status, sent: 0 });
    }

    /// The task is gone: nobody wants to know.
    pub(super) fn forget(&mut self, task: &Id) {
        self.unsent.remove(task);
        self.waiting.remove(task);
    }

    /// Reports go out from now on.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// Whatever was not acknowledged must go out again.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.unsent = self.waiting.keys().cloned().collect();
    }

    /// Reports up to this one are safe.
    pub(super) fn ack(&mut self, sequence: u64) {
        let unsent = &self.unsent;
        self.waiting
            .retain(|task, waiting| waiting.sent > sequence || unsent.contains(task));
    }

    /// What is to be sent now.
    pub(super) fn take(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        while self.open && !self.unsent.is_empty() {
            self.sequence += 1;
            let mut statuses = Vec::new();
            while let Some(task) = self.unsent.pop_first() {
                if let Some(waiting) = self.waiting.get_mut(&task) {
                    waiting.sent = self.sequence;
                    statuses.push((task, waiting.status.clone()));
                }
                if statuses.len() == MAX_REPORT {
                    break;
                }
            }
            reports.push(Report {
                sequence: self.sequence,
                statuses,
            });
        }
        reports
    }
}
