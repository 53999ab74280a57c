//! One request and its answer, streamed between a client and the engine as the bytes that they
//! are. Both directions run at once, each at the pace of its receiver; a hijacked connection is
//! the same exchange without an end in sight. Never holds a body, except one that is captured.

mod download;
mod upload;
mod weave;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use tokio::io::AsyncWrite;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::stream::Side;
use crate::swarm::Feed;
use crate::wire::buffer::MAX_HEAD;
use crate::wire::head::BadHead;
use crate::wire::{Framing, RequestHead};

use self::weave::Weave;

/// How often a half-closed stream is looked at again: it may be gone for good by now.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is done to the engine's answer on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// Nothing.
    None,
    /// The `Swarm` header gets this value.
    SwarmHeader(&'static str),
    /// An answer of status 200 or 201 is not passed on but handed back.
    Capture,
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Outcome {
    /// Both ends are ready for the next request.
    Finished,
    /// The client has its answer and the connection ends.
    Close,
    /// The answer that was to be captured; nothing of it was sent.
    Captured(Captured),
}

/// An answer that was held back.
#[derive(Debug)]
pub struct Captured {
    /// The engine's head, as it was sent.
    pub head: Vec<u8>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Whether both ends are ready for the next request once the client has its answer.
    pub reusable: bool,
}

/// Why an exchange broke.
#[derive(Debug)]
pub enum Failure {
    /// The engine went away before it answered; the client has seen no final answer yet.
    NoAnswer(io::Error),
    /// The engine's answer is no HTTP; nothing of it was sent.
    BadAnswer(BadHead),
    /// There is nothing left to say to the client: it is gone, or its answer broke off.
    Cut(&'static str),
}

/// The client hung up: whatever the engine does for it is over too.
const HUNG_UP: Failure = Failure::Cut("the client hung up");

/// Runs one exchange. The request's head and what follows it lie in `client.buffer`. The lines of
/// `feed` go between those of the engine's answer, if that is a stream of lines.
pub async fn exchange(
    client: &mut Side,
    engine: &mut Side,
    request: &RequestHead,
    patch: Patch,
    feed: Option<Feed>,
) -> Result<Outcome, Failure> {
    let mut exchange = Exchange {
        client,
        engine,
        method: &request.method,
        patch,
        upload: Upload {
            permitted: request.len,
            framing: request.framing,
            state: Flow::Open,
        },
        download: Download {
            inject: Vec::new(),
            permitted: 0,
            phase: Phase::Head,
            flushed: true,
        },
        weave: feed.map(Weave::new),
        tunnel: false,
        reusable: request.keep_alive,
        look_again: None,
    };
    poll_fn(|cx| exchange.poll(cx)).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// All was passed on; the receiver must still learn that there is no more.
    Closing,
    Ended,
}

/// From the client to the engine.
struct Upload {
    /// Bytes at the front of the client's buffer that belong to this request.
    permitted: usize,
    framing: Framing,
    state: Flow,
}

/// From the engine to the client.
struct Download {
    /// Bytes that go before all others.
    inject: Vec<u8>,
    /// Bytes at the front of the engine's buffer that belong to this answer.
    permitted: usize,
    phase: Phase,
    /// Nothing lingers in the client's stream itself (TLS buffers).
    flushed: bool,
}

enum Phase {
    Head,
    Body(Framing),
    Capture {
        head: Vec<u8>,
        body: Vec<u8>,
        framing: Framing,
    },
    /// The end of the engine's data is passed on.
    Closing,
    Ended,
}

struct Exchange<'a> {
    client: &'a mut Side,
    engine: &'a mut Side,
    method: &'a Method,
    patch: Patch,
    upload: Upload,
    download: Download,
    /// What is put between the engine's lines.
    weave: Option<Weave>,
    /// Hijacked: each direction lives until its sender ends it.
    tunnel: bool,
    /// No reason was seen yet to close after this exchange.
    reusable: bool,
    look_again: Option<Interval>,
}

impl Exchange<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outcome, Failure>> {
        let was_tunnel = self.tunnel;
        self.poll_upload(cx)?;
        if let Some(captured) = self.poll_download(cx)? {
            return Poll::Ready(Ok(Outcome::Captured(captured)));
        }
        if self.tunnel != was_tunnel {
            self.poll_upload(cx)?;
        }
        if !self.download.flushed {
            match Pin::new(&mut self.client.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.download.flushed = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(HUNG_UP)),
                Poll::Pending => {}
            }
        }
        let answered = matches!(self.download.phase, Phase::Ended) && self.download.flushed;
        if answered && self.is_over(cx) {
            let next = self.is_reusable();
            return Poll::Ready(Ok(if next {
                Outcome::Finished
            } else {
                Outcome::Close
            }));
        }
        self.poll_hang_up(cx)
    }

    fn is_reusable(&self) -> bool {
        let more_may_come = !self.client.eof || !self.client.buffer.is_empty();
        let in_step = !self.engine.eof && self.engine.buffer.is_empty();
        self.reusable && more_may_come && in_step
    }

    /// With the answer out, the rest of the request may still be on its way.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.tunnel {
            return self.upload.state == Flow::Ended || self.engine.is_gone();
        }
        if !self.reusable || (self.upload.state == Flow::Ended && self.upload.framing.is_done()) {
            return true;
        }
        // An engine that does not want the rest of a request closes the connection.
        match self.engine.poll_more(cx, MAX_HEAD) {
            Poll::Ready(more) => !matches!(more, Ok(true)),
            Poll::Pending => false,
        }
    }

    /// A client that is gone ends the exchange, and with it the engine's work. Streams report the
    /// end of data as an event, but not always that the rest has gone too: so look again.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outcome, Failure>> {
        let half_closed = self.client.eof || (self.tunnel && self.engine.eof);
        if !half_closed {
            return Poll::Pending;
        }
        let timer = self.look_again.get_or_insert_with(|| {
            let mut timer = interval(LOOK_AGAIN);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        while timer.poll_tick(cx).is_ready() {
            if self.client.is_gone() {
                return Poll::Ready(Err(HUNG_UP));
            }
        }
        Poll::Pending
    }
}
