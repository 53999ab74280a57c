//! `GET /services/{id}/logs` and `GET /tasks/{id}/logs`: takes a request apart and answers with what
//! the readers of the tasks' containers bring. Keeps nothing of a log but what is on its way.

mod engine;
mod gather;
mod limits;
mod reader;

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use skep_api::Error;
use skep_core::logs::{Options, Selector};
use skep_core::{State, find};

use super::Cluster;
use crate::reply::{Body, Reply};
use crate::swarm::{OwnedRequest, Query};

pub(super) use limits::Places;

/// Logs of all tasks of a service.
pub(super) async fn of_service<C: Cluster>(
    node: &Arc<C>,
    places: &Arc<Places>,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let find = |state: &State| {
        let service = find::service(state, id)?;
        Ok(Selector::Service(service.id.clone()))
    };
    answer(node, places, request, find).await
}

/// Logs of one task.
pub(super) async fn of_task<C: Cluster>(
    node: &Arc<C>,
    places: &Arc<Places>,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let find = |state: &State| {
        let task = find::task(state, id)?;
        Ok(Selector::Task(task.id.clone()))
    };
    answer(node, places, request, find).await
}

async fn answer<C: Cluster>(
    node: &Arc<C>,
    places: &Arc<Places>,
    request: &OwnedRequest,
    find: impl FnOnce(&State) -> Result<Selector, Error>,
) -> Result<Reply, Error> {
    let query = &request.query;
    streams(query)?;
    // Before the view is taken, so that nothing happens in between.
    let changes = match query.flag("follow") {
        true => Some(node.changes()?),
        false => None,
    };
    let state = node.view().await?.state;
    let selector = find(&state)?;
    let framed = !selector.tty(&state)?;
    let options = options(query)?;
    let shared = gather::Shared::new(node.clone(), places.clone(), options, framed);
    let body = gather::start(shared, selector, state, changes);
    let mut headers = HeaderMap::new();
    if !request.version.before(42) {
        let kind = match framed {
            true => "application/vnd.docker.multiplexed-stream",
            false => "application/vnd.docker.raw-stream",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    Ok(Reply {
        status: StatusCode::OK,
        headers,
        body: Body::Stream(body),
    })
}

/// Refuses a request for logs that names neither stream.
fn streams(query: &Query) -> Result<(), Error> {
    if query.flag("stdout") || query.flag("stderr") {
        return Ok(());
    }
    Err(Error::invalid(
        "must specify at least one of 'stdout' or 'stderr'",
    ))
}

fn options(query: &Query) -> Result<Options, Error> {
    Ok(Options {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        tail: Options::tail(query.get("tail").unwrap_or_default())?,
        since: Options::since(query.get("since").unwrap_or_default())?,
    })
}

#[cfg(test)]
mod tests;
