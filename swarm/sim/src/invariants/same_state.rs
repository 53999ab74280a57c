//! Managers that have applied as much of the log have the same state. Compares versions always and
//! everything now and then, since that costs more.

use skep_core::State;

use super::Verdict;

/// So many entries apart, states are compared whole.
const WHOLE: usize = 16;

/// Holds a manager's state after so many entries against what it must be.
pub fn check(entries: usize, expected: Option<&State>, actual: &State, whole: bool) -> Verdict {
    let expected = expected.ok_or_else(|| format!("entry {entries} is applied uncommitted"))?;
    if expected.revision() != actual.revision() {
        return Err(format!(
            "after {entries} entries one manager is at revision {}, another at {}",
            expected.revision(),
            actual.revision()
        ));
    }
    if (whole || entries.is_multiple_of(WHOLE)) && expected != actual {
        return Err(format!(
            "after {entries} entries two managers' states differ"
        ));
    }
    Ok(())
}
