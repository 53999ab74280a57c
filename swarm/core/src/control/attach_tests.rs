//! Containers that are no task's get their places, keep them and give them back: through the whole
//! leader, against a store that commits at once.

use skep_api::network::{IpamConfig, NetworkSpec};
use skep_api::node::Availability;

use super::*;
use crate::assignment::{Assignments, ToAgent, ToDispatcher};
use crate::command::Command;
use crate::control::testing::{NOW, cluster, node, state};
use crate::dispatcher::Peer;
use crate::id::CountingIds;
use crate::leader::{Input, Leader};
use crate::network::{VNI_OPTION, addressing, driver, pool};
use crate::object::{Meta, Node, Place};

struct Swarm {
    state: State,
    leader: Leader,
    ids: CountingIds,
    number: u64,
    /// What `n1` was told last.
    told: Assignments,
    answers: Vec<(u64, Result<Id, Error>)>,
}

fn network(id: &str, subnet: &str, attachable: bool) -> NetworkObject {
    let vni = format!("{}", 4097 + id.len());
    NetworkObject {
        id: id.into(),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: format!("name-{id}"),
            attachable,
            ..NetworkSpec::default()
        },
        driver_state: Some(driver("overlay", [(VNI_OPTION.to_owned(), vni)].into())),
        ipam: Some(addressing([pool(subnet.parse().unwrap(), "", None)])),
        keys: Vec::new(),
    }
}

impl Swarm {
    /// Two nodes with sessions, an attachable network of five addresses, and one that is not.
    fn new(edit: impl FnOnce(&mut Node)) -> Self {
        let mut first = node("n1", "n1");
        edit(&mut first);
        let state = state(vec![
            cluster().into(),
            first.into(),
            node("n2", "n2").into(),
            network("net", "10.0.1.0/29", true).into(),
            network("plain", "10.0.2.0/24", false).into(),
        ]);
        let mut swarm = Self {
            leader: Leader::new(&state),
            state,
            ids: CountingIds::default(),
            number: 0,
            told: Assignments::default(),
            answers: Vec::new(),
        };
        swarm.register();
        swarm
    }

    fn register(&mut self) {
        for node in ["n1", "n2"] {
            let register = ToDispatcher::Register {
                description: Box::default(),
                subnets: Vec::new(),
                subnets6: Vec::new(),
                data_path: None,
            };
            self.says(node, register);
        }
    }

    fn says(&mut self, node: &str, message: ToDispatcher) {
        let peer = Peer {
            node: node.into(),
            session: 1,
            addr: "192.0.2.1".into(),
        };
        self.step(vec![Input::Agent { peer, message }]);
    }

    fn step(&mut self, inputs: Vec<Input>) {
        let step = self.leader.step(&self.state, inputs, NOW, &mut self.ids);
        assert!(step.refused.is_empty(), "{:?}", step.refused);
        for (_, answer) in &step.answers {
            assert!(answer.is_ok(), "{answer:?}");
        }
        if let Some(batch) = step.batch {
            self.state.apply_batch(&batch).unwrap();
        }
        for (node, _, message) in self.leader.messages(&self.state) {
            match message {
                ToAgent::Assignments(told) if *node == *"n1" => self.told = told,
                ToAgent::Answer { number, outcome } => self.answers.push((number, outcome)),
                _ => {}
            }
        }
    }

    fn command(&mut self, command: Command) {
        let command = Box::new(command);
        self.step(vec![Input::Command { ticket: 0, command }]);
    }

    /// The answer to a wish of `n1`.
    fn attach(&mut self, wish: Wish) -> Result<Id, Error> {
        self.number += 1;
        let number = self.number;
        let wish = Box::new(wish);
        self.says("n1", ToDispatcher::Attach { number, wish });
        let (answered, outcome) = self.answers.pop().unwrap();
        assert_eq!(answered, number);
        outcome
    }

    fn ends(&mut self, task: &Id) {
        let status = TaskStatus {
            state: TaskState::Shutdown,
            timestamp: NOW,
            ..TaskStatus::default()
        };
        let statuses = vec![(task.clone(), status)];
        let sequence = 1;
        self.says("n1", ToDispatcher::Statuses { sequence, statuses });
    }

    fn task(&self, id: &Id) -> &Task {
        self.state.tasks().get(id).unwrap()
    }

    fn address(&self, id: &Id) -> Option<String> {
        match &self.task(id).attachments.first()?.place {
            Place::Address(cidr) => Some(cidr.to_string()),
            Place::Engine(_) => None,
        }
    }

    fn removal(&self) -> Result<(), String> {
        let id = Id::from("net");
        let remove = Command::RemoveNetwork { id };
        let refused = crate::control::testing::run(&self.state, &remove).err();
        refused.map_or(Ok(()), |error| Err(error.message))
    }
}

fn wish(container: &str, address: &str, last: &str) -> Wish {
    Wish {
        network: "name-net".into(),
        container: Attached {
            id: container.into(),
            names: vec!["web".into()],
            address: address.parse().ok(),
            ipv6: None,
            last: last.parse().ok(),
        },
    }
}

#[test]
fn an_ipv6_address_may_be_asked_for() {
    let mut net = network("net", "10.7.0.0/24", true);
    net.spec.ipv6_enabled = true;
    let config = IpamConfig {
        subnet: "fd00:7::/64".into(),
        ..IpamConfig::default()
    };
    net.ipam.as_mut().unwrap().configs.push(config);
    let plain = network("plain", "10.8.0.0/24", true);
    let mut two = net.clone();
    let second = pool("10.9.0.0/24".parse().unwrap(), "", None);
    two.ipam.as_mut().unwrap().configs.push(second);
    let refused = |text: &str| Err(format!("rpc error: code = InvalidArgument desc = {text}"));
    for (network, address, ipv6, expected) in [
        (&net, "", "", Ok(None)),
        (&net, "", "fd00:7::99", Ok(Some("10.7.0.153"))),
        (&net, "10.7.0.153", "fd00:7::99", Ok(Some("10.7.0.153"))),
        (
            &net,
            "10.7.0.5",
            "fd00:7::99",
            refused(
                "address fd00:7::99: on network name-net it goes with 10.7.0.153, not 10.7.0.5",
            ),
        ),
        (
            &net,
            "",
            "fd00:7::1:0",
            refused("address fd00:7::1:0: network name-net has fd00:7:: to fd00:7::ff"),
        ),
        (
            &plain,
            "",
            "fd00:7::99",
            refused("address fd00:7::99: network name-plain has no IPv6 subnet"),
        ),
        (&two, "", "fd00:7::99", Ok(Some("10.7.0.153"))),
        (&two, "10.9.0.9", "fd00:7::109", Ok(Some("10.9.0.9"))),
        (
            &two,
            "",
            "fd00:7::200",
            refused(
                "address fd00:7::200: network name-net has fd00:7:: to fd00:7::ff, fd00:7::100 to \
                 fd00:7::1ff",
            ),
        ),
    ] {
        let mut container = wish("c", address, "").container;
        container.ipv6 = ipv6.parse().ok();
        let found = wanted(network, &container).map_err(|error| error.message);
        let expected = expected.map(|it| it.map(|it| it.parse().unwrap()));
        assert_eq!(found, expected, "{address} {ipv6}");
    }
}

#[test]
fn a_container_has_its_place_at_once_and_its_node_hears_of_it() {
    // Nobody is scheduled to such a node, but this is no scheduling.
    for availability in [
        Availability::Active,
        Availability::Drain,
        Availability::Pause,
    ] {
        let mut swarm = Swarm::new(|node| node.spec.availability = availability);
        let id = swarm.attach(wish("c1", "", "")).unwrap();
        let task = swarm.task(&id);
        assert_eq!(task.status.state, TaskState::Assigned);
        assert_eq!(swarm.address(&id).unwrap(), "10.0.1.2/29");
        let told = &swarm.told;
        assert_eq!(told.tasks.len(), 1);
        assert_eq!(told.tasks[0].attached.as_ref().unwrap().id, "c1");
        assert_eq!(told.networks[0].gateway.to_string(), "10.0.1.3");
        // Asked again, since the answer was lost.
        assert_eq!(swarm.attach(wish("c1", "", "")), Ok(id));
        assert_eq!(swarm.state.tasks().iter().count(), 1);
    }
}

#[test]
fn refusals_are_the_originals() {
    let mut swarm = Swarm::new(|_| {});
    let mut refused = |network: &str| {
        let mut wish = wish("c1", "", "");
        wish.network = network.into();
        swarm.attach(wish).unwrap_err().message
    };
    assert_eq!(
        refused("nope"),
        "rpc error: code = NotFound desc = network nope not found"
    );
    assert_eq!(
        refused("name-plain"),
        "rpc error: code = PermissionDenied desc = network name-plain not manually attachable"
    );
    let mut long = wish("c1", "", "");
    long.container.names = vec![String::new(); MOST_NAMES + 1];
    assert!(swarm.attach(long).is_err());
    assert_eq!(swarm.state.tasks().iter().count(), 0);
}

#[test]
fn an_address_that_is_asked_for_is_had_or_waited_for() {
    let mut swarm = Swarm::new(|_| {});
    let first = swarm.attach(wish("c1", "10.0.1.5", "")).unwrap();
    assert_eq!(swarm.address(&first).unwrap(), "10.0.1.5/29");
    let second = swarm.attach(wish("c2", "10.0.1.5", "")).unwrap();
    assert_eq!(swarm.address(&second), None);
    assert_eq!(
        swarm.task(&second).status.err,
        "address 10.0.1.5 is taken, or none of network name-net (10.0.1.0/29)"
    );
    for never in ["10.0.1.1", "10.0.1.0", "10.0.1.7", "1.2.3.4"] {
        let id = swarm.attach(wish(never, never, "")).unwrap();
        assert_eq!(swarm.address(&id), None, "{never}");
    }
    swarm.ends(&first);
    assert_eq!(swarm.address(&second).unwrap(), "10.0.1.5/29");
}

#[test]
fn the_address_that_it_had_is_its_own_unless_somebody_has_got_it() {
    let mut swarm = Swarm::new(|_| {});
    let first = swarm.attach(wish("c1", "", "10.0.1.4")).unwrap();
    assert_eq!(swarm.address(&first).unwrap(), "10.0.1.4/29");
    let second = swarm.attach(wish("c2", "", "10.0.1.4")).unwrap();
    assert_ne!(swarm.address(&second).unwrap(), "10.0.1.4/29");
}

#[test]
fn one_that_has_ended_leaves_nothing_behind() {
    let mut swarm = Swarm::new(|_| {});
    let id = swarm.attach(wish("c1", "", "")).unwrap();
    let in_use =
        format!("rpc error: code = FailedPrecondition desc = network net is in use by task {id}");
    assert_eq!(swarm.removal(), Err(in_use));
    swarm.ends(&id);
    assert!(swarm.state.tasks().get(&id).is_none());
    assert_eq!(swarm.removal(), Ok(()));
    assert!(swarm.state.nodes().get("n1").unwrap().gateways.is_empty());
}

#[test]
fn a_node_lets_go_of_what_it_does_not_wait_for_any_more() {
    let mut swarm = Swarm::new(|_| {});
    let waits = swarm.attach(wish("c1", "1.2.3.4", "")).unwrap();
    let has = swarm.attach(wish("c1-other", "", "")).unwrap();
    let let_go = |container: &str| ToDispatcher::Detach {
        container: container.into(),
        network: Some("name-net".into()),
    };
    // Another node's containers are none of its business.
    swarm.says("n2", let_go("c1"));
    assert_eq!(swarm.task(&waits).desired_state, TaskState::Running);
    swarm.says("n1", let_go("c1"));
    assert!(swarm.state.tasks().get(&waits).is_none());
    // One that was told is removed once its node has let go.
    swarm.says("n1", let_go("c1-other"));
    assert_eq!(swarm.told.tasks[0].desired_state, TaskState::Remove);
    swarm.ends(&has);
    assert!(swarm.state.tasks().get(&has).is_none());
}

#[test]
fn a_new_leader_leaves_everything_as_it_is() {
    let mut swarm = Swarm::new(|_| {});
    let id = swarm.attach(wish("c1", "10.0.1.6", "")).unwrap();
    let waits = swarm.attach(wish("c2", "10.0.1.6", "")).unwrap();
    let before = swarm.state.clone();
    swarm.leader = Leader::new(&swarm.state);
    swarm.register();
    assert!(before.tasks() == swarm.state.tasks());
    swarm.ends(&id);
    assert_eq!(swarm.address(&waits).unwrap(), "10.0.1.6/29");
}

#[test]
fn a_node_that_goes_takes_its_places_along() {
    let gone = |command: Command| {
        let mut swarm = Swarm::new(|_| {});
        let id = swarm.attach(wish("c1", "", "")).unwrap();
        swarm.command(command);
        assert!(swarm.state.tasks().get(&id).is_none());
        assert_eq!(swarm.removal(), Ok(()));
    };
    let id = Id::from("n1");
    gone(Command::RemoveNode {
        id: id.clone(),
        force: true,
    });
    gone(Command::NodeLeft { node: id });
}

#[test]
fn nobody_lists_them_unasked() {
    let mut swarm = Swarm::new(|_| {});
    let id = swarm.attach(wish("c1", "", "")).unwrap();
    let listed = |key: &str, value: &str| {
        let mut filters = skep_api::filters::Filters::default();
        if !key.is_empty() {
            filters.add(key, value);
        }
        let tasks = crate::wire::tasks(&swarm.state, &filters).unwrap();
        tasks.into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert!(listed("", "").is_empty());
    assert!(listed("runtime", "container").is_empty());
    assert_eq!(listed("runtime", "attachment"), [id.to_string()]);
}
