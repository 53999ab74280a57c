//! Who notices that the leader is gone, and who is to follow it. Only asks openraft for an
//! election, which decides alone, and for one without a pre-vote only when a majority knows that
//! nobody leads at the leader's address any more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep, timeout};

use super::config::Config;
use super::log_store::{LogId, Vote};
use super::network::{Answer, Message, Request, Response, Transport};
use super::server::Server;
use super::types::Member;
use super::{Core, Metrics};

/// Heartbeats that must be missing before the leader's host is asked.
const MISSING: u32 = 3;
/// How long the leader is waited for.
const ASK: Duration = Duration::from_millis(60);
/// Between two questions to the leader's host.
const AGAIN: Duration = Duration::from_millis(150);
/// How long the other voters are waited for; they may be busy.
const PEERS: Duration = Duration::from_millis(200);
/// The next in line waits so long for the one before it.
const TURN: Duration = Duration::from_millis(60);
/// A turn of the loop that comes so much late means that this machine is busy, and then a silence
/// says nothing about the leader.
const LATE: Duration = Duration::from_millis(60);

/// The last term whose leader is known to be gone.
#[derive(Clone, Default)]
pub(super) struct Grave(Arc<Mutex<u64>>);

impl Grave {
    fn bury(&self, term: u64) {
        let mut buried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *buried = term.max(*buried);
    }

    /// The terms since then have brought no leader yet.
    fn is_fresh(&self, metrics: &Metrics) -> bool {
        let buried = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buried > 0 && metrics.current_leader.is_none() && metrics.current_term > buried
    }

    fn holds(&self, term: u64) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == term
    }
}

/// What is needed to find out.
pub(super) struct Succession {
    pub config: Config,
    pub core: Core,
    pub transport: Arc<dyn Transport>,
}

impl Succession {
    /// Watches until raft ends. `server` knows when the leader was heard.
    pub async fn run(self, server: Arc<Server>) {
        let step = self.config.heartbeat / 2;
        let mut asked = Instant::now();
        // Before this the silence does not count.
        let mut counted_from = Instant::now();
        loop {
            let before = Instant::now();
            sleep(step).await;
            if before.elapsed() > step + LATE {
                counted_from = Instant::now();
            }
            let metrics = self.core.metrics().borrow_watched().clone();
            if metrics.running_state.is_err() {
                return;
            }
            let Some(leader) = self.leader_of(&metrics) else {
                // Nobody has won: not everybody waits for openraft's own patience again.
                let turn = AGAIN + TURN * self.turns(&metrics, None);
                if server.grave.is_fresh(&metrics) && asked.elapsed() >= turn {
                    asked = Instant::now();
                    drop(self.core.trigger().elect(true).await);
                }
                continue;
            };
            let heard = server.heard().unwrap_or(counted_from).max(counted_from);
            let silent = heard.elapsed();
            if silent >= self.patience(&metrics, &leader) && asked.elapsed() >= TURN {
                // It asks the others first; they know whether they hear the leader.
                drop(self.core.trigger().elect(true).await);
                asked = Instant::now();
            } else if server.silent_for(self.config.heartbeat * MISSING) && asked.elapsed() >= AGAIN
            {
                asked = Instant::now();
                if self.is_dead(&leader).await && server.silent_for(self.config.heartbeat * 2) {
                    server.grave.bury(metrics.current_term);
                    self.succeed(&metrics, &leader, server.last()).await;
                }
            }
        }
    }

    /// The leader that this voter follows.
    fn leader_of(&self, metrics: &Metrics) -> Option<Member> {
        let me = self.config.raft_id;
        let membership = metrics.membership_config.membership();
        let id = metrics.current_leader.filter(|id| *id != me)?;
        let follows = metrics.state == ServerState::Follower;
        (follows && membership.voter_ids().any(|voter| voter == me)).then_some(())?;
        Some(membership.get_node(&id)?.member(id))
    }

    /// How long a silence is borne: the lease, and then one voter after the other, so that not two
    /// ask at the same time.
    fn patience(&self, metrics: &Metrics, leader: &Member) -> Duration {
        let turns = self.turns(metrics, Some(leader.raft_id));
        self.config.election_max + Duration::from_millis(5) + TURN * turns
    }

    /// How many voters come before this one.
    fn turns(&self, metrics: &Metrics, without: Option<u64>) -> u32 {
        let voters = metrics.membership_config.membership().voter_ids();
        let before = voters.filter(|id| Some(*id) != without && *id < self.config.raft_id);
        u32::try_from(before.count()).unwrap_or(u32::MAX).min(10)
    }

    /// Nobody serves at the leader's address, or a new process does that does not lead.
    async fn is_dead(&self, leader: &Member) -> bool {
        let request = Request {
            to: leader.raft_id,
            message: Message::Leads,
        };
        if self.transport.is_dead(leader).await {
            return true;
        }
        let answer = timeout(ASK, self.transport.call(leader, request, ASK)).await;
        matches!(answer, Ok(Ok(Response(Answer::Leads(false)))))
    }

    /// Asks the other voters whether they know it too; with a majority the one with the longest
    /// log goes first.
    async fn succeed(&self, metrics: &Metrics, leader: &Member, last: Option<LogId>) {
        let me = self.config.raft_id;
        let term = metrics.current_term;
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let ask = |id: &u64| {
            let member = membership.get_node(id).map(|peer| peer.member(*id));
            async move {
                let member = member?;
                let request = Request {
                    to: member.raft_id,
                    message: Message::Buried(term),
                };
                let call = self.transport.call(&member, request, PEERS);
                match timeout(PEERS, call).await {
                    Ok(Ok(Response(Answer::Buried(Some(last))))) => Some((last, member.raft_id)),
                    _ => None,
                }
            }
        };
        let others = voters
            .iter()
            .filter(|id| **id != me && **id != leader.raft_id);
        let answers: FuturesUnordered<_> = others.map(ask).collect();
        let agree: Vec<(Option<LogId>, u64)> = answers
            .filter_map(|answer| async move { answer })
            .collect()
            .await;
        if (agree.len() + 1) * 2 <= voters.len() {
            return;
        }
        let before = agree.iter().filter(|other| **other > (last, me)).count();
        let turns = u32::try_from(before).unwrap_or(u32::MAX).min(10);
        sleep(TURN * turns).await;
        let now = self.core.metrics().borrow_watched().clone();
        if now.current_term == term && self.leader_of(&now).is_some() {
            tracing::info!(leader = %leader.node_id, "the leader is gone, asking for votes");
            drop(self.core.trigger().elect(false).await);
        }
    }
}

impl Server {
    /// Whether no leader was heard for so long.
    pub fn silent_for(&self, how_long: Duration) -> bool {
        self.heard().is_none_or(|heard| heard.elapsed() >= how_long)
    }

    /// Whether this manager leads.
    pub(super) fn leads(&self) -> bool {
        self.core.metrics().borrow_watched().state == ServerState::Leader
    }

    /// A candidate of the term after one whose leader is known to be gone.
    pub(super) fn is_buried(&self, candidate: &Vote) -> bool {
        let term = self.core.metrics().borrow_watched().current_term;
        self.grave.holds(term) && candidate.leader_id.term > term && !self.leads()
    }

    /// The last entry here, if this manager knows, too, that the leader of this term is gone.
    pub(super) async fn agree(&self, term: u64) -> Option<Option<LogId>> {
        let metrics = self.core.metrics().borrow_watched().clone();
        let same = metrics.current_term == term && metrics.state == ServerState::Follower;
        if !same || !self.silent_for(self.heartbeat * 2) {
            return None;
        }
        let leader = metrics.current_leader?;
        let membership = metrics.membership_config.membership();
        let leader = membership.get_node(&leader)?.member(leader);
        if !self.grave.holds(term) {
            // Not found out yet: a host that has said it to one says it to the other as well.
            let request = Request {
                to: leader.raft_id,
                message: Message::Leads,
            };
            if !self.transport.is_dead(&leader).await {
                let answer = timeout(ASK / 2, self.transport.call(&leader, request, ASK)).await;
                if !matches!(answer, Ok(Ok(Response(Answer::Leads(false))))) {
                    return None;
                }
            }
            self.grave.bury(term);
        }
        Some(self.last())
    }
}
