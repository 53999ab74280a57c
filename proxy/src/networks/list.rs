//! `GET /networks`: the swarm's networks and after them the engine's own. A manager lists all of the
//! swarm's, any other node those that it has a part in.

use serde_json::value::RawValue;
use skep_api::filters::Filters;
use skep_core::wire;

use super::{ask, part, patched, text};
use crate::conn::{Connection, Next, Shared};
use crate::guise::Seen;
use crate::route::{Owned, Target};
use crate::swarm::Query;
use crate::wire::RequestHead;

pub(super) async fn list(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    manages: bool,
) -> Next {
    let ours = match manages {
        true => text(ask(connection.shared, head, Owned::NetworkList).await),
        false => here(connection.shared, head).await,
    };
    patched(connection, head, |body| merged(body, ours.as_deref())).await
}

/// The swarm's networks that this node has a part in, as far as the client asked for them.
async fn here(shared: &Shared, head: &RequestHead) -> Option<String> {
    let query = Query::parse(Target::parse(&head.target).query);
    // What cannot be read is the engine's to refuse.
    let filters = Filters::parse(query.get("filters").unwrap_or_default()).ok()?;
    let parts = shared.names.here().await;
    let shown = parts.iter().filter_map(|(_, _, engines)| {
        let shown = part::listed(engines)?;
        let facts: wire::NetworkFacts = serde_json::from_str(&shown).ok()?;
        facts.is_listed(&filters, || false).then_some(shown)
    });
    Some(format!("[{}]", shown.collect::<Vec<_>>().join(",")))
}

/// The swarm's networks, and after them the engine's, without those that realise the swarm's.
fn merged(engine: &[u8], ours: Option<&str>) -> Option<Vec<u8>> {
    let theirs: Vec<&RawValue> = serde_json::from_slice(engine).ok()?;
    let ours: Vec<&RawValue> = serde_json::from_str(ours.unwrap_or("[]")).ok()?;
    let theirs = theirs.into_iter().filter(|it| Seen::of(it.get()).is_none());
    let all: Vec<&str> = ours.into_iter().chain(theirs).map(RawValue::get).collect();
    Some(format!("[{}]\n", all.join(",")).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_merged_and_what_realises_the_swarms_is_left_out() {
        let ours = r#"[{"Name":"front","Id":"n1"}]"#;
        let engines = r#"[{"Name":"bridge","Id":"b","Labels":{}, "Big":1.0},{"Name":"skep-n1","Id":"e","Labels":{"skep.network":"n1","skep.network.name":"front"}},{"Name":"mine","Id":"m","Labels":null}]"#;
        let expected = "[{\"Name\":\"front\",\"Id\":\"n1\"},\
            {\"Name\":\"bridge\",\"Id\":\"b\",\"Labels\":{}, \"Big\":1.0},\
            {\"Name\":\"mine\",\"Id\":\"m\",\"Labels\":null}]\n";
        let list = merged(engines.as_bytes(), Some(ours)).unwrap();
        assert_eq!(String::from_utf8(list).unwrap(), expected);
        assert_eq!(merged(b"[]", None).unwrap(), b"[]\n");
        assert_eq!(merged(b"{}", Some(ours)), None);
        assert_eq!(merged(b"x", None), None);
    }
}
