//! Frames on a stream: a 4-byte big-endian length and MessagePack with field names. Checks sizes
//! before it allocates. Knows no services and never retries.
//!
//! The side that opens a stream starts it with the service's code, one byte; the side that accepts
//! starts its answer with a status byte, so that a refusal is told from an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{CallError, lost};
pub use super::stream::ByteStream;

/// The answer follows.
pub(super) const STATUS_OK: u8 = 0;
/// A text follows: nothing was executed.
pub(super) const STATUS_REFUSED: u8 = 1;
/// A text follows: something may have been executed, but there is no answer.
pub(super) const STATUS_FAILED: u8 = 2;
/// Stream error code: the frame is larger than the service allows.
const OVERSIZE: VarInt = VarInt::from_u32(1);
/// Texts of refusals are cut here.
const MAX_TEXT: usize = 4096;
/// How long the confirmation of an answer is waited for.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// How much is read from the connection at once.
const CHUNK: usize = 64 << 10;

/// Sends frames. Dropping it ends the stream's direction cleanly.
#[derive(Debug)]
pub struct FrameSender {
    pub(super) stream: SendStream,
    /// Goes out before the first frame.
    pub(super) prefix: Option<u8>,
    pub(super) max: usize,
    pub(super) label: Arc<str>,
}

impl FrameSender {
    /// Sends one message; waits while the peer is slow to read. Not cancel-safe: a half-sent frame
    /// makes the stream unusable, so give it a task of its own rather than a `select!` arm.
    ///
    /// Errors: [`CallError::NotSent`] when the peer certainly did not get the whole frame.
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), CallError> {
        let frame = encode(self.prefix, message, self.max)?;
        self.write(&frame).await
    }

    /// Ends this direction: the peer's receiver returns `None` after the last frame.
    pub fn finish(&mut self) {
        // Fails only if the stream is closed already.
        let _ = self.stream.finish();
    }

    /// A status with a text in place of an answer, and the end of the stream.
    pub(super) async fn send_status(&mut self, status: u8, text: &str) {
        let text = text.as_bytes();
        let text = text.get(..MAX_TEXT).unwrap_or(text);
        let mut frame = vec![status];
        frame.extend_from_slice(&(text.len() as u32).to_be_bytes());
        frame.extend_from_slice(text);
        // The peer may be gone; then there is nobody to tell.
        let _ = self.write(&frame).await;
        self.finish();
    }

    pub(super) async fn write(&mut self, frame: &[u8]) -> Result<(), CallError> {
        let outcome = self.stream.write_all(frame).await;
        self.prefix = None;
        outcome.map_err(|error| match error {
            WriteError::ConnectionLost(error) => lost(&self.label, &error, false),
            other => CallError::NotSent(format!(
                "{}: the peer closed the stream: {other}",
                self.label
            )),
        })
    }
}

/// Receives frames. Cancel-safe: a receive that is dropped midway loses nothing.
#[derive(Debug)]
pub struct FrameReceiver {
    pub(super) stream: RecvStream,
    pub(super) buffer: BytesMut,
    /// The peer's status byte has not come yet (only on streams that we opened).
    pub(super) awaits_status: bool,
    /// A status with a text has come; the text is due.
    pub(super) verdict: Option<u8>,
    pub(super) max: usize,
    pub(super) label: Arc<str>,
}

impl FrameReceiver {
    /// The next message; `None` when the peer has ended the stream.
    ///
    /// Errors: [`CallError::Refused`] with the peer's text; [`CallError::Broken`] for everything
    /// else, including a message that cannot be decoded.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        let Some(frame) = self.recv_raw().await? else {
            return Ok(None);
        };
        // The decoder's own text is left out: it quotes the data, which may be secret.
        rmp_serde::from_slice(&frame).map(Some).map_err(|_| {
            self.broken(&format!(
                "sent something that is not a {}",
                std::any::type_name::<T>()
            ))
        })
    }

    async fn recv_raw(&mut self) -> Result<Option<BytesMut>, CallError> {
        loop {
            self.take_status()?;
            if let Some(frame) = self.take_frame()? {
                return match self.verdict {
                    None => Ok(Some(frame)),
                    Some(status) => Err(verdict(status, &frame)),
                };
            }
            if !self.fill().await? {
                if self.awaits_status || self.verdict.is_some() {
                    return Err(self.broken("closed the stream without an answer"));
                }
                if !self.buffer.is_empty() {
                    return Err(self.broken("closed the stream in the middle of a message"));
                }
                return Ok(None);
            }
        }
    }

    /// Reads until the peer's status is known; for streams of raw bytes.
    pub(super) async fn accepted(&mut self) -> Result<(), CallError> {
        while self.awaits_status {
            if self.buffer.is_empty() && !self.fill().await? {
                return Err(self.broken("closed the stream without an answer"));
            }
            self.take_status()?;
        }
        match self.verdict {
            None => Ok(()),
            // The text is on its way; `recv_raw` turns it into the error.
            Some(_) => self.recv_raw().await.map(drop),
        }
    }

    /// More bytes into the buffer; false at the end of the stream.
    pub(super) async fn fill(&mut self) -> Result<bool, CallError> {
        match self.stream.read_chunk(CHUNK, true).await {
            Ok(Some(chunk)) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(ReadError::ConnectionLost(error)) => Err(lost(&self.label, &error, true)),
            Err(error) => Err(self.broken(&format!("aborted the stream ({error})"))),
        }
    }

    fn take_status(&mut self) -> Result<(), CallError> {
        if !self.awaits_status || self.buffer.is_empty() {
            return Ok(());
        }
        self.awaits_status = false;
        match self.buffer.get_u8() {
            STATUS_OK => Ok(()),
            status @ (STATUS_REFUSED | STATUS_FAILED) => {
                self.verdict = Some(status);
                Ok(())
            }
            _ => Err(self.broken("answered with an unknown status; is it of another version?")),
        }
    }

    fn take_frame(&mut self) -> Result<Option<BytesMut>, CallError> {
        let Some((length, _)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let max = if self.verdict.is_some() {
            MAX_TEXT
        } else {
            self.max
        };
        if length > max {
            let _ = self.stream.stop(OVERSIZE);
            return Err(self.broken(&format!("sent too much: {}", oversize(length, max))));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length)))
    }

    fn broken(&self, what: &str) -> CallError {
        CallError::Broken(format!("{}: the peer {what}", self.label))
    }
}

/// One frame with what goes before it.
pub(super) fn encode<T: Serialize + ?Sized>(
    prefix: Option<u8>,
    message: &T,
    max: usize,
) -> Result<Vec<u8>, CallError> {
    let mut frame: Vec<u8> = prefix.into_iter().collect();
    let start = frame.len() + 4;
    frame.extend_from_slice(&[0; 4]);
    rmp_serde::encode::write_named(&mut frame, message)
        .map_err(|_| CallError::NotSent("the message cannot be encoded".into()))?;
    let length = frame.len() - start;
    if length > max {
        return Err(CallError::NotSent(oversize(length, max)));
    }
    if let Some(header) = frame.get_mut(start - 4..start) {
        header.copy_from_slice(&(length as u32).to_be_bytes());
    }
    Ok(frame)
}

fn oversize(length: usize, max: usize) -> String {
    format!("a message of {length} bytes is larger than the {max} that this service allows")
}

fn verdict(status: u8, text: &[u8]) -> CallError {
    let text = String::from_utf8_lossy(text).into_owned();
    match status {
        STATUS_REFUSED => CallError::Refused(text),
        _ => CallError::Broken(text),
    }
}

/// An accepted stream: read a request and reply once, or talk for as long as both like.
#[derive(Debug)]
pub struct Stream {
    pub(super) sender: FrameSender,
    pub(super) receiver: FrameReceiver,
    /// How long the first frame may take to arrive in full.
    pub(super) patience: Duration,
}

impl Stream {
    /// The request. On failure the caller has been told already and the stream is of no more use.
    pub async fn request<T: DeserializeOwned>(&mut self) -> Result<T, CallError> {
        let read = tokio::time::timeout(self.patience, self.receiver.recv()).await;
        let error = match read {
            Ok(Ok(Some(request))) => return Ok(request),
            Ok(Ok(None)) => self.receiver.broken("sent no request"),
            Ok(Err(error)) => error,
            Err(_) => self.receiver.broken("was too slow to send its request"),
        };
        self.sender
            .send_status(STATUS_REFUSED, &error.to_string())
            .await;
        Err(error)
    }

    /// Answers and ends the stream. Returns when the caller has the answer (or is slow to confirm
    /// it), so that an endpoint may be shut down right after.
    pub async fn reply<T: Serialize + ?Sized>(mut self, answer: &T) -> Result<(), CallError> {
        match encode(self.sender.prefix, answer, self.sender.max) {
            Ok(frame) => self.sender.write(&frame).await?,
            // Something was executed, so this must not look like a refusal.
            Err(error) => {
                self.sender
                    .send_status(STATUS_FAILED, &error.to_string())
                    .await;
                return Err(error);
            }
        }
        self.sender.finish();
        // An answer that got lost has shown by now as the caller's error, not as ours.
        let _ = tokio::time::timeout(CONFIRMATION, self.sender.stream.stopped()).await;
        Ok(())
    }

    /// Tells the caller [`CallError::Refused`]: nothing was executed.
    pub async fn refuse(mut self, text: &str) {
        self.sender.send_status(STATUS_REFUSED, text).await;
    }

    /// Frames in both directions, for sessions.
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }

    /// Raw bytes in both directions, for HTTP.
    pub async fn into_bytes(mut self) -> Result<ByteStream, CallError> {
        self.sender.write(&[STATUS_OK]).await?;
        Ok(ByteStream::join(self.sender, self.receiver))
    }
}
