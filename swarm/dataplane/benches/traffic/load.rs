//! A traffic generator whose threads live in namespaces: bytes over one stream, and connections one
//! after the other. Knows only where to begin and where to go, never what is in between.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::hosts::net::Namespace;
use super::work::worked;

/// Where servers take bytes, and where connections.
pub const BYTES: u16 = 9000;
pub const CONNECTIONS: u16 = 9001;
/// Before anything is counted: slow start, and caches.
const WARM: Duration = Duration::from_millis(50);
/// How long it is counted.
const WINDOW: Duration = Duration::from_millis(300);
/// Clients that connect at once, and threads that take their connections.
const CLIENTS: usize = 4;
const SERVERS: usize = 2;
/// What is written and read at once.
const CHUNK: usize = 128 << 10;

/// What went through: in a second, and in a second of this process's work. On a machine that does
/// other things as well, the second says more.
#[derive(Clone, Copy)]
pub struct Rate {
    pub time: f64,
    pub work: f64,
}

/// The bytes that a server has taken so far.
pub type Taken = Arc<AtomicU64>;

/// Servers in a namespace, for as long as the process runs.
pub fn serve(inside: &Namespace) -> Taken {
    let taken = Taken::default();
    let count = taken.clone();
    inside.within(move || {
        let streams = TcpListener::bind((Ipv4Addr::UNSPECIFIED, BYTES)).unwrap();
        std::thread::spawn(move || {
            for stream in streams.incoming().map_while(Result::ok) {
                let count = count.clone();
                std::thread::spawn(move || swallow(stream, &count));
            }
        });
        let greeted = TcpListener::bind((Ipv4Addr::UNSPECIFIED, CONNECTIONS)).unwrap();
        for _ in 0..SERVERS {
            let greeted = greeted.try_clone().unwrap();
            // One byte, and its end: so the clients' ports are free again at once.
            std::thread::spawn(move || {
                for mut stream in greeted.incoming().map_while(Result::ok) {
                    let _ = stream.write_all(b"!");
                }
            });
        }
    });
    taken
}

fn swallow(mut stream: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        count.fetch_add(u64::try_from(length).unwrap(), Relaxed);
    }
}

/// Work on threads in a namespace, until it is told to end.
struct Workers {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Workers {
    fn start(
        from: &Namespace,
        how_many: usize,
        work: impl Fn(&AtomicBool) -> io::Result<()> + Clone + Send + 'static,
    ) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let begin = |_| {
            let (end, work) = (end.clone(), work.clone());
            from.begin(move || work(&end))
        };
        let threads = (0..how_many).map(begin).collect();
        Self { end, threads }
    }

    /// What a counter grows by, times so much. Nothing may have failed meanwhile.
    fn rate(self, count: &AtomicU64, times: f64) -> Rate {
        // What is measured is a span of time.
        std::thread::sleep(WARM);
        let (start, worked_before, before) = (Instant::now(), worked(), count.load(Relaxed));
        // So is this one.
        std::thread::sleep(WINDOW);
        let (time, work, after) = (
            start.elapsed(),
            worked() - worked_before,
            count.load(Relaxed),
        );
        self.end.store(true, Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
        let grown = (after - before) as f64 * times;
        Rate {
            time: grown / time.as_secs_f64(),
            work: grown / work.as_secs_f64(),
        }
    }
}

/// Bits a second, as the server takes them.
pub fn throughput(from: &Namespace, to: (Ipv4Addr, u16), taken: &Taken) -> Rate {
    let client = Workers::start(from, 1, move |end| {
        let mut stream = TcpStream::connect(to)?;
        let chunk = vec![0; CHUNK];
        while !end.load(Relaxed) {
            stream.write_all(&chunk)?;
        }
        Ok(())
    });
    client.rate(taken, 8.0)
}

/// New connections a second, each with an answer and an orderly end.
pub fn connections(from: &Namespace, to: (Ipv4Addr, u16)) -> Rate {
    let made = Arc::new(AtomicU64::new(0));
    let count = made.clone();
    let clients = Workers::start(from, CLIENTS, move |end| {
        while !end.load(Relaxed) {
            let mut answer = Vec::new();
            TcpStream::connect(to)?.read_to_end(&mut answer)?;
            if answer != b"!" {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            count.fetch_add(1, Relaxed);
        }
        Ok(())
    });
    clients.rate(&made, 1.0)
}
