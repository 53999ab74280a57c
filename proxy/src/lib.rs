//! `skepd` as a library: the HTTP side of skep. It forwards a Docker engine's API byte for byte
//! and hands the calls that belong to swarm mode to a [`Swarm`]; it holds no cluster state.

pub mod reply;
pub mod route;
pub mod swarm;

pub use reply::Reply;
pub use route::Owned;
pub use skep_api::version::ApiVersion;
pub use swarm::{OwnedRequest, Query, Swarm, SwarmInfo};
