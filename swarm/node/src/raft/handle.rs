//! The handle: start, propose, read, watch, stop. Turns openraft's answers into ours; the changes
//! of membership are in `membership.rs`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use skep_core::{Batch, State};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::codec::{Codec, named};
use super::compaction::Compaction;
use super::config::{Config, Peer, Proposal, Types};
use super::leadership::Watcher;
use super::log_store::LogStore;
use super::machine::{Machine, Published};
use super::network::{Answer, Factory, Message, Request, Response, Transport};
use super::room::Room;
use super::server::Server;
use super::snapshot::SnapshotStore;
use super::succession::Succession;
use super::types::{
    AppliedRef, Leadership, Member, MemberError, ProposeError, ReadError, StartError,
};
use super::{Core, Metrics};
use crate::disk::{self, Keys};

/// Steps that a subscriber may lag behind.
const STEPS: usize = 1024;
/// How long a proposal waits for a leader that has lost touch with its quorum for a moment.
const LEASE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a proposal that is under way, and a read that has to catch up, wait for room.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before something is tried again that may work at any moment.
const RETRY: Duration = Duration::from_millis(20);

/// This manager's part in raft. Clones share it; end it with [`Raft::shutdown`].
#[derive(Clone)]
pub struct Raft {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub core: Core,
    pub config: Config,
    /// Seals what this member writes to disk.
    pub codec: Arc<dyn Codec>,
    log: LogStore,
    transport: Arc<dyn Transport>,
    server: Arc<Server>,
    published: watch::Receiver<Published>,
    steps: broadcast::Sender<AppliedRef>,
    pub leadership: watch::Receiver<Leadership>,
    watchers: [JoinHandle<()>; 4],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}

/// The files below `config.dir`.
struct Files {
    log: LogStore,
    snapshots: Arc<SnapshotStore>,
    codec: Arc<dyn Codec>,
}

impl Files {
    fn open(dir: &Path, codec: Arc<dyn Codec>) -> io::Result<Self> {
        disk::create_private_dir(dir).map_err(|error| named(dir, &error))?;
        let (log, snapshot) = (dir.join("log.redb"), dir.join("snapshot"));
        let snapshots = Arc::new(SnapshotStore::open(&snapshot, codec.clone())?);
        let log = LogStore::open(&log, codec.clone())?;
        log.check_snapshot(snapshots.head().and_then(|head| head.last_log_id))?;
        Ok(Self {
            log,
            snapshots,
            codec,
        })
    }
}

impl Raft {
    /// Opens (or creates) the log below `config.dir`, restores the state and starts to take part. A
    /// fresh member waits until it is initialised or a leader adds it.
    ///
    /// # Errors
    /// A directory, log or snapshot that cannot be used; nothing was changed.
    pub async fn start(config: Config, transport: Arc<dyn Transport>) -> Result<Self, StartError> {
        Self::start_sealed(config, transport, |keys| Arc::new(keys)).await
    }

    /// The same with a codec around or in place of ours.
    pub(super) async fn start_sealed(
        config: Config,
        transport: Arc<dyn Transport>,
        wrap: impl FnOnce(Keys) -> Arc<dyn Codec> + Send + 'static,
    ) -> Result<Self, StartError> {
        let timing = config
            .to_openraft()
            .map_err(|error| StartError::Config(error.to_string()))?;
        let (dir, codec) = (config.dir.clone(), wrap(config.keys.clone()));
        let opened = tokio::task::spawn_blocking(move || Files::open(&dir, codec)).await;
        let disk_error = |error: io::Error| StartError::Disk(error.to_string());
        let files = opened
            .map_err(io::Error::other)
            .and_then(|files| files)
            .map_err(disk_error)?;
        let (publisher, published) = watch::channel(Published::default());
        let snapshots = files.snapshots.clone();
        let (steps, _) = broadcast::channel(STEPS);
        let machine = Machine::new(publisher, steps.clone(), files.snapshots)
            .waiting_for(files.log.space().clone());
        let (view, leadership) = watch::channel(Leadership::default());
        let factory = Factory {
            transport: transport.clone(),
            view: leadership.clone(),
        };
        let (log, codec) = (files.log, files.codec);
        let started = Core::new(
            config.raft_id,
            Arc::new(timing),
            factory,
            log.clone(),
            machine,
        )
        .await;
        let core = started.map_err(|error| StartError::Disk(error.to_string()))?;
        let server = Server::new(
            core.clone(),
            log.clone(),
            snapshots.clone(),
            transport.clone(),
            &config,
        );
        let server = Arc::new(server);
        let succession = Succession {
            config: config.clone(),
            core: core.clone(),
            transport: transport.clone(),
        };
        let room = Room {
            config: config.clone(),
            core: core.clone(),
            transport: transport.clone(),
            space: log.space().clone(),
        };
        let watcher = Watcher {
            config: config.clone(),
            metrics: core.metrics(),
            published: published.clone(),
            server: server.clone(),
            view,
        };
        let compaction = Compaction {
            config: config.clone(),
            core: core.clone(),
            log: log.clone(),
            snapshots,
            published: published.clone(),
        };
        let watchers = [
            tokio::spawn(compaction.run()),
            tokio::spawn(watcher.run()),
            tokio::spawn(succession.run(server.clone())),
            tokio::spawn(room.run()),
        ];
        let inner = Inner {
            core,
            config,
            codec,
            log,
            transport,
            server,
            published,
            steps,
            leadership,
            watchers,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether this member has ever belonged to a cluster: its log or its vote is not empty.
    pub async fn is_initialized(&self) -> bool {
        !self.inner.log.is_fresh()
    }

    /// Makes this member the only one of a new cluster and waits until it leads.
    ///
    /// # Errors
    /// [`MemberError::Invalid`] if it belongs to a cluster already, or is not who it says.
    pub async fn initialize(&self, member: Member) -> Result<(), MemberError> {
        let members = std::collections::BTreeMap::from([(member.raft_id, Peer::from(&member))]);
        self.inner
            .core
            .initialize(members)
            .await
            .map_err(|error| match error {
                RaftError::APIError(error) => MemberError::Invalid(error.to_string()),
                RaftError::Fatal(error) => MemberError::Down(error.to_string()),
            })?;
        let mut leadership = self.leadership();
        let led = timeout(
            self.inner.config.propose_timeout,
            leadership.wait_for(|it| it.i_lead),
        );
        match led.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MemberError::Down(self.why_down())),
            Err(_) => Err(MemberError::Timeout(
                "the new swarm has no leader yet".into(),
            )),
        }
    }

    /// Writes a batch: on success it is on the disks of a majority and applied here, and the state
    /// is at the revision that is returned. Only on the leader. A loss of quorum of less than a
    /// second is waited out.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Unknown` leaves open whether the batch was or will be written.
    pub async fn propose(&self, batch: Batch) -> Result<u64, ProposeError> {
        let patience = Instant::now() + LEASE_PATIENCE;
        loop {
            if let Err(error) = &self.metrics().running_state {
                return Err(ProposeError::Down(error.to_string()));
            }
            if let Some(full) = self.inner.log.space().full() {
                // Another leader may have room.
                if Instant::now() < patience && self.leadership().borrow().i_lead {
                    sleep(RETRY).await;
                    continue;
                }
                return Err(ProposeError::NoSpace(full));
            }
            let write = self.inner.core.client_write(Proposal(batch.clone()));
            let limit = self.inner.config.propose_timeout;
            let outcome = tokio::select! {
                outcome = timeout(limit, write) => outcome,
                full = self.full_for(FULL_PATIENCE) => {
                    return Err(ProposeError::Unknown(full));
                }
            };
            let Ok(outcome) = outcome else {
                return Err(ProposeError::Unknown(format!(
                    "not written within {limit:?}"
                )));
            };
            return match outcome {
                Ok(written) => written.data.map_err(ProposeError::Rejected),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                    // Refused before it was logged, so it may be tried again.
                    if to.reason != ForwardReason::NotLeader && Instant::now() < patience {
                        sleep(RETRY).await;
                        continue;
                    }
                    Err(ProposeError::NotLeader(leader(&to)))
                }
                Err(error) => Err(ProposeError::Unknown(error.to_string())),
            };
        }
    }

    /// Waits until there has been no room on this disk for so long; why, for people.
    async fn full_for(&self, how_long: Duration) -> String {
        let mut space = self.space();
        loop {
            // Fails only when the log is gone, and then the write fails, too.
            let Ok(full) = space.wait_for(Option::is_some).await.map(|it| it.clone()) else {
                return std::future::pending().await;
            };
            if timeout(how_long, space.wait_for(Option::is_none))
                .await
                .is_err()
            {
                return full.unwrap_or_default();
            }
        }
    }

    /// Why nothing can be written here: there is no room on the disk. `None` if there is.
    pub fn space(&self) -> watch::Receiver<Option<String>> {
        self.inner.log.space().watch()
    }

    /// After this, [`Raft::state`] holds at least everything that was acknowledged anywhere before
    /// the call. On any member: a follower asks the leader, the leader asks a quorum. An election
    /// is waited out.
    ///
    /// # Errors
    /// No leader, no quorum, or too slow (`Config::read_timeout`).
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let deadline = Instant::now() + self.inner.config.read_timeout;
        let mut last = ReadError::NoLeader;
        loop {
            if let Err(error) = &self.metrics().running_state {
                return Err(ReadError::Down(error.to_string()));
            }
            match timeout_at(deadline, self.read_index(deadline)).await {
                Ok(Ok(index)) => return self.wait_applied(index, deadline).await,
                Ok(Err(error)) => last = error,
                Err(_) => return Err(last),
            }
            if Instant::now() + RETRY >= deadline {
                return Err(last);
            }
            sleep(RETRY).await;
        }
    }

    async fn read_index(&self, deadline: Instant) -> Result<u64, ReadError> {
        match self
            .inner
            .core
            .get_read_linearizer(ReadPolicy::ReadIndex)
            .await
        {
            Ok(linearizer) => return Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {}
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                return Err(ReadError::NoLeader);
            }
            Err(RaftError::Fatal(error)) => return Err(ReadError::Down(error.to_string())),
        }
        let leader = self.inner.leadership.borrow().leader.clone();
        let leader = leader.filter(|leader| leader.raft_id != self.inner.config.raft_id);
        let leader = leader.ok_or(ReadError::NoLeader)?;
        let request = Request {
            to: leader.raft_id,
            message: Message::ReadIndex,
        };
        // Short, so that a leader that died is not waited for when there is a new one.
        let patience = (self.inner.config.election_max * 2).min(deadline - Instant::now());
        let call = self.inner.transport.call(&leader, request, patience);
        let mut leadership = self.leadership();
        let replaced = leadership.wait_for(|it| it.leader.as_ref() != Some(&leader));
        let answer = tokio::select! {
            answer = timeout(patience, call) => answer,
            _ = replaced => return Err(ReadError::NoLeader),
        };
        match answer {
            Ok(Ok(Response(Answer::ReadIndex(Some(index))))) => Ok(index),
            Ok(Ok(_)) => Err(ReadError::NoLeader),
            Ok(Err(error)) => Err(ReadError::Timeout(error.to_string())),
            Err(_) => Err(ReadError::Timeout("the leader does not answer".into())),
        }
    }

    async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), ReadError> {
        let mut published = self.inner.published.clone();
        let reached = |it: &Published| it.applied.is_some_and(|applied| applied.index >= index);
        let applied = tokio::select! {
            applied = timeout_at(deadline, published.wait_for(reached)) => applied,
            // What it lacks cannot be logged here, however long one waits.
            full = self.full_for(FULL_PATIENCE) => return Err(ReadError::NoSpace(full)),
        };
        match applied {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Down(self.why_down())),
            Err(_) => Err(ReadError::Timeout(
                "this manager lags behind the leader".into(),
            )),
        }
    }

    /// The state as applied here, which may be behind: see [`Raft::read_barrier`]. Costs nothing.
    pub fn state(&self) -> State {
        self.inner.published.borrow().state.clone()
    }

    /// Everything applied from now on. A receiver that lags (more than 1,024 steps) gets an error
    /// from the channel and must start over from [`Raft::state`], taken after subscribing: steps at
    /// or below that state's revision are then old news.
    pub fn subscribe(&self) -> broadcast::Receiver<AppliedRef> {
        self.inner.steps.subscribe()
    }

    /// Who leads and who the members are; changes are seen as they happen.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Answers a message from the node of this id, which its certificate has proven to be a
    /// manager. `None`: raft has stopped, or the message is for another member.
    pub async fn handle(&self, from: &str, request: Request) -> Option<Response> {
        let answer = self.inner.server.handle(request).await;
        if answer.is_none() {
            tracing::debug!(from, "a raft message was left without an answer");
        }
        answer
    }

    /// Stops taking part and closes the log; everything acknowledged is on disk. Does not hand over
    /// leadership: see [`Raft::step_down`].
    pub async fn shutdown(&self) {
        self.inner.log.space().give_up();
        // Fails only if the core has panicked, and then it is down as well.
        drop(self.inner.core.shutdown().await);
        let log = self.inner.log.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || log.close()).await {
            tracing::error!(%error, "cannot close the raft log");
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.inner.core.metrics().borrow_watched().clone()
    }

    /// State, membership and place in the log, as they belong together.
    pub(super) fn published(&self) -> Published {
        self.inner.published.borrow().clone()
    }

    pub(super) fn why_down(&self) -> String {
        match self.metrics().running_state {
            Ok(()) => "it was shut down".into(),
            Err(error) => error.to_string(),
        }
    }
}

/// The leader that openraft points to.
pub(super) fn leader(to: &ForwardToLeader<Types>) -> Option<Member> {
    Some(to.leader_node.as_ref()?.member(to.leader_id?))
}
