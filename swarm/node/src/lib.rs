//! The shell of a node: sockets, disk, raft, engine. Never decides what the cluster should do.

pub mod addr;
pub mod agent;
pub mod backup;
mod ca;
mod changes;
mod control;
pub mod disk;
pub mod engine;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod inbox;
mod leading;
mod lifecycle;
mod manager;
mod membership;
mod node;
pub mod pki;
mod plane;
pub mod quic;
pub mod raft;
mod roles;
mod services;
mod sessions;
mod system;
mod texts;
mod tunnel;

pub use changes::Changes;
pub use control::MemberState;
pub use events::{Happening, Happenings, Interest};
pub use manager::View;
pub use node::{Node, Options, Status, Timing};
pub use system::jittered;
