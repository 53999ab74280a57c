//! The `skepd` daemon: starts everything, waits for signals.
fn main() {}
