//! Accepts clients, within limits, and lets them finish when the daemon stops. Knows nothing of
//! what they ask.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conn::{Shared, refuse, serve};
use crate::listen::{Accepted, Listener};
use crate::stream::BoxStream;

/// Clients that are served at once, unless said otherwise.
pub const MAX_CONNECTIONS: usize = 4096;
/// Refusals that are written at once; beyond that, connections are just closed.
const MAX_REFUSALS: usize = 64;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The pause after a failed accept: nearly always a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves clients until `shared.draining` is set and they are done.
pub struct Server {
    shared: Arc<Shared>,
    limit: usize,
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Set when waiting for clients has lasted long enough.
    abort: CancellationToken,
}

impl Server {
    /// A server for at most `limit` clients at once.
    pub fn new(shared: Arc<Shared>, limit: usize) -> Self {
        Self {
            shared,
            limit,
            served: Arc::new(Semaphore::new(limit)),
            refused: Arc::new(Semaphore::new(MAX_REFUSALS)),
            tasks: TaskTracker::new(),
            abort: CancellationToken::new(),
        }
    }

    /// Runs until `shared.draining` is set; requests at hand and hijacked streams are given
    /// `grace` to end after that. True when all did.
    pub async fn run(self, listeners: Vec<Listener>, grace: Duration) -> bool {
        let server = Arc::new(self);
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| tokio::spawn(Arc::clone(&server).accept(listener)))
            .collect();
        server.shared.draining.cancelled().await;
        for task in accepting {
            let _ = task.await;
        }
        server.tasks.close();
        let finished = timeout(grace, server.tasks.wait()).await.is_ok();
        server.abort.cancel();
        server.tasks.wait().await;
        finished
    }

    async fn accept(self: Arc<Self>, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => self.admit(accepted),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, accepted: Accepted) {
        let shared = Arc::clone(&self.shared);
        if let Ok(place) = Arc::clone(&self.served).try_acquire_owned() {
            self.spawn(async move {
                if let Some(stream) = handshake(accepted).await {
                    serve(stream, shared).await;
                }
                drop(place);
            });
        } else if let Ok(place) = Arc::clone(&self.refused).try_acquire_owned() {
            let limit = self.limit;
            self.spawn(async move {
                if let Some(stream) = handshake(accepted).await {
                    refuse(stream, shared, limit).await;
                }
                drop(place);
            });
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = work => {}
            }
        });
    }
}

async fn handshake(accepted: Accepted) -> Option<BoxStream> {
    match accepted {
        Accepted::Unix(stream) => Some(Box::new(stream)),
        Accepted::Tcp(stream, None) => Some(Box::new(stream)),
        Accepted::Tcp(stream, Some(tls)) => match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::info!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        },
    }
}
