//! dockerd's own swarm and skep's, measured one after the other in one run: how long the death of
//! the leader and the loss of a node take, and how fast objects are created. Prints a table;
//! judges nothing.
//!
//! Run with `cargo bench -p compat-tests --bench cluster`. Needs root, as every fleet does. Shorter
//! with BENCH_REPEAT (10 deaths of a leader), BENCH_NODES (3 losses of a node), BENCH_SECONDS (5
//! for each number of clients; 0 leaves a part out), BENCH_KINDS (`builtin,skep`).

#![allow(clippy::print_stdout)]
#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value without the key is null"
)]

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use compat_tests::http::Http;
use compat_tests::swarm::{await_ready, leader};
use fleet::{Fleet, Host, Kind, Options, wait_for};
use serde_json::{Value, json};

/// The number of tasks on the node that is lost.
const TASKS: usize = 10;
const CLIENTS: [usize; 3] = [1, 8, 32];
/// Between two tries of a client that was refused.
const RETRY: Duration = Duration::from_millis(20);
/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    // `cargo test --benches` calls this too, and wants no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let kinds = std::env::var("BENCH_KINDS").unwrap_or_else(|_| "builtin,skep".into());
    let mut results = Vec::new();
    for name in kinds.split(',') {
        let kind = match name {
            "builtin" => Kind::Builtin,
            "skep" => Kind::Skep,
            other => bail!("BENCH_KINDS knows builtin and skep, not {other:?}"),
        };
        results.push((name, measure(kind)?));
    }
    println!("\nload average: {}", load());
    for (name, rows) in &results {
        println!("\n{name}");
        rows.iter().for_each(|row| println!("  {}", row.line()));
    }
    if let [(_, builtin), (_, skep)] = results.as_slice() {
        println!("\nskep is better by");
        for (one, other) in builtin.iter().zip(skep) {
            let ratio = if one.more_is_better {
                other.value / one.value
            } else {
                one.value / other.value
            };
            println!("  {:<44} {ratio:>8.1} x", one.name);
        }
    }
    Ok(())
}

/// One line of the table.
struct Row {
    name: String,
    value: f64,
    detail: String,
    more_is_better: bool,
}

impl Row {
    /// Times in seconds: the median, and the range as detail.
    fn times(name: &str, mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let all: Vec<String> = times.iter().map(|t| format!("{t:.3}")).collect();
        Self {
            name: format!("{name}, median of {}", times.len()),
            value: median(&times),
            detail: format!("s   ({})", all.join(" ")),
            more_is_better: false,
        }
    }

    fn line(&self) -> String {
        format!("{:<44} {:>10.3} {}", self.name, self.value, self.detail)
    }
}

fn measure(kind: Kind) -> Result<Vec<Row>> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        kind,
        release: true,
        ..Options::test("bench-cluster")
    })?;
    await_ready(&fleet, 3)?;
    println!("{kind:?}, load average {}", load());
    let mut rows = Vec::new();
    let seconds = variable("BENCH_SECONDS", 5)?;
    if seconds > 0 {
        for clients in CLIENTS {
            rows.extend(creations(&fleet, clients, Duration::from_secs(seconds))?);
        }
    }
    let (mut down, mut elsewhere) = (Vec::new(), Vec::new());
    for round in 0..variable("BENCH_NODES", 3)? {
        let (first, second) = lose_node(&fleet, round)?;
        println!("  a node was down after {first:.3} s, its tasks ran after {second:.3} s");
        down.push(first);
        elsewhere.push(second);
    }
    if !down.is_empty() {
        rows.push(Row::times("cut off until down", down));
        rows.push(Row::times(
            "cut off until 10 tasks run elsewhere",
            elsewhere,
        ));
    }
    let (mut waiting, mut retrying) = (Vec::new(), Vec::new());
    for round in 0..variable("BENCH_REPEAT", 10)? {
        let [waits, retries] = kill_leader(&fleet, round)?;
        println!(
            "  the leader's death: a client that waits was served after {waits:.3} s, one that retries after {retries:.3} s"
        );
        waiting.push(waits);
        retrying.push(retries);
    }
    if !waiting.is_empty() {
        rows.push(Row::times("kill -9 of the leader, client waits", waiting));
        rows.push(Row::times(
            "kill -9 of the leader, client retries",
            retrying,
        ));
    }
    fleet.down()?;
    Ok(rows)
}

/// An object that both kinds know, and that needs nothing but the managers.
fn service(name: &str, replicas: usize) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {
            "Image": "registry:5000/busybox:latest", "Command": ["sleep", "1000000"],
        }},
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

/// The leader and the others.
fn roles(fleet: &Fleet) -> Result<(Host, Vec<Host>)> {
    let hosts = fleet.hosts()?;
    let first = hosts.first().context("a fleet has hosts")?;
    let name = leader(first)?;
    let (mut leading, following): (Vec<_>, Vec<_>) =
        hosts.into_iter().partition(|host| host.name() == name);
    Ok((leading.pop().context("a host leads")?, following))
}

/// Seconds from the signal to the next accepted write through another manager: of a client that
/// waits for whatever becomes of its request (as the CLI does), and of one that soon tries again.
fn kill_leader(fleet: &Fleet, round: u64) -> Result<[f64; 2]> {
    let (dead, others) = roles(fleet)?;
    let socket = others.first().context("others")?.socket();
    let start = dead.shoot()?;
    let took = thread::scope(|scope| {
        let clients = [("waits", PATIENCE), ("retries", Duration::from_secs(1))];
        let threads = clients.map(|(client, patience)| {
            let socket = &socket;
            scope.spawn(move || {
                let mut http = Http::new(socket, patience);
                let mut attempt = 0;
                poll("a write to be accepted", || {
                    attempt += 1;
                    let name = format!("after-{round}-{client}-{attempt}");
                    let answer = http.post("/services/create", &service(&name, 0));
                    answer.is_ok_and(|answer| answer.success())
                })?;
                Ok(start.elapsed().as_secs_f64())
            })
        });
        threads.map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
    });
    dead.kill(dead.daemon())?;
    dead.start(dead.daemon())?;
    settle(fleet)?;
    let [waits, retries] = took;
    Ok([waits?, retries?])
}

/// Waits until the fleet is whole again. The original sometimes needs minutes for that.
fn settle(fleet: &Fleet) -> Result<()> {
    let start = Instant::now();
    loop {
        match await_ready(fleet, 3) {
            Err(error) if start.elapsed() > 3 * PATIENCE => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
    }
}

/// Seconds from cutting a node off to its being down, and to its tasks running elsewhere.
fn lose_node(fleet: &Fleet, round: u64) -> Result<(f64, f64)> {
    let (leader, others) = roles(fleet)?;
    let victim = others.first().context("others")?;
    let mut http = Http::new(&leader.socket(), PATIENCE);
    let id = victim.docker(&["info", "--format", "{{.Swarm.NodeID}}"])?;
    let id = id.trim();
    let everybody_else = |availability: &str| -> Result<()> {
        for host in fleet
            .hosts()?
            .iter()
            .filter(|host| host.name() != victim.name())
        {
            let update = [
                "node",
                "update",
                "--availability",
                availability,
                host.name(),
            ];
            leader.docker(&update)?;
        }
        Ok(())
    };
    everybody_else("drain")?;
    let name = format!("load-{round}");
    let made = http.post("/services/create", &service(&name, TASKS))?;
    ensure!(made.success(), "{}", made.body);
    wait_for("the node's tasks", PATIENCE, || {
        running(&mut http, &name, |node| node == id) == TASKS
    })?;
    everybody_else("active")?;

    let start = Instant::now();
    victim.cut()?;
    let node = format!("/nodes/{id}");
    poll("the node to be down", || {
        http.get(&node)
            .is_ok_and(|answer| answer.json()["Status"]["State"] == "down")
    })?;
    let down = start.elapsed().as_secs_f64();
    poll("its tasks elsewhere", || {
        running(&mut http, &name, |node| node != id) == TASKS
    })?;
    let elsewhere = start.elapsed().as_secs_f64();
    victim.heal()?;
    settle(fleet)?;
    leader.docker(&["service", "rm", &name])?;
    for host in fleet.hosts()? {
        wait_for("the containers to be gone", PATIENCE, || {
            fleet
                .docker(&host.engine_socket(), &["ps", "-q"])
                .is_ok_and(|text| text.is_empty())
        })?;
    }
    Ok((down, elsewhere))
}

/// How many tasks of a service run on nodes that fit.
fn running(http: &mut Http, service: &str, fits: impl Fn(&str) -> bool) -> usize {
    let filters = format!("{{\"service\":[\"{service}\"],\"desired-state\":[\"running\"]}}");
    let filters = filters
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22");
    let Ok(answer) = http.get(&format!("/tasks?filters={filters}")) else {
        return 0;
    };
    let json = answer.json();
    let tasks = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let counts = |task: &&Value| {
        task["Status"]["State"] == "running" && fits(task["NodeID"].as_str().unwrap_or_default())
    };
    tasks.iter().filter(counts).count()
}

fn poll(what: &str, mut cond: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !cond() {
        ensure!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(RETRY);
    }
    Ok(())
}

/// Services created in a given time, by clients with a connection each to the leader.
fn creations(fleet: &Fleet, clients: usize, time: Duration) -> Result<Vec<Row>> {
    let socket: PathBuf = roles(fleet)?.0.socket();
    let start = Instant::now();
    let per_client = thread::scope(|scope| -> Result<Vec<Vec<f64>>> {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let socket = &socket;
                scope.spawn(move || create_for(socket, clients, client, start, time))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    })?;
    let elapsed = start.elapsed().as_secs_f64();
    let mut times: Vec<f64> = per_client.into_iter().flatten().collect();
    times.sort_unstable_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss)]
    let rate = times.len() as f64 / elapsed;
    println!("  {clients} clients: {rate:.0} creations a second");
    let mut rows = vec![Row {
        name: format!("creations a second, {clients} clients"),
        value: rate,
        detail: String::new(),
        more_is_better: true,
    }];
    for share in [50, 99] {
        let at = times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or(f64::NAN);
        rows.push(Row {
            name: format!("p{share} of a creation, {clients} clients"),
            value: at * 1e3,
            detail: "ms".to_owned(),
            more_is_better: false,
        });
    }
    Ok(rows)
}

fn create_for(
    socket: &std::path::Path,
    clients: usize,
    client: usize,
    start: Instant,
    time: Duration,
) -> Result<Vec<f64>> {
    let mut http = Http::new(socket, PATIENCE);
    let mut times = Vec::new();
    while start.elapsed() < time {
        let name = format!("made-{clients}-{client}-{}", times.len());
        let began = Instant::now();
        let answer = http.post("/services/create", &service(&name, 0))?;
        ensure!(answer.success(), "{}", answer.body);
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(times)
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

fn variable(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
