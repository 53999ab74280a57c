//! `POST /networks/create`: who makes a network, and whether the other one has its name already. Reads
//! a body only to route it; whoever makes the network reads it again.

use http::StatusCode;
use skep_api::decode;
use skep_api::network::CreateRequest;
use skep_core::network::{OVERLAY, SCOPE};

use super::{answer, ask, forward, text};
use crate::conn::{Connection, Next, Shared};
use crate::handlers::name_conflict;
use crate::owned;
use crate::reply::Reply;
use crate::rewrite::Object;
use crate::route::{Owned, Target};
use crate::stream::Side;
use crate::wire::RequestHead;
use crate::wire::buffer::LARGE;

/// Names that the engine refuses by itself.
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];
/// Those of them that the swarm has networks of too, so that a manager says so first.
const MIRRORED: [&str; 2] = ["bridge", "host"];

pub(super) async fn create(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    manages: bool,
) -> Next {
    let asked = peek(&mut connection.client, head).await;
    let asked = asked.and_then(|body| decode::<CreateRequest>(&body).ok());
    if let Some(asked) = &asked
        && manages
        && MIRRORED.contains(&asked.name.as_str())
    {
        return answer(connection, head, name_conflict(&asked.name).into()).await;
    }
    // What cannot be read is the engine's to refuse, and so are names that nobody may give.
    let Some(asked) = asked.filter(|asked| !PREDEFINED.contains(&asked.name.as_str())) else {
        return forward(connection, head).await;
    };
    // What only configures others is each engine's own, whatever driver it is for.
    let wanted = asked.scope == SCOPE || asked.driver == OVERLAY || asked.ingress;
    let of_swarm = wanted && !asked.config_only;
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
pub(crate) async fn peek(client: &mut Side, head: &RequestHead) -> Option<Vec<u8>> {
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

/// Takes a request that was peeked at from what its sender has sent. False if it has not sent all.
pub(crate) fn consume(client: &mut Side, head: &RequestHead) -> bool {
    let mut framing = head.framing;
    client.buffer.consume(head.len);
    let taken = framing
        .advance(client.buffer.data(), |_| {})
        .unwrap_or_default();
    client.buffer.consume(taken);
    framing.is_done()
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
