//! `/nodes`.

use http::StatusCode;
use skep_api::Error;
use skep_api::node::NodeSpec;
use skep_core::command::Command;
use skep_core::{find, validate, wire};

use super::{Cluster, params};
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

pub(super) async fn list<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    let view = node.view().await?;
    let nodes = wire::nodes(&view.state, &filters, &view.peers)?;
    Ok(Reply::json(StatusCode::OK, &nodes))
}

pub(super) async fn inspect<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let found = find::node(&view.state, id)?;
    Ok(Reply::json(StatusCode::OK, &wire::node(found, &view.peers)))
}

pub(super) async fn update<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let spec: NodeSpec = params::body(request)?;
    let version = params::version(&request.query, "node")?;
    let view = node.view().await?;
    let spec = Box::new(validate::node_spec(spec)?);
    let id = find::node(&view.state, id)?.id.clone();
    node.execute(Command::UpdateNode { id, version, spec })
        .await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn remove<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let force = request.query.flag("force");
    let view = node.view().await?;
    let id = find::node(&view.state, id)?.id.clone();
    node.execute(Command::RemoveNode { id, force }).await?;
    Ok(Reply::empty(StatusCode::OK))
}
