//! The engine behind skepd: where its socket is, how to reach it, and what it says of itself.
//! Interprets no API beyond `/_ping`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use skep_api::version::ApiVersion;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::stream::Side;
use crate::wire::buffer::{LARGE, MAX_HEAD};
use crate::wire::head::header_map;
use crate::wire::{Framing, ResponseHead};

/// How long a connection may take: a full accept queue is worth a wait, a dead engine is not.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the engine may take to say what it is.
const ASK: Duration = Duration::from_secs(2);
/// How long it may take where much hangs on that.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read whole, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// How long that is believed: an engine may be upgraded behind skepd's back.
const BELIEVED: Duration = Duration::from_secs(30);

/// The headers by which an engine identifies itself; skepd's own replies carry them too.
const IDENTITY: [HeaderName; 4] = [
    HeaderName::from_static("api-version"),
    HeaderName::from_static("docker-experimental"),
    HeaderName::from_static("ostype"),
    HeaderName::from_static("server"),
];

/// An engine's socket.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    facts: Mutex<Option<(Instant, Arc<Facts>)>>,
}

/// What an engine says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The newest API version that it speaks.
    pub api: ApiVersion,
    /// Its identifying headers.
    pub headers: HeaderMap,
    /// Whether it has said so; else this is what every supported one would say.
    pub known: bool,
}

/// The engine cannot be reached. Prints as the client reads it.
#[derive(Debug)]
pub struct Unreachable {
    socket: PathBuf,
    why: io::Error,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why.kind() {
            io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "nothing listens on it".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::TimedOut => "it does not take connections".to_owned(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "it closed the connection before it answered".to_owned(),
            _ => self.why.to_string(),
        };
        write!(
            f,
            "skepd cannot reach the Docker engine at unix://{}: {why}. Is the engine running? \
             Once it is, try again; skepd itself need not be restarted.",
            self.socket.display()
        )
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}

impl Engine {
    /// The engine that listens on `socket`. Nothing is opened yet: it may come up later.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            facts: Mutex::new(None),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Side, Unreachable> {
        match timeout(CONNECT, self.open())
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
        {
            Ok(stream) => Ok(Side::new(Box::new(stream))),
            Err(why) => {
                self.forget();
                Err(self.unreachable(why))
            }
        }
    }

    /// An error of this engine's connection, worded for clients.
    pub fn unreachable(&self, why: io::Error) -> Unreachable {
        Unreachable {
            socket: self.socket.clone(),
            why,
        }
    }

    /// A unix socket whose accept queue is full refuses at once rather than making one wait.
    async fn open(&self) -> io::Result<UnixStream> {
        let mut pause = Duration::from_millis(1);
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
                other => return other,
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// What the engine says of itself, asked anew when the last answer is old. An engine that does
    /// not answer is described as it was when it last did.
    pub async fn facts(&self) -> Arc<Facts> {
        let known = self
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((asked, facts)) = &known
            && asked.elapsed() < BELIEVED
        {
            return Arc::clone(facts);
        }
        match self.ask_anew(ASK).await {
            Some(facts) => facts,
            None => known.map_or_else(|| Arc::new(Facts::unknown()), |(_, facts)| facts),
        }
    }

    /// Whether it is podman, which is like dockerd in most things. One that was never heard of
    /// before is given time to say.
    pub async fn is_podman(&self) -> bool {
        let facts = self.facts().await;
        if facts.known {
            return facts.is_podman();
        }
        let asked = self.ask_anew(PATIENCE).await;
        asked.is_some_and(|facts| facts.is_podman())
    }

    async fn ask_anew(&self, patience: Duration) -> Option<Arc<Facts>> {
        let facts = timeout(patience, self.ask()).await.ok()??;
        let facts = Arc::new(facts);
        let mut slot = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some((Instant::now(), Arc::clone(&facts)));
        Some(facts)
    }

    /// Makes the next question for facts a fresh one.
    fn forget(&self) {
        let mut slot = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, _)) = slot.as_mut()
            && let Some(long_ago) = Instant::now().checked_sub(BELIEVED)
        {
            *asked = long_ago;
        }
    }

    /// Whether the engine may know a container of this name, percent-encoded as in a path. Only a
    /// plain 404 says that it does not.
    pub async fn may_know(&self, name: &str) -> bool {
        let path = format!("/containers/{name}/json");
        let asked = timeout(ASK, self.look(&path)).await;
        asked.ok().flatten().is_none_or(|(status, _)| status != 404)
    }

    /// The status and the body of a short answer; `None` if none comes in time.
    pub async fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        timeout(ASK, self.fetch(path)).await.ok()?
    }

    /// One exchange of our own, however long it takes: the status and the body of the answer; `None`
    /// if none came, or one that is too long.
    pub async fn call(&self, method: &Method, target: &str, body: &str) -> Option<(u16, Vec<u8>)> {
        let kind = match body {
            "" => "",
            _ => "Content-Type: application/json\r\n",
        };
        let length = body.len();
        let rest = format!("{kind}Content-Length: {length}\r\n\r\n{body}");
        let (head, side) = self.send(method, target, &rest).await?;
        Self::finish(head, side).await
    }

    async fn fetch(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let (head, side) = self.begin(path).await?;
        Self::finish(head, side).await
    }

    /// The rest of an answer.
    async fn finish(head: ResponseHead, mut side: Side) -> Option<(u16, Vec<u8>)> {
        side.buffer.consume(head.len);
        let mut framing = head.framing;
        let mut body = Vec::new();
        loop {
            let data = side.buffer.data();
            let taken = framing
                .advance(data, |part| body.extend_from_slice(part))
                .ok()?;
            side.buffer.consume(taken);
            if framing.is_done() {
                return Some((head.status, body));
            }
            if body.len() > MAX_ANSWER {
                return None;
            }
            if !side.more(LARGE).await.ok()? {
                // What has neither a length nor chunks ends with the connection.
                return (framing == Framing::UntilClose).then_some((head.status, body));
            }
        }
    }

    async fn ask(&self) -> Option<Facts> {
        let (_, headers) = self.look("/_ping").await?;
        Some(Facts::of(&headers))
    }

    /// The status and the headers of an answer.
    async fn look(&self, path: &str) -> Option<(u16, HeaderMap)> {
        let (head, side) = self.begin(path).await?;
        Some((head.status, header_map(side.buffer.front(head.len))))
    }

    /// Asks a question, and reads the head of the answer.
    async fn begin(&self, path: &str) -> Option<(ResponseHead, Side)> {
        self.send(&Method::GET, path, "\r\n").await
    }

    /// Sends a request, `rest` being what follows its first headers, and reads the head of the
    /// answer.
    async fn send(
        &self,
        method: &Method,
        target: &str,
        rest: &str,
    ) -> Option<(ResponseHead, Side)> {
        let mut side = Side::new(Box::new(self.open().await.ok()?));
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{rest}");
        side.stream.write_all(request.as_bytes()).await.ok()?;
        loop {
            let data = side.buffer.data();
            if let Some(head) = ResponseHead::parse(data, method).ok()? {
                return Some((head, side));
            }
            if data.len() >= MAX_HEAD || !side.more(MAX_HEAD).await.ok()? {
                return None;
            }
        }
    }
}

impl Facts {
    fn is_podman(&self) -> bool {
        let server = self.headers.get("server").map(HeaderValue::as_bytes);
        server.is_some_and(|it| it.starts_with(b"Libpod/"))
    }

    fn of(answer: &HeaderMap) -> Self {
        let mut facts = Self::unknown();
        facts.known = true;
        for name in IDENTITY {
            if let Some(value) = answer.get(&name) {
                facts.headers.insert(name, value.clone());
            }
        }
        let api = facts
            .headers
            .get("api-version")
            .and_then(|value| value.to_str().ok());
        facts.api = api.and_then(|text| text.parse().ok()).unwrap_or(facts.api);
        facts
    }

    /// Of an engine that was never reached: what every supported one speaks.
    fn unknown() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("api-version", HeaderValue::from_static("1.41"));
        headers.insert("docker-experimental", HeaderValue::from_static("false"));
        headers.insert("ostype", HeaderValue::from_static("linux"));
        headers.insert(
            "server",
            HeaderValue::from_static(concat!("skep/", env!("CARGO_PKG_VERSION"))),
        );
        Self {
            api: ApiVersion::new(1, 41),
            headers,
            known: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_socket_and_the_cure() {
        let engine = Engine::new("/run/x.sock");
        let text = engine
            .unreachable(io::ErrorKind::NotFound.into())
            .to_string();
        assert!(
            text.contains("unix:///run/x.sock: there is no such socket."),
            "{text}"
        );
        assert!(text.contains("try again"), "{text}");
    }

    #[test]
    fn facts_come_from_the_ping() {
        let answer = header_map(
            b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nServer: Docker/28.2.2 (linux)\r\nX: y\r\n\r\n",
        );
        let facts = Facts::of(&answer);
        assert_eq!(facts.api, ApiVersion::new(1, 51));
        assert_eq!(facts.headers["server"], "Docker/28.2.2 (linux)");
        assert_eq!(facts.headers["ostype"], "linux");
        assert!(!facts.headers.contains_key("x"));
        assert!(!facts.is_podman());
        let answer = header_map(b"HTTP/1.1 200 OK\r\nServer: Libpod/4.3.1 (linux)\r\n\r\n");
        assert!(Facts::of(&answer).is_podman());
    }
}
