//! `/networks`: the swarm's networks and the engine's own in one list, each request to whom it is
//! about. The engine's networks that realise the swarm's are hidden. Everything else about the
//! engine's networks stays the engine's, byte for byte.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use skep_api::decode;
use skep_api::network::CreateRequest;
use skep_core::network::{LABEL, LABEL_NAME, OVERLAY, SCOPE, engine_name};

use crate::conn::{Connection, Next, Shared};
use crate::forward::Patch;
use crate::handlers::name_conflict;
use crate::owned;
use crate::reach::retarget;
use crate::reply::{Body, Reply};
use crate::rewrite::Object;
use crate::route::{Owned, Target};
use crate::stream::Side;
use crate::swarm::{OwnedRequest, Query};
use crate::wire::RequestHead;
use crate::wire::buffer::LARGE;

/// Names that the engine refuses by itself.
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];

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
    /// `POST /networks/{id}/connect` and `disconnect`
    Connect(String),
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
            ("POST", ["networks", id, "connect" | "disconnect"]) => Self::Connect((*id).to_owned()),
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
        _ => return forward(connection, &head).await,
    };
    match call {
        Call::List => list(connection, &head, manages).await,
        Call::Create => create(connection, &head, manages).await,
        Call::Inspect(id) if manages => inspect(connection, &head, id).await,
        Call::Inspect(id) => inspect_here(connection, &head, &id).await,
        Call::Remove(id) if manages => {
            match ask(connection.shared, &head, Owned::NetworkRemove { id }).await {
                Some(reply) => answer(connection, &head, reply).await,
                None => forward(connection, &head).await,
            }
        }
        Call::Prune => prune(connection, &mut head, manages).await,
        Call::Connect(id) if manages => {
            match ask(connection.shared, &head, Owned::NetworkInspect { id }).await {
                Some(_) => {
                    let text = "a container of one's own on a network of the swarm is not \
                                supported by this version of skep";
                    let reply = Reply::error(StatusCode::NOT_IMPLEMENTED, text);
                    answer(connection, &head, reply).await
                }
                None => forward(connection, &head).await,
            }
        }
        Call::Remove(_) | Call::Connect(_) => forward(connection, &head).await,
    }
}

async fn forward(connection: &mut Connection<'_>, head: &RequestHead) -> Next {
    let version = Target::parse(&head.target).version;
    connection.forward(head, Patch::None, version, None).await
}

/// The swarm's answer; `None` if what is asked about is none of the swarm's, or the swarm cannot
/// tell now: then the engine is asked.
async fn ask(shared: &Shared, head: &RequestHead, owned: Owned) -> Option<Reply> {
    let target = Target::parse(&head.target);
    let newest = shared.engine.facts().await.api;
    let request = OwnedRequest {
        version: target.version.unwrap_or(newest),
        query: Query::parse(target.query),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let reply = shared.swarm.handle(owned, request).await;
    let elsewhere = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
    let elsewhere = elsewhere.contains(&reply.status) || reply.status.is_server_error();
    (!elsewhere).then_some(reply)
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

async fn list(connection: &mut Connection<'_>, head: &RequestHead, manages: bool) -> Next {
    let ours = match manages {
        true => text(ask(connection.shared, head, Owned::NetworkList).await),
        false => None,
    };
    patched(connection, head, |body| {
        merged(body, ours.as_deref(), !manages)
    })
    .await
}

/// Has the engine answer, and what it says changed where that makes sense.
async fn patched(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    change: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Next {
    let mut engine = match connection.engine().await {
        Ok(engine) => engine,
        Err(error) => {
            let reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            return connection.answer(reply, &head.method, true).await;
        }
    };
    let shared = connection.shared;
    let gone = |why| shared.engine.unreachable(why).to_string();
    match connection
        .exchange(&mut engine, head, Patch::Capture, None, gone)
        .await
    {
        Ok(captured) => {
            connection.engine = captured.reusable.then_some(engine);
            let body = change(&captured.body).unwrap_or(captured.body);
            connection
                .send(&captured.head, &body, captured.reusable)
                .await
        }
        Err(next) => {
            connection.engine = (next == Next::Request).then_some(engine);
            next
        }
    }
}

/// What is to be known of one of the engine's networks.
#[derive(Deserialize)]
struct Seen {
    #[serde(rename = "Labels", default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

impl Seen {
    /// The id and the name of the swarm's network that this one realises.
    fn of(network: &str) -> Option<(String, String)> {
        let mut labels = serde_json::from_str::<Self>(network).ok()?.labels?;
        let id = labels.remove(LABEL)?;
        Some((id, labels.remove(LABEL_NAME).unwrap_or_default()))
    }
}

/// The swarm's networks, and after them the engine's. Those that realise the swarm's are left out
/// or, where nobody else tells of these, shown as the swarm's.
fn merged(engine: &[u8], ours: Option<&str>, show: bool) -> Option<Vec<u8>> {
    let theirs: Vec<&RawValue> = serde_json::from_slice(engine).ok()?;
    let ours: Vec<Box<RawValue>> = serde_json::from_str(ours.unwrap_or("[]")).ok()?;
    let theirs = theirs
        .into_iter()
        .filter_map(|network| match Seen::of(network.get()) {
            None => Some(network.get().to_owned()),
            Some((id, name)) if show => disguised(network.get(), &id, &name),
            Some(_) => None,
        });
    let all: Vec<String> = ours
        .iter()
        .map(|it| it.get().to_owned())
        .chain(theirs)
        .collect();
    Some(format!("[{}]\n", all.join(",")).into_bytes())
}

/// One of the engine's networks under the name of the one that it realises. Its options and labels
/// are its own affair.
fn disguised(network: &str, id: &str, name: &str) -> Option<String> {
    let text = |text: &str| serde_json::to_string(text).ok();
    let (id, name, scope, driver) = (text(id)?, text(name)?, text(SCOPE)?, text(OVERLAY)?);
    let object = Object::parse(network.as_bytes()).ok()?;
    let values = [
        ("Name", name.as_str()),
        ("Id", &id),
        ("Scope", &scope),
        ("Driver", &driver),
        ("Options", "{}"),
        ("Labels", "{}"),
    ];
    Some(object.with(&values).trim_end().to_owned())
}

async fn inspect(connection: &mut Connection<'_>, head: &RequestHead, id: String) -> Next {
    let Some(mut reply) = ask(connection.shared, head, Owned::NetworkInspect { id }).await else {
        return forward(connection, head).await;
    };
    if let Body::Full(bytes) = &reply.body
        && let Some(body) = with_containers(connection.shared, bytes).await
    {
        reply.body = Body::Full(body.into());
    }
    answer(connection, head, reply).await
}

/// The swarm's network with the containers that this node has on it.
async fn with_containers(shared: &Shared, network: &[u8]) -> Option<String> {
    let object = Object::parse(network).ok()?;
    let id: String = serde_json::from_str(object.get("Id")?.get()).ok()?;
    let ingress = object.get("Ingress").is_some_and(|it| it.get() == "true");
    let path = format!("/networks/{}", engine_name(&id.as_str().into(), ingress));
    let here = shared.engine.get(&path).await;
    let here = here
        .filter(|(status, _)| *status == 200)
        .map(|(_, body)| body);
    let here = here.as_deref().and_then(|body| Object::parse(body).ok());
    let containers = here.as_ref().and_then(|here| here.get("Containers"));
    let containers = containers.map_or("{}", |containers| containers.get());
    Some(object.with(&[("Containers", containers)]))
}

/// On a node that is no manager: a network of the swarm that it has a part in is what the engine
/// knows of it.
async fn inspect_here(connection: &mut Connection<'_>, head: &RequestHead, id: &str) -> Next {
    let listed = connection.shared.engine.get("/networks").await;
    let listed = listed.map(|(_, body)| body).unwrap_or_default();
    let all: Vec<&RawValue> = serde_json::from_slice(&listed).unwrap_or_default();
    let mut ours = all.iter().filter_map(|network| {
        let (own, name) = Seen::of(network.get())?;
        let engines = Object::parse(network.get().as_bytes()).ok()?;
        let engines: String = serde_json::from_str(engines.get("Id")?.get()).ok()?;
        Some((own, name, engines))
    });
    let found = ours.find(|(own, name, _)| own == id || name == id);
    let Some((network, name, engines)) = found else {
        return forward(connection, head).await;
    };
    let path = format!("/networks/{engines}");
    let body = match connection.shared.engine.get(&path).await {
        Some((200, body)) => String::from_utf8(body).unwrap_or_default(),
        _ => return forward(connection, head).await,
    };
    let shown = disguised(&body, &network, &name).and_then(|it| RawValue::from_string(it).ok());
    match shown {
        Some(shown) => answer(connection, head, Reply::json(StatusCode::OK, &shown)).await,
        None => forward(connection, head).await,
    }
}

async fn create(connection: &mut Connection<'_>, head: &RequestHead, manages: bool) -> Next {
    let asked = peek(&mut connection.client, head).await;
    let asked = asked.and_then(|body| decode::<CreateRequest>(&body).ok());
    // What cannot be read is the engine's to refuse, and so are names that nobody may give.
    let Some(asked) = asked.filter(|asked| !PREDEFINED.contains(&asked.name.as_str())) else {
        return forward(connection, head).await;
    };
    // What only configures others is each engine's own.
    let of_swarm =
        (asked.driver == OVERLAY || asked.scope == SCOPE || asked.ingress) && !asked.config_only;
    if of_swarm && !manages {
        let text = "Cannot create a multi-host network from a worker node. Please create the \
                    network from a manager node.";
        let reply = Reply::error(StatusCode::FORBIDDEN, text);
        return answer(connection, head, reply).await;
    }
    if !of_swarm {
        let taken = manages && is_ours(connection.shared, head, &asked.name).await;
        return match taken {
            true => answer(connection, head, name_conflict(&asked.name).into()).await,
            false => forward(connection, head).await,
        };
    }
    if is_the_engines(connection.shared, &asked.name).await {
        return answer(connection, head, name_conflict(&asked.name).into()).await;
    }
    let target = Target::parse(&head.target);
    owned::serve(connection, head, &target, Owned::NetworkCreate).await
}

/// The body of a request, which stays where it is; `None` if it is too large for a network's, or
/// its sender waits to be told to go on.
async fn peek(client: &mut Side, head: &RequestHead) -> Option<Vec<u8>> {
    loop {
        let mut framing = head.framing;
        let mut body = Vec::new();
        let data = client.buffer.data().get(head.len..)?;
        framing
            .advance(data, |part| body.extend_from_slice(part))
            .ok()?;
        if framing.is_done() {
            return Some(body);
        }
        if head.expects_continue || client.buffer.is_full() || !client.more(LARGE).await.ok()? {
            return None;
        }
    }
}

/// Whether the swarm has a network of this very name.
async fn is_ours(shared: &Shared, head: &RequestHead, name: &str) -> bool {
    let id = name.to_owned();
    let found = text(ask(shared, head, Owned::NetworkInspect { id }).await);
    found.is_some_and(|network| is_called(network.as_bytes(), name))
}

/// Whether the engine has a network of this very name.
async fn is_the_engines(shared: &Shared, name: &str) -> bool {
    // A name that would have to be encoded is refused as one of the swarm's.
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !plain || name.is_empty() {
        return false;
    }
    let found = shared.engine.get(&format!("/networks/{name}")).await;
    found.is_some_and(|(status, body)| status == 200 && is_called(&body, name))
}

fn is_called(network: &[u8], name: &str) -> bool {
    let object = Object::parse(network).ok();
    let own = object.as_ref().and_then(|object| object.get("Name"));
    own.and_then(|own| serde_json::from_str::<String>(own.get()).ok())
        .as_deref()
        == Some(name)
}

/// The engine prunes what is its own, and a manager the swarm's.
async fn prune(connection: &mut Connection<'_>, head: &mut RequestHead, manages: bool) -> Next {
    let ours = match manages {
        true => text(ask(connection.shared, head, Owned::NetworkPrune).await),
        false => None,
    };
    // Networks that realise the swarm's may be without a container for a moment.
    let target = sparing(&head.target);
    retarget(connection, head, target);
    patched(connection, head, |body| {
        let names = |json: &[u8]| -> Option<Vec<String>> {
            let list = Object::parse(json)
                .ok()?
                .get("NetworksDeleted")?
                .get()
                .to_owned();
            serde_json::from_str::<Option<Vec<String>>>(&list).ok()?
        };
        let ours = names(ours?.as_bytes()).filter(|names| !names.is_empty())?;
        let all = [names(body).unwrap_or_default(), ours].concat();
        let all = serde_json::to_string(&all).ok()?;
        let object = Object::parse(body).ok()?;
        Some(object.with(&[("NetworksDeleted", &all)]).into_bytes())
    })
    .await
}

/// The target of a prune that spares the networks with our label.
fn sparing(target: &str) -> String {
    let query = Target::parse(target).query;
    let filters = Query::parse(query).get("filters").map(ToOwned::to_owned);
    let filters = filters
        .filter(|it| !it.is_empty())
        .unwrap_or_else(|| "{}".to_owned());
    let Ok(mut filters) = serde_json::from_str::<serde_json::Value>(&filters) else {
        // For the engine to refuse.
        return target.to_owned();
    };
    let Some(map) = filters.as_object_mut() else {
        return target.to_owned();
    };
    match map.get_mut("label!") {
        Some(serde_json::Value::Array(terms)) => terms.push(LABEL.into()),
        Some(serde_json::Value::Object(terms)) => drop(terms.insert(LABEL.into(), true.into())),
        _ => drop(map.insert("label!".into(), serde_json::json!({ LABEL: true }))),
    }
    let rest = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("filters="));
    let mut pairs: Vec<String> = rest.map(ToOwned::to_owned).collect();
    pairs.push(format!("filters={}", encoded(&filters.to_string())));
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    format!("{path}?{}", pairs.join("&"))
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
#[path = "networks_tests.rs"]
mod tests;
