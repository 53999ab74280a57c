//! `/swarm`: init, join, leave, inspect, update, unlock. Which addresses are used and how a swarm
//! comes to be is the node's matter.

use http::StatusCode;
use skep_api::Error;
use skep_api::cluster::{InitRequest, JoinRequest, Spec, UnlockRequest};
use skep_core::command::Command;
use skep_core::{validate, wire};

use super::Cluster;
use super::params;
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

pub(super) async fn init<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let mut init: InitRequest = params::body(request)?;
    if request.version.before(39) {
        init.default_addr_pool = None;
        init.subnet_size = 0;
    }
    if request.version.before(40) {
        init.data_path_port = 0;
    }
    let id = node.init(init).await?;
    Ok(Reply::json(StatusCode::OK, id.as_str()))
}

pub(super) async fn join<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let join: JoinRequest = params::body(request)?;
    node.join(join).await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn leave<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    node.leave(request.query.flag("force")).await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn inspect<C: Cluster>(node: &C) -> Result<Reply, Error> {
    let view = node.view().await?;
    let cluster = view.state.cluster().ok_or_else(no_cluster)?;
    Ok(Reply::json(StatusCode::OK, &wire::swarm(cluster)))
}

pub(super) async fn update<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let spec: Spec = params::body(request)?;
    let version = params::version(&request.query, "swarm")?;
    let rotate_worker_token = params::rotation(&request.query, "rotateWorkerToken")?;
    let rotate_manager_token = params::rotation(&request.query, "rotateManagerToken")?;
    let rotate_unlock_key = params::rotation(&request.query, "rotateManagerUnlockKey")?;
    node.view().await?;
    let spec = Box::new(validate::cluster_update(spec)?);
    let command = Command::UpdateCluster {
        version,
        spec,
        rotate_worker_token,
        rotate_manager_token,
        rotate_unlock_key,
        new_root: None,
    };
    node.execute(command).await?;
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) async fn unlock_key<C: Cluster>(node: &C) -> Result<Reply, Error> {
    let view = node.view().await?;
    let key = view
        .state
        .cluster()
        .and_then(|cluster| cluster.unlock_key.clone());
    let unlock_key = key.unwrap_or_default();
    Ok(Reply::json(StatusCode::OK, &UnlockRequest { unlock_key }))
}

pub(super) async fn unlock<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let unlock: UnlockRequest = params::body(request)?;
    node.unlock(unlock.unlock_key).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// A manager without a cluster is still being prepared.
fn no_cluster() -> Error {
    Error::unavailable(
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to \
         the cluster.",
    )
}
