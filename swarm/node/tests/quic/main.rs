//! The transport against real sockets on loopback: who gets in, what is lost and when.

mod calls;
mod faults;
mod harness;
mod identity;
mod joining;
mod refusals;
