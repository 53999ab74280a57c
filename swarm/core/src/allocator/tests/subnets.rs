//! Networks of several IPv4 subnets: addresses come from all of them. Pure.

use super::*;

const TWO: &str = "10.5.0.0/29 10.6.0.0/29";

impl Harness {
    fn branches(&self, id: &str) -> Vec<usize> {
        let task = self.state.tasks().get(id).unwrap();
        task.attachments.iter().map(|it| it.branch).collect()
    }
}

#[test]
fn addresses_of_the_next_subnet_follow_those_of_the_first() {
    let mut swarm = Harness::new(TWO);
    swarm.service("web", &["net"], ResolutionMode::Vip);
    swarm.task("t1", &["net"], "n1");
    swarm.plan();
    assert_eq!(swarm.vip("web").as_deref(), Some("10.5.0.2/29"));
    assert_eq!(swarm.addresses("t1"), ["10.5.0.3/29"]);
    assert_eq!(swarm.gateway("n1").as_deref(), Some("10.5.0.4"));
    for id in ["t2", "t3", "t4"] {
        swarm.task(id, &["host", "net"], "n1");
        swarm.plan();
    }
    assert_eq!(swarm.addresses("t3"), ["host", "10.5.0.6/29"]);
    assert_eq!(swarm.addresses("t4"), ["host", "10.6.0.2/29"]);
    assert_eq!(
        (swarm.branches("t3"), swarm.branches("t4")),
        (vec![0, 0], vec![0, 1])
    );
    swarm.service("db", &["net"], ResolutionMode::Vip);
    swarm.task("t5", &["net"], "n2");
    swarm.plan();
    assert_eq!(swarm.vip("db").as_deref(), Some("10.6.0.3/29"));
    assert_eq!(swarm.gateway("n2").as_deref(), Some("10.6.0.5"));
    for number in 1..=5 {
        swarm.end(&format!("t{number}"));
    }
    swarm.plan();
    assert_eq!((swarm.gateway("n1"), swarm.gateway("n2")), (None, None));
    assert_eq!(swarm.held().len(), 2, "the services have theirs");
}

#[test]
fn who_finds_none_left_in_any_says_so() {
    let mut swarm = Harness::new(TWO);
    // Of ten, one is the node's.
    for number in 1..=9 {
        swarm.task(&format!("t{number}"), &["net"], "n1");
        swarm.plan();
    }
    swarm.task("u1", &["net"], "n1");
    swarm.plan();
    let why = "no address is left on network front (10.5.0.0/29, 10.6.0.0/29)";
    assert_eq!(swarm.err("u1"), (TaskState::New, why.to_owned()));
    swarm.end("t9");
    swarm.plan();
    assert_eq!(swarm.addresses("u1"), ["10.6.0.6/29"]);
}

#[test]
fn a_new_leader_knows_what_is_taken_in_every_subnet() {
    let mut swarm = Harness::new(TWO);
    for number in 1..=5 {
        swarm.task(&format!("t{number}"), &["net"], "n1");
        swarm.plan();
    }
    swarm.allocator = Allocator::default();
    swarm.allocator.mark_all(&swarm.state);
    for number in 6..=9 {
        swarm.task(&format!("t{number}"), &["net"], "n1");
        swarm.plan();
    }
    let held = swarm.held();
    let distinct: BTreeSet<&String> = held.iter().collect();
    assert_eq!((held.len(), distinct.len()), (10, 10), "{held:?}");
}
