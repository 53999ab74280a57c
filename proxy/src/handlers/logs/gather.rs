//! All logs of one request: a reader for each container, all into one channel that holds little, so
//! that a client which is slow slows its own readers and nobody else. Never looks into a log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use skep_core::logs::{self, Options, Origin, Selector, Source, Step, Tracker};
use skep_core::{Id, State};
use skep_node::raft::AppliedRef;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::limits::{AT_ONCE, FOLLOWED, Places};
use super::reader::Reader;
use crate::handlers::Cluster;
use crate::handlers::events::now;
use crate::reply::BodyStream;

/// Pieces that wait for the client.
const WAITING: usize = 8;
/// How long containers may wait for a reader before the client is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the readers of a request have in common.
pub(super) struct Shared<C> {
    pub(super) cluster: Arc<C>,
    pub(super) options: Options,
    pub(super) framed: bool,
    pub(super) of_all: Arc<Places>,
    pub(super) of_this: Places,
    /// Nodes that could not be reached, of which the client was told.
    silent: Mutex<BTreeSet<Id>>,
}

/// Where lines go; fails when the client has left.
pub(super) type Out = mpsc::Sender<io::Result<Bytes>>;

impl<C> Shared<C> {
    pub(super) fn new(
        cluster: Arc<C>,
        of_all: Arc<Places>,
        options: Options,
        framed: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            options,
            framed,
            of_all,
            of_this: Places::of_a_request(),
            silent: Mutex::default(),
        })
    }

    /// Nodes that could not be reached.
    pub(super) fn silent(&self) -> MutexGuard<'_, BTreeSet<Id>> {
        // A panic elsewhere leaves the set whole.
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line that says so of a task.
    pub(super) fn warning(&self, origin: &Origin, reason: &str) -> Bytes {
        let at = self.options.timestamps.then(now);
        logs::warning(origin, at, self.options.details, self.framed, reason).into()
    }
}

/// One request's readers.
struct Gather<C> {
    shared: Arc<Shared<C>>,
    out: Out,
    selector: Selector,
    tracker: Tracker,
    state: State,
    /// Containers that wait for a reader.
    queue: VecDeque<Source>,
    readers: JoinSet<Id>,
    /// Tells a reader that its task is no more.
    gone: BTreeMap<Id, CancellationToken>,
}

/// Begins to read; what is read is the body. Dropping it ends all readers.
pub(super) fn start<C: Cluster>(
    shared: Arc<Shared<C>>,
    selector: Selector,
    state: State,
    changes: Option<BoxStream<'static, AppliedRef>>,
) -> BodyStream {
    let (out, pieces) = mpsc::channel(WAITING);
    let gather = Gather {
        tracker: Tracker::new(selector.clone(), shared.options.follow),
        shared,
        out,
        selector,
        state,
        queue: VecDeque::new(),
        readers: JoinSet::new(),
        gone: BTreeMap::new(),
    };
    let running = AbortOnDropHandle::new(tokio::spawn(gather.run(changes)));
    let next = |(mut pieces, running): (mpsc::Receiver<_>, _)| async move {
        Some((pieces.recv().await?, (pieces, running)))
    };
    Box::pin(unfold((pieces, running), next))
}

impl<C: Cluster> Gather<C> {
    async fn run(mut self, changes: Option<BoxStream<'static, AppliedRef>>) {
        let steps = self.tracker.look(&self.state);
        self.take(steps);
        let followed = match changes {
            Some(changes) => self.follow(changes).await,
            None => {
                self.fill(AT_ONCE);
                while self.one_ended().await {
                    self.fill(AT_ONCE);
                }
                Ok(())
            }
        };
        // It fails where the client has left, which needs no news.
        let _ = match (followed, logs::unscheduled(&self.state, &self.selector)) {
            (Err(error), _) => self.out.send(Err(error)).await,
            (Ok(()), Some(reason)) => {
                let text = logs::incomplete(&reason, self.shared.framed);
                self.out.send(Ok(text.into())).await
            }
            (Ok(()), None) => Ok(()),
        };
    }

    async fn follow(&mut self, mut changes: BoxStream<'static, AppliedRef>) -> io::Result<()> {
        let (mut told, late) = (false, Instant::now() + PATIENCE);
        loop {
            self.fill(FOLLOWED);
            if self.readers.is_empty() && self.selector.is_over(&self.state) {
                return Ok(());
            }
            tokio::select! {
                step = changes.next() => match step {
                    Some(step) => self.observe(&step),
                    None => return Err(io::Error::other("this node is no manager any more")),
                },
                true = self.one_ended() => {}
                () = sleep_until(late), if !told && !self.queue.is_empty() => {
                    told = true;
                    self.say_that_some_wait().await;
                }
            }
        }
    }

    /// Waits until a reader has ended; `false` if there is none.
    async fn one_ended(&mut self) -> bool {
        let ended = self.readers.join_next().await;
        if let Some(Ok(task)) = &ended {
            self.gone.remove(task);
        }
        ended.is_some()
    }

    fn observe(&mut self, step: &AppliedRef) {
        // What the view that was looked at has.
        if step.revision <= self.state.revision() {
            return;
        }
        self.state = step.state.clone();
        let steps = match step.whole {
            true => self.tracker.look(&self.state),
            false => {
                let events = step.events.iter();
                let steps = events.filter_map(|event| self.tracker.observe(event));
                steps.collect()
            }
        };
        self.take(steps);
    }

    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Begin(source) => self.queue.push_back(source),
                Step::End(task) => {
                    self.queue.retain(|source| source.task != task);
                    if let Some(gone) = self.gone.remove(&task) {
                        gone.cancel();
                    }
                }
            }
        }
    }

    /// Lets the next ones in the queue have readers.
    fn fill(&mut self, most: usize) {
        while self.readers.len() < most
            && let Some(source) = self.queue.pop_front()
        {
            let (task, gone) = (source.task.clone(), CancellationToken::new());
            self.gone.insert(task.clone(), gone.clone());
            let reader = Reader::new(self.shared.clone(), self.out.clone(), source);
            self.readers.spawn(async move {
                reader.run(gone).await;
                task
            });
        }
    }

    async fn say_that_some_wait(&mut self) {
        let Some(first) = self.queue.front() else {
            return;
        };
        let reason = format!(
            "no more than {FOLLOWED} containers are followed at once; {} wait",
            self.queue.len()
        );
        let line = self.shared.warning(&first.origin, &reason);
        // It fails where the client has left, which ends this too.
        let _ = self.out.send(Ok(line)).await;
    }
}
