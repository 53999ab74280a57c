//! The direction from the client to the engine. Never looks at the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{Exchange, Failure, Flow, HUNG_UP};
use crate::wire::buffer::LARGE;
use crate::wire::framing::BadChunk;

impl Exchange<'_> {
    /// Moves what the client sends, as far as it goes now.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            let step = match self.upload.state {
                Flow::Open if self.upload.permitted > 0 => self.poll_send(cx),
                Flow::Open => self.poll_next(cx),
                Flow::Closing => self.poll_close_engine(cx),
                Flow::Ended => self.poll_watch(cx),
            };
            match step {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Finds out what may be sent next.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.upload.framing.is_done() {
            self.upload.state = Flow::Ended;
        } else if !self.client.buffer.is_empty() {
            match self
                .upload
                .framing
                .advance(self.client.buffer.data(), |_| ())
            {
                Ok(n) => self.upload.permitted = n,
                Err(BadChunk) => {
                    return Poll::Ready(Err(Failure::Cut("a request's chunks are malformed")));
                }
            }
        } else {
            match ready!(self.client.poll_more(cx, LARGE)) {
                Ok(true) => {}
                Ok(false) => self.upload.state = Flow::Closing,
                Err(_) => return Poll::Ready(Err(HUNG_UP)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let bytes = self.client.buffer.front(self.upload.permitted);
        match ready!(Pin::new(&mut self.engine.stream).poll_write(cx, bytes)) {
            Ok(n) if n > 0 => {
                self.client.buffer.consume(n);
                self.upload.permitted -= n;
            }
            // It takes no more; what it has to say about that is still to be read.
            _ => {
                self.upload.state = Flow::Ended;
                self.reusable = false;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes the end of the client's data on: the engine takes it as "no longer wanted" for a
    /// plain request and as the end of standard input for a hijacked one.
    fn poll_close_engine(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // An engine that is gone already cannot be told, and need not be.
        let _ = ready!(Pin::new(&mut self.engine.stream).poll_shutdown(cx));
        self.upload.state = Flow::Ended;
        self.reusable = false;
        Poll::Ready(Ok(()))
    }

    /// With the request sent, the client is read on only to see its end; what it sends ahead of
    /// the answer waits, for the next request or for the tunnel.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let sent = self.tunnel || self.upload.framing.is_done();
        if self.client.eof || !sent || self.client.buffer.is_full() {
            return Poll::Pending;
        }
        match ready!(self.client.poll_more(cx, LARGE)) {
            Ok(true) => {}
            Ok(false) if self.client.buffer.is_empty() => self.upload.state = Flow::Closing,
            Ok(false) => return Poll::Pending,
            Err(_) => return Poll::Ready(Err(HUNG_UP)),
        }
        Poll::Ready(Ok(()))
    }
}
