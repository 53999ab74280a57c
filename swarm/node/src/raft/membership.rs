//! Changes of who takes part and who leads. One at a time, and only on the leader; never decides
//! who should.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::{Instant, sleep, timeout};

use super::Metrics;
use super::config::{Peer, Types};
use super::handle::{Raft, leader};
use super::types::{Leadership, Member, MemberError};

type Change = ChangeMembers<u64, Peer>;

/// A learner that is so many entries behind has caught up: the rest takes a moment.
const CLOSE_ENOUGH: u64 = 64;
/// How long another change of the membership is waited for.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a transfer of leadership may take. It is a matter of milliseconds, or of an election if
/// the chosen member dies in between.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(50);

impl From<&Member> for Peer {
    fn from(member: &Member) -> Self {
        Self {
            addr: member.addr.clone(),
            node_id: member.node_id.to_string(),
        }
    }
}

impl Raft {
    /// Adds a member without a vote and waits until it has caught up
    /// (`Config::catch_up_timeout`). For one that is a member already, only its address is set, if
    /// that is another. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError::Timeout`]: it is a member now, but has not caught up.
    pub async fn add_learner(&self, member: Member) -> Result<(), MemberError> {
        let known = self
            .inner
            .leadership
            .borrow()
            .member(member.raft_id)
            .cloned();
        let nodes = BTreeMap::from([(member.raft_id, Peer::from(&member))]);
        match known.map(|known| known.member) {
            Some(known) if known == member => {}
            // Safe although it may vote: its certificate must prove the same node at the address.
            Some(known) if known.node_id == member.node_id => {
                self.change(Change::SetNodes(nodes), true).await?;
            }
            Some(known) => {
                let text = format!(
                    "raft id {} belongs to node {}",
                    known.raft_id, known.node_id
                );
                return Err(MemberError::Invalid(text));
            }
            None => self.change(Change::AddNodes(nodes), true).await?,
        }
        let limit = self.inner.config.catch_up_timeout;
        match timeout(limit, self.caught_up(member.raft_id)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(MemberError::Timeout(format!(
                "manager {} at {} has not received the log within {limit:?}; can it be reached?",
                member.node_id, member.addr
            ))),
        }
    }

    async fn caught_up(&self, raft_id: u64) -> Result<(), MemberError> {
        let mut metrics = self.inner.core.metrics();
        loop {
            {
                let now = metrics.borrow_watched();
                let Some(replication) = &now.replication else {
                    return Err(self.not_leader());
                };
                let has = replication.get(&raft_id).copied().flatten();
                let wanted = now.last_log_index.unwrap_or(0).saturating_sub(CLOSE_ENOUGH);
                if has.is_some_and(|has| has.index >= wanted) {
                    return Ok(());
                }
            }
            if metrics.changed().await.is_err() {
                return Err(MemberError::Down(self.why_down()));
            }
        }
    }

    /// Gives a learner a vote. Harmless if it has one. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError::NotFound`]: it must be a learner first.
    pub async fn promote_voter(&self, raft_id: u64) -> Result<(), MemberError> {
        self.change(Change::AddVoterIds(BTreeSet::from([raft_id])), true)
            .await
    }

    /// Removes a voter or learner. Harmless if it is gone already. Only on the leader, and not the
    /// leader itself: it must [`Raft::step_down`] first.
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), MemberError> {
        if raft_id == self.inner.config.raft_id {
            return Err(MemberError::Leads);
        }
        let ids = BTreeSet::from([raft_id]);
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        if membership.voter_ids().any(|id| id == raft_id) {
            // Without `retain`, it does not stay as a learner.
            return self.change(Change::RemoveVoters(ids), false).await;
        }
        if membership.get_node(&raft_id).is_some() {
            return self.change(Change::RemoveNodes(ids), false).await;
        }
        if metrics.replication.is_none() {
            Err(self.not_leader())
        } else {
            Ok(())
        }
    }

    /// Hands leadership to a voter and waits until it leads. Only on the leader. Meanwhile writes
    /// wait; if the voter dies in between, another is elected.
    ///
    /// # Errors
    /// [`MemberError::Timeout`]: leadership has not arrived there; it may be anywhere.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MemberError> {
        let metrics = self.metrics();
        if metrics.replication.is_none() {
            return Err(self.not_leader());
        }
        if !metrics
            .membership_config
            .membership()
            .voter_ids()
            .any(|id| id == to)
        {
            return Err(MemberError::NotFound(to));
        }
        if to == self.inner.config.raft_id {
            return Ok(());
        }
        let down = |error: openraft::errors::Fatal<Types>| MemberError::Down(error.to_string());
        self.inner
            .core
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(down)?;
        let mut leadership = self.leadership();
        let moved = |it: &Leadership| it.leader.as_ref().is_some_and(|it| it.raft_id == to);
        match timeout(TRANSFER_PATIENCE, leadership.wait_for(moved)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MemberError::Down(self.why_down())),
            Err(_) => Err(MemberError::Timeout(
                "leadership has not moved in time".into(),
            )),
        }
    }

    /// Hands leadership to the reachable voter whose log is longest. `Ok` at once if this manager
    /// does not lead or is the only voter.
    ///
    /// # Errors
    /// [`MemberError::Invalid`] if no other voter can be reached; else as
    /// [`Raft::transfer_leader`].
    pub async fn step_down(&self) -> Result<(), MemberError> {
        let metrics = self.metrics();
        if metrics.replication.is_none() {
            return Ok(());
        }
        let me = self.inner.config.raft_id;
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        if voters.iter().all(|id| *id == me) {
            return Ok(());
        }
        let heirs = voters
            .into_iter()
            .filter(|id| *id != me && self.reachable(&metrics, *id));
        let matched = |id: &u64| metrics.replication.as_ref()?.get(id).copied().flatten();
        match heirs.max_by_key(matched) {
            Some(heir) => self.transfer_leader(heir).await,
            None => Err(MemberError::Invalid(
                "no other manager can be reached".into(),
            )),
        }
    }

    fn reachable(&self, metrics: &Metrics, raft_id: u64) -> bool {
        let answered = metrics
            .heartbeat
            .as_ref()
            .and_then(|it| it.get(&raft_id)?.as_ref());
        answered.is_some_and(|answered| answered.elapsed() < self.inner.config.silence())
    }

    async fn change(&self, change: Change, retain: bool) -> Result<(), MemberError> {
        let patience = Instant::now() + BUSY_PATIENCE;
        loop {
            let limit = self.inner.config.propose_timeout;
            let changing = self.inner.core.change_membership(change.clone(), retain);
            let Ok(outcome) = timeout(limit, changing).await else {
                let text = format!("no majority has agreed to the change within {limit:?}");
                return Err(MemberError::Timeout(text));
            };
            let Err(error) = outcome else { return Ok(()) };
            match sort(error) {
                MemberError::Busy if Instant::now() < patience => sleep(RETRY).await,
                error => return Err(error),
            }
        }
    }

    fn not_leader(&self) -> MemberError {
        MemberError::NotLeader(self.inner.leadership.borrow().leader.clone())
    }
}

fn sort(error: RaftError<Types, ClientWriteError<Types>>) -> MemberError {
    let error = match error {
        RaftError::APIError(error) => error,
        RaftError::Fatal(error) => return MemberError::Down(error.to_string()),
    };
    match error {
        ClientWriteError::ForwardToLeader(to) => MemberError::NotLeader(leader(&to)),
        ClientWriteError::ChangeMembershipError(error) => match error {
            // The second: a new leader must write an entry of its own first.
            ChangeMembershipError::InProgress(_)
            | ChangeMembershipError::UncommittedLeaderLog(_) => MemberError::Busy,
            ChangeMembershipError::LearnerNotFound(error) => MemberError::NotFound(error.node_id),
            error => MemberError::Invalid(error.to_string()),
        },
        error => MemberError::Down(error.to_string()),
    }
}
