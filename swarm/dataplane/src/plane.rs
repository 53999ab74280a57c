//! The data plane of one host: takes in changes, and lets each part of it follow, at its own pace. A
//! part that fails is tried again, and none holds up another. Never decides who is on a network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::across::Ways;
use crate::balance::Balance;
use crate::copies::Copies;
use crate::errands::Errands;
use crate::internal::Internal;
use crate::mesh::Mesh;
use crate::model::{Change, Reports};
use crate::names::Names;
use crate::passage::Passage;
use crate::paths::Paths;
use crate::replies::{self, Reply};
use crate::scout::Scout;
use crate::state::{State, Touched};

/// Changes that wait, in calls of [`Plane::apply`].
const QUEUE: usize = 1024;
/// Answers that wait for whoever asked for them.
const ANSWERS: usize = 8;
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// After a start, before what an earlier daemon left is taken away because nobody has a use for it:
/// until then somebody may still tell of one.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// How often to see whether somebody else was at the kernel's rules.
const LOOK: Duration = Duration::from_millis(500);

/// What a host needs to know of itself.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Resolvers for names that are not ours; none: those of `/etc/resolv.conf`.
    pub resolvers: Vec<std::net::IpAddr>,
    /// This host sends on what its tasks answer to clients of other hosts, as it does where the
    /// kernel has no place for rules that let tasks do so by themselves.
    pub routes_replies: bool,
    /// Connections to services are led packet by packet, as they are where the kernel runs no programs
    /// when a socket is connected.
    pub by_packet: bool,
}

/// A part of the data plane. Everything it does can be done again.
pub(crate) trait Part: Send {
    /// Whether it has a use for endpoints, of which there may be very many: what others are shown is
    /// without them.
    const SEES_ENDPOINTS: bool;

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

/// What it is told, and each part of it.
#[derive(Clone, Debug)]
enum Word {
    Changes(Arc<[Change]>),
    /// Whether all that was told before is so.
    Settled(mpsc::Sender<bool>),
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
        let _ = self.words.send(Word::Changes(changes.into())).await;
    }

    /// Says when it has followed what it was told.
    pub fn follow(&self) -> Follow {
        Follow(self.words.clone())
    }
}

/// Says when a plane has followed. Does not keep it running.
#[derive(Clone, Debug)]
pub struct Follow(mpsc::Sender<Word>);

impl Follow {
    /// Waits until the kernel was told everything that the plane was told before; whether it took all
    /// of it.
    pub async fn settled(&self) -> bool {
        let (answer, mut answers) = mpsc::channel(ANSWERS);
        let mut settled = self.0.send(Word::Settled(answer)).await.is_ok();
        while let Some(answer) = answers.recv().await {
            settled &= answer;
        }
        settled
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
        Passage::clean().await,
        Internal::clean().await,
    ];
    let left: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(left.join("; ")),
    }
}

/// Hands on what is told to all parts, and what is found out about containers that start.
async fn run(config: Config, mut inbox: mpsc::Receiver<Word>, report: watch::Sender<Reports>) {
    let mut parts = JoinSet::new();
    let direct = !config.routes_replies && replies::is_possible();
    let mut words = vec![
        Follower::start(Balance::new(config.by_packet), &mut parts),
        Follower::start(Names::new(&config), &mut parts),
        Follower::start(Mesh::new(report, direct), &mut parts),
        Follower::start(Passage::new(), &mut parts),
        Follower::start(Internal::default(), &mut parts),
        Follower::start(Paths::default(), &mut parts),
        Follower::start(Copies::default(), &mut parts),
        Follower::start(Errands::<Ways>::default(), &mut parts),
    ];
    if direct {
        words.push(Follower::start(Errands::<Reply>::default(), &mut parts));
    }
    let mut scout = Scout::start();
    loop {
        let word = tokio::select! {
            word = inbox.recv() => word,
            found = scout.next() => Some(Word::Changes([found].into())),
        };
        let Some(word) = word else { return };
        if let Word::Changes(changes) = &word {
            scout.follow(changes);
        }
        for part in &words {
            // One that failed for good is missed, and the others go on.
            if part.send(word.clone()).await.is_err()
                && let Word::Settled(answer) = &word
            {
                let _ = answer.send(false).await;
            }
        }
    }
}

/// A part with what it knows and what it still has to look at.
struct Follower<P> {
    part: P,
    state: State,
    behind: Touched,
    pause: Duration,
    not_before: Option<Instant>,
}

impl<P: Part + 'static> Follower<P> {
    /// Lets it follow for as long as the set lives, and says where to tell it.
    fn start(part: P, parts: &mut JoinSet<()>) -> mpsc::Sender<Word> {
        let (words, inbox) = mpsc::channel(QUEUE);
        let follower = Self {
            part,
            state: State::default(),
            behind: Touched::default(),
            pause: PAUSES.0,
            not_before: None,
        };
        parts.spawn(follower.run(inbox));
        words
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Word>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut asked = Vec::new();
            tokio::select! {
                word = inbox.recv() => {
                    let Some(word) = word else { return };
                    self.take(word, &mut asked);
                    // What has come meanwhile costs no second round.
                    while let Ok(more) = inbox.try_recv() {
                        self.take(more, &mut asked);
                    }
                }
                _ = look.tick() => self.look().await,
            }
            self.follow().await;
            for answer in asked {
                // Whoever does not wait any more does not need to know.
                let _ = answer.send(self.is_up()).await;
            }
        }
    }

    fn take(&mut self, word: Word, asked: &mut Vec<mpsc::Sender<bool>>) {
        match word {
            Word::Changes(changes) => {
                let seen = |it: &&Change| P::SEES_ENDPOINTS || !it.is_of_endpoint();
                for change in changes.iter().filter(seen) {
                    self.state.apply(change.clone(), &mut self.behind);
                }
            }
            Word::Settled(answer) => asked.push(answer),
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
    async fn follow(&mut self) {
        let rests = self.not_before.is_some_and(|at| at > Instant::now());
        if rests || self.behind.is_empty() {
            return;
        }
        match self.part.converge(&self.state, &self.behind).await {
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
