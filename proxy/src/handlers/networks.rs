//! The swarm's part of `/networks`. What the engine has of networks, `crate::networks` puts beside
//! it; an answer of 404 leaves a request to the engine.
//!
//! Source of the behaviour: moby `daemon/server/router/network` and `daemon/cluster/networks.go`.

use http::StatusCode;
use serde::Serialize;
use skep_api::Error;
use skep_api::filters::Filters;
use skep_api::go::Timestamp;
use skep_api::network::CreateRequest;
use skep_api::service::ServiceSpec;
use skep_core::command::{Command, Reply as Done};
use skep_core::object::NetworkObject;
use skep_core::{State, find, validate, wire};

use super::until::until;
use super::{Cluster, odd_reply, params};
use crate::reply::Reply;
use crate::swarm::OwnedRequest;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    warning: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pruned {
    networks_deleted: Vec<String>,
}

pub(super) async fn list<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    let view = node.view().await?;
    let mut networks = wire::networks(&view.state, &filters);
    for network in &mut networks {
        network.enable_ipv4 = enable_ipv4(request);
    }
    Ok(Reply::json(StatusCode::OK, &networks))
}

/// Every network of the swarm has addresses of this kind.
fn enable_ipv4(request: &OwnedRequest) -> Option<bool> {
    (!request.version.before(48)).then_some(true)
}

pub(super) async fn inspect<C: Cluster>(
    node: &C,
    id: &str,
    request: &OwnedRequest,
) -> Result<Reply, Error> {
    let verbose = params::flag(&request.query, "verbose")?;
    let scope = request.query.get("scope").unwrap_or_default();
    let view = node.view().await?;
    let network = match scope {
        "" => visible(&view.state, id)?,
        "swarm" => find::network(&view.state, id)?,
        _ => return Err(Error::not_found(format!("network {id} not found"))),
    };
    let mut network = wire::network_in_full(&view.state, network, verbose);
    network.enable_ipv4 = enable_ipv4(request);
    Ok(Reply::json(StatusCode::OK, &network))
}

/// The swarm's network of this name or id, but for the mirrors of the engines' own: by their names
/// these are the engine's.
fn visible<'a>(state: &'a State, id: &'a str) -> Result<&'a NetworkObject, Error> {
    let network = find::network(state, id)?;
    if network.is_predefined() && network.spec.name == id {
        return Err(Error::not_found(format!("network {id} not found")));
    }
    Ok(network)
}

pub(super) async fn create<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let asked: CreateRequest = params::body(request)?;
    let view = node.view().await?;
    if view
        .state
        .network_named(&asked.name)
        .is_some_and(|it| it.spec.name == asked.name)
    {
        return Err(name_conflict(&asked.name));
    }
    let spec = Box::new(validate::network_spec(asked)?);
    match node.execute(Command::CreateNetwork { spec }).await? {
        Done::Created(id) => {
            let created = Created {
                id: id.to_string(),
                warning: "",
            };
            Ok(Reply::json(StatusCode::CREATED, &created))
        }
        other => Err(odd_reply(&other)),
    }
}

/// dockerd's words for a name that the swarm or the engine has.
pub(crate) fn name_conflict(name: &str) -> Error {
    Error::conflict(format!("network with name {name} already exists"))
}

pub(super) async fn remove<C: Cluster>(node: &C, id: &str) -> Result<Reply, Error> {
    let view = node.view().await?;
    let id = visible(&view.state, id)?.id.clone();
    node.execute(Command::RemoveNetwork { id }).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Removes every network that nothing uses, but the one that ports are published on.
pub(super) async fn prune<C: Cluster>(node: &C, request: &OwnedRequest) -> Result<Reply, Error> {
    let filters = params::filters(&request.query)?;
    // Before anything is gone; the engine words it.
    filters.validate(&["label", "label!", "until"])?;
    let now = super::events::now();
    let mut terms = filters.get("until").map(|term| until(term, now));
    let before = match (terms.next(), terms.next()) {
        (None, _) => Timestamp::from_nanos(i64::MAX),
        (Some(Some(before)), None) => before,
        // The engine refuses it.
        _ => Timestamp::ZERO,
    };
    let view = node.view().await?;
    let all = view.state.networks().iter();
    let unused = all.filter(|it| {
        !it.is_predefined()
            && !it.spec.ingress
            && it.meta.created_at <= before
            && is_to_go(&filters, it)
            && !wire::is_in_use(&view.state, it)
    });
    let mut networks_deleted = Vec::new();
    for network in unused {
        let id = network.id.clone();
        // One that has come into use, or is gone by now, is no failure.
        if node.execute(Command::RemoveNetwork { id }).await.is_ok() {
            networks_deleted.push(network.spec.name.clone());
        }
    }
    Ok(Reply::json(StatusCode::OK, &Pruned { networks_deleted }))
}

/// Whether the labels that a prune asks for let a network go.
fn is_to_go(filters: &Filters, network: &NetworkObject) -> bool {
    let labels = &network.spec.labels;
    let has = |term: &str| {
        let mut one = Filters::default();
        one.add("label", term);
        one.matches_labels("label", labels)
    };
    filters.matches_labels("label", labels) && !filters.get("label!").any(has)
}

/// Puts ids in the place of the names of networks in a service's spec.
///
/// # Errors
/// The original's bare error, 500, for one that the swarm does not have.
pub(super) fn resolve(state: &State, spec: &mut ServiceSpec) -> Result<(), Error> {
    for wanted in &mut spec.task_template.networks {
        let network = find::network(state, &wanted.target).map_err(|error| match error.kind {
            skep_api::Kind::NotFound => Error::system(error.message),
            _ => error,
        })?;
        wanted.target = network.id.to_string();
    }
    Ok(())
}
