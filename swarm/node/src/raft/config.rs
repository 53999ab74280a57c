//! How raft is set up: its types, its timing and its limits. Reads no file and no environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use openraft::SnapshotPolicy;
use serde::{Deserialize, Serialize};
use skep_core::{Batch, Reject};

use crate::disk::Keys;

openraft::declare_raft_types!(
    /// The types that raft is instantiated with.
    pub Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Peer,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// What applying an entry gives: the revision after it.
pub type Outcome = Result<u64, Reject>;

/// A batch as a log entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proposal(pub Batch);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} on {}", self.0.txs.len(), self.0.base)
    }
}

/// A member without its raft id, as raft's membership carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// `host:port`.
    pub addr: String,
    /// The node's id.
    pub node_id: String,
}

/// What [`Raft::start`](super::Raft::start) needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where raft keeps its files (`DATA_DIR/raft`); created if missing.
    pub dir: PathBuf,
    /// This manager's raft id.
    pub raft_id: u64,
    /// What everything in those files is sealed with.
    pub keys: Keys,
    /// How often the leader says that it is there.
    pub heartbeat: Duration,
    /// The shortest patience of openraft itself with a silent leader, beyond its lease; the next in
    /// line is quicker.
    pub election_min: Duration,
    /// The longest patience, and the leader's lease: nobody votes for another until it has passed.
    pub election_max: Duration,
    /// Entries between two snapshots (Docker's `SnapshotInterval`), until the cluster's spec says
    /// otherwise.
    pub snapshot_interval: u64,
    /// Entries kept behind a snapshot for members that lag a little, likewise.
    pub keep_entries: u64,
    /// How long a proposal may take until its outcome is declared unknown.
    pub propose_timeout: Duration,
    /// How long a read barrier may take.
    pub read_timeout: Duration,
    /// How long a new member may take to catch up.
    pub catch_up_timeout: Duration,
}

impl Config {
    /// The defaults. A leader whose host says that it is dead is replaced after four missed
    /// heartbeats; one that is only silent after the lease, when eight are missing.
    pub fn new(dir: impl Into<PathBuf>, raft_id: u64, keys: Keys) -> Self {
        Self {
            dir: dir.into(),
            raft_id,
            keys,
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(400),
            snapshot_interval: 10_000,
            keep_entries: 500,
            propose_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(5),
            catch_up_timeout: Duration::from_secs(60),
        }
    }

    /// A leader or member that has been silent for so long counts as gone. Longer than the lease,
    /// since answers wait for the disk and disks stall.
    pub fn silence(&self) -> Duration {
        (self.election_max * 4).max(Duration::from_millis(1500))
    }

    /// The same for openraft.
    pub(super) fn to_openraft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "skep".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: SNAPSHOT_CHUNK_TIMEOUT_MS,
            max_payload_entries: 256,
            max_append_entries: Some(1024),
            // compaction.rs does both, by settings that may change at any time.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 64,
            api_channel_size: Some(4096),
            // Nothing is lost by asking first, and a member that returns disturbs nobody.
            enable_pre_vote: Some(true),
            // A restarted leader must be elected again: its state is behind until then.
            enable_leader_restore: Some(false),
            backoff: "100ms 200ms ...1s".into(),
            ..openraft::Config::default()
        }
        .validate()
    }
}

/// How long one piece of a snapshot may take.
const SNAPSHOT_CHUNK_TIMEOUT_MS: u64 = 10_000;
