//! `GET /networks/{id}`: the swarm's networks with what this node has of them, and the engine's own as
//! they are.

use skep_core::network::{MOST_SUBNETS, branch_name, engine_name};

use super::{answer, ask, engines_answer, part};
use crate::conn::{Connection, Next, Shared};
use crate::handlers::flag;
use crate::reply::{Body, Reply};
use crate::rewrite::Object;
use crate::route::{Owned, Target};
use crate::swarm::Query;
use crate::wire::RequestHead;

/// On a manager.
pub(super) async fn inspect(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    id: String,
) -> Next {
    let route = Owned::NetworkInspect { id: id.clone() };
    let Some(mut reply) = ask(connection.shared, head, route).await else {
        return engines_answer(connection, head, &id).await;
    };
    if let (true, Body::Full(bytes)) = (reply.status.is_success(), &reply.body)
        && let Some(body) = as_seen_from_here(connection.shared, bytes).await
    {
        reply.body = Body::Full(body.into());
    }
    answer(connection, head, reply).await
}

/// A network as the swarm knows it, with what this node has of it.
async fn as_seen_from_here(shared: &Shared, network: &[u8]) -> Option<String> {
    let network = std::str::from_utf8(network).ok()?;
    let id = Object::parse(network.as_bytes()).ok()?.get("Id")?.get();
    let id: String = serde_json::from_str(id).ok()?;
    let first = engine_name(&id.as_str().into(), is_ingress(network));
    match of_engine(shared, &first).await {
        Some(first) => with_part(shared, network, &first).await,
        None => part::from_afar(network),
    }
}

/// Whether ports are published on a network.
fn is_ingress(network: &str) -> bool {
    let object = Object::parse(network.as_bytes());
    object.is_ok_and(|it| it.get("Ingress").is_some_and(|it| it.get() == "true"))
}

/// A network with what this node's engine has of it: `first`, and of its further subnets.
async fn with_part(shared: &Shared, network: &str, first: &str) -> Option<String> {
    let id = Object::parse(network.as_bytes()).ok()?.get("Id")?.get();
    let id: String = serde_json::from_str(id).ok()?;
    let mut others = Vec::new();
    for branch in 1..part::subnets(network).min(MOST_SUBNETS) {
        let name = branch_name(&id.as_str().into(), is_ingress(network), branch);
        others.extend(of_engine(shared, &name).await);
    }
    part::shown(network, &part::gathered(network, first, &others)?)
}

/// What the engine says of its part in one of the swarm's networks, by its own name or id for it.
async fn of_engine(shared: &Shared, own: &str) -> Option<String> {
    let path = format!("/networks/{own}");
    let (status, body) = shared.engine.get(&path).await?;
    (status == 200).then(|| String::from_utf8(body).ok())?
}

/// On any other node, which knows of the networks that it has a part in.
pub(super) async fn inspect_here(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    id: &str,
) -> Next {
    let query = Query::parse(Target::parse(&head.target).query);
    let scope = query.get("scope").unwrap_or_default();
    let found = match scope {
        "" | "swarm" => part_in(connection.shared, id).await,
        _ => None,
    };
    let Some(network) = found else {
        return engines_answer(connection, head, id).await;
    };
    let verbose = match flag(&query, "verbose") {
        Ok(verbose) => verbose,
        Err(error) => return answer(connection, head, error.into()).await,
    };
    let shared = connection.shared;
    let shown = async {
        let engines = of_engine(shared, &network).await?;
        let described = with_others(shared, &part::described(&engines)?, verbose).await?;
        with_part(shared, &described, &engines).await
    };
    match shown.await {
        Some(shown) => answer(connection, head, Reply::json_text(shown)).await,
        // It is gone by now.
        None => engines_answer(connection, head, id).await,
    }
}

/// A network's description with the nodes that have a part in it, and if it is to be verbose with the
/// services on it.
async fn with_others(shared: &Shared, network: &str, verbose: bool) -> Option<String> {
    let object = Object::parse(network.as_bytes()).ok()?;
    let id: String = serde_json::from_str(object.get("Id")?.get()).ok()?;
    let Some(agent) = shared.swarm.attachments() else {
        return Some(network.to_owned());
    };
    let network = part::with_peers(network, &agent.peers(&id).await)?;
    match verbose {
        true => part::with_services(&network, &agent.services(&id).await),
        false => Some(network),
    }
}

/// The engine's id of its part in the network with this id, this name, or this beginning of an id.
pub(super) async fn part_in(shared: &Shared, wanted: &str) -> Option<String> {
    let here = shared.names.here().await;
    let exact = here
        .iter()
        .find(|(id, ..)| id == wanted)
        .or_else(|| here.iter().find(|(_, name, _)| name == wanted));
    let mut prefixed = here.iter().filter(|(id, ..)| id.starts_with(wanted));
    let found = exact.or_else(|| prefixed.next().filter(|_| prefixed.next().is_none()));
    let engines = Object::parse(found?.2.as_bytes()).ok()?;
    serde_json::from_str(engines.get("Id")?.get()).ok()
}
