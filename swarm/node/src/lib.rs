//! The shell of a node: sockets, disk, raft, engine. Never decides what the cluster should do.

pub mod agent;
pub mod disk;
pub mod engine;
pub mod pki;
pub mod quic;
pub mod raft;
