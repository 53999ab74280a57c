//! The shell of a node: sockets, disk, raft, engine. Never decides what the cluster should do.

pub mod disk;
pub mod pki;
pub mod quic;
pub mod raft;
