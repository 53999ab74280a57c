//! Tests of the commands for nodes.

use skep_api::node::Availability;

use super::*;
use crate::command::Command;
use crate::control::testing::NOW;
use crate::control::testing::{manager, node, run, service, state, task};
use crate::object::Object;
use crate::store::Tx;

fn demote(view: &State, id: &str) -> Result<Outcome, Error> {
    let mut spec = view.nodes().get(id).unwrap().spec.clone();
    spec.role = WishedRole::Worker;
    run(
        view,
        &Command::UpdateNode {
            id: Id::from(id),
            version: 1,
            spec: spec.into(),
        },
    )
}

fn remove(view: &State, id: &str, force: bool) -> Result<Outcome, Error> {
    run(
        view,
        &Command::RemoveNode {
            id: Id::from(id),
            force,
        },
    )
}

fn message(result: Result<Outcome, Error>) -> String {
    result.unwrap_err().message
}

#[test]
fn a_spec_is_replaced() {
    let view = state([node("n1", "a").into()]);
    let mut spec = node("n1", "a").spec;
    spec.availability = Availability::Drain;
    let update = |version| {
        let spec = spec.clone().into();
        run(
            &view,
            &Command::UpdateNode {
                id: Id::from("n1"),
                version,
                spec,
            },
        )
    };
    let (changes, ..) = update(1).unwrap();
    let [Change::Update(Object::Node(after))] = changes.as_slice() else {
        panic!()
    };
    assert_eq!(after.spec, spec);
    assert_eq!(
        message(update(2)),
        "rpc error: code = Unknown desc = update out of sequence"
    );
}

fn promote(view: &State, id: &str) -> Result<Outcome, Error> {
    let mut spec = view.nodes().get(id).unwrap().spec.clone();
    spec.role = WishedRole::Manager;
    update(view, &Id::from(id), 1, &spec, Timestamp::default())
}

/// The node that an update has written.
fn written(outcome: Result<Outcome, Error>) -> Node {
    let changes = outcome.unwrap().0;
    let [Change::Update(Object::Node(after))] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    after.as_ref().clone()
}

fn down(mut node: Node) -> Node {
    node.status.state = NodeState::Down;
    node
}

/// A manager that the leader has yet to take out of raft.
fn demoted(mut node: Node) -> Node {
    node.spec.role = WishedRole::Worker;
    node
}

/// A manager whose joining has not come to its end.
fn joining(mut node: Node) -> Node {
    node.manager = None;
    node
}

const LAST: &str = "attempting to demote the last manager of the swarm";
const QUORUM: &str = "can't remove member from the raft: this would result in a loss of quorum";

#[test]
fn a_promotion_changes_the_certificate_at_once_and_raft_later() {
    let after = written(promote(&state([node("n1", "a").into()]), "n1"));
    assert_eq!(after.spec.role, WishedRole::Manager);
    assert_eq!((after.role, after.manager), (Role::Manager, None));
    // A demotion that has not happened yet is taken back.
    let back = demoted(manager("n1"));
    let member = back.manager.clone();
    let after = written(promote(&state([back.into()]), "n1"));
    assert_eq!((after.role, after.manager), (Role::Manager, member));
}

#[test]
fn a_demotion_waits_for_raft_also_where_no_seat_is_recorded() {
    let view = state([
        manager("n1").into(),
        manager("n2").into(),
        manager("n3").into(),
    ]);
    let after = written(demote(&view, "n2"));
    assert_eq!(after.spec.role, WishedRole::Worker);
    assert_eq!(after.role, Role::Manager);
    assert!(after.manager.is_some());

    let view = state([manager("n1").into(), joining(manager("n2")).into()]);
    let after = written(demote(&view, "n2"));
    assert_eq!((after.role, after.manager.clone()), (Role::Manager, None));
    // Raft has no seat for it: said once, it is a worker; said twice, nothing is written.
    let view = state([manager("n1").into(), after.into()]);
    let (changes, ..) = set_member(&view, &"n2".into(), None).unwrap();
    let [Change::Update(Object::Node(node))] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!((node.role, &node.manager), (Role::Worker, &None));
    let view = state([manager("n1").into(), Object::Node(node.clone())]);
    assert!(set_member(&view, &"n2".into(), None).unwrap().0.is_empty());
}

#[test]
fn demotion_keeps_a_quorum() {
    let (one, two, three) = (manager("n1"), manager("n2"), manager("n3"));
    for (nodes, whom, refusal) in [
        (vec![one.clone(), node("n2", "b")], "n1", Some(LAST)),
        (vec![one.clone(), joining(two.clone())], "n1", Some(LAST)),
        (vec![one.clone(), demoted(two.clone())], "n1", Some(LAST)),
        (vec![one.clone(), two.clone()], "n1", None),
        (vec![one.clone(), down(two.clone())], "n1", Some(QUORUM)),
        (vec![one.clone(), down(two.clone())], "n2", None),
        (
            vec![one.clone(), two.clone(), down(three.clone())],
            "n1",
            Some(QUORUM),
        ),
        (
            vec![one.clone(), two.clone(), down(three.clone())],
            "n3",
            None,
        ),
        (
            vec![one.clone(), two.clone(), demoted(down(three.clone()))],
            "n1",
            None,
        ),
        (vec![one, demoted(two), three], "n1", None),
    ] {
        let picture: Vec<_> = nodes
            .iter()
            .map(|node| (&node.spec.role, &node.status.state, node.manager.is_some()))
            .collect();
        let picture = format!("demote {whom} of {picture:?}");
        let outcome = demote(&state(nodes.into_iter().map(Object::from)), whom);
        let expected =
            refusal.map(|text| format!("rpc error: code = FailedPrecondition desc = {text}"));
        assert_eq!(
            outcome.err().map(|error| error.message),
            expected,
            "{picture}"
        );
    }
}

#[test]
fn only_what_is_down_is_removed() {
    let web = service("s1", "web");
    let mut down = node("n3", "c");
    down.status.state = NodeState::Down;
    let view = state([
        manager("n1").into(),
        node("n2", "b").into(),
        down.into(),
        task("t1", &web, 1, "n2").into(),
        web.into(),
    ]);
    assert_eq!(
        message(remove(&view, "n1", true)),
        "rpc error: code = FailedPrecondition desc = node n1 is a cluster manager and is a member \
         of the raft cluster. It must be demoted to worker before removal"
    );
    assert_eq!(
        message(remove(&view, "n2", false)),
        "rpc error: code = FailedPrecondition desc = node n2 is not down and can't be removed"
    );
    assert_eq!(
        message(remove(&view, "n9", false)),
        "rpc error: code = NotFound desc = node n9 not found"
    );
    assert_eq!(remove(&view, "n3", false).unwrap().0.len(), 1);
    let leaving = state([demoted(manager("n4")).into(), joining(manager("n5")).into()]);
    assert_eq!(remove(&leaving, "n4", true).unwrap().0.len(), 1);
    assert_eq!(remove(&leaving, "n5", true).unwrap().0.len(), 1);

    let (changes, author, _) = remove(&view, "n2", true).unwrap();
    let mut after = view.clone();
    after
        .apply(&Tx {
            author,
            at: NOW,
            changes,
        })
        .unwrap();
    assert!(after.nodes().get("n2").is_none());
    let orphan = after.tasks().get("t1").unwrap();
    assert_eq!(orphan.status.state, TaskState::Orphaned);
    assert_eq!(
        orphan.status.message,
        "Task belonged to a node that has been deleted"
    );
}

#[test]
fn membership_is_recorded_once() {
    let member = manager("n1").manager;
    let view = state([manager("n1").into()]);
    let set = |member| {
        run(
            &view,
            &Command::SetMember {
                node: Id::from("n1"),
                member,
            },
        )
        .unwrap()
        .0
    };
    assert!(set(member).is_empty());
    let changes = set(None);
    let [Change::Update(Object::Node(after))] = changes.as_slice() else {
        panic!()
    };
    assert_eq!((after.role, after.manager.as_ref()), (Role::Manager, None));
}

#[test]
fn a_node_that_leaves_is_down() {
    let view = state([node("n1", "a").into()]);
    let leave = |id: &str| {
        run(&view, &Command::NodeLeft { node: Id::from(id) })
            .unwrap()
            .0
    };
    let changes = leave("n1");
    let [Change::Update(Object::Node(after))] = changes.as_slice() else {
        panic!()
    };
    assert_eq!(after.status.state, NodeState::Down);
    assert!(leave("n9").is_empty());
}
