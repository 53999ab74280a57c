//! `/secrets`. The data that comes in here never goes out again.

use http::StatusCode;
use skep_api::Error;
use skep_api::secret::{IdResponse, SecretSpec};
use skep_core::command::{Command, Reply as Done};
use skep_core::{find, wire};

use super::{Cluster, odd_reply, params};
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

pub(super) async fn list<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    let view = node.view().await?;
    let secrets = wire::secrets(&view.state, &filters)?;
    Ok(Reply::json(StatusCode::OK, &secrets))
}

pub(super) async fn create<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let spec: Box<SecretSpec> = Box::new(params::body(request)?);
    if spec.templating.is_some() {
        params::templating("secret", request)?;
    }
    match node.execute(Command::CreateSecret { spec }).await? {
        Done::Created(id) => {
            let id = id.to_string();
            Ok(Reply::json(StatusCode::CREATED, &IdResponse { id }))
        }
        other => Err(odd_reply(&other)),
    }
}

pub(super) async fn inspect<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let secret = find::secret(&view.state, id)?;
    Ok(Reply::json(StatusCode::OK, &wire::secret(secret)))
}

pub(super) async fn update<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let spec: Box<SecretSpec> = Box::new(params::body(request)?);
    // Alone among the versions this one is refused without saying why.
    let version = params::version(&request.query, "secret")
        .map_err(|_| Error::invalid("invalid secret version"))?;
    let view = node.view().await?;
    let id = find::secret(&view.state, id)?.id.clone();
    node.execute(Command::UpdateSecret { id, version, spec })
        .await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn remove<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let id = find::secret(&view.state, id)?.id.clone();
    node.execute(Command::RemoveSecret { id }).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
