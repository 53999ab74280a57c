//! Seeded whole-cluster simulation: managers over a modelled log, workers with engines that are not
//! there, a faulty network, on one clock and from one seed. Never touches a real engine, a socket
//! or a clock; the same seed gives the same trace.
#![allow(
    clippy::indexing_slicing,
    reason = "hosts and managers are numbered by the world itself; a wrong number must stop it"
)]
#![allow(
    missing_docs,
    reason = "fields of the world are for this crate; the binary needs few"
)]

mod calm;
mod clock;
mod containers;
mod dice;
mod elections;
mod engine;
mod event;
mod exile;
mod faults;
mod files;
mod host;
mod invariants;
mod log;
mod managers;
mod members;
mod mutation;
mod net;
mod office;
mod plane;
mod reads;
mod roles;
mod scale;
mod sessions;
mod settings;
mod specs;
mod trace;
mod workload;
mod world;

pub use invariants::Violation;
pub use scale::Scale;
pub use settings::{Mutation, Settings};
pub use world::Outcome;

/// Runs one cluster from start to rest.
pub fn run(settings: Settings) -> Outcome {
    world::World::new(settings).run()
}
