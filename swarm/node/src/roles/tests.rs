//! Tests of who has to leave raft, and whether the quorum allows it.

use skep_api::cluster::InitRequest;
use skep_core::Timestamp;
use skep_core::bootstrap::{self, Made};
use skep_core::object::{JoinTokens, Node, RootCa};
use skep_core::store::{Author, Change, Tx};

use super::*;

/// Nodes by name, whether they are wished to be managers, and the raft id on record.
fn state(rows: &[(&str, bool, Option<u64>)]) -> State {
    let made = Made {
        cluster: "c".into(),
        node: "first".into(),
        root_ca: RootCa::default(),
        join_tokens: JoinTokens {
            worker: "w".into(),
            manager: "m".into(),
        },
        member: ManagerMember {
            raft_id: 0,
            addr: String::new(),
        },
    };
    let (cluster, like) = bootstrap::objects(&InitRequest::default(), made);
    let mut changes = vec![Change::Create(cluster.into())];
    for (id, manager, raft_id) in rows {
        let mut node = Node {
            id: (*id).into(),
            manager: raft_id.map(|raft_id| ManagerMember {
                raft_id,
                addr: String::new(),
            }),
            ..like.clone()
        };
        if !manager {
            node.spec.role = WishedRole::Worker;
        }
        changes.push(Change::Create(node.into()));
    }
    let mut state = State::default();
    let tx = Tx {
        author: Author::Control,
        at: Timestamp::from_nanos(0),
        changes,
    };
    state.apply(&tx).unwrap();
    state
}

/// Members by node and raft id; whether they vote and have answered. All are supposed to be there,
/// as a new leader does.
fn members(of: &[(&str, u64, bool, bool)]) -> Leadership {
    let status = |(node, raft_id, voter, heard): &(&str, u64, bool, bool)| MemberStatus {
        member: Member {
            raft_id: *raft_id,
            node_id: (*node).into(),
            addr: String::new(),
        },
        voter: *voter,
        reachable: Some(true),
        heard: *heard,
    };
    Leadership {
        members: of.iter().map(status).collect(),
        ..Leadership::default()
    }
}

#[test]
fn whoever_is_demoted_removed_or_replaced_has_to_leave() {
    let up = |node, id| (node, id, true, true);
    let raft = [up("a", 1), up("b", 2), up("c", 3)];
    for (rows, raft, expected) in [
        (
            vec![
                ("a", true, Some(1)),
                ("b", true, Some(2)),
                ("c", true, None),
            ],
            &raft[..],
            vec![],
        ),
        // Demoted: the leader, a, comes last.
        (
            vec![
                ("a", false, Some(1)),
                ("b", false, Some(2)),
                ("c", true, Some(3)),
            ],
            &raft,
            vec![("b", vec![2], true), ("a", vec![1], true)],
        ),
        // Removed by force.
        (
            vec![("a", true, Some(1)), ("b", true, Some(2))],
            &raft,
            vec![("c", vec![3], false)],
        ),
        // Out of raft, but a leader died before it could say so.
        (
            vec![("a", true, Some(1)), ("b", false, Some(2))],
            &raft[..1],
            vec![("b", vec![], true)],
        ),
        // Demoted before its membership was written down, or before there was any.
        (
            vec![("a", true, Some(1)), ("b", false, None)],
            &raft[..2],
            vec![("b", vec![2], true)],
        ),
        (
            vec![("a", true, Some(1)), ("b", false, None)],
            &raft[..1],
            vec![("b", vec![], true)],
        ),
        // Has joined anew with an empty disk.
        (
            vec![
                ("a", true, Some(1)),
                ("b", true, Some(2)),
                ("c", true, Some(7)),
            ],
            &[up("a", 1), up("b", 2), up("c", 3), up("c", 7)],
            vec![("c", vec![3], false)],
        ),
    ] {
        let picture = format!("{rows:?} {raft:?}");
        let found = surplus(&state(&rows), &members(raft), &"a".into());
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.node.as_str(), it.raft_ids.clone(), it.recorded))
            .collect();
        assert_eq!(found, expected, "{picture}");
    }
    let nobody = surplus(&State::default(), &members(&raft), &"a".into());
    assert_eq!(nobody, [], "before the first state has come");
}

#[test]
fn those_who_stay_must_be_a_quorum() {
    let up = |id| ("n", id, true, true);
    let down = |id| ("n", id, true, false);
    let learner = |id| ("n", id, false, true);
    for (raft, leaving, expected) in [
        (vec![up(1), up(2)], vec![2], true),
        (vec![up(1), down(2)], vec![2], true),
        (vec![up(1), up(2), up(3)], vec![3], true),
        (vec![up(1), up(2), down(3)], vec![3], true),
        (vec![up(1), up(2), down(3)], vec![2], false),
        (vec![up(1), up(2), down(3), down(4)], vec![4], true),
        (vec![up(1), up(2), up(3), down(4)], vec![3], true),
        (vec![up(1)], vec![1], false),
        // A learner neither helps nor hurts.
        (vec![up(1), up(2), down(3), learner(4)], vec![2], false),
        (vec![up(1), down(2), down(3), learner(4)], vec![4], true),
        (vec![up(1), down(2)], vec![], true),
    ] {
        assert_eq!(
            keeps_quorum(&members(&raft), &leaving),
            expected,
            "{raft:?} {leaving:?}"
        );
    }
}
