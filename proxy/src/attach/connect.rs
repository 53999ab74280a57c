//! `POST /networks/{id}/connect` and `disconnect`, where the network is one of the swarm's. A container
//! that does not run is only told of, as in the original: it gets its place when it is started.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use skep_api::Error;
use skep_core::network::{LABEL, LABEL_NAME};
use skep_node::agent::Attachments;

use super::kept::Entry;
use super::seen::{Endpoint, NAME_OPTION, Seen, connection as connected};
use super::{encoded, keep, look, message, no_answer, relayed};
use crate::conn::{Connection, Next, Shared};
use crate::engine::Engine;
use crate::guise::id_in;
use crate::networks::create::{consume, peek};
use crate::networks::engines;
use crate::reply::Reply;
use crate::rewrite::Object;
use crate::route::Target;
use crate::wire::RequestHead;

/// What both requests have in their bodies.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    container: String,
    #[serde(borrow, default)]
    endpoint_config: Option<&'a RawValue>,
}

/// Sees a request through that connects a container with the network of this name.
pub(crate) async fn connect(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    network: &str,
) -> Next {
    let work = async {
        let shared = connection.shared;
        let attachments = shared.swarm.attachments()?;
        let path = format!("/networks/{}", encoded(network));
        let known = shared.engine.get(&path).await;
        if known.is_none_or(|(status, _)| status != 404) {
            return None;
        }
        let (body, seen) = concerns(connection, head).await?;
        if seen.runs() {
            return Some(attach(shared, &attachments, head, network, &body, &seen).await);
        }
        // Others remember it themselves.
        let forgets = shared.engine.is_podman().await;
        match forgets {
            true => Some(tell(shared, network, &body, &seen).await),
            false => None,
        }
    };
    match work.await {
        Some(outcome) => finish(connection, head, outcome).await,
        None => engines(connection, head, network).await,
    }
}

/// Sees a request through that takes a container off the network of this name. Also outside a swarm:
/// a container that did not run when its node left is on the network still, as in the original.
pub(crate) async fn disconnect(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    network: &str,
) -> Next {
    let work = async {
        let (body, seen) = concerns(connection, head).await?;
        let shared = connection.shared;
        let attachments = shared.swarm.attachments();
        let attachments = attachments.as_ref();
        let engine = &shared.engine;
        let on = on_network(engine, &seen, network).await;
        if engine.is_podman().await
            && let Some((key, name)) = on.clone().or_else(|| told_of(&seen, network))
        {
            return Some(leave(shared, attachments, &seen, &key, &name).await);
        }
        let (realised, name) = match on {
            Some(found) => found,
            // Of this very name, it is one that it never had a place on.
            None if seen.networks().any(|(known, _)| known == network) => return None,
            None => there(engine, network).await?,
        };
        let target = retargeted(&head.target, network, &realised);
        let text = String::from_utf8(body).ok()?;
        let outcome = engine.call(&Method::POST, &target, &text).await;
        if let (Some((200, _)), Some(attachments)) = (&outcome, attachments) {
            attachments.settled(&seen.id, id_in(&realised)).await;
        }
        Some(Ok(said(outcome, &realised, &name)))
    };
    match work.await {
        Some(outcome) => finish(connection, head, outcome).await,
        None => engines(connection, head, network).await,
    }
}

async fn finish(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    outcome: Result<Reply, Error>,
) -> Next {
    let reply = outcome.unwrap_or_else(Into::into);
    let read = consume(&mut connection.client, head);
    connection
        .answer(reply, &head.method, !head.keep_alive || !read)
        .await
}

/// The body and the container of a request that may be about one of the swarm's networks; `None` for
/// all that the engine sees to itself.
async fn concerns(connection: &mut Connection<'_>, head: &RequestHead) -> Option<(Vec<u8>, Seen)> {
    let body = peek(&mut connection.client, head).await?;
    let container = serde_json::from_slice::<Body<'_>>(&body).ok()?.container;
    let seen = look(connection.shared, &encoded(&container)).await?;
    Some((body, seen))
}

/// Gets a running container its place and has the engine connect it.
async fn attach(
    shared: &Shared,
    attachments: &Attachments,
    head: &RequestHead,
    network: &str,
    body: &[u8],
    seen: &Seen,
) -> Result<Reply, Error> {
    let engine = &shared.engine;
    if let Some((_, name)) = on_network(engine, seen, network).await {
        return Err(already(seen, &name));
    }
    let config = Object::parse(endpoint_config(body)?.as_bytes());
    let config = config.or_else(|_| Object::parse(b"{}")).map_err(odd)?;
    let value: Value = serde_json::from_str(&config.with(&[])).map_err(odd)?;
    let endpoint = Endpoint::parse(&value);
    let _held = attachments.hold(&seen.id);
    let wish = seen.wish(network, &endpoint);
    let is_asked = wish.container.asks_for_address();
    let place = attachments.attach(wish).await?;
    let whole = connected(&endpoint, &place, is_asked);
    let ours: Vec<(String, String)> = ["IPAMConfig", "MacAddress", "DriverOpts"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), whole.get(key)?.to_string())))
        .collect();
    let values: Vec<(&str, &str)> = ours.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let config = config.with(&values);
    let object = Object::parse(body).map_err(odd)?;
    let body = object.with(&[("EndpointConfig", config.trim_end())]);
    let target = retargeted(&head.target, network, &place.engines);
    let outcome = engine.call(&Method::POST, &target, &body).await;
    if let Some((200, _)) = outcome {
        keep(shared, &seen.id, (network, &place.engines), whole).await?;
    }
    Ok(said(outcome, &place.engines, &place.name))
}

fn odd(error: serde_json::Error) -> Error {
    Error::invalid(error.to_string())
}

fn already(seen: &Seen, network: &str) -> Error {
    let name = seen.plain_name();
    Error::conflict(format!("{name} is already attached to network {network}"))
}

/// How the container is to be connected, in the words of a request's body.
fn endpoint_config(body: &[u8]) -> Result<&str, Error> {
    let asked: Body<'_> = serde_json::from_slice(body).map_err(odd)?;
    Ok(asked.endpoint_config.map_or("{}", RawValue::get))
}

/// Keeps for its start what a container is to be connected with.
async fn tell(shared: &Shared, network: &str, body: &[u8], seen: &Seen) -> Result<Reply, Error> {
    let on = on_network(&shared.engine, seen, network).await;
    if let Some((_, name)) = on.or_else(|| told_of(seen, network)) {
        return Err(already(seen, &name));
    }
    let config: Value = serde_json::from_str(endpoint_config(body)?).map_err(odd)?;
    let change = |it: &mut Entry| drop(it.networks.insert(network.to_owned(), config));
    shared.kept.change(&seen.id, change).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// A network that a container was only told of, by the name that it was told, twice.
fn told_of(seen: &Seen, network: &str) -> Option<(String, String)> {
    let told = seen.kept()?.networks.contains_key(network);
    (told && id_in(network).is_none()).then(|| (network.to_owned(), network.to_owned()))
}

/// Takes a container off a network of the swarm, and forgets how it was connected.
async fn leave(
    shared: &Shared,
    attachments: Option<&Attachments>,
    seen: &Seen,
    key: &str,
    name: &str,
) -> Result<Reply, Error> {
    // First: whoever sees it run without its place would give it one again.
    let before = shared.kept.of(&seen.id).await.unwrap_or_default();
    let change = |it: &mut Entry| drop(it.networks.remove(key));
    shared.kept.change(&seen.id, change).await?;
    let outcome = taken_off(shared, attachments, seen, key, name).await;
    if !outcome.as_ref().is_ok_and(|it| it.status.is_success()) {
        shared.kept.change(&seen.id, |it| *it = before).await?;
    }
    outcome
}

/// Takes a container off a network of the swarm, where the engine does not know enough to do it
/// alone: off one that runs, its node does.
async fn taken_off(
    shared: &Shared,
    attachments: Option<&Attachments>,
    seen: &Seen,
    key: &str,
    name: &str,
) -> Result<Reply, Error> {
    let engine = &shared.engine;
    let mut on = seen.is_connected(key);
    let is_to_be = id_in(key).filter(|_| on && seen.runs());
    if let (Some(id), Some(attachments)) = (is_to_be, attachments) {
        attachments.detach(&seen.id, id).await?;
        let after = look(shared, &seen.id).await;
        on = after.is_some_and(|it| it.is_connected(key));
    }
    if on {
        let body = json!({ "Container": seen.id, "Force": true }).to_string();
        let target = format!("/networks/{}/disconnect", encoded(key));
        let outcome = engine.call(&Method::POST, &target, &body).await;
        if outcome.as_ref().is_none_or(|(status, _)| *status >= 300) {
            return Ok(said(outcome, key, name));
        }
    }
    Ok(Reply::empty(StatusCode::OK))
}

/// The engine's answer, in which a network goes by the name that clients know.
fn said(outcome: Option<(u16, Vec<u8>)>, realised: &str, name: &str) -> Reply {
    match outcome {
        Some((status, body)) if status >= 300 => {
            let text = message(&body).replace(realised, name);
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            Reply::error(status, &text)
        }
        Some((status, body)) => relayed(status, body),
        None => no_answer(),
    }
}

/// The network of the swarm, among those that a container is on or was on when it last ran, that goes
/// by this name or id: what the engine calls it, and its name.
async fn on_network(engine: &Engine, seen: &Seen, network: &str) -> Option<(String, String)> {
    for (realised, endpoint) in seen.networks() {
        let Some(id) = id_in(realised) else { continue };
        let name = endpoint.option(NAME_OPTION).cloned();
        let name = match name {
            Some(name) => name,
            None => there(engine, id).await.map(|(_, name)| name)?,
        };
        if name == network || (!network.is_empty() && id.starts_with(network)) {
            return Some((realised.clone(), name));
        }
    }
    None
}

/// The engine's part of the swarm's network of this name or id, if it has one.
async fn there(engine: &Engine, network: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        name: String,
        labels: Option<std::collections::BTreeMap<String, String>>,
    }
    let (_, body) = engine.get("/networks").await?;
    let all: Vec<Listed> = serde_json::from_slice(&body).ok()?;
    all.into_iter().find_map(|it| {
        let mut labels = it.labels?;
        let (id, name) = (labels.remove(LABEL)?, labels.remove(LABEL_NAME)?);
        (id == network || name == network).then_some((it.name, name))
    })
}

/// The target of a request about one network, for another.
fn retargeted(target: &str, network: &str, realised: &str) -> String {
    let raw = Target::parse(target).path.split('/').nth(2);
    let raw = raw.unwrap_or(network);
    let (old, new) = (
        format!("/networks/{raw}/"),
        format!("/networks/{realised}/"),
    );
    target.replacen(&old, &new, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_what_realises_the_network() {
        let target = "/v1.41/networks/o%76l/connect?x=/networks/ovl/";
        let expected = "/v1.41/networks/skep-x/connect?x=/networks/ovl/";
        assert_eq!(retargeted(target, "ovl", "skep-x"), expected);
    }

    #[test]
    fn refusals_name_the_network_as_clients_do() {
        let body = json!({ "message": "container c is not connected to network skep-x" });
        let reply = said(Some((500, body.to_string().into_bytes())), "skep-x", "ovl");
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
        let crate::reply::Body::Full(body) = reply.body else {
            panic!("a stream")
        };
        assert_eq!(
            message(&body),
            "container c is not connected to network ovl"
        );
    }
}
