//! The direction from the engine to the client. Decides from the answer's head what the exchange
//! is: a plain answer, a captured one, or a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{Captured, Exchange, Failure, Flow, HUNG_UP, Patch, Phase};
use crate::rewrite;
use crate::wire::buffer::{LARGE, MAX_HEAD};
use crate::wire::framing::BadChunk;
use crate::wire::head::BadHead;
use crate::wire::{Framing, ResponseHead};

/// The largest answer that is held to be patched: `/info` is a few KiB.
const MAX_CAPTURE: usize = 64 << 20;

/// The engine does not keep to HTTP's rules any more; the client sees its answer break off.
pub(super) const BROKEN: Failure = Failure::Cut("the engine's answer broke off");

impl Exchange<'_> {
    /// Moves what the engine answers, as far as it goes now. Returns an answer that was to be
    /// captured once it is complete.
    pub(super) fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Result<Option<Captured>, Failure> {
        loop {
            let step = if !self.download.inject.is_empty() || self.download.permitted > 0 {
                self.poll_deliver(cx)
            } else {
                match &mut self.download.phase {
                    Phase::Head => self.poll_head(cx),
                    Phase::Body(framing) if framing.is_done() => {
                        self.download.phase = Phase::Ended;
                        Poll::Ready(Ok(()))
                    }
                    Phase::Body(_) if self.weave.is_some() => self.poll_woven(cx),
                    Phase::Body(_) => self.poll_body(cx),
                    Phase::Capture {
                        head,
                        body,
                        framing,
                    } if framing.is_done() => {
                        let (head, body) = (std::mem::take(head), std::mem::take(body));
                        let reusable = self.is_reusable() && self.upload.state == Flow::Ended;
                        return Ok(Some(Captured {
                            head,
                            body,
                            reusable,
                        }));
                    }
                    Phase::Capture { .. } => self.poll_capture(cx),
                    Phase::Closing => self.poll_close_client(cx),
                    Phase::Ended => return Ok(None),
                }
            };
            match step {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(None),
            }
        }
    }

    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let injecting = !self.download.inject.is_empty();
        let bytes = if injecting {
            self.download.inject.as_slice()
        } else {
            self.engine.buffer.front(self.download.permitted)
        };
        self.download.flushed = false;
        match ready!(Pin::new(&mut self.client.stream).poll_write(cx, bytes)) {
            Ok(n) if n > 0 && injecting => drop(self.download.inject.drain(..n)),
            Ok(n) if n > 0 => {
                self.engine.buffer.consume(n);
                self.download.permitted -= n;
            }
            _ => return Poll::Ready(Err(HUNG_UP)),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let data = self.engine.buffer.data();
        let parsed = if data.is_empty() {
            Ok(None)
        } else {
            ResponseHead::parse(data, self.method)
        };
        match parsed {
            Ok(Some(head)) => {
                self.take_head(&head);
                Poll::Ready(Ok(()))
            }
            Ok(None) if data.len() >= MAX_HEAD => {
                Poll::Ready(Err(Failure::BadAnswer(BadHead::TooLarge)))
            }
            Ok(None) => Poll::Ready(match ready!(self.engine.poll_more(cx, MAX_HEAD)) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failure::NoAnswer(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => Err(Failure::NoAnswer(error)),
            }),
            Err(error) => Poll::Ready(Err(Failure::BadAnswer(error))),
        }
    }

    /// Decides what follows a head.
    fn take_head(&mut self, head: &ResponseHead) {
        if head.is_interim() {
            self.download.permitted = head.len;
            return;
        }
        self.reusable &= head.keep_alive;
        if head.status != 200 || matches!(head.framing, Framing::Length(_)) {
            self.weave = None;
        }
        let bytes = self.engine.buffer.front(head.len);
        self.download.phase = Phase::Body(head.framing);
        match self.patch {
            Patch::Capture if matches!(head.status, 200 | 201) => {
                let (head, body, framing) = (bytes.to_vec(), Vec::new(), head.framing);
                self.engine.buffer.consume(head.len());
                self.download.phase = Phase::Capture {
                    head,
                    body,
                    framing,
                };
                return;
            }
            Patch::SwarmHeader(value) => {
                self.download.inject = rewrite::set_header(bytes, "Swarm", value);
                self.engine.buffer.consume(head.len);
            }
            Patch::None | Patch::Capture => self.download.permitted = head.len,
        }
        // 101, or an old client's hijack: a 200 whose body ends with the connection. In both the
        // client's bytes are the engine's from here on.
        if head.framing == Framing::UntilClose {
            self.tunnel = true;
            self.upload.framing = Framing::UntilClose;
            let told = self.client.eof && self.client.buffer.is_empty();
            if self.upload.state == Flow::Ended && !told {
                self.upload.state = Flow::Open;
            }
        }
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Phase::Body(framing) = &mut self.download.phase else {
            return Poll::Ready(Ok(()));
        };
        if !self.engine.buffer.is_empty() {
            return Poll::Ready(match framing.advance(self.engine.buffer.data(), |_| ()) {
                Ok(n) => {
                    self.download.permitted = n;
                    Ok(())
                }
                Err(BadChunk) => Err(BROKEN),
            });
        }
        match ready!(self.engine.poll_more(cx, LARGE)) {
            Ok(true) => {}
            _ if *framing == Framing::UntilClose => self.download.phase = Phase::Closing,
            _ => return Poll::Ready(Err(BROKEN)),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_capture(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Phase::Capture { body, framing, .. } = &mut self.download.phase else {
            return Poll::Ready(Ok(()));
        };
        if !self.engine.buffer.is_empty() {
            let taken = framing.advance(self.engine.buffer.data(), |data| body.extend(data));
            let Ok(n) = taken else {
                return Poll::Ready(Err(BROKEN));
            };
            self.engine.buffer.consume(n);
            return Poll::Ready(if body.len() > MAX_CAPTURE {
                Err(BROKEN)
            } else {
                Ok(())
            });
        }
        match ready!(self.engine.poll_more(cx, LARGE)) {
            Ok(true) => {}
            Ok(false) if *framing == Framing::UntilClose => *framing = Framing::EMPTY,
            _ => return Poll::Ready(Err(BROKEN)),
        }
        Poll::Ready(Ok(()))
    }

    /// Passes the end of the engine's data on. The client may go on sending.
    fn poll_close_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let closed = ready!(Pin::new(&mut self.client.stream).poll_shutdown(cx));
        self.download.phase = Phase::Ended;
        self.download.flushed = true;
        Poll::Ready(closed.map_err(|_| HUNG_UP))
    }
}
