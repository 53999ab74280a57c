//! `/secrets` and `/configs`: there are none yet. The lists are empty, what is asked for by name is
//! not found, and creating one is refused by name.

use http::StatusCode;
use serde_json::Value;
use skep_api::Error;

use super::{Cluster, params};
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

/// One of the two kinds, which differ in words only.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    noun: &'static str,
    filters: &'static [&'static str],
}

pub(super) const SECRET: Kind = Kind {
    noun: "secret",
    filters: &["names", "name", "id", "label"],
};
pub(super) const CONFIG: Kind = Kind {
    noun: "config",
    filters: &["name", "id", "label"],
};

pub(super) async fn list<C: Cluster>(
    node: &C,
    kind: Kind,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    node.view().await?;
    filters.validate(kind.filters)?;
    Ok(Reply::json::<[Value]>(StatusCode::OK, &[]))
}

pub(super) async fn create<C: Cluster>(
    node: &C,
    kind: Kind,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    // Only to refuse what is no JSON; its content is not looked at.
    let _: Value = params::body(request)?;
    node.view().await?;
    let noun = kind.noun;
    Err(Error::not_implemented(format!(
        "a {noun} is not supported by this version of skep"
    )))
}

/// Inspect, update and remove: none exists.
pub(super) async fn absent<C: Cluster>(node: &C, kind: Kind, id: &str) -> Result<Reply, Error> {
    node.view().await?;
    Err(Error::not_found(format!("{} {id} not found", kind.noun)))
}
