//! Who hears when all have followed, against a store that commits at once.

use skep_api::task::TaskState;

use crate::SECOND;
use crate::assignment::{Assignments, ToAgent, ToDispatcher};
use crate::dispatcher::networks::tests::{bench, edit, ready};
use crate::dispatcher::tests::Bench;
use crate::id::Id;
use crate::object::{Object, Task};
use crate::store::{Author, Change};

/// What two nodes hear.
struct Heard {
    told: Vec<(Id, Assignments)>,
    followed: Vec<(Id, u64)>,
}

fn hear(bench: &mut Bench) -> Heard {
    let (mut told, mut followed) = (Vec::new(), Vec::new());
    for (node, _, message) in bench.dispatcher.messages(&bench.state) {
        match message {
            ToAgent::Assignments(assignments) => told.push((node, assignments)),
            ToAgent::Followed(revision) => followed.push((node, revision)),
            _ => {}
        }
    }
    Heard { told, followed }
}

impl Heard {
    /// What one of them was told.
    fn by(&self, node: &str) -> &Assignments {
        let mut of = self.told.iter().filter(|(it, _)| **it == *node);
        &of.next().unwrap().1
    }

    /// Nodes that heard that all have followed, and up to where.
    fn followed(&self) -> Vec<(&str, u64)> {
        let all = self.followed.iter();
        all.map(|(node, revision)| (&**node, *revision)).collect()
    }
}

/// The first two nodes have a session and a task that serves each, and know it.
fn serving() -> Bench {
    let mut bench = bench();
    for (node, addr) in [("n1", "192.0.2.1"), ("n2", "192.0.2.2")] {
        ready(&mut bench, node, addr);
    }
    edit(&mut bench, "n3", |it| {
        it.status.state = skep_api::node::NodeState::Down
    });
    for (id, node) in [("t1", "n1"), ("t2", "n2")] {
        let mut task = Task::clone(bench.state.tasks().get(id).unwrap());
        task.status.state = TaskState::Running;
        let change = Change::Update(Object::from(task));
        bench.write(Author::Agent(node.into()), vec![change]);
    }
    let first = hear(&mut bench);
    assert_eq!(first.followed(), [], "nobody has followed anything");
    for node in ["n1", "n2"] {
        assert!(first.by(node).follow, "{node} may know older things");
        bench.say(node, 1, ToDispatcher::Followed(first.by(node).revision));
    }
    let all = bench.state.revision();
    assert_eq!(hear(&mut bench).followed(), [("n1", all), ("n2", all)]);
    bench
}

#[test]
fn who_stops_something_hears_when_all_have_followed() {
    let mut bench = serving();
    bench.desire("t1", TaskState::Shutdown);
    let stop = hear(&mut bench);
    let revision = bench.state.revision();
    assert!(stop.by("n1").follow && stop.by("n2").follow);
    assert_eq!(stop.by("n2").revision, revision);
    assert_eq!(stop.followed(), []);
    bench.say("n1", 1, ToDispatcher::Followed(revision));
    assert_eq!(hear(&mut bench).followed(), []);
    // Something older, or said in a session that is over, means nothing.
    bench.say("n2", 1, ToDispatcher::Followed(revision - 1));
    bench.say("n2", 0, ToDispatcher::Followed(revision));
    assert_eq!(hear(&mut bench).followed(), []);
    bench.say("n2", 1, ToDispatcher::Followed(revision));
    assert_eq!(hear(&mut bench).followed(), [("n1", revision)]);
    bench.say("n2", 1, ToDispatcher::Followed(revision));
    assert_eq!(hear(&mut bench).followed(), [], "it is said once");
}

#[test]
fn what_takes_nobody_away_is_not_waited_for() {
    let mut bench = serving();
    bench.assign("t3", "n1");
    assert!(!hear(&mut bench).by("n1").follow);
    // Its node alone is told, and there is nothing that anybody has to follow.
    bench.desire("t3", TaskState::Shutdown);
    let stop = hear(&mut bench);
    assert!(!stop.by("n1").follow);
    let all = bench.state.revision();
    assert_eq!(stop.followed(), [("n1", all)]);
}

#[test]
fn the_first_of_two_need_not_wait_for_the_second() {
    let mut bench = serving();
    bench.desire("t1", TaskState::Shutdown);
    hear(&mut bench);
    let first = bench.state.revision();
    bench.desire("t2", TaskState::Shutdown);
    hear(&mut bench);
    let second = bench.state.revision();
    for node in ["n1", "n2"] {
        bench.say(node, 1, ToDispatcher::Followed(first));
    }
    // All have followed until just before the second.
    let heard = hear(&mut bench);
    assert_eq!(heard.followed(), [("n1", second - 1)]);
    for node in ["n1", "n2"] {
        bench.say(node, 1, ToDispatcher::Followed(second));
    }
    assert_eq!(hear(&mut bench).followed(), [("n2", second)]);
}

#[test]
fn a_node_that_may_be_back_is_waited_for_and_one_that_is_down_is_not() {
    let mut bench = serving();
    bench.closed("n2", 1);
    bench.desire("t1", TaskState::Shutdown);
    hear(&mut bench);
    let revision = bench.state.revision();
    bench.say("n1", 1, ToDispatcher::Followed(revision));
    assert_eq!(hear(&mut bench).followed(), []);
    // Back, it has to follow what it missed.
    bench.register("n2", 2);
    let back = hear(&mut bench);
    assert_eq!(back.followed(), []);
    assert!(back.by("n2").follow);
    bench.say("n2", 2, ToDispatcher::Followed(back.by("n2").revision));
    let heard = hear(&mut bench);
    let of: Vec<&str> = heard.followed().iter().map(|(node, _)| *node).collect();
    assert_eq!(of, ["n1", "n2"]);

    bench.desire("t2", TaskState::Shutdown);
    hear(&mut bench);
    let revision = bench.state.revision();
    bench.say("n2", 2, ToDispatcher::Followed(revision));
    bench.closed("n1", 1);
    assert_eq!(hear(&mut bench).followed(), []);
    bench.pass(2 * SECOND);
    let heard = hear(&mut bench);
    let of: Vec<&str> = heard.followed().iter().map(|(node, _)| *node).collect();
    assert_eq!(of, ["n2"]);
}
