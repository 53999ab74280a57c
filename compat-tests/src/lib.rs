//! Black-box helpers: a script run against two sockets. Never imports the daemon's crates.

pub mod both;
pub mod differential;
pub mod faults;
pub mod http;
pub mod scenario;
pub mod swarm;
pub mod traffic;
