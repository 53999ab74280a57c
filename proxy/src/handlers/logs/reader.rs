//! Reads the log of one container from its node's engine and, when somebody follows, reads on after
//! every interruption: from the last line that was seen. Never gives up the others' logs for its own.

use std::sync::Arc;
use std::time::Duration;

use skep_api::task::TaskState;
use skep_core::Timestamp;
use skep_core::logs::{self, Options, Rewriter, Source};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::{Answer, Body};
use super::gather::{Out, Shared};
use crate::handlers::Cluster;
use crate::handlers::events::now;

/// How long an engine may take to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// How long it may say nothing in the midst of a log that it has already: it may have to search.
const SILENCE: Duration = Duration::from_secs(60);
/// Pause before a log is asked for again; doubled each time that nothing comes of it.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// How often a log that breaks off is asked for again before the client is told.
const TRIES: u32 = 3;
/// How long the log of a task that is gone may take to end. Its container had stopped before.
const END: Duration = Duration::from_secs(2);
/// What engines say of drivers that only write. There is nothing to be had, and it is no fault.
const UNREADABLE: &str = "logging driver does not support reading";

/// Reads one container's log.
pub(super) struct Reader<C> {
    shared: Arc<Shared<C>>,
    out: Out,
    source: Source,
    /// What is asked for now.
    options: Options,
    /// Something came since the last attempt.
    heard: bool,
    /// The client knows that this log cannot be read.
    told: bool,
}

/// Why a log was not read to its end.
enum Missed {
    /// The client has left.
    Left,
    /// The stream broke off.
    Broken(String),
    /// The node cannot be reached.
    Node(String),
    /// The node can be reached, its log not.
    Log(String),
}

impl<C: Cluster> Reader<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, out: Out, source: Source) -> Self {
        Self {
            options: shared.options.clone(),
            shared,
            out,
            source,
            heard: false,
            told: false,
        }
    }

    /// Reads until there is nothing more to come; `gone` says that there is no such task any more.
    pub(super) async fn run(mut self, gone: CancellationToken) {
        let ended = async {
            gone.cancelled().await;
            sleep(END).await;
        };
        tokio::select! {
            () = self.read_on(&gone) => {}
            () = ended => {}
        }
    }

    async fn read_on(&mut self, gone: &CancellationToken) {
        let (mut pause, mut misses) = (PAUSE, 0);
        loop {
            let read = self.read().await;
            if std::mem::take(&mut self.heard) {
                (pause, misses) = (PAUSE, 0);
            }
            let ended = read.is_ok();
            let again = match read {
                Ok(()) => self.options.follow,
                Err(missed) => {
                    misses += 1;
                    self.tell(missed, misses).await
                }
            };
            if !again {
                return;
            }
            sleep(skep_node::jittered(pause)).await;
            pause = (pause * 2).min(LONG_PAUSE);
            if gone.is_cancelled() || !self.may_have_more(ended) {
                return;
            }
        }
    }

    /// Tells the client, once, what cannot be had; returns whether to try again.
    async fn tell(&mut self, missed: Missed, misses: u32) -> bool {
        let follow = self.options.follow;
        let news = match missed {
            Missed::Left => return false,
            Missed::Broken(_) if misses < TRIES => return true,
            Missed::Broken(why) | Missed::Node(why) => {
                let fresh = self.shared.silent().insert(self.source.node.clone());
                fresh.then_some(why)
            }
            Missed::Log(why) => (!std::mem::replace(&mut self.told, true)).then_some(why),
        };
        if let Some(reason) = news {
            let line = self.shared.warning(&self.source.origin, &reason);
            return self.out.send(Ok(line)).await.is_ok() && follow;
        }
        follow
    }

    /// Whether the log may go on: as long as the task is there, if it broke off, and as long as
    /// it runs, if it has ended.
    fn may_have_more(&self, ended: bool) -> bool {
        let state = self.shared.cluster.local_state();
        state.is_some_and(|state| {
            let task = state.tasks().get(&self.source.task);
            let running = task.map(|task| task.status.state <= TaskState::Running);
            running.is_some_and(|running| running || !ended)
                && state.nodes().get(&self.source.node).is_some()
        })
    }

    async fn read(&mut self) -> Result<(), Missed> {
        let Source { node, tty, .. } = &self.source;
        // One task of a node has waited for it in vain, which is enough.
        if !self.options.follow && self.shared.silent().contains(node) {
            return Err(Missed::Node(String::new()));
        }
        let state = self.shared.cluster.local_state();
        if !state.is_some_and(|state| logs::is_there(&state, node)) {
            return Err(Missed::Node(format!("node {node} is not available")));
        }
        let _places = self.places().await?;
        let Options {
            timestamps,
            details,
            ..
        } = self.options;
        let query = self.options.query(Rewriter::stamped(*tty, timestamps));
        let target = format!("/containers/{}/logs?{query}", self.source.container);
        let stream = self.shared.cluster.engine(node).await;
        let stream = stream.map_err(|why| Missed::Node(why.message))?;
        let asked = timeout(BEGIN, Answer::to(stream, &target)).await;
        let body = match asked {
            Ok(Ok(Answer::Log(body))) => body,
            Ok(Ok(Answer::Refused(status, text))) => return refused(status, text),
            Ok(Err(why)) => return Err(self.broken(&why.to_string())),
            Err(_) => {
                let text = format!("the engine of node {node} does not answer");
                return Err(Missed::Node(text));
            }
        };
        self.shared.silent().remove(node);
        let begun = now();
        let origin = self.source.origin.clone();
        let mut rewriter = Rewriter::new(origin, *tty, self.shared.framed, timestamps, details);
        let copied = self.copy(body, &mut rewriter).await;
        self.go_on_after(&rewriter, begun);
        copied
    }

    /// Places at the node; this host's own engine takes as many as come.
    async fn places(&self) -> Result<Vec<OwnedSemaphorePermit>, Missed> {
        let (node, shared) = (&self.source.node, &self.shared);
        let mut taken = Vec::new();
        if shared.cluster.standing().node_id == node.as_str() {
            return Ok(taken);
        }
        for places in [&shared.of_this, &*shared.of_all] {
            let place = places.take(node).await;
            let too_many = || Missed::Log(format!("too many logs of node {node} are read at once"));
            taken.push(place.ok_or_else(too_many)?);
        }
        Ok(taken)
    }

    async fn copy(&mut self, mut body: Body, rewriter: &mut Rewriter) -> Result<(), Missed> {
        let (mut piece, mut trouble) = (Vec::new(), None);
        loop {
            piece.clear();
            let next = body.next(&mut piece);
            let more = match self.options.follow {
                true => next.await,
                false => match timeout(SILENCE, next).await {
                    Ok(more) => more,
                    Err(_) => return Err(self.broken("it does not answer")),
                },
            };
            let more = more.map_err(|why| self.broken(&why.to_string()))?;
            let mut lines = Vec::new();
            let understood = rewriter.push(&piece, &mut lines);
            if !more {
                rewriter.finish(&mut lines);
            }
            trouble = rewriter.trouble().or(trouble);
            self.send(lines).await?;
            if understood.is_err() {
                let text = "the engine's answer is no log".to_owned();
                return Err(Missed::Log(text));
            }
            if !more {
                return trouble.map_or(Ok(()), |text| refused(500, text));
            }
        }
    }

    async fn send(&mut self, lines: Vec<u8>) -> Result<(), Missed> {
        if lines.is_empty() {
            return Ok(());
        }
        (self.heard, self.told) = (true, false);
        let sent = self.out.send(Ok(lines.into())).await;
        sent.map_err(|_| Missed::Left)
    }

    /// What is asked for next begins after the last line. Where lines have no times, with the time at
    /// which they came, which another host's clock may see a little otherwise.
    fn go_on_after(&mut self, rewriter: &Rewriter, begun: Timestamp) {
        let last = match rewriter.last() {
            Some(last) => Some(last),
            None if self.heard => Some(now()),
            // None of those that were there was wanted; all that came since are.
            None => (self.options.tail == Some(0)).then_some(begun),
        };
        if let Some(last) = last {
            let next = Some(last.nanos().saturating_add(1));
            self.options.since = self.options.since.max(next);
            self.options.tail = None;
        }
    }

    fn broken(&self, why: &str) -> Missed {
        let node = &self.source.node;
        Missed::Broken(format!("the engine of node {node} went away: {why}"))
    }
}

/// What the engine's refusal means. A container that is gone has taken its log with it.
fn refused(status: u16, text: String) -> Result<(), Missed> {
    match status {
        404 | 409 => Ok(()),
        _ if text.contains(UNREADABLE) => Ok(()),
        _ => Err(Missed::Log(text)),
    }
}
