//! One engine's answer to a request for the log of a container, on a stream of its own. Knows HTTP
//! and no lines.

use std::io;

use http::Method;
use skep_node::engine::EngineStream;
use tokio::io::AsyncWriteExt;

use crate::rewrite::Object;
use crate::stream::{Far, Side};
use crate::wire::buffer::MAX_HEAD;
use crate::wire::{Framing, ResponseHead};

/// What is read at once.
const PIECE: usize = 16 << 10;
/// What is read of a refusal.
const MAX_REFUSAL: usize = 64 << 10;

/// What the engine says.
pub(super) enum Answer {
    /// The log.
    Log(Body),
    /// There is none: a status and the engine's text.
    Refused(u16, String),
}

/// The body of an answer, as far as it was read.
pub(super) struct Body {
    engine: Side,
    framing: Framing,
}

impl Answer {
    /// Asks for `target`.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP.
    pub(super) async fn to(stream: EngineStream, target: &str) -> io::Result<Self> {
        let mut engine = Side::new(Box::new(Far(stream)));
        let request = format!("GET {target} HTTP/1.1\r\nHost: docker\r\n\r\n");
        engine.stream.write_all(request.as_bytes()).await?;
        engine.stream.flush().await?;
        let head = loop {
            let head = ResponseHead::parse(engine.buffer.data(), &Method::GET);
            match head.map_err(io::Error::other)? {
                Some(head) => {
                    engine.buffer.consume(head.len);
                    if !head.is_interim() {
                        break head;
                    }
                }
                None if engine.more(MAX_HEAD).await? => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let (framing, status) = (head.framing, head.status);
        let mut body = Body { engine, framing };
        if status == 200 {
            return Ok(Self::Log(body));
        }
        let mut text = Vec::new();
        while text.len() < MAX_REFUSAL && body.next(&mut text).await? {}
        Ok(Self::Refused(status, message(&text)))
    }
}

impl Body {
    /// Adds what comes next to `piece`; `false` at the end.
    ///
    /// # Errors
    /// The connection broke before the end.
    pub(super) async fn next(&mut self, piece: &mut Vec<u8>) -> io::Result<bool> {
        if self.framing.is_done() {
            return Ok(false);
        }
        if self.engine.buffer.is_empty() && !self.engine.more(PIECE).await? {
            return match self.framing {
                Framing::UntilClose => Ok(false),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        let data = self.engine.buffer.data();
        let taken = self
            .framing
            .advance(data, |data| piece.extend_from_slice(data));
        let taken = taken.map_err(io::Error::other)?;
        self.engine.buffer.consume(taken);
        Ok(true)
    }
}

/// The engine's words in a refusal.
fn message(body: &[u8]) -> String {
    let json = Object::parse(body).ok();
    let text = json.and_then(|json| serde_json::from_str(json.get("message")?.get()).ok());
    text.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}
