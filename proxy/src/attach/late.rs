//! Containers that podman has started without asking here: through its own socket or CLI, or because
//! their restart policy wants it. Such a one runs without a place, on the network that stands in for
//! the swarm's or at an address that may be somebody else's by now. It gets its place, and is
//! connected, once the engine tells of it. Never starts or stops a container.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_api::Error;
use skep_node::agent::Attachments;
use skep_node::engine::EngineEvent;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::kept::Entry;
use super::seen::{Endpoint, NAME_OPTION, Seen};
use super::{look, renamed, rewire, take_off_stand_in};
use crate::conn::Shared;
use crate::guise::id_in;

/// Before a container that could not have its place is seen to again; doubles from the first to the
/// last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How many are seen to at once.
const AT_ONCE: usize = 8;

/// Follows the engine for as long as it is podman.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let Some(mut events) = shared.swarm.watch() else {
        return;
    };
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut work = JoinSet::new();
    // Those that are seen to, and whether more has happened to them meanwhile.
    let mut under_way: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        let due = tokio::select! {
            event = events.recv() => match event {
                // What happened before may have been missed.
                Some(EngineEvent::Up) if shared.engine.is_podman().await => {
                    shared.kept.containers().await
                }
                Some(EngineEvent::Up) | None => return,
                Some(EngineEvent::Other { container }) => vec![container],
                Some(_) => continue,
            },
            Some(Ok(done)) = work.join_next() => match under_way.remove(&done) {
                Some(true) => vec![done],
                _ => continue,
            },
        };
        for container in due {
            if let Some(again) = under_way.get_mut(&container) {
                *again = true;
            } else if shared.kept.of(&container).await.is_some() {
                under_way.insert(container.clone(), false);
                work.spawn(see_to(shared.clone(), permits.clone(), container));
            }
        }
    }
}

/// Gets a container its places, however long that takes. Returns which it was.
async fn see_to(shared: Arc<Shared>, permits: Arc<Semaphore>, container: String) -> String {
    let mut pause = PAUSES.0;
    loop {
        let permit = permits.acquire().await;
        let outcome = settle(&shared, &container).await;
        drop(permit);
        let Err(error) = outcome else {
            return container;
        };
        if pause == PAUSES.0 {
            warn!(container, %error, "started past skepd, and has no place on its network yet");
        }
        sleep(skep_node::jittered(pause)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Gets a container its places, if it runs without.
async fn settle(shared: &Shared, container: &str) -> Result<(), Error> {
    let (Some(attachments), Some(kept)) =
        (shared.swarm.attachments(), shared.kept.of(container).await)
    else {
        return Ok(());
    };
    // Before it is looked at: whoever takes it off a network does that first, and then gives the
    // place back.
    let missing = without_place(&kept, |network| attachments.has(container, network));
    if missing.is_empty() && !kept.stands_in {
        return Ok(());
    }
    let Some(seen) = look(shared, container).await.filter(Seen::runs) else {
        return Ok(());
    };
    let held = attachments.hold(&seen.id);
    let mut places = Vec::new();
    for (name, endpoint) in seen.networks().filter(|(name, _)| missing.contains(name)) {
        let network = id_in(name).unwrap_or(name);
        let called = endpoint.option(NAME_OPTION);
        let place = attachments.attach(seen.wish(network, endpoint)).await;
        let place = place.map_err(|error| renamed(error, network, called))?;
        if !seen.is_connected(&place.engines) {
            places.push((name, endpoint, place));
        } else if !endpoint.is_at(&place) {
            drop(held);
            return Err(move_away(&attachments, &seen, network, endpoint).await);
        }
    }
    take_off_stand_in(shared, &seen).await?;
    for (name, endpoint, place) in places {
        rewire(shared, &seen, (name, endpoint), &place).await?;
    }
    info!(container, "started past skepd, and is on its networks now");
    Ok(())
}

/// Networks that a container is to be on and has no place on: it never had one, or has one no more.
fn without_place(kept: &Entry, has: impl Fn(&str) -> bool) -> BTreeSet<&String> {
    let placed = |name: &str| id_in(name).is_some_and(&has);
    let networks = kept.networks.keys();
    networks.filter(|name| !placed(name)).collect()
}

/// Takes a container off a network where its address is another's by now; it gets a new one the next
/// time. Not while it is held: its node does it.
async fn move_away(
    attachments: &Attachments,
    seen: &Seen,
    network: &str,
    endpoint: &Endpoint,
) -> Error {
    match attachments.detach(&seen.id, network).await {
        Ok(()) => {
            let network = endpoint.option(NAME_OPTION).map_or(network, String::as_str);
            Error::conflict(format!(
                "its address on network {network} is another container's by now"
            ))
        }
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_place_is_needed_where_there_is_none() {
        let (one, other) = (
            "skep-abcdefghijklmnopqrstuvw12",
            "skep-abcdefghijklmnopqrstuvw34",
        );
        let networks = ["ovl", one, other].map(|name| (name.to_owned(), Value::Null));
        let kept = Entry {
            networks: networks.into(),
            ..Entry::default()
        };
        let missing = without_place(&kept, |id| id_in(one) == Some(id));
        let missing: Vec<&String> = missing.into_iter().collect();
        assert_eq!(missing, ["ovl", other]);
        assert!(without_place(&Entry::default(), |_| false).is_empty());
    }
}
