//! Transactions: what may be written to the store, and why a write is refused. Never applies
//! anything itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::Id;
use crate::object::{Kind, Object};

/// Who writes. Each author owns certain task transitions, see `task.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Author {
    /// A client's request.
    Control,
    /// Gives tasks their network resources: new → pending.
    Allocator,
    /// Makes tasks and moves their desired state.
    Orchestrator,
    /// Chooses nodes: pending → assigned.
    Scheduler,
    /// Keeps nodes' states; orphans the tasks of nodes that are gone.
    Dispatcher,
    /// A node's agent reporting on its own tasks.
    Agent(Id),
    /// Removes dead tasks.
    Reaper,
    /// Lets nodes in and records their part in raft.
    Ca,
}

/// One write of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Adds an object; its `meta` is filled in.
    Create(Object),
    /// Replaces an object; its `meta.version` names the version that was read, or the one that it
    /// gets by this if the change was [prepared](super::State::prepare).
    Update(Object),
    /// Removes an object of the version that was read.
    Remove(Kind, Id, u64),
}

/// Changes that are written together or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tx {
    /// Who writes.
    pub author: Author,
    /// When: becomes `created_at` and `updated_at`.
    pub at: Timestamp,
    /// What.
    pub changes: Vec<Change>,
}

/// Transactions proposed to raft as one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The store's revision that the batch was planned on. A batch planned on another one is
    /// refused whole: it comes from a leader that has been overtaken, or it was applied already.
    pub base: u64,
    /// The transactions, in order.
    pub txs: Vec<Tx>,
}

/// An object that came to be, changed or went.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The object before the write.
    pub before: Option<Object>,
    /// The object after the write.
    pub after: Option<Object>,
}

impl Event {
    /// The change that does the same once more, with the object as it was stored.
    pub(super) fn again(&self) -> Option<Change> {
        match (&self.before, &self.after) {
            (None, Some(after)) => Some(Change::Create(after.clone())),
            (Some(_), Some(after)) => Some(Change::Update(after.clone())),
            (Some(before), None) => {
                let version = before.meta().version;
                Some(Change::Remove(before.kind(), before.id().clone(), version))
            }
            (None, None) => None,
        }
    }
}

/// Why the store refused a transaction. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reject {
    /// The object, or the whole store, was written since it was read.
    OutOfSequence,
    /// There is no such object.
    NotFound(Kind, Id),
    /// There is such an object already, or one of that name.
    Exists(Kind, String),
    /// The author may not move the task so.
    Transition(Id, String),
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reject::OutOfSequence => f.write_str("update out of sequence"),
            Reject::NotFound(kind, id) => write!(f, "{} {id} not found", noun(*kind)),
            Reject::Exists(kind, name) => write!(f, "{} {name} already exists", noun(*kind)),
            Reject::Transition(id, why) => write!(f, "task {id}: {why}"),
        }
    }
}

impl std::error::Error for Reject {}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Cluster => "cluster",
        Kind::Node => "node",
        Kind::Service => "service",
        Kind::Task => "task",
        Kind::Secret => "secret",
        Kind::Config => "config",
        Kind::Network => "network",
    }
}
