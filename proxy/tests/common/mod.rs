//! A skepd in this process between a client and an engine that the test plays itself, byte by
//! byte. No real engine is involved.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use skepd::Swarm;
use skepd::attach::Kept;
use skepd::config::{Config, Flags};
use skepd::conn::Shared;
use skepd::engine::Engine;
use skepd::guise::Names;
use skepd::server::Server;
use skepd::swarm::Inactive;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(10);

/// skepd and the places around it.
pub struct Harness {
    pub dir: tempfile::TempDir,
    pub engine: Option<FakeEngine>,
    draining: CancellationToken,
    server: Option<JoinHandle<bool>>,
}

/// How a harness differs from the usual one.
pub struct Setup {
    pub swarm: Arc<dyn Swarm>,
    pub limit: usize,
    pub grace: Duration,
    pub arguments: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            swarm: Arc::new(Inactive),
            limit: 100,
            grace: LONG,
            arguments: Vec::new(),
        }
    }
}

impl Harness {
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir.path().display().to_string(), &setup.arguments);
        let draining = CancellationToken::new();
        let engine = Arc::new(Engine::new(&config.engine));
        let shared = Shared {
            names: Names::new(setup.swarm.clone(), engine.clone()),
            swarm: setup.swarm,
            engine,
            kept: Kept::open(dir.path()),
            execs: Default::default(),
            draining: draining.clone(),
        };
        let engine = Some(FakeEngine::start(config.engine.clone()));
        let (ready, wait) = channel();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async move {
                let listeners = skepd::listen::open(&config).await.unwrap();
                ready.send(()).unwrap();
                Server::new(Arc::new(shared), setup.limit)
                    .run(listeners, setup.grace)
                    .await
            })
        });
        wait.recv_timeout(LONG).unwrap();
        Self {
            dir,
            engine,
            draining,
            server: Some(server),
        }
    }

    /// A new connection to skepd.
    pub fn client(&self) -> Peer {
        Peer::new(UnixStream::connect(self.dir.path().join("skepd.sock")).unwrap())
    }

    /// The next connection that skepd opens to the engine.
    pub fn accept(&self) -> Peer {
        self.engine.as_ref().unwrap().accept()
    }

    /// Answers skepd's own question who the engine is.
    pub fn answer_ping(&self) {
        let mut peer = self.accept();
        assert!(peer.head().starts_with("GET /_ping HTTP/1.1\r\n"));
        peer.send(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Fake\r\nContent-Length: 0\r\n\r\n",
        );
    }

    pub fn stop_engine(&mut self) {
        self.engine = None;
        std::fs::remove_file(self.dir.path().join("engine.sock")).unwrap();
    }

    pub fn start_engine(&mut self) {
        self.engine = Some(FakeEngine::start(self.dir.path().join("engine.sock")));
    }

    /// Begins a graceful stop.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Waits for the end; true when every client was done in time.
    pub fn join(&mut self) -> bool {
        self.server.take().unwrap().join().unwrap()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.draining.cancel();
    }
}

fn config(dir: &str, arguments: &[String]) -> Config {
    use clap::Parser;
    let usual = [
        "skepd".to_owned(),
        format!("--host=unix://{dir}/skepd.sock"),
        format!("--engine=unix://{dir}/engine.sock"),
    ];
    Flags::parse_from(usual.iter().chain(arguments))
        .resolve()
        .unwrap()
}

/// Accepts connections and leaves the rest to the test.
pub struct FakeEngine {
    accepted: Receiver<UnixStream>,
}

impl FakeEngine {
    pub fn start(path: PathBuf) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (send, accepted) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if send.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { accepted }
    }

    pub fn accept(&self) -> Peer {
        Peer::new(
            self.accepted
                .recv_timeout(LONG)
                .expect("skepd connects to the engine"),
        )
    }

    /// True while skepd has opened no connection that was not accepted yet.
    pub fn is_idle(&self) -> bool {
        self.accepted.try_recv().is_err()
    }
}

/// One end of a connection, blocking and with a time-out.
pub struct Peer<S = UnixStream>(pub S);

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Self(stream)
    }

    pub fn half_close(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Writes until the other end takes no more; returns how much went.
    pub fn fill(&mut self) -> usize {
        self.0
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let block = vec![b'x'; 64 << 10];
        let mut sent = 0;
        loop {
            match self.0.write(&block) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl<S: Read + Write> Peer<S> {
    /// Writes until the other end refuses.
    pub fn fill_until_closed(&mut self) {
        while self.0.write_all(&[b'x'; 1 << 16]).is_ok() {}
    }

    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
        self.0.flush().unwrap();
    }

    /// Reads a message head.
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads a reply of skepd's own: its head and its body.
    pub fn reply(&mut self) -> (String, String) {
        let head = self.head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Reads exactly this.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        let mut filled = 0;
        while filled < read.len() {
            match self.0.read(&mut read[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) => panic!(
                    "{error} after {:?}",
                    String::from_utf8_lossy(&read[..filled])
                ),
            }
        }
        assert_eq!(String::from_utf8_lossy(&read[..filled]), text);
    }

    /// Reads the end of the stream; a reset is one too.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.0.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => panic!("there is more"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits for a condition.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what} did not come true");
        std::thread::yield_now();
    }
}
