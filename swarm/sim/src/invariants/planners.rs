//! Planners remember nothing that counts: a new leader on the same state plans nothing that the old
//! one has not, and the store never refuses a plan.

use skep_core::id::CountingIds;
use skep_core::leader::{Leader, Step};
use skep_core::{State, Timestamp};

use super::Verdict;

/// No planner was refused.
pub fn accepted(step: &Step) -> Verdict {
    match step.refused.first() {
        None => Ok(()),
        Some((planner, reject)) => Err(format!("the store refused the {planner}: {reject}")),
    }
}

/// The leader had nothing to do on this state: a new one must not either.
pub fn quiescent(state: &State, now: Timestamp) -> Verdict {
    let step = Leader::new(state).step(state, Vec::new(), now, &mut CountingIds::default());
    accepted(&step)?;
    match step.batch.as_ref().and_then(|batch| batch.txs.first()) {
        None => Ok(()),
        Some(tx) => {
            let mut what = format!("{:?}", tx.changes);
            what.truncate(what.floor_char_boundary(300));
            Err(format!(
                "a new leader plans as {:?} what the old one did not: {what}",
                tx.author
            ))
        }
    }
}
