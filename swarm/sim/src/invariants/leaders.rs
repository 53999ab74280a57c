//! No two managers lead in one term: the one rule from which it follows that a log has one history.

use std::collections::BTreeMap;

use super::Verdict;

/// Who led when.
#[derive(Default)]
pub struct Leaders(BTreeMap<u64, usize>);

impl Leaders {
    /// A manager leads in a term from now on.
    pub fn crowned(&mut self, term: u64, leader: usize) -> Verdict {
        match self.0.insert(term, leader) {
            None => Ok(()),
            Some(other) => Err(format!(
                "{leader} leads in term {term}, in which {other} was elected before"
            )),
        }
    }
}
