//! When snapshots are made and how much of the log is kept behind them: by the cluster's spec,
//! which may change at any time, and by bytes. Only asks openraft, and never while it may be busy.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Core;
use super::config::Config;
use super::log_store::LogStore;
use super::machine::Published;
use super::snapshot::SnapshotStore;

/// Between two looks while entries are applied.
const PACE: Duration = Duration::from_millis(50);
/// Without any entry, a look now and then: a purge may have been put off.
const IDLE: Duration = Duration::from_secs(2);
/// So many bytes of entries are due for a snapshot however few the entries are.
const MAX_BYTES: u64 = 64 << 20;
/// At most so many bytes of entries are kept for members that lag.
const MAX_KEPT: u64 = 32 << 20;
/// Entries purged at once, at least.
const PURGE_BATCH: u64 = 64;

/// What the cluster's spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    /// Entries between two snapshots; 0: only by bytes.
    interval: u64,
    keep_entries: u64,
    keep_old: u64,
}

/// What is needed for it.
pub(super) struct Compaction {
    pub config: Config,
    pub core: Core,
    pub log: LogStore,
    pub snapshots: Arc<SnapshotStore>,
    pub published: watch::Receiver<Published>,
}

impl Compaction {
    /// Goes on until raft ends.
    pub async fn run(mut self) {
        // Bytes appended up to the last snapshot that was asked for.
        let mut counted = 0;
        loop {
            let (settings, applied) = {
                let published = self.published.borrow_and_update();
                let applied = published.applied.map_or(0, |id| id.index);
                (settings(&self.config, &published), applied)
            };
            self.snapshots.keep_old(settings.keep_old);
            let metrics = self.core.metrics().borrow_watched().clone();
            if metrics.running_state.is_err() {
                return;
            }
            let snapshot = metrics.snapshot.map_or(0, |id| id.index);
            let entries = applied.saturating_sub(snapshot);
            let bytes = self.log.total_bytes().saturating_sub(counted);
            let due = settings.interval > 0 && entries >= settings.interval;
            if entries > 0 && (due || bytes > MAX_BYTES) && self.log.space().full().is_none() {
                counted = self.log.total_bytes();
                drop(self.core.trigger().snapshot().await);
            }
            let average = bytes / entries.max(1);
            let keep = settings.keep_entries.min(MAX_KEPT / average.max(1));
            let upto = snapshot.saturating_sub(keep);
            let purged = metrics.purged.map_or(0, |id| id.index);
            if upto >= purged + PURGE_BATCH || (keep < PURGE_BATCH && upto > purged) {
                drop(self.core.trigger().purge_log(upto).await);
            }
            sleep(PACE).await;
            // The end of the channel shows in the metrics.
            drop(tokio::time::timeout(IDLE, self.published.changed()).await);
        }
    }
}

/// The spec's, or the node's own as long as there is no cluster.
fn settings(config: &Config, published: &Published) -> Settings {
    match published.state.cluster() {
        Some(cluster) => Settings {
            interval: cluster.spec.raft.snapshot_interval,
            keep_entries: cluster.spec.raft.log_entries_for_slow_followers,
            keep_old: cluster.spec.raft.keep_old_snapshots.unwrap_or(0),
        },
        None => Settings {
            interval: config.snapshot_interval,
            keep_entries: config.keep_entries,
            keep_old: 0,
        },
    }
}
