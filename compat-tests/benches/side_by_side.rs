//! The engine's socket and skepd's, measured side by side in one run: the latency of small calls,
//! the throughput of a 1 GiB image load and of a container's logs. Prints a table; judges nothing.
//!
//! Run with `cargo bench -p compat-tests`. Needs root, as every fleet does.

#![allow(clippy::print_stdout)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet::{Cmd, Fleet, Options, docker};

const CALLS: usize = 4000;
const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_secs(600);

/// A keep-alive connection that repeats one request.
struct Caller {
    stream: UnixStream,
    request: String,
    answer: Vec<u8>,
}

impl Caller {
    fn new(socket: &Path, path: &str) -> Result<Self> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n");
        Ok(Self {
            stream: UnixStream::connect(socket)?,
            request,
            answer: vec![0; 1 << 16],
        })
    }

    /// One call, to the last byte of the answer, which is small and has a length.
    fn call(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.stream.write_all(self.request.as_bytes())?;
        let mut read = 0;
        loop {
            let room = self
                .answer
                .get_mut(read..)
                .context("the answer is too long")?;
            let n = self.stream.read(room)?;
            ensure!(n > 0, "the answer broke off");
            read += n;
            let text = String::from_utf8_lossy(self.answer.get(..read).unwrap_or_default());
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.context("the answer has no length")?.parse()? {
                return Ok(start.elapsed());
            }
        }
    }
}

struct Pair<'a> {
    engine: &'a Path,
    skepd: &'a Path,
}

fn latency(pair: &Pair<'_>, path: &str) -> Result<()> {
    let mut callers = [
        Caller::new(pair.engine, path)?,
        Caller::new(pair.skepd, path)?,
    ];
    let mut times = [Vec::new(), Vec::new()];
    // In turn, so that whatever else the machine does hits both alike.
    for round in 0..CALLS + 200 {
        for (caller, times) in callers.iter_mut().zip(&mut times) {
            let took = caller.call()?;
            if round >= 200 {
                times.push(took);
            }
        }
    }
    let [engine, skepd] = times.map(|mut times| {
        times.sort_unstable();
        let at = |share: usize| {
            times
                .get(times.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        (at(50), at(99))
    });
    for (name, engine, skepd) in [("p50", engine.0, skepd.0), ("p99", engine.1, skepd.1)] {
        let [engine, skepd] = [engine, skepd].map(|time| time.as_secs_f64() * 1e6);
        let added = skepd - engine;
        println!("{path:<18} {name}   {engine:>9.0} µs {skepd:>9.0} µs   added {added:>6.0} µs");
    }
    Ok(())
}

/// Bytes a second through `once`, the median of some rounds, both sides in turn and each first
/// every other time. `prepare` runs before each and is not measured.
fn throughput(
    name: &str,
    pair: &Pair<'_>,
    bytes: u64,
    prepare: impl Fn() -> Result<()>,
    once: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    let sides = [pair.engine, pair.skepd];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let side = (round + turn) % 2;
            let (Some(socket), Some(times)) = (sides.get(side), times.get_mut(side)) else {
                continue;
            };
            prepare()?;
            let start = Instant::now();
            once(socket)?;
            times.push(start.elapsed().as_secs_f64());
        }
    }
    #[allow(clippy::cast_precision_loss)]
    let mib = bytes as f64 / f64::from(1 << 20);
    let [engine, skepd] = times.map(|mut times| {
        times.sort_unstable_by(f64::total_cmp);
        mib / times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    });
    let ratio = skepd / engine;
    println!("{name:<24} {engine:>7.0} MiB/s {skepd:>7.0} MiB/s   ratio {ratio:>6.3}");
    Ok(())
}

fn shell(socket: &Path, work: &Path, script: &str) -> Result<String> {
    Cmd::new("bash")
        .args(["-ec", &format!("cd {}\n{script}", work.display())])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .timeout(LONG)
        .ok()
}

fn main() -> Result<()> {
    // `cargo test --benches` calls this too, and wants no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let fleet = Fleet::up(&Options {
        hosts: 1,
        release: true,
        ..Options::test("bench")
    })?;
    let host = fleet.host("n1")?;
    let (engine, skepd) = (host.engine_socket(), host.skepd_socket());
    let pair = Pair {
        engine: &engine,
        skepd: &skepd,
    };
    let work = engine.with_file_name("work");
    std::fs::create_dir_all(&work)?;

    println!("{:<24} {:>12} {:>12}", "", "engine", "skepd");
    latency(&pair, "/_ping")?;
    latency(&pair, "/containers/json")?;

    let image = "dd if=/dev/urandom of=big bs=1M count=1024 status=none\n\
        tar c big | docker import - big:1 >/dev/null\n\
        docker save -o big.tar big:1; docker rmi big:1 >/dev/null; rm big";
    shell(&engine, &work, image)?;
    let archive = work.join("big.tar");
    let file = archive.display().to_string();
    // What the kernel still has to write of the round before would be charged to the next one.
    let forget = || {
        shell(
            &engine,
            &work,
            "docker rmi big:1 >/dev/null 2>&1 || true\nsync",
        )
        .map(drop)
    };
    throughput(
        "load of 1 GiB",
        &pair,
        archive.metadata()?.len(),
        forget,
        |socket| {
            docker(socket)?
                .args(["load", "-q", "-i", &file])
                .timeout(LONG)
                .ok()
                .map(drop)
        },
    )?;

    let lines = "docker run --name logs busybox sh -c 'yes 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz01234567 | head -n 500000' >/dev/null";
    shell(&engine, &work, lines)?;
    let nothing = || Ok(());
    throughput(
        "logs of 500,000 lines",
        &pair,
        500_000 * 79,
        nothing,
        |socket| shell(socket, &work, "docker logs logs >/dev/null").map(drop),
    )?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}
