//! When a network is made, changed and removed, and who waits for it. Pure.

use super::*;
use crate::assignment::{Branch, Move};
use crate::cidr::Cidr;
use crate::controller::Controller;
use crate::ipv6::sides;
use crate::network::LocalDriver;
use crate::object::{Attachment, Place};
use crate::testing::task;

const NOW: Timestamp = Timestamp::from_nanos(0);

fn overlay(gateway: &str, remotes: &[(&str, &str)]) -> Overlay {
    let remotes = remotes
        .iter()
        .map(|(address, node)| (address.parse().unwrap(), node.parse().unwrap()));
    Overlay {
        id: "n".into(),
        name: "front".into(),
        vni: 4097,
        port: 4789,
        mtu: 1450,
        mtu_follows: true,
        driver: None,
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        ipv6: None,
        internal: false,
        ingress: false,
        local: "192.0.2.1".parse().unwrap(),
        remotes: remotes.collect(),
        keys: Vec::new(),
        shown: String::new(),
        gateways: Default::default(),
        branches: Default::default(),
        peers: Default::default(),
        number: 0,
    }
}

fn told(networks: &mut Networks, network: Overlay) {
    networks.assign(&mut Assignments {
        networks: vec![network],
        ..Assignments::default()
    });
}

fn moved(networks: &mut Networks, address: &str, to: Option<&str>) {
    networks.assign(&mut Assignments {
        moves: vec![Move {
            gateway: false,
            peer: None,
            network: "n".into(),
            address: address.parse().unwrap(),
            to: to.map(|to| to.parse().unwrap()),
        }],
        ..Assignments::default()
    });
}

fn removed(networks: &mut Networks) {
    networks.assign(&mut Assignments {
        networks_removed: vec!["n".into()],
        ..Assignments::default()
    });
}

/// The operation that is next, which then has ended so.
fn next(networks: &mut Networks, result: OpResult) -> Option<EngineOp> {
    match networks.step(&"n".into(), NOW) {
        Step::Op(op) => {
            networks.finished(&"n".into(), result, NOW);
            Some(op)
        }
        Step::Wait(_) | Step::Gone => None,
    }
}

const DONE: OpResult = Ok(OpOutput::Done);

#[test]
fn a_network_is_made_kept_up_and_removed() {
    let mut networks = Networks::default();
    assert_eq!(networks.ready(&"n".into()), Ready::Missing);
    let first = overlay("10.0.1.4", &[("10.0.1.5", "192.0.2.2")]);
    told(&mut networks, first.clone());
    let network = Box::new(first);
    assert_eq!(
        next(&mut networks, DONE),
        Some(EngineOp::MakeNetwork { network })
    );
    assert_eq!(networks.ready(&"n".into()), Ready::Yes);
    assert_eq!(next(&mut networks, DONE), None);

    moved(&mut networks, "10.0.1.6", Some("192.0.2.3"));
    moved(&mut networks, "10.0.1.5", None);
    let moves = BTreeMap::from([
        ("10.0.1.6".parse().unwrap(), "192.0.2.3".parse().ok()),
        ("10.0.1.5".parse().unwrap(), None),
    ]);
    let network = Id::from("n");
    let expected = EngineOp::MoveOnNetwork {
        network,
        sides: Vec::new(),
        moves,
    };
    assert_eq!(next(&mut networks, DONE), Some(expected));

    networks.engine_up(NOW);
    let now = overlay("10.0.1.4", &[("10.0.1.6", "192.0.2.3")]);
    let network = Box::new(now);
    assert_eq!(
        next(&mut networks, DONE),
        Some(EngineOp::MakeNetwork { network })
    );

    removed(&mut networks);
    let network = Id::from("n");
    assert_eq!(
        next(&mut networks, DONE),
        Some(EngineOp::RemoveNetwork { network })
    );
    assert!(matches!(networks.step(&"n".into(), NOW), Step::Gone));
}

#[test]
fn peers_come_and_go() {
    let peer = |name: &str| PeerInfo {
        name: name.to_owned(),
        ip: "192.0.2.1".to_owned(),
    };
    let names = |networks: &Networks| -> Vec<String> {
        let peers = networks.peers(&"n".into()).into_iter();
        peers.map(|it| it.name).collect()
    };
    let mut networks = Networks::default();
    let own = "10.0.1.4";
    let network = Overlay {
        peers: [(own.parse().unwrap(), peer("n2"))].into(),
        ..overlay(own, &[])
    };
    told(&mut networks, network);
    assert_eq!(names(&networks), ["n2"]);
    // On the same host: its address leads nowhere else.
    let came = Move {
        network: "n".into(),
        address: "10.0.1.5".parse().unwrap(),
        to: None,
        gateway: true,
        peer: Some(peer("n1")),
    };
    networks.assign(&mut Assignments {
        moves: vec![came],
        ..Assignments::default()
    });
    assert_eq!(names(&networks), ["n1", "n2"]);
    moved(&mut networks, "10.0.1.5", None);
    assert_eq!(names(&networks), ["n2"]);
    removed(&mut networks);
    assert!(names(&networks).is_empty());
}

#[test]
fn what_the_engine_makes_is_in_nobodys_way_and_fails_in_its_words() {
    let mut networks = Networks::default();
    told(&mut networks, overlay("10.0.1.4", &[]));
    let driver = LocalDriver {
        name: "macvlan".into(),
        config_from: Some("gone".into()),
        ipv6: false,
        labels: BTreeMap::new(),
    };
    for id in ["l", "m"] {
        let local = Overlay {
            id: id.into(),
            vni: 0,
            subnet: Cidr::NONE,
            driver: Some(driver.clone()),
            ..overlay("0.0.0.0", &[])
        };
        told(&mut networks, local);
        let step = networks.step(&id.into(), NOW);
        assert!(matches!(step, Step::Op(EngineOp::MakeNetwork { .. })));
        let text = r#"configuration network "gone" does not exist"#.to_owned();
        networks.finished(&id.into(), Err(OpError::NotFound(text.clone())), NOW);
        assert_eq!(networks.ready(&id.into()), Ready::No(text));
    }
}

#[test]
fn another_gateway_is_another_network() {
    let mut networks = Networks::default();
    told(&mut networks, overlay("10.0.1.4", &[]));
    next(&mut networks, DONE);
    told(&mut networks, overlay("10.0.1.9", &[]));
    assert_eq!(networks.ready(&"n".into()), Ready::NotYet);
    let network = Id::from("n");
    assert_eq!(
        next(&mut networks, DONE),
        Some(EngineOp::RemoveNetwork { network })
    );
    let network = Box::new(overlay("10.0.1.9", &[]));
    assert_eq!(
        next(&mut networks, DONE),
        Some(EngineOp::MakeNetwork { network })
    );
    assert_eq!(networks.ready(&"n".into()), Ready::Yes);
}

#[test]
fn a_network_waits_for_one_whose_subnet_it_has() {
    let mut networks = Networks::default();
    told(&mut networks, overlay("10.0.1.4", &[]));
    next(&mut networks, DONE);
    let next_one = Overlay {
        id: "next".into(),
        vni: 5000,
        ..overlay("10.0.1.4", &[])
    };
    told(&mut networks, next_one.clone());
    assert!(matches!(
        networks.step(&"next".into(), NOW),
        Step::Wait(None)
    ));
    removed(&mut networks);
    assert!(matches!(networks.step(&"n".into(), NOW), Step::Op(_)));
    let free = networks.finished(&"n".into(), DONE, NOW);
    assert!(free.contains("next"), "{free:?}");
    let Step::Op(op) = networks.step(&"next".into(), NOW) else {
        panic!("it still waits");
    };
    let network = Box::new(next_one);
    assert_eq!(op, EngineOp::MakeNetwork { network });
}

#[test]
fn every_subnet_counts() {
    let side = |of: &str, subnet: &str| {
        let pool = (subnet.parse().unwrap(), None);
        sides(&[of.parse().unwrap()], &[pool]).unwrap().pop()
    };
    let dual = |id: &str, gateway: &str, subnet: &str| Overlay {
        id: id.into(),
        vni: gateway.parse::<Ipv4Addr>().unwrap().into(),
        subnet: format!("{gateway}/24").parse().unwrap(),
        ipv6: side(&format!("{gateway}/24"), subnet),
        ..overlay(gateway, &[])
    };
    let two = Overlay {
        branches: vec![Branch {
            number: 1,
            subnet: "10.9.0.0/24".parse().unwrap(),
            gateway: "10.9.0.1".parse().unwrap(),
            ipv6: side("10.9.0.0/24", "fd00:9::/119"),
        }],
        ..overlay("10.0.1.4", &[])
    };
    let mut networks = Networks::default();
    told(&mut networks, two.clone());
    next(&mut networks, DONE);
    let other = Overlay {
        id: "next".into(),
        vni: 5000,
        subnet: "10.9.0.128/25".parse().unwrap(),
        ..overlay("10.9.0.130", &[])
    };
    told(&mut networks, other);
    let step = networks.step(&"next".into(), NOW);
    assert!(
        matches!(step, Step::Wait(None)),
        "its subnet is the second of another"
    );
    told(&mut networks, dual("more", "10.0.8.4", "fd00:9::/120"));
    let step = networks.step(&"more".into(), NOW);
    assert!(matches!(step, Step::Wait(None)), "and so it is with IPv6");
    told(&mut networks, dual("other", "10.0.7.4", "fd00:9::200/120"));
    let step = networks.step(&"other".into(), NOW);
    assert!(matches!(step, Step::Op(_)));
    // With its address in another subnet it is another network.
    let first = two.branches[0];
    let moved = Overlay {
        number: first.number,
        subnet: first.subnet,
        branches: vec![Branch {
            number: 0,
            subnet: two.subnet,
            gateway: "10.0.1.1".parse().unwrap(),
            ipv6: None,
        }],
        ..overlay("10.9.0.4", &[])
    };
    let names = |of: &Overlay| of.bridges().collect::<Vec<_>>();
    assert_eq!(names(&two)[0], "skepn0104");
    let all: BTreeSet<String> = [&two, &moved].into_iter().flat_map(names).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    told(&mut networks, moved);
    assert_eq!(networks.ready(&"n".into()), Ready::NotYet);
    let removed = next(&mut networks, DONE);
    assert!(matches!(removed, Some(EngineOp::RemoveNetwork { .. })));
    let refused = Err(OpError::Failed("Pool overlaps".into()));
    assert!(next(&mut networks, refused).is_some());
    let why = "network front (10.9.0.0/24, 10.0.1.0/24) cannot be made here: Pool overlaps";
    assert_eq!(networks.ready(&"n".into()), Ready::No(why.into()));
}

#[test]
fn what_fails_is_tried_again_and_told_to_tasks() {
    let mut networks = Networks::default();
    told(&mut networks, overlay("10.0.1.4", &[]));
    let away = Err(OpError::Unavailable("away".into()));
    assert!(next(&mut networks, away).is_some());
    assert_eq!(networks.ready(&"n".into()), Ready::NotYet);
    networks.engine_up(NOW);
    let refused = Err(OpError::Failed("Pool overlaps".into()));
    assert!(next(&mut networks, refused).is_some());
    assert_eq!(
        networks.ready(&"n".into()),
        Ready::No("network front (10.0.1.0/24) cannot be made here: Pool overlaps".into())
    );
    let Step::Wait(Some(at)) = networks.step(&"n".into(), NOW) else {
        panic!("it is not tried again");
    };
    assert!(matches!(networks.step(&"n".into(), at), Step::Op(_)));
}

#[test]
fn networks_that_are_nobodys_are_removed() {
    let mut networks = Networks::default();
    told(&mut networks, overlay("10.0.1.4", &[]));
    networks.assign(&mut Assignments {
        complete: true,
        networks: vec![overlay("10.0.1.4", &[])],
        ..Assignments::default()
    });
    assert!(networks.look() && !networks.look());
    let listed = Ok(OpOutput::Networks(vec!["n".into(), "old".into()]));
    assert_eq!(networks.looked(listed), BTreeSet::from(["old".into()]));
    let network = Id::from("old");
    match networks.step(&network, NOW) {
        Step::Op(op) => assert_eq!(op, EngineOp::RemoveNetwork { network }),
        _ => panic!("it stays"),
    }
    // What a complete set does not name is nobody's either.
    networks.assign(&mut Assignments {
        complete: true,
        ..Assignments::default()
    });
    assert!(matches!(networks.step(&"n".into(), NOW), Step::Gone));
}

#[test]
fn a_task_waits_for_its_networks() {
    let mut task = task("t", "web", 1);
    task.status.state = skep_api::task::TaskState::Preparing;
    task.attachments = vec![Attachment {
        network: "n".into(),
        place: Place::Address("10.0.1.5/24".parse().unwrap()),
        ipv6: None,
        branch: 0,
    }];
    let mut controller = Controller::assigned(task);
    controller.see_networks(|_| Ready::NotYet);
    assert!(controller.waits_for_network());
    controller.see_networks(|_| Ready::Yes);
    assert!(!controller.waits_for_network());
}
