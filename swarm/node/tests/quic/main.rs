//! The transport against real sockets on loopback: who gets in, what is lost and when.

// Helpers of tests may state what they expect, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod calls;
mod faults;
mod harness;
mod identity;
mod joining;
mod refusals;
