//! One client connection: reads heads, asks the route table, and sees each request through, one
//! after the other. Holds at most one connection to the engine, which lives as long as its own
//! client stays: what the engine knows of a connection (keep-alive, cancellation) stays true.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use skep_api::version::ApiVersion;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Manner};
use crate::attach;
use crate::engine::Engine;
use crate::forward::{Captured, Failure, Outcome, Patch, exchange};
use crate::guise::{self, Names};
use crate::networks;
use crate::owned;
use crate::reach::Execs;
use crate::reply::{BodyStream, Reply};
use crate::rewrite;
use crate::route::{Rewrite, Route, Target, route};
use crate::stream::{BoxStream, Side};
use crate::swarm::{Feed, Swarm, SwarmInfo};
use crate::wire::RequestHead;
use crate::wire::buffer::{LARGE, MAX_HEAD};
use crate::wire::head::BadHead;

/// How long a head may take once it has begun.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long swarm mode may take to describe itself.
const INFO_TIME: Duration = Duration::from_secs(2);
/// How long and how far a connection that is closed is still read, so that the kernel does not
/// throw the last answer away with what the client was still sending.
const LINGER: Duration = Duration::from_millis(500);

/// What all connections share.
pub struct Shared {
    /// Swarm mode.
    pub swarm: Arc<dyn Swarm>,
    /// The engine behind.
    pub engine: Arc<Engine>,
    /// What the swarm's networks are called.
    pub names: Names,
    /// The networks of containers, where the engine forgets them.
    pub kept: attach::Kept,
    /// Where processes that were started in containers run, if not here.
    pub execs: Execs,
    /// Set when the daemon stops: connections end after the request at hand.
    pub draining: CancellationToken,
}

/// A client and, once it was needed, the engine's end for it.
pub(crate) struct Connection<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) client: Side,
    pub(crate) engine: Option<Side>,
}

/// Whether the connection takes another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Request,
    Close,
    /// Nothing can be said any more.
    Drop,
}

/// Serves a client until it leaves or the daemon stops.
pub async fn serve(stream: BoxStream, shared: Arc<Shared>) {
    let mut connection = Connection {
        shared: &shared,
        client: Side::new(stream),
        engine: None,
    };
    let next = loop {
        match connection.request().await {
            Next::Request if !shared.draining.is_cancelled() => connection.settle(),
            Next::Request => break Next::Close,
            other => break other,
        }
    };
    // The engine's end goes first: its work is over.
    connection.engine = None;
    if next == Next::Close {
        linger(&mut connection.client).await;
    }
}

/// Tells a client that there are too many of it.
pub async fn refuse(stream: BoxStream, shared: Arc<Shared>, limit: usize) {
    let mut client = Side::new(stream);
    let text = format!("skepd serves {limit} connections already, which is its limit; close some");
    let reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE, &text);
    let facts = shared.engine.facts().await;
    let manner = Manner {
        method: &http::Method::GET,
        facts: &facts,
        close: true,
    };
    if timeout(LINGER, answer::write(&mut client.stream, reply, &manner))
        .await
        .is_ok()
    {
        linger(&mut client).await;
    }
}

impl Connection<'_> {
    /// Sees one request through.
    async fn request(&mut self) -> Next {
        let head = match self.read_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Next::Close,
            Err(HeadError::Bad(bad)) => return self.refuse_head(bad).await,
            Err(HeadError::Gone) => return Next::Drop,
        };
        let target = Target::parse(&head.target);
        match route(&head.method, &target) {
            Route::Owned(owned) => owned::serve(self, &head, &target, owned).await,
            Route::Networks(call) => networks::serve(self, head, call).await,
            Route::Reached(subject) => attach::serve(self, head, subject).await,
            Route::Makes => attach::create(self, head).await,
            Route::MakesAsPodman => attach::create_in_podmans_words(self, head).await,
            Route::Named(what) => guise::serve(self, head, what).await,
            Route::Forwarded => self.forward(&head, Patch::None, target.version, None).await,
            Route::Rewritten(Rewrite::Ping) => {
                let patch = Patch::SwarmHeader(self.shared.swarm.ping());
                self.forward(&head, patch, target.version, None).await
            }
            Route::Rewritten(Rewrite::Info) => {
                self.forward(&head, Patch::Capture, target.version, None)
                    .await
            }
            Route::Rewritten(Rewrite::Events) => guise::events(self, head).await,
        }
    }

    /// Waits for a request; `None` when the client or the daemon has had enough.
    async fn read_head(&mut self) -> Result<Option<RequestHead>, HeadError> {
        if self.client.buffer.is_empty() {
            tokio::select! {
                biased;
                more = self.client.more(MAX_HEAD) => {
                    if !more.unwrap_or(false) {
                        return Ok(None);
                    }
                }
                () = self.shared.draining.cancelled() => return Ok(None),
            }
        }
        let head = async {
            loop {
                let data = self.client.buffer.data();
                if let Some(head) = RequestHead::parse(data).map_err(HeadError::Bad)? {
                    return Ok(Some(head));
                }
                if data.len() >= MAX_HEAD {
                    return Err(HeadError::Bad(BadHead::TooLarge));
                }
                if !self.client.more(MAX_HEAD).await.unwrap_or(false) {
                    return Err(HeadError::Gone);
                }
            }
        };
        timeout(HEAD_TIME, head)
            .await
            .unwrap_or(Err(HeadError::Gone))
    }

    async fn refuse_head(&mut self, bad: BadHead) -> Next {
        let status = match bad {
            BadHead::TooLarge | BadHead::TooManyHeaders => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            BadHead::Encoding => StatusCode::NOT_IMPLEMENTED,
            BadHead::Syntax(_) | BadHead::Length => StatusCode::BAD_REQUEST,
        };
        let reply = Reply::error(status, &bad.to_string());
        self.answer(reply, &http::Method::GET, true).await
    }

    /// Sends a reply of our own whose body is known.
    pub(crate) async fn answer(
        &mut self,
        reply: Reply,
        method: &http::Method,
        close: bool,
    ) -> Next {
        self.begin_answer(reply, method, close).await.0
    }

    /// Sends a reply of our own, but for a body that streams: that is returned. The connection may
    /// go on as the first value says once it has ended.
    pub(crate) async fn begin_answer(
        &mut self,
        reply: Reply,
        method: &http::Method,
        close: bool,
    ) -> (Next, Option<BodyStream>) {
        let facts = self.shared.engine.facts().await;
        let close = close || self.shared.draining.is_cancelled();
        let manner = Manner {
            method,
            facts: &facts,
            close,
        };
        match answer::write(&mut self.client.stream, reply, &manner).await {
            Ok(rest) if close => (Next::Close, rest),
            Ok(rest) => (Next::Request, rest),
            Err(_) => (Next::Drop, None),
        }
    }

    pub(crate) async fn forward(
        &mut self,
        head: &RequestHead,
        patch: Patch,
        version: Option<ApiVersion>,
        feed: Option<Feed>,
    ) -> Next {
        let mut engine = match self.engine().await {
            Ok(engine) => engine,
            Err(unreachable) => {
                let reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE, &unreachable.to_string());
                return self.answer(reply, &head.method, true).await;
            }
        };
        let shared = self.shared;
        let gone = |why| shared.engine.unreachable(why).to_string();
        match self.exchange(&mut engine, head, patch, feed, gone).await {
            Ok(captured) => {
                self.engine = captured.reusable.then_some(engine);
                self.answer_info(captured, version).await
            }
            Err(next) => {
                self.engine = (next == Next::Request).then_some(engine);
                next
            }
        }
    }

    /// Has this host's engine answer, and holds its answer back if it is one of status 200 or 201;
    /// any other has gone out.
    pub(crate) async fn capture(&mut self, head: &RequestHead) -> Result<Captured, Next> {
        self.exchange_here(head, Patch::Capture).await
    }

    /// One exchange with this host's engine to its end.
    pub(crate) async fn exchange_here(
        &mut self,
        head: &RequestHead,
        patch: Patch,
    ) -> Result<Captured, Next> {
        let shared = self.shared;
        let mut engine = match self.engine().await {
            Ok(engine) => engine,
            Err(error) => {
                let reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
                return Err(self.answer(reply, &head.method, true).await);
            }
        };
        let gone = |why| shared.engine.unreachable(why).to_string();
        let outcome = self.exchange(&mut engine, head, patch, None, gone);
        let outcome = outcome.await;
        let reusable = match &outcome {
            Ok(captured) => captured.reusable,
            Err(next) => *next == Next::Request,
        };
        self.engine = reusable.then_some(engine);
        outcome
    }

    /// One exchange with an engine to its end; `Ok` only with an answer that was to be captured.
    /// `gone` words for the client that the engine went away before it answered.
    pub(crate) async fn exchange(
        &mut self,
        engine: &mut Side,
        head: &RequestHead,
        patch: Patch,
        feed: Option<Feed>,
        gone: impl Fn(io::Error) -> String,
    ) -> Result<Captured, Next> {
        Err(
            match exchange(&mut self.client, engine, head, patch, feed).await {
                Ok(Outcome::Captured(captured)) => return Ok(captured),
                Ok(Outcome::Finished) => Next::Request,
                Ok(Outcome::Close) => Next::Close,
                Err(Failure::NoAnswer(_)) if self.client.is_gone() => Next::Drop,
                Err(Failure::NoAnswer(why)) => {
                    let text = gone(why);
                    let reply = Reply::error(StatusCode::BAD_GATEWAY, &text);
                    self.answer(reply, &head.method, true).await
                }
                Err(Failure::BadAnswer(bad)) => {
                    let text = format!("the Docker engine's answer is no HTTP: {bad}");
                    let reply = Reply::error(StatusCode::BAD_GATEWAY, &text);
                    self.answer(reply, &head.method, true).await
                }
                Err(Failure::Cut(why)) => {
                    tracing::debug!(why, method = %head.method, "an exchange broke off");
                    Next::Drop
                }
            },
        )
    }

    /// A connection to the engine: the one of the request before, if the engine has kept it.
    pub(crate) async fn engine(&mut self) -> Result<Side, crate::engine::Unreachable> {
        if let Some(mut engine) = self.engine.take() {
            let idle = tokio::select! {
                biased;
                _ = engine.more(LARGE) => false,
                () = std::future::ready(()) => true,
            };
            if idle {
                return Ok(engine);
            }
        }
        self.shared.engine.connect().await
    }

    async fn answer_info(&mut self, captured: Captured, version: Option<ApiVersion>) -> Next {
        let version = match version {
            Some(version) => version,
            None => self.shared.engine.facts().await.api,
        };
        let swarm = timeout(INFO_TIME, self.shared.swarm.info(version)).await;
        let swarm = swarm.unwrap_or_else(|_| {
            SwarmInfo::unknown("error", "swarm mode did not describe itself in time")
        });
        let body = rewrite::info(&captured.body, &swarm).unwrap_or_else(|error| {
            tracing::warn!(%error, "the engine's /info is no JSON object and goes out as it is");
            captured.body
        });
        self.send(&captured.head, &body, captured.reusable).await
    }

    /// Sends an answer that was captured, its body perhaps another.
    pub(crate) async fn send(&mut self, head: &[u8], body: &[u8], reusable: bool) -> Next {
        let mut bytes = rewrite::resized(head, body.len());
        bytes.extend_from_slice(body);
        let sent = async {
            self.client.stream.write_all(&bytes).await?;
            self.client.stream.flush().await
        };
        match sent.await {
            Ok(()) if reusable => Next::Request,
            Ok(()) => Next::Close,
            Err(_) => Next::Drop,
        }
    }

    /// Between requests: gives back what a large one took.
    fn settle(&mut self) {
        self.client.buffer.shrink();
        if let Some(engine) = &mut self.engine {
            engine.buffer.shrink();
        }
    }
}

enum HeadError {
    Bad(BadHead),
    Gone,
}

/// Closes our direction and reads on until the client closes its own, within limits.
async fn linger(client: &mut Side) {
    let read_on = async {
        client.stream.shutdown().await?;
        let mut left = LARGE;
        while left > 0 && !client.eof {
            client.buffer.consume(LARGE);
            client.more(LARGE).await?;
            left = left.saturating_sub(client.buffer.data().len());
        }
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, read_on).await;
}
