//! Agents tell the truth: what they call running was started, and what they call ended does not
//! run. Held against the engine at the moment at which the worker reports.

use skep_api::task::{TaskState, TaskStatus};

use super::Verdict;
use super::once::Once;
use crate::engine::Engine;

/// Holds one status against the engine.
pub fn check(task: &str, status: &TaskStatus, engine: &Engine, once: &Once) -> Verdict {
    let state = status.state;
    if matches!(state, TaskState::Running | TaskState::Complete) && !once.ran(task) {
        return Err(format!(
            "task {task} is reported {state} but was never started"
        ));
    }
    if state.is_terminal()
        && let Some(fake) = engine.running(task).next()
    {
        let id = &fake.shown.id;
        return Err(format!(
            "task {task} is reported {state} but {id:.8} runs: {}",
            status.err
        ));
    }
    Ok(())
}
