//! `/configs`: as `/secrets`, but what is in one may be read back.

use http::StatusCode;
use skep_api::Error;
use skep_api::secret::{ConfigSpec, IdResponse};
use skep_core::command::{Command, Reply as Done};
use skep_core::{find, wire};

use super::{Cluster, odd_reply, params};
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

pub(super) async fn list<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    let view = node.view().await?;
    let configs = wire::configs(&view.state, &filters)?;
    Ok(Reply::json(StatusCode::OK, &configs))
}

pub(super) async fn create<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let spec: Box<ConfigSpec> = Box::new(params::body(request)?);
    if spec.templating.is_some() {
        params::templating("config", request)?;
    }
    match node.execute(Command::CreateConfig { spec }).await? {
        Done::Created(id) => {
            let id = id.to_string();
            Ok(Reply::json(StatusCode::CREATED, &IdResponse { id }))
        }
        other => Err(odd_reply(&other)),
    }
}

pub(super) async fn inspect<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let config = find::config(&view.state, id)?;
    Ok(Reply::json(StatusCode::OK, &wire::config(config)))
}

pub(super) async fn update<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let spec: Box<ConfigSpec> = Box::new(params::body(request)?);
    // As that of a secret it is refused without saying why.
    let version = params::version(&request.query, "config")
        .map_err(|_| Error::invalid("invalid config version"))?;
    let view = node.view().await?;
    let id = find::config(&view.state, id)?.id.clone();
    node.execute(Command::UpdateConfig { id, version, spec })
        .await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn remove<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let id = find::config(&view.state, id)?.id.clone();
    node.execute(Command::RemoveConfig { id }).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
