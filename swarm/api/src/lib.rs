//! Docker's swarm wire types as dockerd really speaks them. Never does I/O and knows no HTTP.
//!
//! The same types are the HTTP wire form (JSON) and the payload of the replicated store
//! (MessagePack with field names). Fields stand in the order of dockerd's own structs, so that an
//! encoded object equals dockerd's byte for byte; `fixtures/wire` holds what a real engine said.
//!
//! Conventions:
//! - durations are `i64` nanoseconds ([`go::Duration`]), times are [`go::Timestamp`];
//! - an `Option` is a pointer in dockerd: `None` is "absent", `Some(0)` is an explicit zero;
//! - enumerated strings are open enums: `Unset` is the empty
//!   string, `Other(text)` keeps what a client sent so that the refusal can quote it;
//! - requests are read with [`go::decode`], which knows Go's JSON rules (keys in any case, null).
#[macro_use]
mod macros;

pub mod cluster;
pub mod container;
pub mod distribution;
pub mod error;
pub mod event;
pub mod filters;
pub mod go;
pub mod network;
pub mod node;
mod normal;
pub mod secret;
pub mod service;
pub mod task;
pub mod version;

pub use error::{Code, Error, Kind};
pub use go::{Base64, Duration, Labels, Secret, Timestamp, decode};
pub use version::ApiVersion;
