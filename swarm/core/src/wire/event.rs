//! From a write to the line of `GET /events` that tells clients of it; also who leads and who
//! answers, which is not in the state. Pure, and remembers nothing.
//!
//! Source of the behaviour: moby `daemon/events.go`, asked of a real engine
//! (`fixtures/wire/events.json`).

use std::collections::BTreeMap;

use skep_api::event::Message;
use skep_api::node::Reachability;

use crate::Timestamp;
use crate::object::{Node, Object, Role, Service};
use crate::store::Event;

type Attributes = BTreeMap<String, String>;

/// What clients are told of a write; `None` for what they are not told of: tasks and the swarm
/// itself. `now` dates a removal, since nothing in the object does.
pub fn event(event: &Event, now: Timestamp) -> Option<Message> {
    let (action, object, before) = match (&event.before, &event.after) {
        (None, Some(after)) => ("create", after, None),
        (Some(before), Some(after)) => ("update", after, Some(before)),
        (Some(before), None) => ("remove", before, None),
        (None, None) => return None,
    };
    let (kind, attributes) = match (object, before) {
        (Object::Node(after), Some(Object::Node(before))) => ("node", node(before, after)),
        (Object::Node(node), _) => ("node", named(node_name(node))),
        (Object::Service(after), Some(Object::Service(before))) => {
            ("service", service(before, after))
        }
        (Object::Service(service), _) => ("service", named(&service.spec.name)),
        (Object::Secret(secret), _) => ("secret", named(&secret.spec.name)),
        (Object::Config(config), _) => ("config", named(&config.spec.name)),
        (Object::Network(network), _) => ("network", named(&network.spec.name)),
        (Object::Cluster(_) | Object::Task(_), _) => return None,
    };
    let meta = object.meta();
    let at = match action {
        "create" => meta.created_at,
        "update" => meta.updated_at,
        _ => now,
    };
    Some(Message::of_swarm(kind, action, object.id(), attributes, at))
}

/// What clients are told when leadership has come to a node or has gone from it.
pub fn leadership(of: &Node, leads: bool, now: Timestamp) -> Message {
    let mut attributes = named(node_name(of));
    let (was, is) = (!leads, leads);
    changed(&mut attributes, "leader", &was.to_string(), &is.to_string());
    Message::of_swarm("node", "update", &of.id, attributes, now)
}

/// What clients are told when a manager does not answer the leader any more, or does again.
pub fn reachability(of: &Node, reachable: bool, now: Timestamp) -> Message {
    let mut attributes = named(node_name(of));
    let word = |reachable| match reachable {
        true => Reachability::Reachable,
        false => Reachability::Unreachable,
    };
    let (was, is) = (word(!reachable), word(reachable));
    changed(&mut attributes, "reachability", was.as_str(), is.as_str());
    Message::of_swarm("node", "update", &of.id, attributes, now)
}

fn named(name: &str) -> Attributes {
    Attributes::from([("name".to_owned(), name.to_owned())])
}

/// The name that the user gave, else the host's.
fn node_name(node: &Node) -> &str {
    let description = node.description.as_ref();
    let hostname = description.map_or("", |description| description.hostname.as_str());
    if node.spec.name.is_empty() {
        hostname
    } else {
        &node.spec.name
    }
}

/// Writes down what has changed, if it has.
fn changed(attributes: &mut Attributes, what: &str, old: &str, new: &str) {
    if old != new {
        attributes.insert(format!("{what}.old"), old.to_owned());
        attributes.insert(format!("{what}.new"), new.to_owned());
    }
}

fn node(before: &Node, after: &Node) -> Attributes {
    let mut attributes = named(node_name(after));
    let role = |node: &Node| match node.role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    };
    let (old, new) = (&before.spec.availability, &after.spec.availability);
    changed(&mut attributes, "availability", old.as_str(), new.as_str());
    changed(&mut attributes, "role", role(before), role(after));
    let (old, new) = (&before.status.state, &after.status.state);
    changed(&mut attributes, "state", old.as_str(), new.as_str());
    attributes
}

fn service(before: &Service, after: &Service) -> Attributes {
    let mut attributes = named(&after.spec.name);
    let image = |service: &Service| {
        let container = service.spec.task_template.container_spec.as_ref();
        container.map(|container| container.image.clone())
    };
    if let (Some(old), Some(new)) = (image(before), image(after)) {
        changed(&mut attributes, "image", &old, &new);
    }
    let replicas = |service: &Service| {
        let replicated = service.spec.mode.replicated.as_ref()?;
        Some(replicated.replicas.unwrap_or(0).to_string())
    };
    if let (Some(old), Some(new)) = (replicas(before), replicas(after)) {
        changed(&mut attributes, "replicas", &old, &new);
    }
    let state = |service: &Service| {
        let status = service.update_status.as_ref();
        status.map(|status| status.state.as_str().to_owned())
    };
    if let Some(new) = state(after) {
        let old = state(before);
        if let Some(old) = &old {
            changed(&mut attributes, "updatestate", old, &new);
        } else {
            attributes.insert("updatestate.new".to_owned(), new);
        }
    }
    attributes
}

#[cfg(test)]
mod tests {

    use serde_json::Value;
    use skep_api::node::NodeDescription;
    use skep_api::service::{ReplicatedService, UpdateStatus};

    use super::*;
    use crate::control::testing::{node as stored_node, service as stored_service};

    /// What a real engine said, by kind: `fixtures/wire/events.json`.
    fn recorded(kind: &str) -> Vec<(String, Message)> {
        let all: Vec<Value> =
            serde_json::from_str(include_str!("../../../../fixtures/wire/events.json")).unwrap();
        let lines = all.iter().filter_map(|entry| entry["line"].as_str());
        let parsed =
            lines.filter_map(|line| Some((line.to_owned(), serde_json::from_str(line).ok()?)));
        parsed
            .filter(|(_, message): &(_, Message)| message.kind == kind)
            .collect()
    }

    fn text(message: &Message, key: &str) -> Option<String> {
        message.actor.attributes.get(key).cloned()
    }

    /// A write that would be told of as it was recorded, from the object before and after it.
    fn write(message: &Message, old: impl Into<Object>, new: impl Into<Object>) -> Event {
        let at = Timestamp::from_nanos(message.time_nano);
        let (mut before, mut after) = (old.into(), new.into());
        for object in [&mut before, &mut after] {
            let meta = object.meta_mut();
            (meta.created_at, meta.updated_at) = (at, at);
        }
        Event {
            before: (message.action != "create").then_some(before),
            after: (message.action != "remove").then_some(after),
        }
    }

    fn check(line: &str, message: &Message, event: &Event) {
        let now = Timestamp::from_nanos(message.time_nano);
        let ours = super::event(event, now).unwrap();
        assert_eq!(serde_json::to_string(&ours).unwrap(), line.trim_end());
    }

    #[test]
    fn nodes_are_told_of_as_by_a_real_engine() {
        let recorded = recorded("node");
        assert!(recorded.len() > 8, "only {} lines", recorded.len());
        for (line, message) in recorded {
            let make = |when: &str| {
                let mut node = stored_node(&message.actor.id, "");
                let hostname = text(&message, "name").unwrap();
                node.description = (!hostname.is_empty()).then(|| NodeDescription {
                    hostname,
                    ..NodeDescription::default()
                });
                let value = |what: &str| text(&message, &format!("{what}.{when}"));
                if let Some(availability) = value("availability") {
                    node.spec.availability = availability.as_str().into();
                }
                if let Some(state) = value("state") {
                    node.status.state = state.as_str().into();
                }
                node.role = match value("role").as_deref() {
                    Some("worker") => Role::Worker,
                    _ => Role::Manager,
                };
                node
            };
            check(&line, &message, &write(&message, make("old"), make("new")));
        }
    }

    #[test]
    fn services_are_told_of_as_by_a_real_engine() {
        let recorded = recorded("service");
        assert!(recorded.len() > 6, "only {} lines", recorded.len());
        for (line, message) in recorded {
            let make = |when: &str| {
                let name = text(&message, "name").unwrap();
                let mut service = stored_service(&message.actor.id, &name);
                let value = |what: &str| text(&message, &format!("{what}.{when}"));
                if let Some(image) = value("image") {
                    let container = &mut service.spec.task_template.container_spec;
                    container.get_or_insert_default().image = image;
                }
                if let Some(replicas) = value("replicas") {
                    let replicas = replicas.parse().ok();
                    service.spec.mode.replicated = Some(ReplicatedService { replicas });
                }
                service.update_status = value("updatestate").map(|state| UpdateStatus {
                    state: state.as_str().into(),
                    ..UpdateStatus::default()
                });
                service
            };
            check(&line, &message, &write(&message, make("old"), make("new")));
        }
    }

    #[test]
    fn what_raft_knows_is_told_as_it_is_documented() {
        let at = Timestamp::from_nanos(1_700_000_000_000_000_001);
        let node = stored_node("n1", "one");
        let told = |message: Message, attributes: &str| {
            let line = format!(
                r#"{{"Type":"node","Action":"update","Actor":{{"ID":"n1","Attributes":{{{attributes}}}}},"scope":"swarm","time":1700000000,"timeNano":1700000000000000001}}"#
            );
            assert_eq!(serde_json::to_string(&message).unwrap(), line);
        };
        told(
            leadership(&node, true, at),
            r#""leader.new":"true","leader.old":"false","name":"one""#,
        );
        told(
            reachability(&node, false, at),
            r#""name":"one","reachability.new":"unreachable","reachability.old":"reachable""#,
        );
        told(
            reachability(&node, true, at),
            r#""name":"one","reachability.new":"reachable","reachability.old":"unreachable""#,
        );
    }
}
