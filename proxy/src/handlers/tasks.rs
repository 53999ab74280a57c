//! `/tasks`: reads only, since tasks are the orchestrator's.

use http::StatusCode;
use skep_api::Error;
use skep_core::{find, wire};

use super::{Cluster, params};
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

pub(super) async fn list<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    let view = node.view().await?;
    Ok(Reply::json(
        StatusCode::OK,
        &wire::tasks(&view.state, &filters)?,
    ))
}

pub(super) async fn inspect<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    Ok(Reply::json(
        StatusCode::OK,
        &wire::task(&view.state, find::task(&view.state, id)?),
    ))
}
