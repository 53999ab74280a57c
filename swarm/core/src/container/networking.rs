//! The networks of a task's container. The first is its engine's to attach it to when it makes the
//! container; engines before API 1.44 take no more than one then, so the others follow. Addresses
//! are the swarm's choice, never an engine's. Sets no aliases: an engine would answer them for the
//! containers of this host alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::Body;
use crate::network::mac;
use crate::object::{Attachment, Place, Task};

/// The priority of the network that is a container's way out; that of others is 0.
const GATEWAY: i32 = 100;

/// Puts the container on its first network.
pub(super) fn attach(task: &Task, body: &mut Body, host: &mut Body) {
    let Some(first) = first(task) else { return };
    let name = called(task, first);
    if let Some((name, endpoint)) = endpoint(task, first) {
        let mut endpoints = Body::default();
        endpoints.set(&name, endpoint);
        body.set(
            "NetworkingConfig",
            json!({ "EndpointsConfig": endpoints.done() }),
        );
    }
    host.set("NetworkMode", name);
}

/// The other networks: what the engine calls them, and the `EndpointConfig` of the container there.
pub fn further_networks(task: &Task) -> Vec<(String, Value)> {
    let first = first(task);
    let others = task.attachments.iter().filter(|it| Some(*it) != first);
    others.filter_map(|it| endpoint(task, it)).collect()
}

/// The first, or whichever is the engine's own: a container cannot be connected with the host's
/// network later.
fn first(task: &Task) -> Option<&Attachment> {
    let mut all = task.attachments.iter();
    let own = all.find(|it| !it.is_made_here());
    own.or(task.attachments.first())
}

/// What the engine calls one of the task's networks.
fn called(task: &Task, attachment: &Attachment) -> String {
    attachment.engine_name(is_ingress(task, attachment))
}

/// Whether the task's published ports are on the network. It has to be the container's way out: on
/// any other, answers would not go back the way that requests came.
fn is_ingress(task: &Task, attachment: &Attachment) -> bool {
    task.publishes() && task.attachments.first() == Some(attachment)
}

/// The addresses that an engine is to give a container on a network.
pub fn ipam_config(ipv4: Ipv4Addr, ipv6: Option<Ipv6Addr>) -> Value {
    match ipv6 {
        None => json!({ "IPv4Address": ipv4 }),
        Some(ipv6) => json!({ "IPv4Address": ipv4, "IPv6Address": ipv6 }),
    }
}

fn endpoint(task: &Task, attachment: &Attachment) -> Option<(String, Value)> {
    let address = match &attachment.place {
        Place::Address(cidr) => cidr.address,
        // Its address there is the engine's to choose.
        Place::Engine(name) if attachment.is_made_here() => {
            return Some((name.clone(), json!({ "IPAMConfig": {} })));
        }
        Place::Engine(_) => return None,
    };
    let mut config = Body::default();
    let ipv6 = attachment.ipv6.map(|it| it.address);
    config.set("IPAMConfig", ipam_config(address, ipv6));
    // Engines from 28 on, and podman, would draw one.
    config.set("MacAddress", mac(address));
    if is_ingress(task, attachment) {
        // What its name says to older engines.
        config.set("GwPriority", GATEWAY);
    }
    Some((called(task, attachment), config.done()))
}

#[cfg(test)]
mod tests {
    use skep_api::network::{EndpointSpec, PortConfig, PublishMode};

    use super::*;
    use crate::container::create_body;
    use crate::testing::{node, task};

    fn on(places: &[(&str, &str)]) -> Task {
        let place = |text: &str| match text.parse() {
            Ok(cidr) => Place::Address(cidr),
            Err(_) => Place::Engine(text.to_owned()),
        };
        let mut task = task("t", "web", 1);
        let attachments = places.iter().map(|(network, text)| Attachment {
            network: (*network).into(),
            place: place(text),
            ipv6: None,
            branch: 0,
        });
        task.attachments = attachments.collect();
        task
    }

    fn body(task: &Task) -> (Value, Value) {
        let body = create_body(task, &node("n1")).unwrap();
        (
            body["HostConfig"]["NetworkMode"].clone(),
            body["NetworkingConfig"].clone(),
        )
    }

    #[test]
    fn the_first_network_is_the_containers_and_the_others_follow() {
        let task = on(&[("a", "10.0.1.5/24"), ("b", "10.0.2.255/23")]);
        let endpoints = json!({ "EndpointsConfig": { "skep-a": {
            "IPAMConfig": { "IPv4Address": "10.0.1.5" }, "MacAddress": "02:42:0a:00:01:05",
        } } });
        assert_eq!(body(&task), (json!("skep-a"), endpoints));
        let others = further_networks(&task);
        let config = json!({
            "IPAMConfig": { "IPv4Address": "10.0.2.255" }, "MacAddress": "02:42:0a:00:02:ff",
        });
        assert_eq!(others, [("skep-b".to_owned(), config)]);
    }

    #[test]
    fn an_address_of_ipv6_comes_beside() {
        let mut task = on(&[("a", "10.0.1.5/24")]);
        task.attachments[0].ipv6 = "fd00:1::5/64".parse().ok();
        let config = json!({
            "IPAMConfig": { "IPv4Address": "10.0.1.5", "IPv6Address": "fd00:1::5" },
            "MacAddress": "02:42:0a:00:01:05",
        });
        assert_eq!(body(&task).1["EndpointsConfig"]["skep-a"], config);
    }

    #[test]
    fn each_subnet_is_a_network_of_the_engines() {
        let mut task = on(&[("a", "10.0.1.5/24"), ("b", "10.6.0.5/24")]);
        for attachment in &mut task.attachments {
            attachment.branch = 1;
        }
        assert_eq!(body(&task).0, json!("skep-a.1"));
        assert_eq!(further_networks(&task)[0].0, "skep-b.1");
    }

    #[test]
    fn published_ports_make_their_network_the_way_out() {
        let mut task = on(&[("i", "10.0.0.5/24"), ("a", "10.0.1.5/24")]);
        task.endpoint = Some(EndpointSpec {
            ports: vec![PortConfig::default()],
            ..EndpointSpec::default()
        });
        let endpoints = json!({ "EndpointsConfig": { "0skep-i": {
            "IPAMConfig": { "IPv4Address": "10.0.0.5" }, "MacAddress": "02:42:0a:00:00:05",
            "GwPriority": 100,
        } } });
        assert_eq!(body(&task), (json!("0skep-i"), endpoints));
        let others = further_networks(&task);
        assert_eq!(others[0].0, "skep-a");
        assert_eq!(others[0].1.get("GwPriority"), None);
        for port in &mut task.endpoint.as_mut().unwrap().ports {
            port.publish_mode = PublishMode::Host;
        }
        assert_eq!(body(&task).0, json!("skep-i"));
    }

    #[test]
    fn where_engines_choose_nothing_is_asked_for() {
        let task = on(&[("a", "10.0.1.5/24"), ("l", "skep-l")]);
        assert_eq!(body(&task).0, json!("skep-a"));
        assert_eq!(
            further_networks(&task),
            [("skep-l".to_owned(), json!({ "IPAMConfig": {} }))]
        );
        let task = on(&[("l", "skep-l"), ("m", "skep-m")]);
        assert_eq!(body(&task).0, json!("skep-l"));
        assert_eq!(
            further_networks(&task),
            [("skep-m".to_owned(), json!({ "IPAMConfig": {} }))]
        );
        let task = on(&[("l", "skep-l"), ("h", "host")]);
        assert_eq!(body(&task).0, json!("host"));
    }

    #[test]
    fn an_engines_own_network_comes_first() {
        let task = on(&[("h", "host")]);
        assert_eq!(body(&task), (json!("host"), Value::Null));
        assert_eq!(further_networks(&task), []);
        let task = on(&[("a", "10.0.1.5/24"), ("b", "bridge")]);
        assert_eq!(body(&task).0, json!("bridge"));
        assert_eq!(further_networks(&task).len(), 1);
        assert_eq!(body(&on(&[])), (Value::Null, Value::Null));
    }
}
