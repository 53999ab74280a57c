//! Containers that are no task's on networks of the swarm. Whoever starts one, or connects one that
//! runs, gets its place first, and the engine connects it with its own part of the network, at the
//! address that the swarm chose; whoever stops or removes one is answered once the place is given
//! back. Until a container is started the engine just keeps what was asked for, as in the original, or
//! this daemon does for an engine that cannot.

mod connect;
mod create;
mod kept;
mod late;
mod libpod;
mod seen;

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use skep_api::Error;
use skep_node::agent::{Attachments, Hold, Standing};
use tokio::time::timeout;
use tracing::warn;

use crate::conn::{Connection, Next, Shared};
use crate::engine::Engine;
use crate::guise::id_in;
use crate::reach::{self, Subject};
use crate::reply::Reply;
use crate::route::Target;
use crate::wire::RequestHead;

pub(crate) use connect::{connect, disconnect};
pub(crate) use create::create;
pub(crate) use kept::Entry;
pub use kept::Kept;
pub(crate) use late::follow;
pub(crate) use libpod::create as create_in_podmans_words;
pub(crate) use seen::OWN_OPTIONS;
use seen::{Endpoint, Seen, connection as connected, may_be_ours};

/// How long a busy engine may take to describe a container.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request does to a container, as far as its networks are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It is to run.
    Start,
    /// It is not to run any more.
    End,
}

impl Act {
    fn of(method: &Method, action: &str) -> Option<Self> {
        match (method.as_str(), action) {
            ("POST", "start" | "restart") => Some(Self::Start),
            ("POST", "stop" | "kill") | ("DELETE", "") => Some(Self::End),
            _ => None,
        }
    }
}

/// Sees a request about a container through.
pub(crate) async fn serve(
    connection: &mut Connection<'_>,
    head: RequestHead,
    subject: Subject,
) -> Next {
    let path = Target::parse(&head.target).path;
    let mut segments = path.split('/').skip(2);
    let name = segments.next().unwrap_or_default().to_owned();
    let act = match subject {
        Subject::Container { .. } => Act::of(&head.method, segments.next().unwrap_or_default()),
        Subject::Exec(_) => None,
    };
    let attachments = connection.shared.swarm.attachments();
    match (act, attachments) {
        (Some(Act::Start), attachments) => {
            let ready = prepare(connection.shared, attachments.as_ref(), &name).await;
            match ready {
                // Held until the engine has answered.
                Ok(_held) => reach::serve(connection, head, subject).await,
                Err(error) => answer(connection, &head, error.into()).await,
            }
        }
        (Some(Act::End), Some(attachments)) if !attachments.is_empty() => {
            end(connection, head, subject, &attachments, &name).await
        }
        _ => reach::serve(connection, head, subject).await,
    }
}

/// Answers a request without looking at its body.
async fn answer(connection: &mut Connection<'_>, head: &RequestHead, reply: Reply) -> Next {
    connection.client.buffer.consume(head.len);
    let close = !head.keep_alive || !head.framing.is_done();
    connection.answer(reply, &head.method, close).await
}

/// A container of this host's, by its name as in a path.
async fn look(shared: &Shared, name: &str) -> Option<Seen> {
    let path = format!("/containers/{name}/json");
    let asked = shared.engine.call(&Method::GET, &path, "");
    let (status, body) = timeout(PATIENCE, asked).await.ok()??;
    let seen = Seen::parse(&body).filter(|_| status == 200)?;
    match shared.kept.of(&seen.id).await {
        Some(entry) => Some(seen.recalled(entry)),
        None => Some(seen),
    }
}

/// Gets a container that is about to be started its places, and has the engine connect it with them.
/// What it returns keeps the places meanwhile.
async fn prepare(
    shared: &Shared,
    attachments: Option<&Attachments>,
    name: &str,
) -> Result<Option<Hold>, Error> {
    let engine = &shared.engine;
    if attachments.is_none() && shared.kept.is_empty().await {
        return Ok(None);
    }
    let Some(seen) = look(shared, name).await else {
        return Ok(None);
    };
    let placed = match attachments {
        // Restarted, it keeps its places.
        Some(attachments) if seen.runs() => return Ok(Some(attachments.hold(&seen.id))),
        Some(attachments) => give_places(shared, attachments, &seen).await,
        None => nowhere(shared, &seen).await,
    };
    if placed.is_err() && seen.is_removed_at_its_end() {
        // As the original does with one that it could not start; `docker run --rm` waits for that.
        let target = format!("/containers/{}?force=1&v=1", seen.id);
        let removed = engine.call(&Method::DELETE, &target, "").await;
        if removed.is_none_or(|(status, _)| status >= 300) {
            warn!(
                container = seen.id,
                "not removed after its start was refused"
            );
        }
    }
    placed
}

/// Outside a swarm there are no networks of one; engines that know of them say so themselves.
async fn nowhere(shared: &Shared, seen: &Seen) -> Result<Option<Hold>, Error> {
    if seen.runs() {
        return Ok(None);
    }
    let mut kept = seen.kept().into_iter().flat_map(|it| &it.networks);
    if let Some((network, config)) = kept.next() {
        let name = Endpoint::parse(config).option(seen::NAME_OPTION).cloned();
        let name = name.unwrap_or_else(|| network.clone());
        return Err(Error::not_found(format!("network {name} not found")));
    }
    take_off_stand_in(shared, seen).await?;
    Ok(None)
}

/// The node has left its swarm: containers that run were taken off the swarm's networks, and start
/// again without them. Others are on them still and do not start, as in the original.
pub(crate) async fn left(shared: &Shared) {
    for container in shared.kept.containers().await {
        let seen = look(shared, &container).await;
        let Some(seen) = seen.filter(Seen::runs) else {
            continue;
        };
        let change = |it: &mut Entry| it.networks.retain(|name, _| seen.is_connected(name));
        if let Err(error) = shared.kept.change(&container, change).await {
            warn!(container, %error, "cannot be started again before it is disconnected");
        }
    }
}

/// Gets a container its places, and has the engine connect it with them.
async fn give_places(
    shared: &Shared,
    attachments: &Attachments,
    seen: &Seen,
) -> Result<Option<Hold>, Error> {
    let engine = &shared.engine;
    let mut ours = Vec::new();
    for (name, endpoint) in seen.networks() {
        if seen.is_kept(name) || is_ours(engine, name, endpoint).await {
            ours.push((name, endpoint));
        }
    }
    if ours.is_empty() {
        take_off_stand_in(shared, seen).await?;
        return Ok(None);
    }
    let held = attachments.hold(&seen.id);
    let mut places = Vec::new();
    for (name, endpoint) in ours {
        let network = id_in(name).unwrap_or(name);
        let place = attachments.attach(seen.wish(network, endpoint)).await;
        // By its id nobody would know it again.
        let called = endpoint.option(seen::NAME_OPTION);
        let place = place.map_err(|error| renamed(error, network, called))?;
        places.push((name, endpoint, place));
    }
    take_off_stand_in(shared, seen).await?;
    for (name, endpoint, place) in places {
        rewire(shared, seen, (name, endpoint), &place).await?;
    }
    Ok(Some(held))
}

fn renamed(error: Error, id: &str, name: Option<&String>) -> Error {
    Error {
        message: match name {
            Some(name) => error.message.replace(id, name),
            None => error.message,
        },
        ..error
    }
}

/// Whether a network is one of the swarm's as far as this host can tell: the engine knows only its
/// part of it, or nothing at all.
async fn is_ours(engine: &Engine, name: &str, endpoint: &Endpoint) -> bool {
    if id_in(name).is_some() {
        return true;
    }
    if !may_be_ours(name) || !endpoint.is_meant() {
        return false;
    }
    let found = engine.get(&format!("/networks/{}", encoded(name))).await;
    found.is_some_and(|(status, _)| status == 404)
}

/// Connects a container with the engine's part of a network, in the place of what it was to be
/// connected with. The engine may have made the network anew since it last ran.
async fn rewire(
    shared: &Shared,
    seen: &Seen,
    (name, endpoint): (&str, &Endpoint),
    place: &Standing,
) -> Result<(), Error> {
    let engine = &shared.engine;
    let realised = place.engines.as_str();
    for old in [name, realised] {
        if seen.is_connected(old) {
            take_off(engine, seen, old).await?;
        }
        if name == realised {
            break;
        }
    }
    let asked = seen.wish(name, endpoint).container.asks_for_address();
    let config = connected(endpoint, place, asked);
    let body = json!({ "Container": seen.id, "EndpointConfig": config });
    let target = format!("/networks/{realised}/connect");
    expect(engine.call(&Method::POST, &target, &body.to_string()).await)?;
    keep(shared, &seen.id, (name, realised), config).await
}

/// A container is not to be any longer on the network that stood in for one of the swarm's.
async fn take_off_stand_in(shared: &Shared, seen: &Seen) -> Result<(), Error> {
    if !seen.kept().is_some_and(|it| it.stands_in) {
        return Ok(());
    }
    if seen.has_stand_in() {
        take_off(&shared.engine, seen, create::STAND_IN).await?;
    }
    let done = shared.kept.change(&seen.id, |it| it.stands_in = false);
    done.await
}

/// Takes a container off one of the engine's networks.
async fn take_off(engine: &Engine, seen: &Seen, network: &str) -> Result<(), Error> {
    let body = json!({ "Container": seen.id, "Force": true });
    let target = format!("/networks/{}/disconnect", encoded(network));
    expect(engine.call(&Method::POST, &target, &body.to_string()).await)
}

/// Remembers how a container is connected, if the engine does not: with what realises a network,
/// whatever that was called before.
async fn keep(
    shared: &Shared,
    container: &str,
    (name, realised): (&str, &str),
    config: Value,
) -> Result<(), Error> {
    if !shared.engine.is_podman().await {
        return Ok(());
    }
    let change = |it: &mut Entry| {
        it.networks.remove(name);
        it.networks.insert(realised.to_owned(), config);
    };
    shared.kept.change(container, change).await
}

/// The engine's refusal, if it is one.
fn expect(answer: Option<(u16, Vec<u8>)>) -> Result<(), Error> {
    match answer {
        Some((status, _)) if status < 300 => Ok(()),
        Some((_, body)) => Err(Error::system(message(&body))),
        None => Err(Error::unavailable("the Docker engine does not answer")),
    }
}

fn message(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("message").and_then(serde_json::Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

/// Has the engine end a container, and answers when its places are given back.
async fn end(
    connection: &mut Connection<'_>,
    head: RequestHead,
    subject: Subject,
    attachments: &Attachments,
    name: &str,
) -> Next {
    let engine = &connection.shared.engine;
    let seen = look(connection.shared, name).await;
    // A body would be one too many: nobody sends any with these.
    let Some(seen) = seen.filter(|it| it.runs() && head.framing.is_done()) else {
        return reach::serve(connection, head, subject).await;
    };
    if !seen.networks().any(|(name, _)| id_in(name).is_some()) {
        return reach::serve(connection, head, subject).await;
    }
    let outcome = engine.call(&head.method, &head.target, "").await;
    let after = look(connection.shared, &seen.id).await;
    if after.is_none_or(|it| !it.runs()) {
        attachments.settled(&seen.id, None).await;
    }
    let reply = match outcome {
        Some((status, body)) => relayed(status, body),
        None => no_answer(),
    };
    answer(connection, &head, reply).await
}

fn no_answer() -> Reply {
    let text = "the Docker engine went away before it answered";
    Reply::error(StatusCode::BAD_GATEWAY, text)
}

/// The engine's own answer.
fn relayed(status: u16, body: Vec<u8>) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if body.is_empty() {
        return Reply::empty(status);
    }
    Reply::error(status, &message(&body))
}

/// A name as a segment of a path.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') => {
            char::from(b).to_string()
        }
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_starts_and_ends_a_container_matters() {
        let table = [
            ("POST", "start", Some(Act::Start)),
            ("POST", "restart", Some(Act::Start)),
            ("POST", "stop", Some(Act::End)),
            ("POST", "kill", Some(Act::End)),
            ("DELETE", "", Some(Act::End)),
            ("GET", "json", None),
            ("POST", "pause", None),
            ("POST", "wait", None),
        ];
        for (method, action, expected) in table {
            assert_eq!(Act::of(&method.parse().unwrap(), action), expected);
        }
    }

    #[test]
    fn refusals_speak_of_names() {
        let id = "h2f1ema6de2sibxnco9owkfxz";
        let error = Error::system(format!("Could not attach to network {id}: gone"));
        let name = "ovl".to_owned();
        let error = renamed(error, id, Some(&name));
        assert_eq!(error.message, "Could not attach to network ovl: gone");
        assert_eq!(message(br#"{"message":"no"}"#), "no");
        assert_eq!(message(b"plain\n"), "plain");
        assert_eq!(encoded("a b/c"), "a%20b%2Fc");
    }
}
