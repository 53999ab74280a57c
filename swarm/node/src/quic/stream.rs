//! A stream as raw bytes, for HTTP between nodes. Adds no framing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{FrameReceiver, FrameSender};

/// Stream error code: the sender gave up before the end of its data.
const ABANDONED: VarInt = VarInt::from_u32(2);
/// Bulk gives way to the messages of a session on the same connection.
const PRIORITY: i32 = -1;

/// Both directions of a stream. Shutting down the writer is a half-close: reading goes on. One that
/// is dropped without that ends as an error on the other side, so that nobody takes a part for the
/// whole.
#[derive(Debug)]
pub struct ByteStream {
    send: SendStream,
    recv: RecvStream,
    /// Bytes that came together with the status.
    early: BytesMut,
    finished: bool,
}

impl ByteStream {
    /// What follows on a stream after its last frame.
    pub fn join(sender: FrameSender, receiver: FrameReceiver) -> Self {
        // Fails only if the stream is closed already.
        let _ = sender.stream.set_priority(PRIORITY);
        Self {
            send: sender.stream,
            recv: receiver.stream,
            early: receiver.buffer,
            finished: false,
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        buf.put_slice(self.early.get(..count).unwrap_or_default());
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        if !self.finished {
            // Fails only if the stream is closed already.
            let _ = self.send.reset(ABANDONED);
        }
    }
}
