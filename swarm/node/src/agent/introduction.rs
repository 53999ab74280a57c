//! What a node says of itself to the leader: what its engine says, which networks it reaches and
//! where packets of the swarm's are to be sent to. Looks again now and then. Decides nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use skep_api::cluster::TlsInfo;
use skep_api::node::NodeDescription;
use skep_core::assignment::ToDispatcher;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::dial::Known;
use crate::addr::DataPath;
use crate::engine::Engine;
use crate::quic::Endpoint;
use crate::system;

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
}

impl Introducer {
    pub fn new(endpoint: Endpoint, engine: Arc<dyn Engine>, data_path: DataPath) -> Self {
        Self {
            endpoint,
            engine,
            data_path,
            described: None,
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
        self.described = Some(description);
        Ok(())
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
