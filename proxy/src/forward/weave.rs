//! Puts lines of our own between those of an engine's stream: the cluster's events between the
//! engine's. Every byte of the engine stays as it is and where it is, but for lines that name one of
//! the swarm's networks by the engine's name for it: these go out in another guise. Only ever a whole
//! chunk goes in between two of the engine's, and only where a line has ended. Holds nothing but what was asked
//! for of the past: a client that reads slowly makes the feed wait, and too long a wait ends it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::pending;
use tokio::time::{Sleep, sleep};

use super::download::BROKEN;
use super::{Exchange, Failure, Phase};
use crate::guise::Told;
use crate::swarm::{Feed, Lagged};
use crate::wire::Framing;
use crate::wire::buffer::LARGE;

/// How long the engine may take to tell of the past before the cluster's goes first.
const HOLD: Duration = Duration::from_millis(100);
/// How the engine dates its lines.
const TIME: &[u8] = b"\"timeNano\":";

/// What is put in, and where the engine's stream stands.
pub(super) struct Weave {
    feed: Feed,
    /// The last byte of the engine's data ended a line, or there was none yet.
    line_ended: bool,
    hold: Option<Pin<Box<Sleep>>>,
}

impl Weave {
    pub(super) fn new(feed: Feed) -> Self {
        Self {
            feed,
            line_ended: true,
            hold: None,
        }
    }

    /// The next line of the past that is not younger than `time`; any if that is not known.
    fn past(&mut self, time: Option<i64>) -> Option<Bytes> {
        let (at, _) = self.feed.past.front()?;
        if time.is_some_and(|time| *at > time) {
            return None;
        }
        self.feed.past.pop_front().map(|(_, line)| line)
    }
}

/// What is at hand of the engine's stream.
enum Next {
    /// A whole chunk or line, and when what it tells of happened.
    Whole(Option<i64>),
    /// The beginning of one.
    Part,
    /// Nothing.
    Nothing,
}

impl Exchange<'_> {
    /// As `poll_body`, with the feed in between.
    pub(super) fn poll_woven(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let (Phase::Body(framing), Some(weave)) = (&self.download.phase, &self.weave) else {
            return Poll::Ready(Ok(()));
        };
        let framing = *framing;
        let between = framing.is_between_chunks() || framing == Framing::UntilClose;
        if !(between && weave.line_ended) {
            return self.poll_engines(cx);
        }
        match self.at_hand(framing) {
            Err(failure) => Poll::Ready(Err(failure)),
            Ok(Next::Whole(time)) => match self.poll_ours(cx, Some(time)) {
                Poll::Pending => self.poll_disguised(cx),
                put_in => put_in,
            },
            Ok(Next::Part | Next::Nothing) => {
                if self.engine.buffer.is_full() {
                    return self.poll_engines(cx);
                }
                match self.engine.poll_more(cx, LARGE) {
                    Poll::Ready(Ok(true)) => Poll::Ready(Ok(())),
                    // The end of the engine's data, or of the connection: nothing is held back.
                    Poll::Ready(_) => match self.put_in_past() {
                        true => Poll::Ready(Ok(())),
                        false => self.poll_engines(cx),
                    },
                    Poll::Pending => self.poll_ours(cx, None),
                }
            }
        }
    }

    /// What the engine has sent and was not passed on yet.
    fn at_hand(&self, mut framing: Framing) -> Result<Next, Failure> {
        let data = self.engine.buffer.data();
        if data.is_empty() {
            return Ok(Next::Nothing);
        }
        let until_close = framing == Framing::UntilClose;
        let n = framing.advance_one(data, |_| ()).map_err(|_| BROKEN)?;
        let unit = data.get(..n).unwrap_or_default();
        let whole = if until_close {
            unit.ends_with(b"\n")
        } else {
            framing.is_between_chunks() || framing.is_done()
        };
        Ok(if whole {
            Next::Whole(time_of(unit))
        } else {
            Next::Part
        })
    }

    /// Passes on one whole chunk or line of the engine, as its guise wants it.
    fn poll_disguised(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let (Phase::Body(framing), Some(weave)) = (&self.download.phase, &mut self.weave) else {
            return Poll::Ready(Ok(()));
        };
        let Some(guise) = &mut weave.feed.guise else {
            return self.poll_engines(cx);
        };
        let (mut framing, mut line) = (*framing, Vec::new());
        let data = self.engine.buffer.data();
        let Ok(n) = framing.advance_one(data, |data| line.extend_from_slice(data)) else {
            return Poll::Ready(Err(BROKEN));
        };
        let told = ready!(guise.poll(cx, &line));
        if told == Told::AsItIs {
            return self.poll_engines(cx);
        }
        self.engine.buffer.consume(n);
        self.download.phase = Phase::Body(framing);
        match told {
            Told::Otherwise(line) => self.put_in(&Bytes::from(line)),
            Told::AsItIs | Told::NotAtAll => Poll::Ready(Ok(())),
        }
    }

    /// Passes on one chunk or line of the engine, or as much of it as there is.
    fn poll_engines(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.engine.buffer.is_empty() {
            return self.poll_body(cx);
        }
        let (Phase::Body(framing), Some(weave)) = (&mut self.download.phase, &mut self.weave)
        else {
            return Poll::Ready(Ok(()));
        };
        let mut last = None;
        let taken = framing.advance_one(self.engine.buffer.data(), |data| {
            last = data.last().copied().or(last);
        });
        let Ok(n) = taken else {
            return Poll::Ready(Err(BROKEN));
        };
        if let Some(last) = last {
            weave.line_ended = last == b'\n';
        }
        self.download.permitted = n;
        Poll::Ready(Ok(()))
    }

    /// Puts the next line in, if there is one. `before` is the engine's next line and its time, if
    /// that is known; without one, the past waits a moment for the engine's.
    fn poll_ours(
        &mut self,
        cx: &mut Context<'_>,
        before: Option<Option<i64>>,
    ) -> Poll<Result<(), Failure>> {
        let Some(weave) = &mut self.weave else {
            return Poll::Pending;
        };
        if !weave.feed.past.is_empty() {
            if let Some(time) = before {
                let line = weave.past(time);
                return line.map_or(Poll::Pending, |line| self.put_in(&line));
            }
            let hold = weave.hold.get_or_insert_with(|| Box::pin(sleep(HOLD)));
            ready!(hold.as_mut().poll(cx));
            let line = weave.past(None);
            return line.map_or(Poll::Pending, |line| self.put_in(&line));
        }
        match ready!(weave.feed.live.as_mut().poll_next(cx)) {
            Some(Ok(line)) => self.put_in(&line),
            Some(Err(Lagged(missed))) => {
                tracing::warn!(
                    missed,
                    "a client reads the events too slowly and its stream is ended"
                );
                Poll::Ready(Err(Failure::Cut("events were read too slowly")))
            }
            // There are no more; the engine's go on.
            None if weave.feed.guise.is_some() => {
                weave.feed.live = Box::pin(pending());
                Poll::Pending
            }
            None => {
                self.weave = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// One line of the past; false when there is none left.
    fn put_in_past(&mut self) -> bool {
        let line = self.weave.as_mut().and_then(|weave| weave.past(None));
        line.is_some_and(|line| self.put_in(&line).is_ready())
    }

    fn put_in(&mut self, line: &Bytes) -> Poll<Result<(), Failure>> {
        let chunked = matches!(self.download.phase, Phase::Body(Framing::Chunked(_)));
        self.download.inject = if chunked {
            let size = format!("{:x}\r\n", line.len());
            [size.as_bytes(), line, b"\r\n"].concat()
        } else {
            line.to_vec()
        };
        Poll::Ready(Ok(()))
    }
}

/// The time in nanoseconds that a line of the engine bears.
fn time_of(line: &[u8]) -> Option<i64> {
    let at = line.windows(TIME.len()).rposition(|part| part == TIME)?;
    let digits = line.get(at + TIME.len()..)?;
    let digits: String = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .map(|byte| char::from(*byte))
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dated_by_their_end() {
        let line =
            br#"{"Actor":{"Attributes":{"a":"\"timeNano\":7"}},"time":1,"timeNano":1000000002}"#;
        assert_eq!(time_of(line), Some(1_000_000_002));
        assert_eq!(time_of(b"0\r\n\r\n"), None);
    }
}
