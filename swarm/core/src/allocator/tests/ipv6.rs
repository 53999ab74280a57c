//! Networks with IPv6: everybody has two addresses, and the second follows from the first. Pure.

use skep_api::network::IpamConfig;

use super::*;

fn dual(range: &str, gateway: &str) -> Harness {
    Harness::with("10.7.0.0/28", |network| {
        network.spec.ipv6_enabled = true;
        let config = IpamConfig {
            subnet: "fd00:7::/64".into(),
            range: range.into(),
            gateway: gateway.into(),
        };
        network.ipam.as_mut().unwrap().configs.push(config);
    })
}

impl Harness {
    fn vips(&self, id: &str) -> Vec<String> {
        let endpoint = self.state.services().get(id).unwrap().endpoint.clone();
        let vips = endpoint.unwrap().virtual_ips.into_iter();
        vips.map(|vip| vip.addr).collect()
    }

    fn both(&self, id: &str) -> Vec<String> {
        let task = self.state.tasks().get(id).unwrap();
        let addresses = task.attachments.iter().flat_map(|it| it.addresses());
        addresses.map(|it| it.to_string()).collect()
    }
}

#[test]
fn tasks_and_services_have_two_addresses() {
    let mut swarm = dual("", "fd00:7::1");
    swarm.service("web", &["net"], ResolutionMode::Vip);
    swarm.task("t1", &["net", "host"], "n1");
    swarm.plan();
    assert_eq!(swarm.vips("web"), ["10.7.0.2/28", "fd00:7::2/64"]);
    assert_eq!(swarm.both("t1"), ["10.7.0.3", "fd00:7::3"]);
    let task = swarm.state.tasks().get("t1").unwrap();
    let second = task.attachments.iter().map(|it| it.ipv6);
    let second: Vec<_> = second.map(|it| it.map(|it| it.to_string())).collect();
    assert_eq!(second, [Some("fd00:7::3/64".to_owned()), None]);
    // A service that changes keeps both, and one that goes gives both back.
    let mut service = swarm.state.services().get("web").unwrap().as_ref().clone();
    service.spec.labels.insert("a".into(), "b".into());
    swarm.write(Author::Control, vec![Change::Update(service.into())]);
    swarm.plan();
    assert_eq!(swarm.vips("web"), ["10.7.0.2/28", "fd00:7::2/64"]);
    swarm.remove("web");
    swarm.end("t1");
    swarm.plan();
    assert_eq!(swarm.held(), [] as [String; 0]);
}

#[test]
fn nobody_gets_the_gateway() {
    let mut swarm = dual("fd00:7::a0/124", "fd00:7::a3");
    for number in 0..14 {
        swarm.task(&format!("t{number:02}"), &["net"], "n1");
        swarm.plan();
    }
    let tasks = swarm.state.tasks().iter();
    let all: Vec<String> = tasks.flat_map(|task| swarm.both(&task.id)).collect();
    assert!(all.contains(&"fd00:7::a2".to_owned()) && all.contains(&"10.7.0.14".to_owned()));
    // Twelve are left, of which one is the node's.
    assert_eq!(all.len(), 2 * 11, "{all:?}");
    for gateway in ["10.7.0.1", "10.7.0.3", "fd00:7::a3"] {
        assert!(!all.contains(&gateway.to_owned()), "{gateway}");
    }
}

#[test]
fn the_second_follows_in_every_subnet() {
    for (ipv6, vip, task, gateway) in [
        // A subnet for each, or parts of one.
        (
            "fd00:5::/64 fd00:6::/64",
            "fd00:5::2/64",
            "fd00:6::2",
            "fd00:6::6",
        ),
        ("fd00:5::/64", "fd00:5::2/125", "fd00:5::a", "fd00:5::d"),
    ] {
        let mut swarm = Harness::with("10.5.0.0/29 10.6.0.0/29", |network| {
            network.spec.ipv6_enabled = true;
            let pools = ipv6.split(' ').map(|subnet| IpamConfig {
                subnet: subnet.into(),
                gateway: if subnet == "fd00:6::/64" {
                    "fd00:6::6"
                } else {
                    "fd00:5::d"
                }
                .into(),
                ..IpamConfig::default()
            });
            network.ipam.as_mut().unwrap().configs.extend(pools);
        });
        swarm.service("web", &["net"], ResolutionMode::Vip);
        for number in 1..=8 {
            swarm.task(&format!("t{number}"), &["net"], "n1");
            swarm.plan();
        }
        assert_eq!(swarm.vips("web"), ["10.5.0.2/29", vip]);
        let tasks = swarm.state.tasks().iter();
        let all: Vec<String> = tasks.flat_map(|it| swarm.both(&it.id)).collect();
        let distinct: BTreeSet<&String> = all.iter().collect();
        // Ten but for the node's, the service's and that of the second gateway of IPv6.
        assert_eq!((all.len(), distinct.len()), (14, 14), "{all:?}");
        let at = all.iter().position(|it| it == "10.6.0.2").unwrap();
        assert_eq!(all[at + 1], task);
        assert!(!all.contains(&gateway.to_owned()), "{all:?}");
    }
}
