//! The data directory: its layout, its lock, the node's own state file. Never interprets what raft
//! or the worker keep below it.

mod files;

pub use files::{create_private_dir, rename, write_atomic};
