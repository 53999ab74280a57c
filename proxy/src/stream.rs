//! The byte streams that a request can come from and go to, behind one trait. Knows no HTTP.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_node::engine::EngineStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::wire::Buffer;

/// A stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {
    /// True when the other end is gone for good, as opposed to having closed one direction only.
    /// Asked after the end of its data was read. May miss a peer that is gone, never the reverse.
    fn hung_up(&self) -> bool;

    /// True of a unix socket, whose file says who may connect.
    fn is_local(&self) -> bool {
        false
    }
}

/// A stream of any kind.
pub type BoxStream = Box<dyn Duplex>;

impl Duplex for UnixStream {
    fn hung_up(&self) -> bool {
        closed_both_ways(self.as_fd())
    }

    fn is_local(&self) -> bool {
        true
    }
}

impl Duplex for TcpStream {
    fn hung_up(&self) -> bool {
        closed_both_ways(self.as_fd())
    }
}

impl Duplex for TlsStream<TcpStream> {
    fn hung_up(&self) -> bool {
        self.get_ref().0.hung_up()
    }
}

/// The engine of another node. Its end is an end of data or an error; no more is known of it.
pub struct Far(pub EngineStream);

impl Duplex for Far {
    fn hung_up(&self) -> bool {
        false
    }
}

impl AsyncRead for Far {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Far {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The kernel reports a peer that closed the whole stream as "hung up", and one that shut down its
/// sending side as merely readable. Asked of the kernel itself: what the runtime remembers may be
/// a moment old.
fn closed_both_ways(fd: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(fd, PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked
            .iter()
            .any(|fd| fd.revents().is_some_and(|events| events.intersects(gone)))
}

/// One end of an exchange: its stream and what was read from it ahead of time.
pub struct Side {
    /// The stream.
    pub stream: BoxStream,
    /// Read, not yet passed on.
    pub buffer: Buffer,
    /// The end of its data was read.
    pub eof: bool,
}

impl Side {
    /// A fresh end.
    pub fn new(stream: BoxStream) -> Self {
        Self {
            stream,
            buffer: Buffer::default(),
            eof: false,
        }
    }

    /// Reads more into the buffer. `Ok(false)` is the end of the data; it stays the end.
    pub fn poll_more(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<std::io::Result<bool>> {
        if self.eof {
            return Poll::Ready(Ok(false));
        }
        self.buffer
            .poll_fill(cx, &mut *self.stream, limit)
            .map_ok(|n| {
                self.eof = n == 0;
                n > 0
            })
    }

    /// As [`Side::poll_more`], waiting.
    pub async fn more(&mut self, limit: usize) -> std::io::Result<bool> {
        std::future::poll_fn(|cx| self.poll_more(cx, limit)).await
    }

    /// True when nobody is left to read an answer.
    pub fn is_gone(&self) -> bool {
        self.eof && self.stream.hung_up()
    }
}
