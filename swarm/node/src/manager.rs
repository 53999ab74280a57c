//! A manager: raft, the leader's loop, and the services that other nodes call. Any manager takes
//! any request; what only the leader may do goes to the leader, and nothing ever runs twice.

use std::sync::Arc;
use std::time::Duration;

use skep_api::{Code, Error};
use skep_core::State;
use skep_core::command::{Command, Reply};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::ca::Attempts;
use crate::control::{self, ControlRequest, ControlResponse, MemberState};
use crate::engine::Engine;
use crate::inbox::{self, Asked, Desk, Outcome};
use crate::leading;
use crate::quic::Endpoint;
use crate::raft::{Leadership, Member, MemberStatus, Raft, ReadError};
use crate::roles::{self, record_of};
use crate::sessions::Sessions;

/// How long a request may take in all, as in the original.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Pause before a request that was not carried out is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long the leader may take to say which members answer.
const MEMBERS_TIMEOUT: Duration = Duration::from_millis(500);

/// A manager's part in the cluster. Clones share it.
#[derive(Clone)]
pub struct Manager {
    pub(crate) raft: Raft,
    pub(crate) endpoint: Endpoint,
    pub(crate) me: Member,
    /// This host's engine, which other managers may reach through this one.
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) desk: Desk,
    pub(crate) sessions: Arc<Sessions>,
    /// Held by whoever changes raft's membership here: one change at a time.
    pub(crate) membership: Arc<tokio::sync::Mutex<()>>,
    /// Who has lately tried in vain to get in through this manager.
    pub(crate) attempts: Arc<Attempts>,
    tasks: TaskTracker,
}

/// A consistent picture of the cluster, no older than the request for it.
#[derive(Clone)]
pub struct View {
    /// Everything the cluster knows.
    pub state: State,
    /// Managers as the leader sees them; on a follower that could not ask, as it knows them.
    pub members: Vec<MemberState>,
}

impl Manager {
    /// Starts the leader's loop on a running raft.
    pub fn start(raft: Raft, endpoint: Endpoint, me: Member, engine: Arc<dyn Engine>) -> Self {
        let (desk, inbox) = inbox::queues();
        let sessions = Arc::new(Sessions::default());
        let tasks = TaskTracker::new();
        tasks.spawn(leading::run(raft.clone(), inbox, sessions.clone()));
        let membership = Arc::default();
        let manager = Self {
            raft,
            endpoint,
            me,
            engine,
            desk,
            sessions,
            membership,
            attempts: Arc::default(),
            tasks,
        };
        manager.tasks.spawn(roles::run(manager.clone()));
        manager
    }

    /// Carries out a command on the leader, wherever it is. Waits for a leader if there is none.
    ///
    /// # Errors
    /// The command's own refusal; that there is no leader; or that the outcome is unknown, in which
    /// case it is not tried again.
    pub async fn execute(&self, command: Command) -> Result<Reply, Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut leadership = self.raft.leadership();
        loop {
            leadership.borrow_and_update();
            let leader = timeout_at(deadline - RETRY, self.leader_that_answers()).await;
            let tried = match leader.ok().flatten() {
                None => None,
                Some(leader) if leader == self.me => self.execute_here(command.clone()).await,
                Some(leader) => self.execute_at(&leader, command.clone(), deadline).await,
            };
            if let Some(outcome) = tried {
                return outcome;
            }
            wait_for_change(&mut leadership, deadline).await?;
        }
    }

    /// The leader, if it is known and has just shown that it lives: what is sent to a dead one is
    /// lost, and nobody could say whether it was carried out.
    async fn leader_that_answers(&self) -> Option<Member> {
        if !self.leads() {
            match self.raft.read_barrier().await {
                // It is here that there is no room; the leader has answered.
                Ok(()) | Err(ReadError::NoSpace(_)) => {}
                Err(_) => return None,
            }
        }
        self.raft.leadership().borrow().leader.clone()
    }

    /// Carries out a command if this manager leads; `None` if it does not.
    pub(crate) async fn execute_here(&self, command: Command) -> Option<Result<Reply, Error>> {
        let (answer, outcome) = oneshot::channel();
        let asked = Asked {
            command: Box::new(command),
            answer,
        };
        if self.desk.commands.send(asked).await.is_err() {
            return Some(Err(stopping()));
        }
        match outcome.await {
            Ok(Outcome::Decided(decided)) => Some(decided),
            Ok(Outcome::NotLeader) => None,
            Ok(Outcome::Unknown) | Err(_) => Some(Err(unknown("the leader changed meanwhile"))),
        }
    }

    /// Sends a command to the leader; `None` if it certainly was not carried out.
    async fn execute_at(
        &self,
        leader: &Member,
        command: Command,
        deadline: Instant,
    ) -> Option<Result<Reply, Error>> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let request = ControlRequest::Execute(Box::new(command));
        match control::call(&self.endpoint, &leader.addr, timeout, &request).await {
            Ok(ControlResponse::Executed(decided)) => Some(decided),
            Ok(ControlResponse::Failed(why)) => Some(Err(unknown(&why))),
            Ok(_) => None,
            Err(error) if error.not_executed() => {
                warn!(%error, "the leader did not take a request");
                None
            }
            Err(error) => Some(Err(unknown(&error.to_string()))),
        }
    }

    /// Answers another manager.
    pub(crate) async fn control(&self, from: &str, request: ControlRequest) -> ControlResponse {
        if !self.leads() {
            return ControlResponse::NotLeader(self.leader_addr());
        }
        match request {
            ControlRequest::Execute(command) => match self.execute_here(*command).await {
                Some(decided) => ControlResponse::Executed(decided),
                None => ControlResponse::NotLeader(self.leader_addr()),
            },
            ControlRequest::Members => ControlResponse::Members(self.members()),
            ControlRequest::JoinRaft { raft_id, addr } => {
                let member = Member {
                    raft_id,
                    node_id: from.into(),
                    addr,
                };
                done(self.admit_member(member).await)
            }
            ControlRequest::LeaveRaft => done(self.dismiss(&from.into()).await),
        }
    }

    /// The state, no older than this call, with the managers as the leader sees them.
    ///
    /// # Errors
    /// The original's text when there is no leader for the whole deadline; that this manager's disk
    /// is full when it cannot follow the leader for that reason.
    pub async fn view(&self) -> Result<View, Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut leadership = self.raft.leadership();
        loop {
            leadership.borrow_and_update();
            // Not beyond the deadline: whoever waits for the answer goes then, and learns nothing.
            match timeout_at(deadline - RETRY, self.raft.read_barrier()).await {
                Ok(Ok(())) => break,
                Ok(Err(ReadError::Down(_))) => return Err(stopping()),
                Ok(Err(ReadError::NoSpace(full))) => return Err(Error::unavailable(full)),
                _ => wait_for_change(&mut leadership, deadline).await?,
            }
        }
        Ok(View {
            state: self.raft.state(),
            members: self.members_as_leader_sees().await,
        })
    }

    pub(crate) async fn members_as_leader_sees(&self) -> Vec<MemberState> {
        let members = self.ask_leader_for_members().await;
        members.unwrap_or_else(|| self.members())
    }

    /// Managers as another one sees them, which leads; `None` if there is none that answers.
    pub(crate) async fn ask_leader_for_members(&self) -> Option<Vec<MemberState>> {
        let leader = self.raft.leadership().borrow().leader.clone();
        let leader = leader.filter(|leader| *leader != self.me)?;
        let request = ControlRequest::Members;
        match control::call(&self.endpoint, &leader.addr, MEMBERS_TIMEOUT, &request).await {
            Ok(ControlResponse::Members(members)) => Some(members),
            _ => None,
        }
    }

    /// Managers as this one knows them.
    pub(crate) fn members(&self) -> Vec<MemberState> {
        members_of(&self.raft.leadership().borrow())
    }

    /// `host:port` of the leader, if one is known.
    pub(crate) fn leader_addr(&self) -> Option<String> {
        self.raft
            .leadership()
            .borrow()
            .leader
            .as_ref()
            .map(|leader| leader.addr.clone())
    }

    /// Whether this manager leads.
    pub(crate) fn leads(&self) -> bool {
        self.raft.leadership().borrow().i_lead
    }

    /// Whether this manager votes and the store says so.
    pub(crate) fn is_member(&self) -> bool {
        let voter = |known: &MemberStatus| known.voter && known.member == self.me;
        let votes = self
            .raft
            .leadership()
            .borrow()
            .member(self.me.raft_id)
            .is_some_and(voter);
        let state = self.raft.state();
        let recorded = state
            .nodes()
            .get(&self.me.node_id)
            .and_then(|node| node.manager.as_ref());
        votes && recorded.is_some_and(|member| *member == record_of(&self.me))
    }

    /// Hands leadership over if this manager leads and another can take it.
    pub(crate) async fn hand_over(&self) {
        if let Err(error) = self.raft.step_down().await {
            warn!(%error, "could not hand leadership over");
        }
    }

    /// Stops without handing leadership over. The log stays on disk.
    pub async fn stop(&self) {
        self.raft.shutdown().await;
        self.tasks.close();
        // The loop ends when raft's channels close; a stuck one must not hold the daemon.
        if tokio::time::timeout(RETRY * 20, self.tasks.wait())
            .await
            .is_err()
        {
            warn!("the leader's loop did not end in time");
        }
    }
}

pub(crate) fn members_of(leadership: &Leadership) -> Vec<MemberState> {
    let leads = |member: &Member| leadership.leader.as_ref() == Some(member);
    let members = leadership.members.iter().map(|status| MemberState {
        node: status.member.node_id.clone(),
        addr: status.member.addr.clone(),
        leader: leads(&status.member),
        reachable: status.reachable.unwrap_or(true),
        heard: status.heard,
    });
    members.collect()
}

/// Waits for a change of leadership, a little while at most, but never beyond the deadline.
async fn wait_for_change(
    leadership: &mut watch::Receiver<Leadership>,
    deadline: Instant,
) -> Result<(), Error> {
    if Instant::now() + RETRY >= deadline {
        return Err(no_leader());
    }
    match tokio::time::timeout(RETRY, leadership.changed()).await {
        Ok(Err(_)) => Err(stopping()),
        _ => Ok(()),
    }
}

fn done(outcome: Result<(), String>) -> ControlResponse {
    match outcome {
        Ok(()) => ControlResponse::Done,
        Err(why) => ControlResponse::Failed(why),
    }
}

/// swarmkit's text for a cluster without a leader (`manager/state/raft/raft.go`).
fn no_leader() -> Error {
    Error::rpc(
        Code::Unknown,
        "The swarm does not have a leader. It's possible that too few managers are online. Make \
         sure more than half of the managers are online.",
    )
}

fn unknown(why: &str) -> Error {
    Error::rpc(
        Code::Unknown,
        format!(
            "the request may or may not have been carried out, because the connection to the \
             leader broke ({why}); look at the state before you try again"
        ),
    )
}

fn stopping() -> Error {
    Error::unavailable("this daemon is stopping")
}

#[cfg(test)]
mod tests;
