//! Whatever is applied was planned on exactly the state that it is applied to: a leader that was
//! overtaken, or that did not wait, writes nothing.

use skep_core::{Batch, State};

use super::Verdict;

/// A batch was applied to this state.
pub fn check(state: &State, batch: &Batch) -> Verdict {
    let (base, revision) = (batch.base, state.revision());
    if base == revision {
        return Ok(());
    }
    Err(format!(
        "a batch planned on revision {base} was applied to revision {revision}"
    ))
}
