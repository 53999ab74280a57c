//! The life of the daemon: opens everything, says that it is ready, waits for a signal, and takes
//! everything down in order. Decides nothing about requests.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::attach::{self, Kept};
use crate::config::Config;
use crate::conn::Shared;
use crate::engine::Engine;
use crate::guise::Names;
use crate::listen;
use crate::pidfile::PidFile;
use crate::server::{MAX_CONNECTIONS, Server};
use crate::swarm::Swarm;

/// How long requests and hijacked streams may go on after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once. `farewell` runs
/// beside the requests that are still under way after the first one.
pub async fn run(
    config: &Config,
    swarm: Arc<dyn Swarm>,
    farewell: impl Future<Output = ()>,
) -> Result<()> {
    let mut signals = Signals::new()?;
    raise_file_limit();
    let _pidfile = config.pidfile.as_deref().map(PidFile::create).transpose()?;
    let listeners = listen::open(config).await?;
    let draining = CancellationToken::new();
    let engine = Arc::new(Engine::new(&config.engine));
    let shared = Shared {
        names: Names::new(swarm.clone(), engine.clone()),
        swarm,
        engine,
        kept: Kept::open(&config.data_dir),
        execs: Default::default(),
        draining: draining.clone(),
    };
    let shared = Arc::new(shared);
    let _late = AbortOnDropHandle::new(tokio::spawn(attach::follow(shared.clone())));
    tracing::info!(engine = %config.engine.display(), "ready");
    // Outside systemd there is nobody to notify.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let server = Server::new(shared, MAX_CONNECTIONS).run(listeners, GRACE);
    tokio::pin!(server);
    tokio::select! {
        _ = &mut server => return Ok(()),
        name = signals.next() => tracing::info!(signal = name, "stopping"),
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    draining.cancel();
    tokio::select! {
        (finished, ()) = async { tokio::join!(&mut server, farewell) } => {
            if !finished {
                tracing::warn!("some connections did not end within {GRACE:?} and were closed");
            }
            Ok(())
        }
        name = signals.next() => anyhow::bail!("stopped at once by a second signal, {name}"),
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Every client takes two descriptors; the customary soft limit of 1,024 is far too low for that.
fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, "the limit of open files stays as it is");
    }
}
