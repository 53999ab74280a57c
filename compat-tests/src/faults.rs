//! What tests of faults need: a load that notes every answer, what runs where, and cases that
//! share a fleet. Never decides what a fault may cost: the tests do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fleet::{Fleet, Host, wait_for};
use serde_json::{Value, json};

use crate::http::Http;
use crate::swarm::{PATIENCE, await_ready, leader, lines};

/// Longer than the deadline of a manager: the daemon's own answer is wanted.
const CALL: Duration = Duration::from_secs(30);
/// Between two writes of one client: a load, not a benchmark.
const PAUSE: Duration = Duration::from_millis(25);

/// A service as the API takes it; without replicas it needs nothing but the managers.
pub fn service(name: &str, replicas: usize) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {
            "Image": "registry:5000/busybox:latest", "Command": ["sleep", "1000000"],
        }},
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// Names whose creation was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Name and error of each that was not.
    pub failed: BTreeMap<String, String>,
    /// Errors of reads, and reads that did not show what had been acknowledged before.
    pub bad_reads: Vec<String>,
    /// The longest time of a client between two of its acknowledged writes.
    pub longest: Duration,
}

/// Clients that create services, each through a host of its own, and read each at once through
/// the next host. Ends with the value.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts a client through each host and waits until writes go through. Names begin with
    /// `prefix`.
    pub fn start(hosts: &[Host], prefix: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicUsize::new(0));
        let sockets: Vec<PathBuf> = hosts.iter().map(Host::socket).collect();
        let next = sockets.iter().cycle().skip(1);
        let clients = hosts.iter().zip(sockets.iter().zip(next));
        let clients = clients.map(|(host, (write, read))| {
            let client = Client {
                prefix: format!("{prefix}-{}", host.name()),
                write: Http::new(write, CALL),
                read: Http::new(read, CALL),
                stop: Arc::clone(&stop),
                written: Arc::clone(&written),
            };
            thread::spawn(move || client.run())
        });
        let load = Self {
            clients: clients.collect(),
            stop,
            written,
        };
        load.goes_on()?;
        Ok(load)
    }

    /// Waits until ten more writes were acknowledged.
    pub fn goes_on(&self) -> Result<()> {
        let seen = self.written.load(Ordering::Relaxed);
        wait_for("ten more acknowledged writes", PATIENCE, || {
            self.written.load(Ordering::Relaxed) >= seen + 10
        })
    }

    /// Ends the clients after their present request.
    pub fn finish(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients.drain(..) {
            let report = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.acknowledged.extend(report.acknowledged);
            all.failed.extend(report.failed);
            all.bad_reads.extend(report.bad_reads);
            all.longest = all.longest.max(report.longest);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    prefix: String,
    write: Http,
    read: Http,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

impl Client {
    fn run(mut self) -> Report {
        let mut report = Report::default();
        let mut last = Instant::now();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("{}-{number}", self.prefix);
            match self.write.post("/services/create", &service(&name, 0)) {
                Ok(answer) if answer.success() => {
                    report.longest = report.longest.max(last.elapsed());
                    last = Instant::now();
                    self.written.fetch_add(1, Ordering::Relaxed);
                    match self.read.get(&format!("/services/{name}")) {
                        Ok(answer) if answer.success() => {}
                        Ok(answer) => report.bad_reads.push(answer.message()),
                        Err(error) => report.bad_reads.push(error.to_string()),
                    }
                    report.acknowledged.insert(name);
                }
                Ok(answer) => {
                    report.failed.insert(name, answer.message());
                }
                Err(error) => {
                    report.failed.insert(name, error.to_string());
                }
            }
            thread::sleep(PAUSE);
        }
        report
    }
}

/// Every acknowledged write is there once, seen from every host, and nothing but what was asked
/// for is. Removes what the load has made.
pub fn check_and_clear(fleet: &Fleet, prefix: &str, report: &Report) -> Result<()> {
    let start = format!("{prefix}-");
    for host in fleet.hosts()? {
        let answer = Http::new(&host.socket(), CALL).get("/services")?;
        ensure!(answer.success(), "{}: {}", host.name(), answer.message());
        let json = answer.json();
        let services = json.as_array().context("a list of services")?;
        let names = services
            .iter()
            .filter_map(|s| s.pointer("/Spec/Name")?.as_str());
        let mut seen = BTreeSet::new();
        for name in names.filter(|name| name.starts_with(&start)) {
            let asked = report.acknowledged.contains(name) || report.failed.contains_key(name);
            ensure!(asked, "{}: nobody asked for {name}", host.name());
            ensure!(
                seen.insert(name.to_owned()),
                "{}: {name} is there twice",
                host.name()
            );
        }
        let lost: Vec<&String> = report.acknowledged.difference(&seen).collect();
        ensure!(
            lost.is_empty(),
            "{}: acknowledged, but lost: {lost:?}",
            host.name()
        );
    }
    clear(&fleet.host("n1")?, &report.acknowledged)
}

fn clear(host: &Host, names: &BTreeSet<String>) -> Result<()> {
    let names: Vec<&String> = names.iter().collect();
    let share = names.len().div_ceil(8).max(1);
    thread::scope(|scope| {
        let threads = names.chunks(share).map(|names| {
            scope.spawn(move || -> Result<()> {
                let mut http = Http::new(&host.socket(), CALL);
                for name in names {
                    let answer = http.call("DELETE", &format!("/services/{name}"), None)?;
                    ensure!(answer.success(), "{}", answer.message());
                }
                Ok(())
            })
        });
        let threads: Vec<_> = threads.collect();
        let mut joined = threads.into_iter().map(|thread| thread.join());
        joined.try_for_each(|result| result.unwrap_or_else(|_| bail!("a panic")))
    })
}

/// A host's running containers: id → when it was started.
pub fn started(host: &Host) -> Result<BTreeMap<String, String>> {
    let socket = host.engine_socket();
    let ids = lines(&fleet::docker_ok(&socket, &["ps", "-q", "--no-trunc"])?);
    let mut found = BTreeMap::new();
    for id in ids {
        let format = "{{.State.StartedAt}} {{.RestartCount}}";
        let since = fleet::docker_ok(&socket, &["inspect", "--format", format, &id])?;
        found.insert(id, since.trim().to_owned());
    }
    Ok(found)
}

/// Containers that ran `before` run still, and were never started again. New ones may have come.
pub fn untouched(host: &Host, before: &BTreeMap<String, String>) -> Result<()> {
    let now = started(host)?;
    for (id, since) in before {
        let what = format!("container {id} of {}", host.name());
        match now.get(id) {
            Some(now) => ensure!(now == since, "{what} started at {since}, then at {now}"),
            None => bail!("{what} is gone"),
        }
    }
    Ok(())
}

/// Cases that share one fleet. A failed one does not hide those after it: its faults are undone,
/// and all failures are told at the end.
#[derive(Debug)]
pub struct Cases<'a> {
    fleet: &'a Fleet,
    failures: Vec<String>,
}

impl<'a> Cases<'a> {
    /// None yet.
    pub fn of(fleet: &'a Fleet) -> Self {
        Self {
            fleet,
            failures: Vec::new(),
        }
    }

    /// Runs a case; afterwards every host is on, thawed and on the LAN, and every node ready.
    pub fn run(&mut self, name: &str, case: impl FnOnce(&Fleet) -> Result<()>) {
        let start = Instant::now();
        let outcome = case(self.fleet);
        let restored = self.restore();
        let took = start.elapsed().as_secs_f32();
        for (what, result) in [("", outcome), (", and then", restored)] {
            if let Err(error) = result {
                self.failures.push(format!("{name}{what}: {error:#}"));
            }
        }
        note(&format!("case {name:?}: {took:.1} s"));
    }

    fn restore(&self) -> Result<()> {
        let hosts = self.fleet.hosts()?;
        hosts.iter().try_for_each(Host::restore)?;
        await_ready(self.fleet, hosts.len())
    }

    /// Takes the fleet's cases to their end: an error with all that failed.
    pub fn finish(self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("\n\n"));
        Ok(())
    }
}

/// A line for those who read the output of a test.
#[allow(clippy::print_stderr)]
pub fn note(line: &str) {
    eprintln!("{line}");
}

/// Creates a service that sleeps and does not wait for it; `extra` are further flags.
pub fn create(host: &Host, name: &str, replicas: &str, extra: &[&str]) -> Result<String> {
    let args = ["service", "create", "--detach", "--no-resolve-image"];
    // `sleep` as the first process of a container ignores SIGTERM.
    let what = [
        "--name",
        name,
        "--replicas",
        replicas,
        "--stop-grace-period",
        "1s",
    ];
    let image = ["registry:5000/busybox", "sleep", "1000000"];
    host.docker(&[&args[..], &what, extra, &image].concat())
}

/// The leader and the other managers.
pub fn roles(fleet: &Fleet) -> Result<(Host, Vec<Host>)> {
    let mut hosts = fleet.hosts()?;
    hosts.truncate(usize::from(fleet.options().managers));
    let name = leader(hosts.first().context("hosts")?)?;
    let (mut leading, others): (Vec<Host>, _) =
        hosts.into_iter().partition(|host| host.name() == name);
    Ok((leading.pop().context("a host leads")?, others))
}

/// Waits until another host than `old` leads, as `seen_from` sees it.
pub fn await_other_leader(seen_from: &Host, old: &Host) -> Result<()> {
    wait_for("another leader", PATIENCE, || {
        leader(seen_from).is_ok_and(|name| name != old.name())
    })
}

/// Seconds until `cond` holds, looked at every 20 ms; an error after a minute.
pub fn seconds_until(what: &str, mut cond: impl FnMut() -> bool) -> Result<f32> {
    let start = Instant::now();
    while !cond() {
        ensure!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        // A condition that is looked at without a pause would take the machine from the others.
        thread::sleep(Duration::from_millis(20));
    }
    Ok(start.elapsed().as_secs_f32())
}
