//! Tests of the orchestrator with the scheduler behind it and agents that do as they are told.

mod failures;
mod global;
mod jobs;
mod limits;
mod many;
mod properties;
mod restarts;
mod rolls;
mod slots;
mod updates;
mod wishes;
