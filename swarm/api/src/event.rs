//! Messages of `GET /events` and the filters on them. Never decides what is worth a message.
//!
//! Source of the behaviour: moby `daemon/events/filter.go`, asked of a real engine
//! (`fixtures/wire/events.json`).

use std::collections::BTreeMap;

use crate::filters::Filters;
use crate::go::Timestamp;

wire! {
    /// What a message is about.
    pub struct Actor {
        id: String = "ID",
        /// `name` and what has changed, as `<attribute>.old` and `<attribute>.new`.
        attributes: BTreeMap<String, String> = "Attributes",
    }

    /// One line of `GET /events`.
    pub struct Message {
        kind: String = "Type",
        action: String = "Action",
        actor: Actor = "Actor",
        scope: String = "scope",
        /// In seconds.
        time: i64 = "time",
        /// In nanoseconds.
        time_nano: i64 = "timeNano",
    }
}

/// The scope of everything that happens to the cluster.
pub const SCOPE_SWARM: &str = "swarm";

/// Kinds of things by which events are filtered: a term is the beginning of an id or of a name.
/// Of which kind the thing really is does not matter to the original.
const NAMED: [&str; 9] = [
    "daemon",
    "container",
    "plugin",
    "volume",
    "network",
    "node",
    "service",
    "secret",
    "config",
];

/// Actions that the original compares by their beginnings, since the engine adds to them.
const OPEN_ENDED: [&str; 3] = ["health_status", "exec_create", "exec_start"];

impl Message {
    /// Something that happened to the cluster.
    pub fn of_swarm(
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        at: Timestamp,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes,
            },
            scope: SCOPE_SWARM.to_owned(),
            time: at.nanos().div_euclid(1_000_000_000),
            time_nano: at.nanos(),
        }
    }

    /// Whether a client that sent these filters wants to see it. Keys that are not known filter
    /// nothing, as in the original.
    pub fn matches(&self, filters: &Filters) -> bool {
        self.matches_event(filters)
            && filters.matches_exact("type", &self.kind)
            && filters.matches_exact("scope", &self.scope)
            && NAMED.iter().all(|key| self.matches_named(filters, key))
            && self.matches_image(filters)
            && filters.matches_labels("label", &self.actor.attributes)
    }

    fn matches_event(&self, filters: &Filters) -> bool {
        if filters.get("event").any(|term| OPEN_ENDED.contains(&term)) {
            return filters.matches_prefix("event", &self.action);
        }
        filters.matches_exact("event", &self.action)
    }

    fn matches_named(&self, filters: &Filters, key: &str) -> bool {
        let name = self.actor.attributes.get("name").map_or("", String::as_str);
        filters.matches_prefix(key, &self.actor.id) || filters.matches_prefix(key, name)
    }

    /// No image happens to the cluster, but an id may be the one that was asked for.
    fn matches_image(&self, filters: &Filters) -> bool {
        filters.matches_exact("image", &self.actor.id) || filters.matches_exact("image", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained() -> Message {
        let attributes = [
            ("name", "n1"),
            ("availability.old", "active"),
            ("availability.new", "drain"),
        ];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let at = Timestamp::from_nanos(1_700_000_000_123_456_789);
        Message::of_swarm("node", "update", "abc1", attributes.into(), at)
    }

    #[test]
    fn lines_are_the_originals() {
        assert_eq!(
            serde_json::to_string(&drained()).unwrap(),
            r#"{"Type":"node","Action":"update","Actor":{"ID":"abc1","Attributes":{"availability.new":"drain","availability.old":"active","name":"n1"}},"scope":"swarm","time":1700000000,"timeNano":1700000000123456789}"#
        );
    }

    #[test]
    fn filters() {
        for (text, wanted) in [
            ("{}", true),
            (r#"{"type":["node"]}"#, true),
            (r#"{"type":["service"]}"#, false),
            (r#"{"scope":["swarm"],"event":["update","create"]}"#, true),
            (r#"{"scope":["local"]}"#, false),
            (r#"{"event":["upd"]}"#, false),
            (r#"{"event":["exec_create","upd"]}"#, true),
            (r#"{"node":["n"]}"#, true),
            (r#"{"node":["abc"]}"#, true),
            (r#"{"node":["1"]}"#, false),
            (r#"{"container":["n1"]}"#, true),
            (r#"{"container":["web"]}"#, false),
            (r#"{"image":["n1"]}"#, false),
            (r#"{"label":["name=n1","availability.new"]}"#, true),
            (r#"{"label":["name=n1","role.new"]}"#, false),
            (r#"{"label":["name="]}"#, false),
            (r#"{"unheard-of":["x"]}"#, true),
        ] {
            let filters = Filters::parse(text).unwrap();
            assert_eq!(drained().matches(&filters), wanted, "{text}");
        }
    }
}
