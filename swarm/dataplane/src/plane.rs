//! The data plane of one host: takes in changes, and lets each part of it follow. A part that fails
//! is tried again and holds up no other. Never decides who is on a network.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::balance::Balance;
use crate::mesh::Mesh;
use crate::model::{Change, Reports};
use crate::names::Names;
use crate::state::{State, Touched};

/// Changes that wait, in calls of [`Plane::apply`].
const QUEUE: usize = 1024;
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often to see whether somebody else was at the kernel's rules.
const LOOK: Duration = Duration::from_millis(500);

/// What a host needs to know of itself.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Resolvers for names that are not ours; none: those of `/etc/resolv.conf`.
    pub resolvers: Vec<std::net::IpAddr>,
}

/// A part of the data plane. Everything it does can be done again.
pub(crate) trait Part: Send {
    /// What it is for, for the log.
    fn name(&self) -> &'static str;

    /// Makes the kernel what the state says. Only what is touched can differ from the last call
    /// that succeeded, unless somebody else was at it.
    fn converge(
        &mut self,
        state: &State,
        touched: &Touched,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Removes what this part has left in the kernel, earlier processes' too: the host has no part
    /// in any network any more. Nothing being there is a success.
    fn clean() -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }

    /// Whether everything is still as it was left: asked every [`LOOK`], so it must be cheap.
    fn intact(&mut self) -> impl Future<Output = bool> + Send;
}

/// A running data plane. Dropping it leaves the kernel as it is, so that a restart disturbs nobody.
#[derive(Debug)]
pub struct Plane {
    words: mpsc::Sender<Word>,
    reports: watch::Receiver<Reports>,
    running: JoinHandle<()>,
}

/// What it is told.
#[derive(Debug)]
enum Word {
    Changes(Vec<Change>),
    /// Whether all that was told before is so.
    Settled(oneshot::Sender<bool>),
}

impl Plane {
    /// Starts it. What an earlier one left in the kernel stays until the first changes are told.
    pub fn start(config: Config) -> Self {
        let (words, inbox) = mpsc::channel(QUEUE);
        let (report, reports) = watch::channel(Reports::default());
        let running = tokio::spawn(run(config, inbox, report));
        Self {
            words,
            reports,
            running,
        }
    }

    /// What it finds out, as it is now and whenever that changes.
    pub fn reports(&self) -> watch::Receiver<Reports> {
        self.reports.clone()
    }

    /// Tells what is another way now; waits while too much is under way.
    pub async fn apply(&self, changes: Vec<Change>) {
        // It only ends with us.
        let _ = self.words.send(Word::Changes(changes)).await;
    }

    /// Waits until the kernel was told everything that was told here; whether it took all of it.
    pub async fn settled(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = self.words.send(Word::Settled(answer)).await;
        asked.is_ok() && answered.await.unwrap_or(false)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Removes what data planes have left in the kernel. None may be running.
///
/// # Errors
/// In words, what is left; each part is cleaned all the same.
pub async fn clean() -> Result<(), String> {
    let outcomes = [
        Balance::clean().await,
        Names::clean().await,
        Mesh::clean().await,
    ];
    let left: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(left.join("; ")),
    }
}

async fn run(config: Config, mut inbox: mpsc::Receiver<Word>, report: watch::Sender<Reports>) {
    let mut state = State::default();
    let mut balance = Follower::new(Balance::new());
    let mut names = Follower::new(Names::new(&config));
    let mut mesh = Follower::new(Mesh::new(report));
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut touched = Touched::default();
        let mut asked = Vec::new();
        tokio::select! {
            word = inbox.recv() => {
                let Some(mut word) = word else { return };
                loop {
                    match word {
                        Word::Changes(changes) => changes
                            .into_iter()
                            .for_each(|change| state.apply(change, &mut touched)),
                        Word::Settled(answer) => asked.push(answer),
                    }
                    // What has come meanwhile costs no second round.
                    match inbox.try_recv() {
                        Ok(more) => word = more,
                        Err(_) => break,
                    }
                }
            }
            _ = look.tick() => {
                balance.look().await;
                names.look().await;
                mesh.look().await;
            }
        }
        tokio::join!(
            balance.follow(&state, &touched),
            names.follow(&state, &touched),
            mesh.follow(&state, &touched),
        );
        let settled = balance.is_up() && names.is_up() && mesh.is_up();
        for answer in asked {
            // Whoever does not wait any more does not need to know.
            let _ = answer.send(settled);
        }
    }
}

/// A part with what it still has to look at.
struct Follower<P> {
    part: P,
    behind: Touched,
    pause: Duration,
    not_before: Option<Instant>,
}

impl<P: Part> Follower<P> {
    fn new(part: P) -> Self {
        Self {
            part,
            behind: Touched::default(),
            pause: PAUSES.0,
            not_before: None,
        }
    }

    /// Whether it has followed everything.
    fn is_up(&self) -> bool {
        self.behind.is_empty()
    }

    /// Finds out whether somebody else was at it.
    async fn look(&mut self) {
        self.behind.all |= !self.part.intact().await;
    }

    /// Lets the part follow, unless it is to rest after a failure; the next look comes soon.
    async fn follow(&mut self, state: &State, touched: &Touched) {
        self.behind.merge(touched);
        let rests = self.not_before.is_some_and(|at| at > Instant::now());
        if rests || self.behind.is_empty() {
            return;
        }
        match self.part.converge(state, &self.behind).await {
            Ok(()) => {
                self.behind = Touched::default();
                (self.pause, self.not_before) = (PAUSES.0, None);
            }
            Err(error) => {
                warn!(part = self.part.name(), error, "the data plane is behind");
                self.not_before = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSES.1);
            }
        }
    }
}
