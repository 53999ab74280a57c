//! `/networks`: the swarm's networks and the engine's own in one list, each request to whom it is
//! about. The engine's networks that realise the swarm's are hidden. Everything else about the
//! engine's networks stays the engine's, byte for byte.

mod configuration;
pub(crate) mod create;
mod inspect;
mod list;
mod part;
mod prune;

use http::{Method, StatusCode};

use crate::attach;
use crate::conn::{Connection, Next, Shared};
use crate::forward::Patch;
use crate::guise::Seen;
use crate::reply::{Body, Reply};
use crate::route::{Owned, Target};
use crate::swarm::{OwnedRequest, Query};
use crate::wire::RequestHead;

/// What is asked about networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET /networks`
    List,
    /// `POST /networks/create`
    Create,
    /// `GET /networks/{id}`
    Inspect(String),
    /// `DELETE /networks/{id}`
    Remove(String),
    /// `POST /networks/prune`
    Prune,
    /// `POST /networks/{id}/connect`
    Connect(String),
    /// `POST /networks/{id}/disconnect`
    Disconnect(String),
}

impl Call {
    /// From the segments of a path, version left out.
    pub(crate) fn of(method: &Method, path: &[&str]) -> Option<Self> {
        Some(match (method.as_str(), path) {
            ("GET", ["networks"]) => Self::List,
            ("POST", ["networks", "create"]) => Self::Create,
            ("POST", ["networks", "prune"]) => Self::Prune,
            ("GET", ["networks", id]) => Self::Inspect((*id).to_owned()),
            ("DELETE", ["networks", id]) => Self::Remove((*id).to_owned()),
            ("POST", ["networks", id, "connect"]) => Self::Connect((*id).to_owned()),
            ("POST", ["networks", id, "disconnect"]) => Self::Disconnect((*id).to_owned()),
            _ => return None,
        })
    }
}

/// Sees a request about networks through.
pub(crate) async fn serve(
    connection: &mut Connection<'_>,
    mut head: RequestHead,
    call: Call,
) -> Next {
    let manages = match connection.shared.swarm.ping() {
        "active/manager" => true,
        "active/worker" => false,
        // Without a swarm there is nothing to add and nothing to hide.
        _ => {
            return match call {
                Call::Disconnect(id) => attach::disconnect(connection, &head, &id).await,
                _ => forward(connection, &head).await,
            };
        }
    };
    match call {
        Call::List => list::list(connection, &head, manages).await,
        Call::Create => create::create(connection, &head, manages).await,
        Call::Inspect(id) if manages => inspect::inspect(connection, &head, id).await,
        Call::Inspect(id) => inspect::inspect_here(connection, &head, &id).await,
        Call::Remove(id) => remove(connection, &head, id, manages).await,
        Call::Prune => prune::prune(connection, &mut head, manages).await,
        Call::Connect(id) => attach::connect(connection, &head, &id).await,
        Call::Disconnect(id) => attach::disconnect(connection, &head, &id).await,
    }
}

/// The swarm's networks are a manager's to remove; a worker that has a part in one says so.
async fn remove(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    id: String,
    manages: bool,
) -> Next {
    let shared = connection.shared;
    let route = Owned::NetworkRemove { id: id.clone() };
    if !manages && inspect::part_in(shared, &id).await.is_some() {
        let reply = shared.swarm.handle(route, request(shared, head).await);
        let reply = reply.await;
        return answer(connection, head, reply).await;
    }
    let reply = match manages {
        true => ask(shared, head, route).await,
        false => None,
    };
    let reply = match reply {
        None => configuration::refusal(shared, head).await,
        reply => reply,
    };
    match reply {
        Some(reply) => answer(connection, head, reply).await,
        None => engines(connection, head, &id).await,
    }
}

/// A request about one of the engine's own networks. Those that realise the swarm's are not there.
pub(crate) async fn engines(connection: &mut Connection<'_>, head: &RequestHead, id: &str) -> Next {
    let raw = Target::parse(&head.target).path.split('/').nth(2);
    let path = format!("/networks/{}", raw.unwrap_or_default());
    let found = connection.shared.engine.get(&path).await;
    let hidden = found.is_some_and(|(status, body)| status == 200 && realises(&body));
    match hidden {
        true => answer(connection, head, not_found(id)).await,
        false => forward(connection, head).await,
    }
}

/// What the engine says of one of its own networks.
async fn engines_answer(connection: &mut Connection<'_>, head: &RequestHead, id: &str) -> Next {
    let captured = match connection.capture(head).await {
        Ok(captured) => captured,
        Err(next) => return next,
    };
    if realises(&captured.body) {
        let close = !captured.reusable;
        return connection.answer(not_found(id), &head.method, close).await;
    }
    connection
        .send(&captured.head, &captured.body, captured.reusable)
        .await
}

/// Whether what the engine says of a network is of one that realises a network of the swarm.
fn realises(network: &[u8]) -> bool {
    std::str::from_utf8(network).is_ok_and(|text| Seen::of(text).is_some())
}

fn not_found(id: &str) -> Reply {
    let text = format!("network {id} not found");
    Reply::error(StatusCode::NOT_FOUND, &text)
}

async fn forward(connection: &mut Connection<'_>, head: &RequestHead) -> Next {
    let version = Target::parse(&head.target).version;
    connection.forward(head, Patch::None, version, None).await
}

/// The swarm's answer; `None` if what is asked about is none of the swarm's, or the swarm cannot
/// tell now: then the engine is asked.
async fn ask(shared: &Shared, head: &RequestHead, owned: Owned) -> Option<Reply> {
    let reply = shared.swarm.handle(owned, request(shared, head).await);
    let reply = reply.await;
    let elsewhere = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
    let elsewhere = elsewhere.contains(&reply.status) || reply.status.is_server_error();
    (!elsewhere).then_some(reply)
}

/// A request for swarm mode, without its body.
async fn request(shared: &Shared, head: &RequestHead) -> OwnedRequest {
    let target = Target::parse(&head.target);
    let newest = shared.engine.facts().await.api;
    OwnedRequest {
        version: target.version.unwrap_or(newest),
        query: Query::parse(target.query),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    }
}

/// Answers a request without looking at its body.
async fn answer(connection: &mut Connection<'_>, head: &RequestHead, reply: Reply) -> Next {
    connection.client.buffer.consume(head.len);
    let close = !head.keep_alive || !head.framing.is_done();
    connection.answer(reply, &head.method, close).await
}

/// The exact text of what the swarm answers, if that is an answer.
fn text(reply: Option<Reply>) -> Option<String> {
    let reply = reply.filter(|reply| reply.status == StatusCode::OK)?;
    match reply.body {
        Body::Full(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        Body::Stream(_) => None,
    }
}

/// Has the engine answer, and what it says changed where that makes sense.
async fn patched(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    change: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Next {
    let captured = match connection.capture(head).await {
        Ok(captured) => captured,
        Err(next) => return next,
    };
    let body = change(&captured.body).unwrap_or(captured.body);
    connection
        .send(&captured.head, &body, captured.reusable)
        .await
}

#[cfg(test)]
#[path = "networks_tests.rs"]
mod tests;
