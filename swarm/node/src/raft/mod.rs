//! Raft: managers agree on one log of batches and apply it to one state. Only this directory names
//! openraft and redb. It never looks into a batch and never decides what to write.

mod blob;
mod chunks;
mod codec;
mod compaction;
pub mod config;
mod disk_log;
mod handle;
mod leadership;
mod log_store;
mod machine;
mod membership;
mod network;
mod quic;
mod rescue;
mod room;
mod server;
mod snapshot;
mod space;
mod succession;
pub mod types;
mod vote;
mod writer;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use handle::Raft;
pub use network::{Request, Response, Transport, TransportError};
pub use quic::{QuicTransport, serve};
pub use rescue::Rescued;
pub use types::{
    Applied, AppliedRef, Leadership, Member, MemberError, MemberStatus, ProposeError, ReadError,
    StartError,
};

/// openraft, as this crate instantiates it.
type Core = openraft::Raft<config::Types, machine::Machine>;
/// What openraft says of itself.
type Metrics = openraft::RaftMetrics<config::Types>;
