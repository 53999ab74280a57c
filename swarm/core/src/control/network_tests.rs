//! Networks are created and removed, and the refusals are the original's. Pure.

use skep_api::Kind as ErrorKind;
use skep_api::network::{
    EndpointSpec, IpamConfig, IpamOptions, NetworkAttachmentConfig, NetworkSpec, PortConfig,
};

use super::*;
use crate::command::Command;
use crate::control::testing::{cluster, run, service, state, task};
use crate::id::CountingIds;
use crate::network::first_networks;
use crate::object::{Attachment, Object, Place};

#[path = "network_hosts_tests.rs"]
mod hosts;

fn spec(name: &str, subnet: &str) -> NetworkSpec {
    let config = IpamConfig {
        subnet: subnet.into(),
        ..IpamConfig::default()
    };
    NetworkSpec {
        name: name.into(),
        ipam_options: (!subnet.is_empty()).then(|| IpamOptions {
            configs: vec![config],
            ..IpamOptions::default()
        }),
        ..NetworkSpec::default()
    }
}

/// A swarm as it begins, with ids of one letter for its networks.
fn fresh() -> Vec<Object> {
    let subnet = "10.0.0.0/24".parse().ok();
    let networks = first_networks(subnet, &mut CountingIds::default());
    let named = networks
        .into_iter()
        .zip(["i", "b", "h"])
        .map(|(mut it, id)| {
            it.id = id.into();
            Object::from(it)
        });
    let mut all = vec![cluster().into()];
    all.extend(named);
    all
}

fn created(view: &State, spec: NetworkSpec) -> Result<NetworkObject, Error> {
    let command = Command::CreateNetwork {
        spec: Box::new(spec),
    };
    let (changes, ..) = run(view, &command)?;
    match changes.as_slice() {
        [Change::Create(Object::Network(network))] => Ok(network.as_ref().clone()),
        other => panic!("{other:?}"),
    }
}

fn removal(view: &State, id: &str) -> Option<(ErrorKind, String)> {
    let result = run(view, &Command::RemoveNetwork { id: id.into() });
    result.err().map(|error| (error.kind, error.message))
}

#[test]
fn each_gets_a_subnet_and_a_vxlan_id_of_its_own() {
    let mut objects = fresh();
    for (name, asked, subnet, gateway, vni) in [
        ("a", "", "10.0.1.0/24", "10.0.1.1", 4097),
        ("b", "10.0.2.7/23", "10.0.2.0/23", "10.0.2.1", 4098),
        ("c", "", "10.0.4.0/24", "10.0.4.1", 4100),
        ("d", "172.30.0.0/24", "172.30.0.0/24", "172.30.0.1", 4099),
    ] {
        let mut network = created(&state(objects.clone()), spec(name, asked)).unwrap();
        assert_eq!(network.subnet().unwrap().to_string(), subnet);
        assert_eq!(
            network.pools().next().unwrap().gateway.unwrap().to_string(),
            gateway
        );
        assert_eq!(network.vni(), Some(vni));
        network.id = name.to_uppercase().as_str().into();
        objects.push(network.into());
    }
}

#[test]
fn what_engines_make_is_given_nothing() {
    let asked = NetworkSpec {
        driver_configuration: Some(driver("macvlan", [("a".into(), "b".into())].into())),
        ..spec("m", "10.0.1.0/24")
    };
    let network = created(&state(fresh()), asked).unwrap();
    assert_eq!((network.subnet(), network.vni()), (None, None));
    let shown = serde_json::to_value(crate::wire::network(&network)).unwrap();
    assert_eq!(shown["Driver"], "macvlan");
    assert_eq!(shown["Options"], serde_json::Value::Null);
    let nothing = serde_json::json!({"Driver": "", "Options": null, "Config": []});
    assert_eq!(shown["IPAM"], nothing);
}

#[test]
fn what_nodes_still_have_of_a_removed_network_is_not_given_out() {
    let mut objects = fresh();
    let mut node = crate::control::testing::node("n1", "n1");
    node.gateways = [("gone".into(), "10.0.1.4".parse().unwrap())].into();
    objects.push(node.into());
    let network = created(&state(objects), spec("a", "")).unwrap();
    assert_eq!(network.subnet().unwrap().to_string(), "10.0.2.0/24");
    assert_eq!(network.vni(), Some(4098));
}

/// A network of several subnets.
fn several(name: &str, subnets: &[&str], vnis: &str) -> NetworkSpec {
    let configs = subnets.iter().map(|subnet| IpamConfig {
        subnet: (*subnet).into(),
        ..IpamConfig::default()
    });
    let vnis = (!vnis.is_empty()).then(|| (VNI_OPTION.to_owned(), vnis.to_owned()));
    NetworkSpec {
        ipam_options: Some(IpamOptions {
            configs: configs.collect(),
            ..IpamOptions::default()
        }),
        driver_configuration: Some(driver(OVERLAY, vnis.into_iter().collect())),
        ..spec(name, "")
    }
}

#[test]
fn each_of_several_subnets_has_a_vxlan_id() {
    let view = state(fresh());
    let table = [
        ("", "4097,4098"),
        ("5000", "5000,4098"),
        ("5000,5001", "5000,5001"),
        ("5000,5001,5002", "5000,5001"),
    ];
    for (asked, expected) in table {
        let spec = several("n", &["10.0.1.0/24", "10.0.2.7/24"], asked);
        let network = created(&view, spec).unwrap();
        let options = &network.driver_state.as_ref().unwrap().options;
        assert_eq!(options[VNI_OPTION], expected, "{asked}");
        let pools = network
            .pools()
            .map(|it| (it.subnet.to_string(), it.gateway));
        let expected = [
            ("10.0.1.0/24".to_owned(), Some([10, 0, 1, 1].into())),
            ("10.0.2.0/24".to_owned(), Some([10, 0, 2, 1].into())),
        ];
        assert_eq!(pools.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn subnets_and_ids_of_one_network_are_not_the_same_either() {
    let mut objects = fresh();
    let view = state(objects.clone());
    let refused = |view: &State, subnets: &[&str], vnis: &str| {
        let refused = created(view, several("n", subnets, vnis)).unwrap_err();
        refused.message.rsplit(" = ").next().unwrap().to_owned()
    };
    for other in ["10.5.0.0/24", "10.5.0.128/25", "10.5.0.9/16"] {
        assert_eq!(refused(&view, &["10.5.0.0/24", other], ""), OVERLAPS);
    }
    let two = ["10.5.0.0/24", "10.6.0.0/24"];
    assert_eq!(
        refused(&view, &two, "5000,5000"),
        "VXLAN id 5000 is asked for twice"
    );
    assert_eq!(
        refused(&view, &two, "5000,4096"),
        "VXLAN id 4096 is that of network ingress"
    );
    // The second one's are its own, too.
    let mut network = created(&view, several("two", &two, "5000,5001")).unwrap();
    network.id = "two".into();
    objects.push(network.into());
    let view = state(objects);
    assert_eq!(refused(&view, &["10.6.0.128/25"], ""), OVERLAPS);
    assert_eq!(
        refused(&view, &["10.7.0.0/24"], "5001"),
        "VXLAN id 5001 is that of network two"
    );
}

#[test]
fn what_is_taken_is_refused() {
    let view = state(fresh());
    let refused = |spec| created(&view, spec).unwrap_err().message;
    let rpc = |code: &str, text: &str| format!("rpc error: code = {code} desc = {text}");
    assert_eq!(
        refused(spec("Ingress", "")),
        rpc("AlreadyExists", "network Ingress already exists")
    );
    assert_eq!(
        refused(NetworkSpec {
            ingress: true,
            ..spec("x", "")
        }),
        rpc("AlreadyExists", "ingress network (i) is already present")
    );
    assert_eq!(
        refused(spec("x", "10.0.0.128/25")),
        rpc(
            "FailedPrecondition",
            "invalid pool request: Pool overlaps with other one on this address space"
        )
    );
}

/// A network with IPv6, and these subnets.
fn dual(name: &str, pools: &[(&str, &str, &str)]) -> NetworkSpec {
    let configs = pools.iter().map(|(subnet, range, gateway)| IpamConfig {
        subnet: (*subnet).into(),
        range: (*range).into(),
        gateway: (*gateway).into(),
    });
    NetworkSpec {
        ipv6_enabled: true,
        ipam_options: Some(IpamOptions {
            configs: configs.collect(),
            ..IpamOptions::default()
        }),
        ..spec(name, "")
    }
}

#[test]
fn ipv6_comes_beside_ipv4() {
    let view = state(fresh());
    let asked = [("fd00:7::9/64", "", ""), ("10.7.0.0/24", "", "10.7.0.9")];
    let network = created(&view, dual("a", &asked)).unwrap();
    let pools = network.ipam.as_ref().unwrap().configs.clone();
    let pools: Vec<_> = pools
        .into_iter()
        .map(|it| (it.subnet, it.gateway))
        .collect();
    let pool = |subnet: &str, gateway: &str| (subnet.to_owned(), gateway.to_owned());
    let expected = [
        pool("10.7.0.0/24", "10.7.0.9"),
        pool("fd00:7::/64", "fd00:7::1"),
    ];
    assert_eq!(pools, expected);
    let side = network.sides()[0];
    assert_eq!(side.first.to_string(), "fd00:7::");
    assert_eq!(network.subnet(), Some(side.of));

    // Where only one of them is named the other is chosen.
    let asked = [("fd00:8::/64", "fd00:8::1:0/112", "fd00:8::7")];
    let network = created(&view, dual("a", &asked)).unwrap();
    assert_eq!(network.subnet().unwrap().to_string(), "10.0.1.0/24");
    assert_eq!(network.sides()[0].first.to_string(), "fd00:8::1:0");
    assert_eq!(
        network.ipv6_gateways().next().unwrap().to_string(),
        "fd00:8::7"
    );
    let mut first = created(&view, dual("a", &[])).unwrap();
    let own = first.sides()[0].subnet.to_string();
    assert!(
        own.starts_with("fd") && own.ends_with(":1001::/64"),
        "{own}"
    );
    first.id = "f".into();
    let plain = created(&view, spec("a", "")).unwrap();
    assert_eq!(plain.sides(), []);

    let mut all = fresh();
    all.push(first.into());
    let view = state(all);
    let refused = |spec| created(&view, spec).unwrap_err().message;
    let text = refused(dual("b", &[(own.as_str(), "", "")]));
    assert!(text.ends_with("Pool overlaps with other one on this address space"));
    for (subnet, range, expected) in [
        ("fd00:7::/121", "", "subnet fd00:7::/121"),
        ("fd00:7::/64", "fd00:7::/124", "range fd00:7::/124"),
    ] {
        let text = refused(dual("b", &[("10.7.0.0/24", "", ""), (subnet, range, "")]));
        let expected = format!("{expected} has less room than subnet 10.7.0.0/24");
        assert!(text.ends_with(&expected), "{text}");
    }
}

#[test]
fn several_of_both_kinds_are_paired() {
    let view = state(fresh());
    let pools = |network: &NetworkObject| {
        let pools = network.ipam.as_ref().unwrap().configs.clone().into_iter();
        let both = pools.map(|it| format!("{} {}", it.subnet, it.gateway));
        both.collect::<Vec<_>>()
    };
    let sides = |network: &NetworkObject| {
        let sides = network.sides().into_iter();
        let both = sides.map(|it| format!("{} {}", it.of, it.subnet));
        both.collect::<Vec<_>>()
    };
    let asked = [
        ("fd00:1::/64", "", ""),
        ("10.1.0.0/24", "", ""),
        ("fd00:2::/64", "", "fd00:2::7"),
        ("10.2.0.0/24", "", "10.2.0.9"),
        ("fd00:3::/64", "", ""),
    ];
    let network = created(&view, dual("n", &asked)).unwrap();
    let expected = [
        "10.1.0.0/24 10.1.0.1",
        "10.2.0.0/24 10.2.0.9",
        "fd00:1::/64 fd00:1::1",
        "fd00:2::/64 fd00:2::7",
        "fd00:3::/64 fd00:3::1",
    ];
    assert_eq!(pools(&network), expected);
    let expected = ["10.1.0.0/24 fd00:1::/64", "10.2.0.0/24 fd00:2::/64"];
    assert_eq!(sides(&network), expected);
    let gateways = network.ipv6_gateways().count();
    assert_eq!((network.subnets6().count(), gateways), (3, 3));

    // That of the swarm's own is one for all.
    let asked = [("10.1.0.0/24", "", ""), ("10.2.0.0/24", "", "")];
    let own = created(&view, dual("o", &asked)).unwrap();
    assert_eq!((pools(&own).len(), own.sides().len()), (3, 2));
    assert!(sides(&own)[1].ends_with("::100/120"), "{:?}", sides(&own));

    let mut all = fresh();
    all.push(
        NetworkObject {
            id: "n".into(),
            ..network
        }
        .into(),
    );
    let view = state(all);
    let refused = |pools: &[(&str, &str, &str)]| {
        let asked = [&[("10.7.0.0/24", "", ""), ("10.8.0.0/24", "", "")], pools].concat();
        created(&view, dual("b", &asked)).unwrap_err().message
    };
    // One that nobody has an address of is its own all the same.
    for other in ["fd00:1::/64", "fd00:2::5:0/112", "fd00:3::/120"] {
        let text = refused(&[("fd00:8::/64", "", ""), (other, "", "")]);
        assert!(text.ends_with(OVERLAPS), "{other}: {text}");
    }
    let text = refused(&[("fd00:8::/64", "", ""), ("fd00:8::/80", "", "")]);
    assert!(text.ends_with(OVERLAPS), "{text}");
    let text = refused(&[("fd00:8::/120", "", "")]);
    let expected = "no IPv6 subnet has room left for subnet 10.8.0.0/24";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn what_is_used_is_not_removed() {
    let mut web = service("s", "web");
    web.spec.task_template.networks = vec![NetworkAttachmentConfig {
        target: "n".into(),
        ..NetworkAttachmentConfig::default()
    }];
    let mut network = created(&state(fresh()), spec("n", "")).unwrap();
    network.id = "n".into();
    let mut running = task("t", &web, 1, "node");
    running.attachments = vec![Attachment {
        network: "n".into(),
        place: Place::Address("10.0.1.2/24".parse().unwrap()),
        ipv6: None,
        branch: 0,
    }];
    let mut ended = running.clone();
    ended.status.state = TaskState::Shutdown;
    let refused = |text: &str| {
        let text = format!("rpc error: code = FailedPrecondition desc = {text}");
        Some((ErrorKind::InvalidParameter, text))
    };
    let with = |more: Vec<Object>| {
        let mut all = fresh();
        all.push(network.clone().into());
        all.extend(more);
        state(all)
    };
    let in_use = "network n is in use by service s";
    assert_eq!(removal(&with(vec![web.into()]), "n"), refused(in_use));
    let in_use = "network n is in use by task t";
    assert_eq!(removal(&with(vec![running.into()]), "n"), refused(in_use));
    assert_eq!(removal(&with(vec![ended.into()]), "n"), None);
    let predefined = "network h (host) is a swarm predefined network and cannot be removed";
    assert_eq!(removal(&with(Vec::new()), "h"), refused(predefined));
    let gone = "rpc error: code = NotFound desc = network x not found".to_owned();
    assert_eq!(
        removal(&with(Vec::new()), "x"),
        Some((ErrorKind::NotFound, gone))
    );

    let mut published = service("p", "p");
    published.spec.endpoint_spec = Some(EndpointSpec {
        ports: vec![PortConfig::default()],
        ..EndpointSpec::default()
    });
    let needed = "ingress network cannot be removed because service p depends on it";
    assert_eq!(removal(&with(vec![published.into()]), "i"), refused(needed));
    assert_eq!(removal(&with(Vec::new()), "i"), None);
}
