//! Logs of services and tasks, as far as they can be thought through without I/O: what a client may
//! ask for, whose logs those are, and how an engine's lines become the swarm's. Never reads one.
//!
//! Source of the behaviour: moby `daemon/cluster/services.go` and swarmkit `manager/logbroker`,
//! asked of a real swarm.

mod line;
mod options;
mod plan;
mod split;

pub use line::{Origin, Rewriter, incomplete, warning};
pub use options::Options;
pub use plan::{Selector, Source, Step, Tracker, is_there, unscheduled};
pub use split::Malformed;
