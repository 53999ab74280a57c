//! The state is one register: whoever asks after somebody was answered is shown at least as much,
//! by whichever manager, whether the answer is to a read, to a write or a refusal. Revisions count
//! transactions, and `same_state` holds what they stand for against the log.

use super::Verdict;

/// What clients have been shown.
#[derive(Default)]
pub struct Register {
    newest: u64,
}

impl Register {
    /// The newest revision that anybody was shown; whoever asks from now on must not see less.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// An answer that rests on a revision, to a question of a time when another one was the newest
    /// that anybody was shown.
    pub fn shown(&mut self, revision: u64, asked_at: u64) -> Verdict {
        self.newest = self.newest.max(revision);
        if revision >= asked_at {
            return Ok(());
        }
        Err(format!(
            "answered from revision {revision}, when {asked_at} had been shown before the question"
        ))
    }
}
