//! A byte queue between two sockets. Grows up to a limit and back; never beyond it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What a quiet connection holds in each direction.
const SMALL: usize = 16 << 10;
/// What a busy one may hold: fewer, larger system calls; measured, see `compat-tests/benches`.
pub const LARGE: usize = 256 << 10;
/// What a message head may take, the engine's own limit.
pub const MAX_HEAD: usize = 1 << 20;

/// Bytes that were read and not yet passed on.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that wait.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `n` of the bytes that wait, or as many as there are.
    pub fn front(&self, n: usize) -> &[u8] {
        let data = self.data();
        data.get(..n).unwrap_or(data)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.start = self.end.min(self.start + n);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Puts other bytes in the place of the first `n`.
    pub fn replace_front(&mut self, n: usize, front: &[u8]) {
        let rest = self.data().get(n..).unwrap_or_default();
        self.bytes = [front, rest].concat();
        (self.start, self.end) = (0, self.bytes.len());
    }

    /// True when no more fits within what body data may occupy.
    pub fn is_full(&self) -> bool {
        self.end - self.start >= LARGE
    }

    /// Gives back what a burst had taken. For connections that go idle.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.bytes.len() > SMALL {
            self.bytes = Vec::new();
        }
    }

    /// Reads once, whatever comes. `Ok(0)` is the end of the stream. Must not be called when
    /// `limit` bytes wait already.
    pub fn poll_fill<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(limit);
        let Some(room) = self
            .bytes
            .get_mut(self.end..)
            .filter(|room| !room.is_empty())
        else {
            return Poll::Ready(Err(io::Error::other(
                "a buffer was filled beyond its limit",
            )));
        };
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(reader).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// Moves the waiting bytes to the front where that is cheap or needed, and doubles the space
    /// when the last read filled it.
    fn make_room(&mut self, limit: usize) {
        if self.end < self.bytes.len() {
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end * 2 >= self.bytes.len() {
            let size = (self.bytes.len() * 2).clamp(SMALL, limit.max(SMALL));
            self.bytes.resize(size.max(self.bytes.len()), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, mut from: &[u8], limit: usize) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match buffer.poll_fill(&mut cx, &mut from, limit) {
            Poll::Ready(Ok(n)) => n,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keeps_order_across_growth() {
        let source: Vec<u8> = (0..=255).cycle().take(3 * SMALL).collect();
        let mut buffer = Buffer::default();
        assert_eq!(fill(&mut buffer, &source, LARGE), SMALL);
        buffer.consume(100);
        let more = fill(&mut buffer, &source[SMALL..], LARGE);
        assert_eq!(buffer.data(), &source[100..SMALL + more]);
        buffer.consume(usize::MAX >> 1);
        assert!(buffer.is_empty());
        buffer.shrink();
        assert_eq!(fill(&mut buffer, b"x", LARGE), 1);
        assert_eq!(buffer.front(9), b"x");
    }

    #[test]
    fn stops_at_its_limit() {
        let source = vec![7; 4 * LARGE];
        let mut buffer = Buffer::default();
        while !buffer.is_full() {
            fill(&mut buffer, &source, LARGE);
        }
        assert_eq!(buffer.data().len(), LARGE);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let over = buffer.poll_fill(&mut cx, &mut source.as_slice(), LARGE);
        assert!(matches!(over, Poll::Ready(Err(_))));
    }
}
