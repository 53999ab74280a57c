//! What a node says of itself to the leader: what its engine says, which networks it reaches and
//! where packets of the swarm's are to be sent to. Looks again now and then. Decides nothing.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_api::cluster::TlsInfo;
use skep_api::node::NodeDescription;
use skep_core::assignment::ToDispatcher;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::dial::Known;
use crate::addr::DataPath;
use crate::disk;
use crate::engine::Engine;
use crate::quic::Endpoint;
use crate::system;

/// Where the agent's directory has what the engine last said, for a daemon that starts beside an
/// engine that is slow: a node has three seconds before its tasks are given to others.
const FILE: &str = "description";
/// How long the engine may take to describe the node, if it has done so before.
const ENGINE_PATIENCE: Duration = Duration::from_millis(500);
/// The host's own networks are looked at this often: somebody may make an overlay right after a
/// network of his host.
const LOOK: Duration = Duration::from_secs(1);
/// The engine is asked this often, which costs it more.
const LOOK_AT_ENGINE: Duration = Duration::from_secs(5);

/// A node that can introduce itself.
pub(super) struct Introducer {
    endpoint: Endpoint,
    engine: Arc<dyn Engine>,
    data_path: DataPath,
    /// What the engine last said of the node.
    described: Option<NodeDescription>,
    /// Where that is kept.
    file: PathBuf,
}

impl Introducer {
    /// `dir` is the agent's own directory.
    pub fn new(
        endpoint: Endpoint,
        engine: Arc<dyn Engine>,
        data_path: DataPath,
        dir: &Path,
    ) -> Self {
        let file = dir.join(FILE);
        Self {
            endpoint,
            engine,
            data_path,
            described: remembered(&file),
            file,
        }
    }

    /// Asks the engine what the node is like. If it is slow today, what it said last has to do: a
    /// node whose engine is busy must not look dead.
    ///
    /// # Errors
    /// What the engine answers, or why it does not.
    pub async fn describe(&mut self) -> Result<(), String> {
        let answer = timeout(ENGINE_PATIENCE, self.engine.describe()).await;
        let description = match (answer, &self.described) {
            (Ok(answer), _) => answer?,
            (Err(_), Some(_)) => return Ok(()),
            (Err(_), None) => self.engine.describe().await?,
        };
        if self.described.as_ref() != Some(&description) {
            self.remember(&description).await;
            self.described = Some(description);
        }
        Ok(())
    }

    /// For the next daemon; without it that one has to wait for its engine.
    async fn remember(&self, description: &NodeDescription) {
        let (file, said) = (self.file.clone(), serde_json::to_vec(description));
        let write = move || disk::write_atomic(&file, &said?, 0o600);
        let written = tokio::task::spawn_blocking(write).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            warn!(%error, "cannot keep what the engine says of the node");
        }
    }

    /// What the node says when it registers, with what its engine said last.
    pub async fn introduction(&self) -> ToDispatcher {
        let description = NodeDescription {
            tls_info: tls_info(&self.endpoint),
            ..self.described.clone().unwrap_or_default()
        };
        // Without interfaces, what the leader sees has to do.
        let own = system::interfaces().unwrap_or_default();
        ToDispatcher::Register {
            description: Box::new(description),
            subnets: system::subnets().await,
            subnets6: system::subnets6().await,
            data_path: self.data_path.said(&own),
        }
    }

    /// Tells the leader, who was told `said`, whenever it is true no more, and of every identity of
    /// the node's after `identity`. Without room in the queue it is tried again at the next look;
    /// the session that takes its place begins with an introduction anyway.
    pub async fn keep_true(
        &mut self,
        mut said: ToDispatcher,
        mut known: watch::Receiver<Known>,
        mut identity: u64,
        queued: mpsc::WeakSender<ToDispatcher>,
    ) -> Infallible {
        let (mut asked, mut owed) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = sleep(system::jittered(LOOK)) => {}
                now = next_identity(&mut known, identity) => (identity, owed) = (now, true),
            }
            if asked.elapsed() >= LOOK_AT_ENGINE {
                // Whoever does not answer is as he was.
                let _ = self.describe().await;
                asked = Instant::now();
            }
            let true_now = self.introduction().await;
            if (owed || true_now != said)
                && let Some(outgoing) = queued.upgrade()
                && outgoing.try_send(true_now.clone()).is_ok()
            {
                (said, owed) = (true_now, false);
            }
        }
    }
}

/// What the engine said to an earlier daemon.
fn remembered(file: &Path) -> Option<NodeDescription> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Forgets it, with the node.
pub(super) fn forget(dir: &Path) {
    // One that stays is replaced by what the next node's engine says.
    let _ = std::fs::remove_file(dir.join(FILE));
}

/// Waits until the node's identity is another one than `identity`. Pends for ever when nobody is
/// left to say so.
async fn next_identity(known: &mut watch::Receiver<Known>, identity: u64) -> u64 {
    let next = known.wait_for(|known| known.identity != identity).await;
    if let Some(next) = next.ok().map(|known| known.identity) {
        return next;
    }
    std::future::pending().await
}

/// What Docker's API shows as the node's TLSInfo.
fn tls_info(endpoint: &Endpoint) -> TlsInfo {
    let identity = endpoint.identity();
    identity
        .map(|identity| identity.tls_info())
        .unwrap_or_default()
}
