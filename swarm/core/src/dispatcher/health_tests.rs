//! Which nodes count as alive, against a store that commits at once: silence, broken connections,
//! new leaders, nodes that come and go.

use skep_api::node::NodeState;
use skep_api::task::TaskState;

use super::tests::Bench;
use super::*;
use crate::object::{Cluster, LEFT};
use crate::reconcile::Reconciler;
use crate::{HOUR, MILLISECOND};

const LOST: &str = r#"heartbeat failure for node in "unknown" state"#;
const UNKNOWN: &str = r#"Node moved to "unknown" state due to leadership change in cluster"#;

impl Bench {
    /// Another manager leads: it knows what is in the store and nothing else.
    fn new_leader(&mut self) {
        self.dispatcher = Dispatcher::default();
        self.dispatcher.mark_all(&self.state.clone());
        self.plan();
    }

    fn heartbeats_every(&mut self, period: Nanos) {
        let spec = skep_api::cluster::Spec {
            dispatcher: skep_api::cluster::DispatcherConfig {
                heartbeat_period: period,
            },
            ..Default::default()
        };
        let cluster = Cluster {
            spec,
            ..crate::control::testing::cluster()
        };
        self.write(Author::Ca, vec![Change::Create(Object::from(cluster))]);
    }

    fn pauses(&self, node: &str) -> bool {
        let status = &self.state.nodes().get(node).unwrap().status;
        flapping::rests_until(status).is_some_and(|until| until > self.now)
    }
}

#[test]
fn a_node_that_falls_silent_is_down_after_three_periods() {
    // (period, down after): honoured as it is, but for one that would cost a node its tasks for
    // every lost packet.
    let table = [
        (0, 15 * SECOND),
        (5 * SECOND, 15 * SECOND),
        (SECOND, 3 * SECOND),
        (60 * SECOND, 180 * SECOND),
        (20 * MILLISECOND, 2 * SECOND),
    ];
    for (period, span) in table {
        let mut bench = Bench::new(&["n1"]);
        bench.heartbeats_every(period);
        bench.register("n1", 1);
        bench.sent();
        for _ in 0..10 {
            bench.pass(span / 2);
            bench.say("n1", 1, ToDispatcher::Heartbeat);
        }
        bench.pass(span - 1);
        assert_eq!(bench.health("n1").0, NodeState::Ready, "{period}");
        bench.pass(1);
        assert_eq!(bench.health("n1"), (NodeState::Down, "heartbeat failure"));
        assert_eq!(bench.sent(), ["n1/1 expired"]);
        // It may come back at any time.
        bench.register("n1", 1);
        assert_eq!(bench.health("n1"), (NodeState::Ready, ""));
        assert_eq!(bench.sent(), ["n1/1 session 0", "n1/1 all +[] -[]"]);
    }
}

#[test]
fn an_update_without_a_period_brings_back_the_default() {
    let mut bench = Bench::new(&["n1"]);
    bench.heartbeats_every(60 * SECOND);
    bench.register("n1", 1);
    bench.sent();
    // As clients may: a spec with nothing but a name.
    let mut cluster = Cluster::clone(bench.state.cluster().unwrap());
    cluster.spec = skep_api::cluster::Spec::default();
    bench.write(Author::Control, vec![Change::Update(Object::from(cluster))]);
    let told = bench.dispatcher.messages(&bench.state);
    let periods: Vec<Nanos> = told
        .iter()
        .filter_map(|(_, _, message)| match message {
            ToAgent::Session { heartbeat, .. } => Some(*heartbeat),
            _ => None,
        })
        .collect();
    assert_eq!(periods, [5 * SECOND]);
    bench.say("n1", 1, ToDispatcher::Heartbeat);
    bench.pass(15 * SECOND - 1);
    assert_eq!(bench.health("n1").0, NodeState::Ready);
    bench.pass(1);
    assert_eq!(bench.health("n1"), (NodeState::Down, "heartbeat failure"));
}

#[test]
fn how_long_a_broken_connection_is_forgiven() {
    // (goodbye, period, forgiven for): without a goodbye, the period does not count.
    let table = [
        (false, 5 * SECOND, SECOND),
        (false, 60 * SECOND, SECOND),
        (false, 100 * MILLISECOND, SECOND),
        (true, 5 * SECOND, 15 * SECOND),
        (true, 100 * MILLISECOND, 5 * SECOND),
    ];
    for (goodbye, period, span) in table {
        let mut bench = Bench::new(&["n1"]);
        bench.heartbeats_every(period);
        bench.register("n1", 1);
        bench.plan();
        if goodbye {
            bench.say("n1", 1, ToDispatcher::Restarting);
        }
        bench.closed("n1", 1);
        bench.pass(span - 1);
        assert_eq!(bench.health("n1").0, NodeState::Ready, "{goodbye} {period}");
        bench.pass(1);
        assert_eq!(bench.health("n1"), (NodeState::Down, "heartbeat failure"));
    }
    // One that has a new session by then is not missed, and its old one does not matter.
    let mut bench = Bench::new(&["n1"]);
    bench.register("n1", 1);
    bench.register("n1", 2);
    bench.closed("n1", 1);
    bench.pass(10 * SECOND);
    assert_eq!(bench.health("n1").0, NodeState::Ready);
}

#[test]
fn a_new_leader_calls_those_unknown_that_do_not_come_back() {
    let mut bench = Bench::new(&["n1", "n2", "n3"]);
    for node in ["n1", "n2", "n3"] {
        bench.register(node, 1);
    }
    let version = bench.state.nodes().meta("n1").unwrap().version;
    bench.new_leader();
    bench.register("n1", 1);
    bench.pass(1499 * MILLISECOND);
    assert_eq!(bench.health("n2"), (NodeState::Ready, ""));
    bench.pass(MILLISECOND);
    assert_eq!(bench.health("n2"), (NodeState::Unknown, UNKNOWN));
    assert_eq!(bench.health("n3"), (NodeState::Unknown, UNKNOWN));
    // Both in one transaction, and nothing about the one that was in time.
    let written = |node: &str| bench.state.nodes().meta(node).unwrap().version;
    assert_eq!(written("n2"), written("n3"));
    assert_eq!(written("n1"), version);
    bench.register("n2", 1);
    assert_eq!(bench.health("n2"), (NodeState::Ready, ""));
    bench.pass(1500 * MILLISECOND);
    assert_eq!(bench.health("n1").0, NodeState::Ready);
    assert_eq!(bench.health("n2").0, NodeState::Ready);
    assert_eq!(bench.health("n3"), (NodeState::Down, LOST));
}

#[test]
fn one_leader_after_the_other_writes_unknown_once() {
    let mut bench = Bench::new(&["n1"]);
    bench.register("n1", 1);
    bench.new_leader();
    bench.pass(2 * SECOND);
    let written = bench.state.revision();
    for _ in 0..5 {
        bench.new_leader();
        bench.pass(2 * SECOND);
    }
    assert_eq!(bench.state.revision(), written);
    bench.pass(SECOND);
    assert_eq!(bench.health("n1"), (NodeState::Down, LOST));
}

#[test]
fn a_node_that_leaves_is_down_at_once_and_gone() {
    let mut bench = Bench::new(&["n1"]);
    bench.register("n1", 1);
    bench.register("n1", 2);
    bench.say("n1", 1, ToDispatcher::Leaving);
    assert_eq!(bench.health("n1").0, NodeState::Ready, "an old session's");
    bench.say("n1", 2, ToDispatcher::Leaving);
    bench.closed("n1", 2);
    bench.pass(10 * SECOND);
    assert_eq!(bench.health("n1"), (NodeState::Down, LEFT));
    bench.register("n1", 3);
    assert_eq!(bench.health("n1").0, NodeState::Ready);
}

#[test]
fn a_restart_is_granted_by_the_next_leader_too() {
    let mut bench = Bench::new(&["n1", "n2"]);
    bench.register("n1", 1);
    bench.register("n2", 1);
    bench.say("n1", 1, ToDispatcher::Restarting);
    bench.pass(4 * SECOND);
    bench.new_leader();
    bench.pass(11 * SECOND - 1);
    assert_eq!(bench.health("n2").0, NodeState::Down);
    assert_eq!(bench.health("n1").0, NodeState::Unknown);
    bench.pass(1);
    assert_eq!(bench.health("n1"), (NodeState::Down, LOST));
    // It is granted once, not for ever.
    bench.register("n1", 1);
    bench.new_leader();
    bench.pass(3 * SECOND);
    assert_eq!(bench.health("n1").0, NodeState::Down);
}

#[test]
fn a_leader_that_slept_itself_blames_nobody_at_once() {
    let mut bench = Bench::new(&["n1", "n2"]);
    bench.register("n1", 1);
    bench.register("n2", 1);
    bench.plan();
    bench.now = bench.now.plus(HOUR);
    bench.plan();
    bench.say("n1", 1, ToDispatcher::Heartbeat);
    bench.pass(SECOND);
    assert_eq!(bench.health("n1").0, NodeState::Ready);
    assert_eq!(bench.health("n2"), (NodeState::Down, "heartbeat failure"));
}

#[test]
fn a_node_registers_three_times_in_eight_seconds() {
    let mut bench = Bench::new(&["n1"]);
    for session in 1..=3 {
        bench.register("n1", session);
        bench.pass(SECOND);
    }
    bench.sent();
    bench.register("n1", 4);
    let text = "n1/4 node n1 exceeded rate limit count of registrations";
    assert_eq!(bench.sent(), [text]);
    // The session that stands is not touched, and may say more about itself.
    bench.register("n1", 3);
    assert!(bench.sent().is_empty());
    bench.closed("n1", 3);
    bench.pass(5 * SECOND - 1);
    bench.register("n1", 5);
    assert_eq!(bench.health("n1").0, NodeState::Down);
    bench.pass(1);
    bench.register("n1", 6);
    assert_eq!(bench.health("n1").0, NodeState::Ready);
}

#[test]
fn a_node_that_comes_and_goes_pauses_for_every_leader() {
    let mut bench = Bench::new(&["n1"]);
    bench.pass(SECOND);
    bench.register("n1", 1);
    assert!(!bench.pauses("n1"), "a new node");
    for session in 1..=2 {
        bench.closed("n1", session);
        bench.pass(9 * SECOND);
        bench.register("n1", session + 1);
        assert_eq!(bench.pauses("n1"), session > 1);
    }
    bench.new_leader();
    bench.register("n1", 1);
    bench.pass(10 * SECOND - 1);
    assert!(bench.pauses("n1"));
    bench.pass(1);
    assert!(!bench.pauses("n1"));
}

#[test]
fn tasks_of_a_node_that_stays_away_are_given_up() {
    let mut bench = Bench::new(&["n1"]);
    bench.assign("t1", "n1");
    bench.assign("t2", "n1");
    bench.register("n1", 1);
    bench.report("n1", 1, "t2", TaskState::Failed);
    bench.closed("n1", 1);
    bench.pass(SECOND);
    bench.pass(12 * HOUR);
    // Neither a new leader nor a new label begins the day anew.
    bench.new_leader();
    let mut node = Node::clone(bench.state.nodes().get("n1").unwrap());
    node.spec.labels = [("a".to_owned(), "b".to_owned())].into();
    bench.write(Author::Control, vec![Change::Update(Object::from(node))]);
    bench.pass(12 * HOUR - 1);
    assert_eq!(bench.task("t1"), TaskState::Assigned);
    bench.pass(1);
    assert_eq!(bench.task("t1"), TaskState::Orphaned);
    assert_eq!(bench.task("t2"), TaskState::Failed, "it had ended before");
}
