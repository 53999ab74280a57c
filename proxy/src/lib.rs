//! `skepd` as a library: the HTTP side of skep. It forwards a Docker engine's API byte for byte
//! and hands the calls that belong to swarm mode to a [`Swarm`]; it holds no cluster state.

pub mod answer;
pub mod attach;
pub mod backup;
pub mod cli;
pub mod config;
pub mod conn;
pub mod daemon;
pub mod engine;
pub mod forward;
pub mod guise;
pub mod handlers;
pub mod listen;
mod networks;
mod owned;
pub mod pidfile;
pub mod reach;
pub mod reply;
pub mod rewrite;
pub mod route;
pub mod server;
pub mod stream;
pub mod swarm;
pub mod tls;
pub mod wire;

pub use reply::Reply;
pub use route::Owned;
pub use skep_api::version::ApiVersion;
pub use swarm::{OwnedRequest, Query, Swarm, SwarmInfo};
