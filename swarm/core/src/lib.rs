//! Everything skep decides. Never reads a clock, a random source or the outside world: time and
//! ids are inputs, timers are data, and equal inputs give equal outputs on every replica.

pub mod allocator;
pub mod assignment;
pub mod attachment;
pub mod bootstrap;
pub mod ca;
pub mod cidr;
pub mod command;
pub mod container;
pub mod control;
mod controller;
pub mod dispatcher;
pub mod find;
pub mod id;
pub mod ipv6;
pub mod labels;
pub mod leader;
pub mod logs;
pub mod names;
pub mod network;
pub mod object;
pub mod orchestrator;
pub mod plane;
pub mod ports;
pub mod reach;
pub mod reconcile;
pub mod recover;
pub mod scheduler;
pub mod shared;
pub mod store;
pub mod task;
pub mod task_files;
pub mod template;
#[cfg(test)]
mod testing;
mod unlock_key;
pub mod validate;
pub mod wire;
pub mod worker;

pub use id::{Id, IdSource};
pub use shared::Shared;
pub use skep_api::go::Timestamp;
pub use store::{Author, Batch, Change, Event, Reject, State, Tx};

/// A span of time in nanoseconds, as Docker's API carries it. May be negative on input.
pub use skep_api::go::{Duration as Nanos, HOUR, MILLISECOND, MINUTE, SECOND};
