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

#[test]
fn demotion_keeps_a_quorum() {
    let alone = state([manager("n1").into(), node("n2", "b").into()]);
    assert_eq!(
        message(demote(&alone, "n1")),
        "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the \
         swarm"
    );
    let mut gone = manager("n3");
    gone.status.state = NodeState::Down;
    let view = state([manager("n1").into(), manager("n2").into(), gone.into()]);
    assert_eq!(
        message(demote(&view, "n1")),
        "rpc error: code = FailedPrecondition desc = can't remove member from the raft: this \
         would result in a loss of quorum"
    );
    assert_eq!(
        message(demote(&view, "n3")),
        "changing the role of a node is not supported by this version of skep"
    );
    let mut joining = manager("n2");
    joining.manager = None;
    let view = state([manager("n1").into(), joining.into()]);
    assert_eq!(
        message(demote(&view, "n2")),
        "rpc error: code = NotFound desc = can't find manager in raft memberlist"
    );
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
