//! Changes of membership and of leadership.

use super::cluster::{Cluster, member, until, view, write};
use crate::raft::{Leadership, MemberError};

fn voters(view: &Leadership) -> Vec<u64> {
    view.members
        .iter()
        .filter(|it| it.voter)
        .map(|it| it.member.raft_id)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_becomes_a_voter() {
    let mut cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    for _ in 0..100 {
        write(&leader).await.unwrap();
    }
    let second = cluster.start(2).await;
    assert!(!second.is_initialized().await);
    assert_eq!(leader.promote_voter(2).await, Err(MemberError::NotFound(2)));
    leader.add_learner(member(2)).await.unwrap();
    leader.add_learner(member(2)).await.unwrap();
    view(&leader, "learner", |it| {
        it.members.len() == 2 && voters(it) == [1]
    })
    .await;
    leader.promote_voter(2).await.unwrap();
    leader.promote_voter(2).await.unwrap();
    view(&second, "two voters", |it| voters(it) == [1, 2]).await;
    second.read_barrier().await.unwrap();
    assert_eq!(second.state().revision(), 100);
    let refused = second.remove_member(1).await;
    assert_eq!(refused, Err(MemberError::NotLeader(Some(member(1)))));
    let again = second.initialize(member(2)).await;
    assert!(matches!(again, Err(MemberError::Invalid(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_gone_and_the_rest_goes_on() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let me = cluster.leader_id().await;
    let follower = cluster.follower_id().await;
    assert_eq!(leader.remove_member(me).await, Err(MemberError::Leads));
    leader.remove_member(follower).await.unwrap();
    leader.remove_member(follower).await.unwrap();
    view(&leader, "two members", |it| it.members.len() == 2).await;
    write(&leader).await.unwrap();
    cluster.stop(follower).await;
    write(&leader).await.unwrap();
    assert!(leader.leadership().borrow().i_lead);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_request() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower_id().await;
    write(&leader).await.unwrap();
    assert_eq!(
        leader.transfer_leader(9).await,
        Err(MemberError::NotFound(9))
    );
    leader.transfer_leader(follower).await.unwrap();
    assert_eq!(cluster.leader_id().await, follower);
    let new = cluster.members[&follower].clone();
    assert_eq!(write(&new).await, Ok(2));
    assert!(matches!(
        leader.transfer_leader(follower).await,
        Err(MemberError::NotLeader(_))
    ));
    // And a leader that demotes itself hands over first.
    new.step_down().await.unwrap();
    let third = cluster.leader().await;
    third.remove_member(follower).await.unwrap();
    assert_eq!(write(&third).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_has_nobody_to_hand_over_to() {
    let cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    leader.step_down().await.unwrap();
    assert!(leader.leadership().borrow().i_lead);
    write(&leader).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_may_move_but_not_become_another() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let id = cluster.follower_id().await;
    let moved = crate::raft::Member {
        addr: "10.9.9.9:2377".into(),
        ..member(id)
    };
    leader.add_learner(moved.clone()).await.unwrap();
    let arrived = |it: &Leadership| it.members.iter().any(|it| it.member == moved && it.voter);
    for raft in cluster.members.values() {
        view(raft, "new address", arrived).await;
    }
    // openraft keeps its connections when only an address changes; ours must follow.
    let used = || (cluster.net.last_called(id).as_deref() == Some("10.9.9.9:2377")).then_some(());
    until("call to the new address", used).await;
    write(&leader).await.unwrap();
    let other = crate::raft::Member {
        node_id: "other".into(),
        ..moved.clone()
    };
    let refused = leader.add_learner(other).await;
    assert!(
        matches!(refused, Err(MemberError::Invalid(_))),
        "{refused:?}"
    );
}
