//! A raft of one out of what another raft has left.

use super::cluster::{Cluster, empty_batch, keys, member, until, write};
use crate::raft::{Config, ProposeError, Rescued};

fn hasty(config: &mut Config) {
    config.snapshot_interval = 50;
    config.keep_entries = 5;
    config.propose_timeout = std::time::Duration::from_millis(500);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_goes_on_with_everything_and_the_others_cannot_disturb_it() {
    let mut cluster = Cluster::tuned(3, hasty).await;
    let leader = cluster.leader().await;
    for _ in 0..130 {
        write(&leader).await.unwrap();
    }
    // An entry that no majority has, in the log of a leader that is cut off.
    let lost = leader.leadership().borrow().leader.clone().unwrap().raft_id;
    cluster.net.cut(lost);
    let outcome = leader.propose(empty_batch(130)).await;
    assert!(
        matches!(outcome, Err(ProposeError::Unknown(_))),
        "{outcome:?}"
    );
    let term = leader.leadership().borrow().term;
    drop(leader);
    cluster.stop(lost).await;

    let mut rescued = Rescued::read(&cluster.home(lost), keys()).await.unwrap();
    assert_eq!(rescued.state.revision(), 131);
    assert!(
        rescued.amend(&empty_batch(7)).is_err(),
        "planned on another"
    );
    rescued.amend(&empty_batch(131)).unwrap();
    let home = cluster.home(77);
    std::fs::create_dir(&home).unwrap();
    rescued.write(&home, &member(77)).await.unwrap();
    let again = Rescued::read(&cluster.home(lost), keys()).await.unwrap();
    assert_eq!(again.state.revision(), 131, "the old one is as it was");

    let alone = cluster.start_in(&home, 77).await;
    until("it leads", || {
        alone.leadership().borrow().i_lead.then_some(())
    })
    .await;
    assert_eq!(alone.state().revision(), 132);
    assert_eq!(alone.leadership().borrow().members.len(), 1);
    let own_term = alone.leadership().borrow().term;
    assert!(own_term > term, "{own_term} {term}");

    // What the two others send to the lost one arrives at the new one.
    cluster.net.attach(lost, alone.clone());
    cluster.net.heal(lost);
    cluster.members.remove(&lost);
    let other = cluster.leader().await;
    for _ in 0..100 {
        write(&other).await.unwrap();
    }
    assert_eq!(write(&alone).await, Ok(133));
    assert_eq!(alone.leadership().borrow().term, own_term);
    assert_eq!(alone.leadership().borrow().members.len(), 1);
    alone.shutdown().await;

    let back = cluster.start_in(&home, 77).await;
    until("it leads again", || {
        back.leadership().borrow().i_lead.then_some(())
    })
    .await;
    assert_eq!(write(&back).await, Ok(134));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_nothing_or_is_damaged_is_refused() {
    let mut cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    write(&leader).await.unwrap();
    drop(leader);
    cluster.stop(1).await;
    std::fs::write(cluster.home(1).join("snapshot"), b"noise").unwrap();
    let error = Rescued::read(&cluster.home(1), keys()).await.err().unwrap();
    assert!(error.to_string().contains("snapshot"), "{error}");

    std::fs::remove_file(cluster.home(1).join("snapshot")).unwrap();
    std::fs::remove_file(cluster.home(1).join("log.redb")).unwrap();
    let error = Rescued::read(&cluster.home(1), keys()).await.err().unwrap();
    assert!(error.to_string().contains("no log beside it"), "{error}");
    std::fs::remove_file(cluster.home(1).join("vote")).unwrap();
    let error = Rescued::read(&cluster.home(1), keys()).await.err().unwrap();
    assert!(error.to_string().contains("neither"), "{error}");
}
