//! Traffic from outside the hosts: new connections at a steady pace, and connections that live
//! long. Notes what became of each, and never decides what a fault may cost: the tests do.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fleet::Fleet;
use nix::sched::{CloneFlags, setns};

use crate::swarm::PATIENCE;

/// How long one request may take before it counts as lost.
const REQUEST: Duration = Duration::from_secs(3);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// A request that came to nothing.
#[derive(Debug)]
pub struct Lost {
    /// When it began.
    pub at: Instant,
    /// The address that it was sent to, and what went wrong.
    pub why: String,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were answered.
    pub answered: usize,
    /// All others.
    pub lost: Vec<Lost>,
}

/// Clients outside the hosts, one for each address, that ask a web server again and again, each
/// time over a new connection.
#[derive(Debug)]
pub struct Requests {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<Report>>>,
}

impl Requests {
    /// Starts them and waits until answers come.
    pub fn start(fleet: &Fleet, addresses: &[SocketAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for address in addresses {
            let (address, stop, answered) = (*address, stop.clone(), answered.clone());
            clients.push(outside(fleet, move || {
                Ok(ask_on(address, &stop, &answered))
            })?);
        }
        let requests = Self {
            stop,
            answered,
            clients,
        };
        requests.go_on(20)?;
        Ok(requests)
    }

    /// Waits until so many more were answered.
    pub fn go_on(&self, more: usize) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        fleet::wait_for("answers to go on", PATIENCE, || {
            self.answered.load(Ordering::Relaxed) >= before + more
        })
    }

    /// Ends them.
    pub fn end(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let one = client.join().map_err(|_| anyhow!("a client panicked"))??;
            all.answered += one.answered;
            all.lost.extend(one.lost);
        }
        Ok(all)
    }
}

fn ask_on(address: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Report {
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        match ask(address) {
            Ok(_) => {
                report.answered += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => report.lost.push(Lost {
                at,
                why: format!("{address}: {error:#}"),
            }),
        }
        thread::sleep(PAUSE); // a load, not a benchmark
    }
    report
}

/// One request over a connection of its own; gives the body.
pub fn ask(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, REQUEST).context("connect")?;
    stream.set_read_timeout(Some(REQUEST))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    ensure!(head.contains(" 200 "), "{head}");
    ensure!(body.contains("version: "), "half a body: {body:?}");
    Ok(body.to_owned())
}

/// A connection that lives long: what it sends comes back.
#[derive(Debug)]
pub struct Talk(TcpStream);

impl Talk {
    /// Opens one from outside the hosts.
    pub fn open(fleet: &Fleet, address: SocketAddr) -> Result<Self> {
        let opened = outside(fleet, move || {
            let stream = TcpStream::connect_timeout(&address, REQUEST)?;
            stream.set_read_timeout(Some(REQUEST))?;
            Ok(Self(stream))
        })?;
        opened.join().map_err(|_| anyhow!("a client panicked"))?
    }

    /// Says a word and waits for it to come back.
    pub fn say(&mut self, word: &str) -> Result<()> {
        let line = format!("{word}\n");
        self.0.write_all(line.as_bytes()).context("say")?;
        let mut heard = vec![0; line.len()];
        self.0.read_exact(&mut heard).context("hear")?;
        ensure!(heard == line.as_bytes(), "heard {heard:?}");
        Ok(())
    }
}

/// Runs on a thread on the fleet's machine without an engine.
pub fn outside<T: Send + 'static>(
    fleet: &Fleet,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let machine = fleet.machine(fleet::CLIENT)?;
    let holder = machine.holder().context("there is no client machine")?;
    let namespace = File::open(format!("/proc/{holder}/ns/net"))?;
    Ok(thread::spawn(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work()
    }))
}

/// An error that names what was lost, if anything was; `since`: only what began later counts.
pub fn nothing_lost(report: &Report, since: Option<Instant>) -> Result<()> {
    let late = |lost: &&Lost| since.is_none_or(|since| lost.at > since);
    let lost: Vec<&Lost> = report.lost.iter().filter(late).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = lost.iter().take(5).map(|it| it.why.as_str()).collect();
    bail!(
        "{} requests were lost, {} answered: {first:#?}",
        lost.len(),
        report.answered
    )
}
