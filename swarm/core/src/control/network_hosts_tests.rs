//! New networks keep clear of what nodes have themselves. Pure.

use super::*;

#[test]
fn what_nodes_have_themselves_is_avoided_where_it_can_be() {
    let having = |subnets: &[&str]| {
        let mut objects = fresh();
        let mut node = crate::control::testing::node("n1", "n1");
        node.subnets = subnets.iter().map(|it| it.parse().unwrap()).collect();
        objects.push(node.into());
        created(&state(objects), spec("a", ""))
            .unwrap()
            .subnet()
            .unwrap()
            .to_string()
    };
    assert_eq!(having(&["10.0.1.128/25", "172.17.0.0/16"]), "10.0.2.0/24");
    assert_eq!(having(&["10.0.0.0/14"]), "10.4.0.0/24");
    assert_eq!(
        having(&["10.0.0.0/8"]),
        "10.0.1.0/24",
        "there is nothing else"
    );
}

#[test]
fn no_node_is_cut_off() {
    let mut objects = fresh();
    let mut node = crate::control::testing::node("n1", "n1");
    node.status.addr = "10.7.0.5".into();
    node.data_path = "fd00:7::5".parse().ok();
    // There is nothing else, and yet its own address is left alone.
    node.subnets = vec!["10.0.0.0/8".parse().unwrap()];
    objects.push(node.clone().into());
    let view = state(objects);
    let refused = |spec| created(&view, spec).unwrap_err().message;
    for (spec, subnet, address) in [
        (spec("a", "10.7.0.0/24"), "10.7.0.0/24", "10.7.0.5"),
        (
            dual("a", &[("fd00:7::/64", "", "")]),
            "fd00:7::/64",
            "fd00:7::5",
        ),
    ] {
        let host = format!("subnet {subnet} has the address of a node in it (n1, {address})");
        let text = refused(spec);
        assert!(text.contains(&host), "{text}");
    }
    assert!(created(&view, spec("a", "10.7.1.0/24")).is_ok());
    node.status.addr = "10.0.1.9".into();
    let view = state(fresh().into_iter().chain([node.into()]));
    let chosen = created(&view, spec("a", "")).unwrap().subnet().unwrap();
    assert_eq!(chosen.to_string(), "10.0.2.0/24");
}

#[test]
fn what_nodes_have_of_ipv6_is_avoided_too() {
    let having = |subnets: &[&str]| {
        let mut objects = fresh();
        let mut node = crate::control::testing::node("n1", "n1");
        node.subnets6 = subnets.iter().map(|it| it.parse().unwrap()).collect();
        objects.push(node.into());
        let spec = NetworkSpec {
            ipv6_enabled: true,
            ..spec("a", "")
        };
        let network = created(&state(objects), spec).unwrap();
        network.sides()[0].subnet
    };
    let first = having(&[]);
    let own = first.to_string();
    let next = having(&[&own]);
    assert!(!next.overlaps(first), "{next}");
    assert_eq!(having(&["2001:db8::/32"]), first);
    assert_eq!(having(&["fc00::/7"]), first, "there is nothing else");
}
