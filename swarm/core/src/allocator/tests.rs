//! Addresses: who gets which, when they are free again, and that nobody shares one. Pure.

use std::collections::BTreeSet;

use proptest::prelude::*;
use skep_api::network::{
    EndpointSpec, NetworkAttachmentConfig, NetworkSpec, PortConfig, Protocol, PublishMode,
    ResolutionMode,
};
use skep_api::node::NodeState;
use skep_api::task::TaskState;

use super::*;
use crate::control::testing::{NOW, cluster, node, service, state, task};
use crate::id::CountingIds;
use crate::network::{addressing, driver, first_networks, pool};
use crate::object::{Kind, LEFT, Meta, NetworkObject};
use crate::store::{Author, Tx};
use crate::wire::network_in_full;

mod ipv6;
mod published;
mod subnets;

/// A network that engines make.
fn local() -> NetworkObject {
    NetworkObject {
        id: "local".into(),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: "local".into(),
            ..NetworkSpec::default()
        },
        driver_state: Some(driver("macvlan", Default::default())),
        ipam: Some(Default::default()),
        keys: Vec::new(),
    }
}

/// A store and the allocator that watches it.
struct Harness {
    state: State,
    allocator: Allocator,
}

impl Harness {
    /// With a network of these subnets.
    fn new(subnets: &str) -> Self {
        Self::with(subnets, |_| {})
    }

    fn with(subnets: &str, edit: impl FnOnce(&mut NetworkObject)) -> Self {
        let pools = subnets.split(' ');
        let pools = pools.map(|it| pool(it.parse().unwrap(), "", None));
        let mut network = NetworkObject {
            id: "net".into(),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: "front".into(),
                ..NetworkSpec::default()
            },
            driver_state: Some(driver("overlay", Default::default())),
            ipam: Some(addressing(pools)),
            keys: Vec::new(),
        };
        edit(&mut network);
        let mut objects = vec![cluster().into(), network.into()];
        let first = first_networks("10.0.0.0/28".parse().ok(), &mut CountingIds::default());
        objects.extend(
            first
                .into_iter()
                .zip(["ingress", "bridge", "host"])
                .map(|(mut it, id)| {
                    it.id = id.into();
                    Object::from(it)
                }),
        );
        objects.push(local().into());
        objects.extend(["n1", "n2"].map(|id| node(id, id).into()));
        let state = state(objects);
        let mut allocator = Allocator::default();
        allocator.mark_all(&state);
        let mut harness = Self { state, allocator };
        harness.plan();
        harness
    }

    fn write(&mut self, author: Author, changes: Vec<Change>) {
        let tx = Tx {
            author,
            at: NOW,
            changes,
        };
        for event in self.state.apply(&tx).unwrap() {
            self.allocator.observe(&event, &self.state);
        }
    }

    /// Plans until there is nothing left to do, and holds that against a new leader's plan.
    fn plan(&mut self) {
        loop {
            let plan = self
                .allocator
                .plan(&self.state, NOW, &mut CountingIds::default());
            if plan.changes.is_empty() {
                break;
            }
            self.write(Author::Allocator, plan.changes);
        }
        let mut fresh = Allocator::default();
        fresh.mark_all(&self.state);
        let plan = fresh.plan(&self.state, NOW, &mut CountingIds::default());
        assert_eq!(
            plan.changes,
            [],
            "a new leader plans what the old one did not"
        );
    }

    fn service(&mut self, id: &str, networks: &[&str], mode: ResolutionMode) {
        let mut service = service(id, id);
        service.spec.task_template.networks = targets(networks);
        service.spec.endpoint_spec = Some(EndpointSpec {
            mode,
            ..EndpointSpec::default()
        });
        self.write(Author::Control, vec![Change::Create(service.into())]);
    }

    /// A service on the network that publishes ports of this kind.
    fn publish(&mut self, id: &str, ports: &[PortConfig]) {
        let mut service = service(id, id);
        service.spec.task_template.networks = targets(&["net"]);
        service.spec.endpoint_spec = Some(EndpointSpec {
            ports: ports.to_vec(),
            ..EndpointSpec::default()
        });
        self.write(Author::Control, vec![Change::Create(service.into())]);
    }

    fn remove(&mut self, service: &str) {
        let version = self.state.services().get(service).unwrap().meta.version;
        let removal = Change::Remove(Kind::Service, service.into(), version);
        self.write(Author::Control, vec![removal]);
    }

    fn published(&self, service: &str) -> Vec<u32> {
        let endpoint = self.state.services().get(service).unwrap().endpoint.clone();
        let ports = endpoint.unwrap().ports.into_iter();
        ports.map(|port| port.published_port).collect()
    }

    fn task(&mut self, id: &str, networks: &[&str], on: &str) {
        self.task_of(id, "s", networks, on);
    }

    fn task_of(&mut self, id: &str, of: &str, networks: &[&str], on: &str) {
        let mut task = task(id, &service(of, of), 1, on);
        let declared = self.state.services().get(of);
        task.endpoint = declared.and_then(|it| it.spec.endpoint_spec.clone());
        task.spec.networks = targets(networks);
        task.status.state = TaskState::New;
        self.write(Author::Orchestrator, vec![Change::Create(task.into())]);
    }

    fn end(&mut self, id: &str) {
        let mut task = self.state.tasks().get(id).unwrap().as_ref().clone();
        task.status.state = TaskState::Rejected;
        self.write(Author::Orchestrator, vec![Change::Update(task.into())]);
    }

    fn addresses(&self, id: &str) -> Vec<String> {
        let task = self.state.tasks().get(id).unwrap();
        let places = task.attachments.iter().map(|it| match &it.place {
            Place::Address(cidr) => cidr.to_string(),
            Place::Engine(name) => name.clone(),
        });
        places.collect()
    }

    fn vip(&self, id: &str) -> Option<String> {
        let endpoint = self.state.services().get(id).unwrap().endpoint.clone();
        Some(endpoint?.virtual_ips.first()?.addr.clone())
    }

    fn gateway(&self, node: &str) -> Option<String> {
        let gateways = &self.state.nodes().get(node).unwrap().gateways;
        gateways.get("net").map(ToString::to_string)
    }

    /// The nodes with a part in the network on which ports are published.
    fn everywhere(&self) -> Vec<&str> {
        let nodes = self.state.nodes().iter();
        let nodes = nodes.filter(|node| node.gateways.contains_key("ingress"));
        nodes.map(|node| &*node.id).collect()
    }

    fn err(&self, id: &str) -> (TaskState, String) {
        let status = &self.state.tasks().get(id).unwrap().status;
        (status.state, status.err.clone())
    }

    /// Everything that is held, each with its holder.
    fn held(&self) -> Vec<String> {
        let tasks = self.state.tasks().iter().flat_map(|task| held(task));
        let tasks = tasks.map(|(network, address)| (network.clone(), address));
        let services = self.state.services().iter().flat_map(|it| vips(it));
        let nodes = self.state.nodes().iter().flat_map(|it| gateways(it));
        let all = tasks.chain(services).chain(nodes);
        all.map(|(network, address)| format!("{network} {address}"))
            .collect()
    }
}

fn targets(networks: &[&str]) -> Vec<NetworkAttachmentConfig> {
    let target = |network: &&str| NetworkAttachmentConfig {
        target: (*network).to_owned(),
        ..NetworkAttachmentConfig::default()
    };
    networks.iter().map(target).collect()
}

#[test]
fn services_tasks_and_nodes_get_addresses_and_give_them_back() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.task("t1", &["net"], "n1");
    swarm.service("web", &["net"], ResolutionMode::Vip);
    swarm.service("rr", &["net"], ResolutionMode::DnsRr);
    swarm.plan();
    assert_eq!(swarm.vip("web").as_deref(), Some("10.0.1.2/24"));
    assert_eq!(swarm.vip("rr"), None);
    assert_eq!(swarm.addresses("t1"), ["10.0.1.3/24"]);
    assert_eq!(swarm.err("t1").0, TaskState::Pending);
    assert_eq!(swarm.gateway("n1").as_deref(), Some("10.0.1.4"));
    assert_eq!(swarm.gateway("n2"), None);
    swarm.end("t1");
    swarm.plan();
    assert_eq!(swarm.gateway("n1"), None);
    // What was given back waits its turn.
    swarm.task("t2", &["net", "net"], "n2");
    swarm.plan();
    assert_eq!(swarm.addresses("t2"), ["10.0.1.5/24"]);
    assert_eq!(swarm.held().len(), 3);
}

#[test]
fn who_left_has_a_part_in_nothing_and_who_is_down_still_has() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.publish("web", &[OPEN]);
    for (task, on) in [("t1", "n1"), ("t2", "n2")] {
        swarm.task(task, &["net"], on);
    }
    swarm.plan();
    let mut becomes = |node: &str, state: NodeState, message: &str| {
        let mut node = swarm.state.nodes().get(node).unwrap().as_ref().clone();
        (node.status.state, node.status.message) = (state, message.to_owned());
        swarm.write(Author::Dispatcher, vec![Change::Update(node.into())]);
        swarm.plan();
        let net = swarm.state.networks().get("net").unwrap();
        let shown = network_in_full(&swarm.state, net, false).peers.into_iter();
        let peers: Vec<String> = shown.map(|peer| peer.name).collect();
        (peers, swarm.everywhere().len())
    };
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let both = (names(&["n1", "n2"]), 2);
    assert_eq!(becomes("n1", NodeState::Down, "heartbeat failure"), both);
    assert_eq!(becomes("n2", NodeState::Down, LEFT), (names(&["n1"]), 1));
    assert_eq!(becomes("n2", NodeState::Ready, ""), both);
}

#[test]
fn an_engines_own_network_has_no_addresses_of_ours() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.service("web", &["host"], ResolutionMode::Vip);
    swarm.task("t1", &["host"], "n1");
    swarm.task("t2", &[], "n1");
    swarm.plan();
    assert_eq!(swarm.addresses("t1"), ["host"]);
    assert_eq!(swarm.addresses("t2"), [] as [String; 0]);
    assert_eq!((swarm.vip("web"), swarm.gateway("n1")), (None, None));
}

#[test]
fn on_a_network_that_engines_make_a_node_has_a_part_without_an_address() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.service("web", &["local"], ResolutionMode::Vip);
    swarm.task_of("t1", "web", &["local", "net"], "n1");
    swarm.plan();
    assert_eq!(swarm.vip("web").as_deref(), Some(""));
    assert_eq!(swarm.addresses("t1"), ["skep-local", "10.0.1.2/24"]);
    let part = |swarm: &Harness| {
        let node = swarm.state.nodes().get("n1").unwrap().clone();
        node.gateways.get("local").map(ToString::to_string)
    };
    assert_eq!(part(&swarm).as_deref(), Some("0.0.0.0"));
    swarm.end("t1");
    swarm.plan();
    assert_eq!(part(&swarm), None);
}

#[test]
fn a_task_waits_for_an_address_and_says_so() {
    // Three for tasks and two for their nodes.
    let mut swarm = Harness::new("10.0.1.0/29");
    for id in ["t1", "t2", "t3"] {
        swarm.task(id, &["net"], "n1");
        swarm.plan();
    }
    swarm.task("t4", &["net"], "n2");
    swarm.plan();
    assert_eq!(swarm.err("t4").0, TaskState::Pending);
    swarm.task("t5", &["net"], "n1");
    swarm.plan();
    let why = "no address is left on network front (10.0.1.0/29)".to_owned();
    assert_eq!(swarm.err("t5"), (TaskState::New, why));
    swarm.end("t1");
    swarm.plan();
    swarm.end("t2");
    swarm.plan();
    assert_eq!(swarm.err("t5"), (TaskState::Pending, String::new()));
    assert!(
        swarm.gateway("n2").is_some(),
        "a node that waited is served, too"
    );
}

#[test]
fn a_network_that_is_gone_is_named() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.task("t1", &["gone"], "n1");
    swarm.plan();
    let why = "network gone not found".to_owned();
    assert_eq!(swarm.err("t1"), (TaskState::New, why));
}

#[test]
fn a_service_that_changes_keeps_its_address() {
    let mut swarm = Harness::new("10.0.1.0/24");
    swarm.service("web", &["net"], ResolutionMode::Vip);
    swarm.plan();
    let change = |swarm: &mut Harness, mode: ResolutionMode| {
        let mut service = swarm.state.services().get("web").unwrap().as_ref().clone();
        service.spec.endpoint_spec.as_mut().unwrap().mode = mode;
        service.spec.labels.insert("a".into(), "b".into());
        swarm.write(Author::Control, vec![Change::Update(service.into())]);
        swarm.plan();
        swarm.vip("web")
    };
    assert_eq!(
        change(&mut swarm, ResolutionMode::Vip).as_deref(),
        Some("10.0.1.2/24")
    );
    assert_eq!(change(&mut swarm, ResolutionMode::DnsRr), None);
    assert_eq!(
        change(&mut swarm, ResolutionMode::Vip).as_deref(),
        Some("10.0.1.3/24")
    );
    let version = swarm.state.services().get("web").unwrap().meta.version;
    let removal = Change::Remove(Kind::Service, "web".into(), version);
    swarm.write(Author::Control, vec![removal]);
    assert_eq!(swarm.held(), [] as [String; 0]);
}

const OPEN: PortConfig = PortConfig {
    name: String::new(),
    protocol: Protocol::Tcp,
    target_port: 80,
    published_port: 0,
    publish_mode: PublishMode::Ingress,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nobody shares an address, whatever comes and goes, also when there are too few.
    #[test]
    fn no_two_share_an_address(
        steps in prop::collection::vec((0_u8..8, 0_u8..12), 1..80),
        subnets in prop::sample::select(vec!["10.0.1.0/28", "10.0.1.0/29 10.9.1.0/29"]),
    ) {
        let mut swarm = Harness::new(subnets);
        for (number, (kind, who)) in steps.into_iter().enumerate() {
            let on = if who % 2 == 0 { "n1" } else { "n2" };
            match kind {
                0 => swarm.service(&format!("s{number}"), &["net"], ResolutionMode::Vip),
                1 => {
                    let first = swarm.state.services().iter().nth(usize::from(who)).cloned();
                    if let Some(it) = first {
                        let removal = Change::Remove(Kind::Service, it.id.clone(), it.meta.version);
                        swarm.write(Author::Control, vec![removal]);
                    }
                }
                2 | 3 => swarm.task(&format!("t{number}"), &["net"], on),
                4 => swarm.publish(&format!("s{number}"), &[OPEN, OPEN]),
                5 => {
                    let publishes = |it: &&Arc<Service>| crate::ports::publishes(&it.spec);
                    let found = swarm.state.services().iter().find(publishes);
                    if let Some(of) = found.map(|it| it.id.to_string()) {
                        swarm.task_of(&format!("t{number}"), &of, &["net"], on);
                    }
                }
                _ => {
                    let live = |task: &&Arc<Task>| !task.status.state.is_terminal();
                    let found = swarm.state.tasks().iter().filter(live).nth(usize::from(who));
                    let found = found.map(|task| task.id.clone());
                    if let Some(id) = found {
                        swarm.end(&id);
                    }
                }
            }
            swarm.plan();
            let held = swarm.held();
            let distinct: BTreeSet<&String> = held.iter().collect();
            prop_assert_eq!(distinct.len(), held.len(), "{:?}", held);
            for gateway in ["net 10.0.1.1", "net 10.9.1.1"] {
                prop_assert!(!held.contains(&gateway.to_owned()), "that is the gateway's");
            }
            let services = swarm.state.services().iter();
            let ports = services.flat_map(|it| it.endpoint.iter().flat_map(|it| &it.ports));
            let ports: Vec<u32> = ports.map(|port| port.published_port).collect();
            let distinct: BTreeSet<&u32> = ports.iter().collect();
            prop_assert_eq!(distinct.len(), ports.len(), "{:?}", ports);
        }
    }
}
