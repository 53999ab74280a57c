//! What happens to the engine's networks that realise the swarm's, told as the original tells of its
//! overlays: local events with the swarm's id and name and the driver that clients know.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use skep_api::event::Message;
use skep_api::filters::Filters;
use skep_core::network::OVERLAY;

use super::names::Names;
use super::{ById, id_in, is_branch, may_mention};
use crate::rewrite::Object;
use crate::swarm::Query;

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It goes out as it is.
    AsItIs,
    /// It reads otherwise.
    Otherwise(String),
    /// The client did not ask for it.
    NotAtAll,
}

type Outcome = Pin<Box<dyn Future<Output = Told> + Send>>;

/// Puts the lines of one stream of events into the swarm's terms. Names may have to be asked for:
/// one line at a time.
pub(crate) struct Guise {
    names: Names,
    filters: Filters,
    busy: Option<Outcome>,
}

impl Guise {
    /// For a client that asked for this.
    pub(crate) fn new(names: Names, query: &Query) -> Self {
        let filters = query.get("filters").unwrap_or_default();
        Self {
            names,
            // What cannot be read the engine refuses.
            filters: Filters::parse(filters).unwrap_or_default(),
            busy: None,
        }
    }

    /// What becomes of a line. Asked again until it is known, always about the same one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Poll<Told> {
        if self.busy.is_none() {
            if !may_mention(line) {
                return Poll::Ready(Told::AsItIs);
            }
            let Ok(line) = String::from_utf8(line.to_vec()) else {
                return Poll::Ready(Told::AsItIs);
            };
            let (names, filters) = (self.names.clone(), self.filters.clone());
            self.busy = Some(Box::pin(async move {
                let names = names.mentioned(line.as_bytes()).await;
                told(&line, &names, &filters)
            }));
        }
        let Some(busy) = &mut self.busy else {
            return Poll::Ready(Told::AsItIs);
        };
        let told = ready!(busy.as_mut().poll(cx));
        self.busy = None;
        Poll::Ready(told)
    }
}

/// One line. The filter by network was made wider than the client's, so it is looked at again.
fn told(line: &str, names: &ById, filters: &Filters) -> Told {
    if tells_again(line) {
        return Told::NotAtAll;
    }
    let changed = event(line, names);
    let shown = changed.as_deref().unwrap_or(line);
    let Ok(message) = serde_json::from_str::<Message>(shown) else {
        return Told::AsItIs;
    };
    if message.kind == "network" && !message.matches(filters) {
        return Told::NotAtAll;
    }
    changed.map_or(Told::AsItIs, Told::Otherwise)
}

/// Whether it is of a network with several subnets, and was told of the first one already: that it
/// came or went. Who is on it is told of each.
fn tells_again(line: &str) -> bool {
    let Ok(message) = serde_json::from_str::<Message>(line) else {
        return false;
    };
    let name = message.actor.attributes.get("name");
    message.kind == "network"
        && matches!(message.action.as_str(), "create" | "destroy")
        && name.is_some_and(|name| is_branch(name))
}

/// An event of one of ours in the swarm's terms.
fn event(line: &str, names: &ById) -> Option<String> {
    let object = Object::parse(line.trim_end().as_bytes()).ok()?;
    let actor = Object::parse(object.get("Actor")?.get().as_bytes()).ok()?;
    let attributes = Object::parse(actor.get("Attributes")?.get().as_bytes()).ok()?;
    let (kind, name) = (object.get("Type")?.get(), attributes.get("name")?.get());
    if kind != "\"network\"" {
        return None;
    }
    let name: String = serde_json::from_str(name).ok()?;
    let id = id_in(&name)?;
    let name = serde_json::to_string(names.get(id)?).ok()?;
    let (id, driver) = (format!("\"{id}\""), format!("\"{OVERLAY}\""));
    let attributes = attributes.with(&[("name", &name), ("type", &driver)]);
    let actor = actor.with(&[("ID", &id), ("Attributes", attributes.trim_end())]);
    Some(object.with(&[("Actor", actor.trim_end())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "abcdefghijklmnopqrstuvw12";

    fn line(id: &str, name: &str, driver: &str) -> String {
        format!(
            "{{\"Type\":\"network\",\"Action\":\"connect\",\"Actor\":{{\"ID\":\"{id}\",\
             \"Attributes\":{{\"container\":\"c\",\"name\":\"{name}\",\"type\":\"{driver}\"}}}},\
             \"scope\":\"local\",\"time\":1,\"timeNano\":1000000002}}\n"
        )
    }

    fn tell(line: &str, filters: &str) -> Told {
        let names = ById::from([(ID.to_owned(), "front".to_owned())]);
        told(line, &names, &Filters::parse(filters).unwrap())
    }

    #[test]
    fn events_of_ours_are_the_swarms() {
        let engines = line("ff00", &format!("skep-{ID}"), "bridge");
        let ours = || Told::Otherwise(line(ID, "front", "overlay"));
        for filters in ["", r#"{"network":["fro"]}"#, r#"{"network":["abc","x"]}"#] {
            assert_eq!(tell(&engines, filters), ours(), "{filters}");
        }
        for filters in [r#"{"network":["ff00"]}"#, r#"{"network":["skep-"]}"#] {
            assert_eq!(tell(&engines, filters), Told::NotAtAll, "{filters}");
        }
    }

    #[test]
    fn a_network_of_several_subnets_comes_and_goes_once() {
        let engines = line("ff00", &format!("skep-{ID}.1"), "bridge");
        assert_eq!(
            tell(&engines, ""),
            Told::Otherwise(line(ID, "front", "overlay"))
        );
        for action in ["create", "destroy"] {
            let engines = engines.replace("connect", action);
            assert_eq!(tell(&engines, ""), Told::NotAtAll, "{action}");
            let first = engines.replace(".1\"", "\"");
            assert!(matches!(tell(&first, ""), Told::Otherwise(_)), "{action}");
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        let users = line("ff00", "skep-mine", "bridge");
        assert_eq!(tell(&users, ""), Told::AsItIs);
        assert_eq!(tell(&users, r#"{"network":["skep-m"]}"#), Told::AsItIs);
        assert_eq!(tell(&users, r#"{"network":["other"]}"#), Told::NotAtAll);
        let container = users.replace("\"network\"", "\"container\"");
        assert_eq!(tell(&container, r#"{"network":["other"]}"#), Told::AsItIs);
        assert_eq!(tell("no json", ""), Told::AsItIs);
    }
}
