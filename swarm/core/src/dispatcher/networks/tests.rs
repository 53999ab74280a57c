//! Who is told what of networks, against a store that commits at once.

use skep_api::network::{IpamConfig, NetworkSpec};
use skep_api::task::TaskState;

use crate::assignment::{Assignments, Branch, ToAgent};
use crate::cidr::Cidr;
use crate::dispatcher::tests::Bench;
use crate::id::Id;
use crate::ipv6::{Cidr6, Ipv6};
use crate::network::{VNI_OPTION, addressing, driver, pool};
use crate::object::{Attachment, Meta, NetworkObject, Object, Place};
use crate::store::{Author, Change};
use crate::testing;

/// Three nodes, of which two have a task each on the network.
pub(in crate::dispatcher) fn bench() -> Bench {
    let mut bench = Bench::new(&["n1", "n2", "n3"]);
    let options = [(VNI_OPTION.to_owned(), "4097".to_owned())].into();
    let network = NetworkObject {
        id: "net".into(),
        meta: Meta::default(),
        spec: NetworkSpec::default(),
        driver_state: Some(driver("overlay", options)),
        ipam: Some(addressing([pool("10.0.1.0/24".parse().unwrap(), "", None)])),
        keys: Vec::new(),
    };
    bench.write(Author::Control, vec![Change::Create(network.into())]);
    for (number, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
        edit(&mut bench, node, |it| {
            it.status.addr = format!("192.0.2.{}", number + 1)
        });
    }
    place(&mut bench, "t1", "n1", 11);
    place(&mut bench, "t2", "n2", 12);
    bench
}

pub(in crate::dispatcher) fn edit(
    bench: &mut Bench,
    node: &str,
    change: impl FnOnce(&mut crate::object::Node),
) {
    let mut node = bench.state.nodes().get(node).unwrap().as_ref().clone();
    change(&mut node);
    bench.write(Author::Dispatcher, vec![Change::Update(node.into())]);
}

/// A task of the network on a node, which gets the gateway ten above.
pub(in crate::dispatcher) fn place(bench: &mut Bench, id: &str, node: &str, last: u8) {
    let mut task = testing::task(id, "web", 1);
    task.node_id = Some(node.into());
    task.attachments = vec![Attachment {
        network: "net".into(),
        place: Place::Address(format!("10.0.1.{last}/24").parse().unwrap()),
        ipv6: None,
        branch: 0,
    }];
    bench.write(Author::Orchestrator, vec![Change::Create(task.into())]);
    let gateway = [10, 0, 1, last + 10].into();
    edit(bench, node, |it| {
        it.gateways.extend([("net".into(), gateway)])
    });
}

pub(in crate::dispatcher) fn told(bench: &mut Bench, to: &str) -> Assignments {
    let messages = bench.dispatcher.messages(&bench.state);
    let of = messages
        .into_iter()
        .filter(|(node, ..)| *node == Id::from(to));
    let mut all = of.filter_map(|(_, _, message)| match message {
        ToAgent::Assignments(assignments) => Some(assignments),
        _ => None,
    });
    all.next().unwrap_or_default()
}

fn remotes(assignments: &Assignments) -> Vec<String> {
    let all = assignments.networks.iter().flat_map(|it| &it.remotes);
    all.map(|(address, node)| format!("{address} {node}"))
        .collect()
}

fn moves(assignments: &Assignments) -> Vec<String> {
    let text = |to: Option<std::net::IpAddr>| to.map_or("-".to_owned(), |to| to.to_string());
    let all = assignments.moves.iter();
    all.map(|it| format!("{} {}", it.address, text(it.to)))
        .collect()
}

/// Nodes with their own addresses, of all that is told.
fn peers(assignments: &Assignments) -> Vec<String> {
    let all = assignments.networks.iter().flat_map(|it| &it.peers);
    let moved = assignments.moves.iter();
    let moved = moved.filter_map(|it| Some((&it.address, it.peer.as_ref()?)));
    all.chain(moved)
        .map(|(address, it)| format!("{} {} {address}", it.name, it.ip))
        .collect()
}

pub(in crate::dispatcher) fn ready(bench: &mut Bench, node: &str, addr: &str) {
    bench.register(node, 1);
    edit(bench, node, |it| it.status.addr = addr.to_owned());
}

#[test]
fn who_has_a_part_is_told_all_and_then_what_moves() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    ready(&mut bench, "n3", "192.0.2.3");
    let first = told(&mut bench, "n1");
    assert_eq!(
        remotes(&first),
        ["10.0.1.12 192.0.2.2", "10.0.1.22 192.0.2.2"]
    );
    assert_eq!(first.networks[0].gateway.to_string(), "10.0.1.21");
    assert_eq!(first.networks[0].local.to_string(), "192.0.2.1");
    let both = ["n1 192.0.2.1 10.0.1.21", "n2 192.0.2.2 10.0.1.22"];
    assert_eq!(peers(&first), both);

    place(&mut bench, "t3", "n3", 13);
    assert_eq!(
        moves(&told(&mut bench, "n1")),
        ["10.0.1.13 192.0.2.3", "10.0.1.23 192.0.2.3"]
    );

    // What is on the node itself is nobody else's.
    place(&mut bench, "t4", "n1", 14);
    let own = told(&mut bench, "n1");
    assert!(
        moves(&own).iter().all(|it| it.ends_with(" -")),
        "{:?}",
        own.moves
    );

    let mut task = bench.state.tasks().get("t2").unwrap().as_ref().clone();
    task.status.state = TaskState::Failed;
    bench.write(
        Author::Agent("n2".into()),
        vec![Change::Update(Object::from(task))],
    );
    assert_eq!(moves(&told(&mut bench, "n1")), ["10.0.1.12 -"]);
    edit(&mut bench, "n2", |it| it.gateways.clear());
    assert_eq!(moves(&told(&mut bench, "n1")), ["10.0.1.22 -"]);
    assert_eq!(told(&mut bench, "n1"), Assignments::default());
}

#[test]
fn a_part_is_in_every_subnet_and_has_an_address_in_one() {
    let mut bench = bench();
    let mut network = bench.state.networks().get("net").unwrap().as_ref().clone();
    let pools = ["10.9.0.0/24", "10.0.1.0/24"].map(|it| pool(it.parse().unwrap(), "", None));
    let ipv6 = IpamConfig {
        subnet: "fd00:9::/64".into(),
        ..IpamConfig::default()
    };
    network.ipam = Some(addressing(pools.into_iter().chain([ipv6])));
    network.spec.ipv6_enabled = true;
    bench.write(Author::Control, vec![Change::Update(network.into())]);
    ready(&mut bench, "n1", "192.0.2.1");
    let first = told(&mut bench, "n1");
    let subnets: Vec<_> = first.networks[0].subnets().collect();
    let expected = [
        (1, "10.0.1.0/24", [10, 0, 1, 21], "fd00:9::/120"),
        (0, "10.9.0.0/24", [10, 9, 0, 1], "fd00:9::100/120"),
    ];
    let expected = expected.map(|(number, subnet, gateway, ipv6)| {
        let (subnet, ipv6): (Cidr, Cidr6) = (subnet.parse().unwrap(), ipv6.parse().unwrap());
        Branch {
            number,
            subnet,
            gateway: gateway.into(),
            ipv6: Some(Ipv6 {
                of: subnet,
                subnet: ipv6,
                first: ipv6.address,
            }),
        }
    });
    assert_eq!(subnets, expected);
    let own = ["10.0.1.12 192.0.2.2", "10.0.1.22 192.0.2.2"];
    assert_eq!(remotes(&first), own, "what every node has is nowhere else");
}

#[test]
fn others_are_told_nothing() {
    let mut bench = bench();
    ready(&mut bench, "n3", "192.0.2.3");
    assert_eq!(told(&mut bench, "n3").networks, []);
    place(&mut bench, "t4", "n1", 14);
    assert_eq!(told(&mut bench, "n3"), Assignments::default());
}

#[test]
fn a_node_that_moves_takes_its_addresses_along() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    told(&mut bench, "n1");
    edit(&mut bench, "n2", |it| {
        it.status.addr = "192.0.2.9".to_owned()
    });
    assert_eq!(
        moves(&told(&mut bench, "n1")),
        ["10.0.1.12 192.0.2.9", "10.0.1.22 192.0.2.9"]
    );
}

#[test]
fn what_is_on_a_node_in_the_same_namespace_is_nowhere_else() {
    let mut bench = bench();
    edit(&mut bench, "n2", |it| {
        it.status.addr = "192.0.2.1".to_owned()
    });
    place(&mut bench, "t3", "n3", 13);
    ready(&mut bench, "n1", "192.0.2.1");
    let known = told(&mut bench, "n1");
    let elsewhere = ["10.0.1.13 192.0.2.3", "10.0.1.23 192.0.2.3"];
    assert_eq!(remotes(&known), elsewhere);
    assert_eq!(known.networks[0].gateways, [[10, 0, 1, 23].into()].into());
    assert_eq!(peers(&known).len(), 3, "it has a part all the same");
    // As seen from another host, both are where they are.
    ready(&mut bench, "n3", "192.0.2.3");
    assert_eq!(remotes(&told(&mut bench, "n3")).len(), 4);
    // Nor is what comes there later.
    place(&mut bench, "t4", "n2", 14);
    let news = told(&mut bench, "n1");
    assert_eq!(peers(&news), ["n2 192.0.2.1 10.0.1.24"]);
    let moved = moves(&news);
    assert!(moved.contains(&"10.0.1.14 -".to_owned()), "{moved:?}");
    assert!(moved.iter().all(|it| it.ends_with(" -")), "{moved:?}");
}

#[test]
fn a_part_ends_and_begins_anew() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    told(&mut bench, "n1");
    edit(&mut bench, "n1", |it| it.gateways.clear());
    assert_eq!(told(&mut bench, "n1").networks_removed, [Id::from("net")]);
    place(&mut bench, "t3", "n2", 13);
    assert_eq!(told(&mut bench, "n1"), Assignments::default());
    edit(&mut bench, "n1", |it| {
        it.gateways.extend([("net".into(), [10, 0, 1, 31].into())])
    });
    let anew = told(&mut bench, "n1");
    assert_eq!(anew.networks[0].gateway.to_string(), "10.0.1.31");
    // The gateway of its other task's node came along with that.
    assert_eq!(remotes(&anew).len(), 3, "{:?}", remotes(&anew));
}

#[test]
fn where_ports_are_published_nodes_without_tasks_are_told_and_known() {
    let mut bench = bench();
    let network = bench.state.networks().get("net").unwrap();
    let mut network = network.as_ref().clone();
    network.spec.ingress = true;
    bench.write(Author::Control, vec![Change::Update(network.into())]);
    edit(&mut bench, "n3", |it| {
        it.gateways.extend([("net".into(), [10, 0, 1, 31].into())]);
    });
    ready(&mut bench, "n1", "192.0.2.1");
    let known = told(&mut bench, "n1");
    assert!(known.networks[0].ingress);
    assert!(remotes(&known).contains(&"10.0.1.31 192.0.2.3".to_owned()));
    let gateways = [[10, 0, 1, 22].into(), [10, 0, 1, 31].into()];
    assert_eq!(known.networks[0].gateways, gateways.into());
    edit(&mut bench, "n3", |it| {
        it.status.addr = "192.0.2.9".to_owned()
    });
    let moved = told(&mut bench, "n1").moves;
    assert!(
        moved
            .iter()
            .all(|it| it.gateway && it.address == gateways[1])
    );
    assert_eq!(moved.len(), 1);
    edit(&mut bench, "n3", |it| it.gateways.clear());
    assert_eq!(moves(&told(&mut bench, "n1")), ["10.0.1.31 -"]);
}

#[test]
fn a_network_that_engines_make_is_told_and_nothing_on_it_moves() {
    let mut bench = bench();
    let mut network = bench.state.networks().get("net").unwrap().as_ref().clone();
    (network.id, network.meta) = ("local".into(), Meta::default());
    network.spec.name = "local".into();
    network.driver_state = Some(driver("macvlan", Default::default()));
    bench.write(Author::Control, vec![Change::Create(network.into())]);
    ready(&mut bench, "n1", "192.0.2.1");
    ready(&mut bench, "n3", "192.0.2.3");
    told(&mut bench, "n1");
    let part = |bench: &mut Bench, node: &str| {
        let nowhere = std::net::Ipv4Addr::UNSPECIFIED;
        edit(bench, node, |it| {
            it.gateways.extend([("local".into(), nowhere)])
        });
        told(bench, node)
    };
    let first = part(&mut bench, "n1");
    let driver = first.networks[0].driver.as_ref().unwrap();
    assert_eq!(
        (&*first.networks[0].id, &*driver.name),
        ("local", "macvlan")
    );
    let third = part(&mut bench, "n3");
    assert_eq!(third.networks.len(), 1);
    edit(&mut bench, "n3", |it| it.gateways.clear());
    let after = told(&mut bench, "n1");
    assert!(moves(&after).is_empty(), "{after:?}");
}

#[test]
fn packets_go_where_the_node_says() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    ready(&mut bench, "n2", "192.0.2.2");
    told(&mut bench, "n1");
    let said = |last: u8| Some(std::net::IpAddr::from([198, 51, 100, last]));
    edit(&mut bench, "n2", |it| it.data_path = said(2));
    // The others hear that what is on it has moved, and the node itself where it is now.
    assert_eq!(
        moves(&told(&mut bench, "n1")),
        ["10.0.1.12 198.51.100.2", "10.0.1.22 198.51.100.2"]
    );
    edit(&mut bench, "n2", |it| it.data_path = said(3));
    let second = told(&mut bench, "n2");
    assert_eq!(second.networks[0].local.to_string(), "198.51.100.3");
    // One that does not say is where its session comes from.
    edit(&mut bench, "n2", |it| it.data_path = None);
    assert_eq!(
        moves(&told(&mut bench, "n1")),
        ["10.0.1.12 192.0.2.2", "10.0.1.22 192.0.2.2"]
    );
}
