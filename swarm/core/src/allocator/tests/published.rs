//! Published ports: the network that they are on, and who gets which port. Pure.

use super::*;

#[test]
fn what_is_published_has_a_network_of_its_own_on_every_node() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.service("quiet", &["net"], ResolutionMode::Vip);
    swarm.plan();
    assert_eq!(swarm.everywhere(), [] as [&str; 0]);
    swarm.publish("web", &[OPEN]);
    swarm.task_of("t1", "web", &["net"], "n1");
    swarm.plan();
    assert_eq!(swarm.published("web"), [30_000]);
    let endpoint = swarm.state.services().get("web").unwrap().endpoint.clone();
    let vips = endpoint.unwrap().virtual_ips.into_iter();
    let vips: Vec<String> = vips
        .map(|vip| format!("{} {}", vip.network_id, vip.addr))
        .collect();
    assert_eq!(vips, ["ingress 10.0.0.2/28", "net 10.0.1.3/24"]);
    assert_eq!(swarm.addresses("t1"), ["10.0.0.5/28", "10.0.1.4/24"]);
    assert_eq!(swarm.everywhere(), ["n1", "n2"]);
    // A node that joins later has a part in it, too.
    swarm.write(Author::Ca, vec![Change::Create(node("n3", "n3").into())]);
    swarm.plan();
    assert_eq!(swarm.everywhere(), ["n1", "n2", "n3"]);
    // Who still has a task keeps it.
    swarm.remove("web");
    swarm.plan();
    assert_eq!(swarm.everywhere(), ["n1"]);
    swarm.end("t1");
    swarm.plan();
    assert_eq!(swarm.everywhere(), [] as [&str; 0]);
}

#[test]
fn a_service_begins_and_ceases_to_publish() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.publish("web", &[]);
    swarm.plan();
    let change = |swarm: &mut Harness, ports: &[PortConfig]| {
        let mut service = swarm.state.services().get("web").unwrap().as_ref().clone();
        service.spec.endpoint_spec.as_mut().unwrap().ports = ports.to_vec();
        swarm.write(Author::Control, vec![Change::Update(service.into())]);
        swarm.plan();
        let endpoint = swarm.state.services().get("web").unwrap().endpoint.clone();
        let networks = endpoint.unwrap().virtual_ips.into_iter();
        networks.map(|vip| vip.network_id).collect::<Vec<_>>()
    };
    // Addresses that it has keep their place.
    assert_eq!(change(&mut swarm, &[OPEN]), ["net", "ingress"]);
    assert_eq!(swarm.published("web"), [30_000]);
    let fixed = PortConfig {
        published_port: 8080,
        ..OPEN
    };
    assert_eq!(change(&mut swarm, &[fixed, OPEN]), ["net", "ingress"]);
    assert_eq!(swarm.published("web"), [8080, 30_000]);
    assert_eq!(change(&mut swarm, &[]), ["net"]);
    assert_eq!(swarm.published("web"), [] as [u32; 0]);
    assert_eq!(swarm.everywhere(), [] as [&str; 0]);
}

#[test]
fn a_task_waits_for_a_port_and_says_so() {
    let mut swarm = Harness::new("10.0.1.0/24");
    let ports: Vec<PortConfig> = (30_000..=32_767)
        .map(|published_port| PortConfig {
            published_port,
            ..OPEN
        })
        .collect();
    swarm.publish("all", &ports);
    swarm.publish("web", &[OPEN]);
    swarm.task_of("t1", "web", &["net"], "n1");
    swarm.plan();
    let why = "no port is left to publish between 30000 and 32767".to_owned();
    assert_eq!(swarm.err("t1"), (TaskState::New, why));
    swarm.remove("all");
    swarm.plan();
    assert_eq!(swarm.err("t1"), (TaskState::Pending, String::new()));
    assert_eq!(swarm.published("web"), [30_000]);
}

#[test]
fn another_network_takes_the_place_of_the_one_for_ports() {
    let mut swarm = Harness::new("10.0.1.0/24");
    let ingress = swarm
        .state
        .networks()
        .get("ingress")
        .unwrap()
        .as_ref()
        .clone();
    let removal = Change::Remove(Kind::Network, "ingress".into(), ingress.meta.version);
    swarm.write(Author::Control, vec![removal]);
    let other = NetworkObject {
        id: "other".into(),
        ipam: Some(addressing([pool("10.7.0.0/16".parse().unwrap(), "", None)])),
        ..ingress
    };
    swarm.write(Author::Control, vec![Change::Create(other.into())]);
    swarm.publish("web", &[OPEN]);
    swarm.plan();
    assert_eq!(swarm.vip("web").as_deref(), Some("10.7.0.2/16"));
    let nodes = swarm.state.nodes().iter();
    let gateways = nodes.filter(|node| node.gateways.contains_key("other"));
    assert_eq!(gateways.count(), 2);
}
