//! Watches openraft and says who leads. Never decides anything.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::Fatal;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::Metrics;
use super::config::Config;
use super::log_store::LogId;
use super::machine::Published;
use super::server::Server;
use super::types::{Leadership, Member, MemberStatus};

/// What the view is made from.
pub(super) struct Watcher {
    pub config: Config,
    pub metrics: openraft::type_config::alias::WatchReceiverOf<super::config::Types, Metrics>,
    pub published: watch::Receiver<Published>,
    pub server: Arc<Server>,
    pub view: watch::Sender<Leadership>,
}

/// What another look is due for. How long ago others answered changes with every heartbeat, and
/// counts only once it is long: for that there is a look from time to time.
#[derive(Debug, PartialEq, Eq)]
struct Traits {
    state: ServerState,
    term: u64,
    leader: Option<u64>,
    members: Option<LogId>,
    runs: bool,
    has_quorum: bool,
    /// The term of the last entry that was applied.
    applied: Option<u64>,
}

impl Watcher {
    /// Follows until raft or every reader is gone.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(self.config.silence() / 8);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When this manager was first seen leading in a term.
        let mut since: Option<(u64, Instant)> = None;
        // What the last look was at, until there has to be another in any case.
        let mut seen: Option<Traits> = None;
        loop {
            let traits = self.traits();
            if seen.as_ref() != Some(&traits) {
                let metrics = self.metrics.borrow_watched().clone();
                if metrics.state != ServerState::Leader {
                    since = None;
                } else if since.is_none_or(|(term, _)| term != metrics.current_term) {
                    since = Some((metrics.current_term, Instant::now()));
                }
                let leading_for = since.map(|(_, since)| since.elapsed());
                let view = self.look(&metrics, leading_for);
                self.view.send_if_modified(|old| {
                    let changed = *old != view;
                    *old = view;
                    changed
                });
                match &metrics.running_state {
                    Ok(()) | Err(Fatal::Stopped) => {}
                    Err(error) => tracing::error!(%error, "raft has stopped"),
                }
                if metrics.running_state.is_err() {
                    return;
                }
                seen = Some(traits);
            }
            tokio::select! {
                changed = self.metrics.changed() => if changed.is_err() { break },
                changed = self.published.changed() => if changed.is_err() { break },
                _ = tick.tick() => seen = None,
                () = self.view.closed() => return,
            }
        }
        self.view.send_modify(|view| {
            view.leader = None;
            view.i_lead = false;
        });
    }

    /// Of what raft says and has applied, what the view depends on at once.
    fn traits(&mut self) -> Traits {
        let applied = self.published.borrow_and_update().applied;
        let metrics = self.metrics.borrow_watched();
        Traits {
            state: metrics.state,
            term: metrics.current_term,
            leader: metrics.current_leader,
            members: *metrics.membership_config.log_id(),
            runs: metrics.running_state.is_ok(),
            has_quorum: metrics.last_quorum_acked.is_some(),
            applied: applied.map(|id| id.committed_leader_id().term),
        }
    }

    fn look(&self, metrics: &Metrics, leading_for: Option<Duration>) -> Leadership {
        let applied = self.published.borrow().applied;
        let running = metrics.running_state.is_ok();
        let silence = self.config.silence();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let alone = voters == [self.config.raft_id];
        // A leader that has lost its quorum goes on calling itself one; others may have another.
        let quorum = alone
            || match (&metrics.last_quorum_acked, leading_for) {
                (Some(acked), _) => acked.elapsed() < silence,
                (None, Some(leading_for)) => leading_for < silence,
                (None, None) => false,
            };
        let leading = running && leading_for.is_some();
        let heard = self
            .server
            .heard()
            .is_some_and(|heard| heard.elapsed() < silence);
        let leader = metrics
            .current_leader
            .filter(|_| running && if leading { quorum } else { heard })
            .and_then(|id| Some(membership.get_node(&id)?.member(id)));
        // The first entry of a term is the leader's own, so applying it means that everything
        // before is applied.
        let current =
            applied.is_some_and(|id| id.committed_leader_id().term == metrics.current_term);
        let reachable = |id: u64| {
            let answered = metrics.heartbeat.as_ref()?.get(&id).copied().flatten();
            Some(match (answered, leading_for?) {
                _ if id == self.config.raft_id => true,
                (Some(answered), _) => answered.elapsed() < silence,
                (None, leading_for) => leading_for < silence,
            })
        };
        let heard_of = |id: u64| {
            let answered = metrics
                .heartbeat
                .as_ref()
                .and_then(|all| all.get(&id).copied()?);
            id == self.config.raft_id
                || answered.is_some_and(|answered| answered.elapsed() < silence)
        };
        let status = |(id, peer): (&u64, &super::config::Peer)| MemberStatus {
            member: peer.member(*id),
            voter: voters.contains(id),
            reachable: if leading { reachable(*id) } else { None },
            heard: leading && heard_of(*id),
        };
        let mut members: Vec<MemberStatus> = membership.nodes().map(status).collect();
        members.sort_by_key(|status| status.member.raft_id);
        Leadership {
            leader,
            term: metrics.current_term,
            i_lead: leading && quorum && current,
            members,
        }
    }
}

impl super::config::Peer {
    /// The member of this raft id.
    pub(super) fn member(&self, raft_id: u64) -> Member {
        let node_id = self.node_id.as_str().into();
        Member {
            raft_id,
            node_id,
            addr: self.addr.clone(),
        }
    }
}
