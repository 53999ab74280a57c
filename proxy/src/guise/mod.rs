//! The guise of the engine's networks that realise the swarm's: wherever the engine names one, clients
//! read the id and the name of the swarm's. Knows which answers name networks; changes nothing
//! else in them.

mod container;
mod event;
mod kept;
mod names;
mod query;

use skep_core::network::{BRANCH_MARK, ENGINE_PREFIXES};

use crate::conn::{Connection, Next};
use crate::forward::Patch;
use crate::route::{Named, Target};
use crate::swarm::Query;
use crate::wire::RequestHead;

pub(crate) use container::container;
pub(crate) use event::{Guise, Told};
pub(crate) use kept::with_kept;
pub use names::Names;
pub(crate) use names::Seen;
pub(crate) use query::refiltered;

/// Names of networks by their ids.
pub(crate) type ById = std::collections::BTreeMap<String, String>;

/// How many characters an id has.
const ID: usize = 25;

/// The id of the swarm's network that an engine's network of this name realises.
pub(crate) fn id_in(engine_name: &str) -> Option<&str> {
    parts_in(engine_name).map(|(id, _)| id)
}

/// Whether an engine's network of this name is a further subnet of one of the swarm's: what is to be
/// shown once is shown of the first.
pub(crate) fn is_branch(engine_name: &str) -> bool {
    parts_in(engine_name).is_some_and(|(_, branch)| branch > 0)
}

/// The id of the swarm's network, and which of its subnets it is, counted from 0.
fn parts_in(engine_name: &str) -> Option<(&str, usize)> {
    let mut prefixes = ENGINE_PREFIXES.iter();
    let rest = prefixes.find_map(|prefix| engine_name.strip_prefix(prefix))?;
    let (id, branch) = match rest.split_once(BRANCH_MARK) {
        Some((id, branch)) => (id, branch.parse().ok()?),
        None => (rest, 0),
    };
    let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    (id.len() == ID && id.bytes().all(plain)).then_some((id, branch))
}

/// Whether a part of an answer could name one of ours.
pub(crate) fn may_mention(json: &[u8]) -> bool {
    tokens(json).next().is_some()
}

/// What stands between quotes in a text and looks like a name of one of ours.
fn tokens(json: &[u8]) -> impl Iterator<Item = &[u8]> {
    let quoted = json.split(|byte| *byte == b'"');
    let named = |token: &&[u8]| {
        let mut prefixes = ENGINE_PREFIXES.iter();
        prefixes.any(|prefix| token.starts_with(prefix.as_bytes()))
    };
    quoted.filter(named)
}

/// Sees a request through whose answer names networks.
pub(crate) async fn serve(
    connection: &mut Connection<'_>,
    mut head: RequestHead,
    what: Named,
) -> Next {
    if connection.shared.swarm.ping() == "inactive" {
        let version = Target::parse(&head.target).version;
        return connection.forward(&head, Patch::None, version, None).await;
    }
    if what == Named::Containers {
        query::by_network(connection, &mut head).await;
    }
    let captured = match connection.capture(&head).await {
        Ok(captured) => captured,
        Err(next) => return next,
    };
    let names = connection.shared.names.mentioned(&captured.body).await;
    let changed = match what {
        Named::Containers => container::list(&captured.body, &names),
        Named::DiskUsage => container::disk_usage(&captured.body, &names),
    };
    let body = changed.unwrap_or(captured.body);
    connection
        .send(&captured.head, &body, captured.reusable)
        .await
}

/// Has `GET /events` tell of our networks as the swarm's: what the engine is asked for becomes wide
/// enough, and what it says goes through the guise.
pub(crate) async fn events(connection: &mut Connection<'_>, mut head: RequestHead) -> Next {
    let target = Target::parse(&head.target);
    let (version, query) = (target.version, Query::parse(target.query));
    // Before the engine is asked, so that nothing is missed.
    let feed = connection.shared.swarm.events(&query);
    let feed = feed.map(|feed| feed.through(Guise::new(connection.shared.names.clone(), &query)));
    if feed.is_some() {
        query::widen(connection, &mut head);
    }
    connection.forward(&head, Patch::None, version, feed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        let id = "abcdefghijklmnopqrstuvw12";
        assert_eq!(id_in(&format!("skep-{id}")), Some(id));
        assert_eq!(id_in(&format!("0skep-{id}")), Some(id));
        for name in ["skep-", "skep-abc", "skep_net", id] {
            assert_eq!(id_in(name), None, "{name}");
        }
        assert_eq!(id_in(&format!("skep-{id}.2")), Some(id));
        assert!(is_branch(&format!("skep-{id}.2")) && !is_branch(&format!("skep-{id}")));
        for name in ["", ".", ".x", ".1.1"] {
            assert!(!is_branch(&format!("skep-{id}{name}")), "{name}");
        }
        assert_eq!(id_in(&format!("skep-{}", id.to_uppercase())), None);
        assert!(may_mention(br#"{"a":"skep-x"}"#));
        assert!(!may_mention(br#"{"a":"x skep-x"}"#));
    }
}
