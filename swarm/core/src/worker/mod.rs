//! The node's side: from assignments and what the engine shows to engine operations and statuses.
//! Never touches the engine, the disk or a clock; never runs a task twice.

mod io;

pub use io::{
    Container, ContainerState, EngineOp, Health, Input, OpError, OpOutput, OpResult, Output,
    Record, Report,
};

use crate::Timestamp;
use crate::id::Id;

/// One node's tasks.
pub struct Worker {
    node_id: Id,
}

impl Worker {
    /// A worker for the node of this id, with what an earlier one persisted.
    pub fn new(node_id: Id, records: Vec<Record>) -> Self {
        drop(records);
        Self { node_id }
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Output {
        let _ = (&self.node_id, input, now);
        Output::default()
    }
}
