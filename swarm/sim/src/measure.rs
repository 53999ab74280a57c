//! `skep-sim --scale`: how long the leader takes in large clusters, and how much memory they need.
//! Decides nothing: prints what it measured.
#![expect(
    clippy::disallowed_methods,
    reason = "measures how long things take; nothing is decided by it"
)]

use std::io::{self, Write};
use std::time::{Duration, Instant};

use skep_sim::Scale;

/// Nodes, services and replicas of each.
const SHAPES: [(usize, usize, u64); 2] = [(1_000, 1_000, 100), (10_000, 10_000, 100)];
/// Nodes that are drained.
const DRAINED: usize = 100;

/// What some steps took.
#[derive(Default)]
struct Took {
    steps: usize,
    changes: usize,
    planning: Duration,
    longest: Duration,
    applying: Duration,
}

impl Took {
    fn to_settle(scale: &mut Scale) -> Self {
        let mut took = Self::default();
        loop {
            let begin = Instant::now();
            let batch = scale.step();
            let planned = begin.elapsed();
            took.planning += planned;
            took.longest = took.longest.max(planned);
            let Some(batch) = batch else { return took };
            took.steps += 1;
            took.changes += batch.txs.iter().map(|tx| tx.changes.len()).sum::<usize>();
            let begin = Instant::now();
            scale.commit(&batch);
            took.applying += begin.elapsed();
        }
    }

    fn say(&self, out: &mut impl Write, what: &str, tasks: usize) -> io::Result<()> {
        let total = (self.planning + self.applying).as_secs_f64();
        writeln!(
            out,
            "  {what}: {tasks} tasks in {total:.3} s ({:.0} a second, {:.1} us each); planning \
             {:.3} s in {} steps, the longest {:.2} ms; applying {:.3} s; {} changes",
            tasks as f64 / total,
            total * 1e6 / tasks.max(1) as f64,
            self.planning.as_secs_f64(),
            self.steps,
            self.longest.as_secs_f64() * 1e3,
            self.applying.as_secs_f64(),
            self.changes,
        )
    }
}

/// Runs both shapes, or the small one only.
pub fn run(small: bool) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    for (nodes, services, replicas) in SHAPES.into_iter().take(if small { 1 } else { 2 }) {
        let before = resident();
        let mut scale = Scale::pending(nodes, services, replicas);
        let tasks = scale.state.tasks().len();
        let bytes = resident().saturating_sub(before);
        writeln!(
            out,
            "{nodes} nodes, {services} services, {tasks} tasks: {} MiB resident, {} bytes a task",
            bytes / (1 << 20),
            bytes / tasks.max(1) as u64
        )?;
        Took::to_settle(&mut scale).say(&mut out, "placing all", tasks)?;
        let begin = Instant::now();
        scale.run();
        let took = begin.elapsed().as_secs_f64();
        writeln!(out, "  all run, and another leader takes over: {took:.3} s")?;
        // A new leader counts what is where once, when it first has something to place.
        scale.update_one("web:2");
        Took::to_settle(&mut scale).say(&mut out, "the first update of it", 1)?;
        scale.update_one("web:3");
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
        Took::to_settle(&mut scale).say(&mut out, "updating one service", replicas)?;
        let moved = scale.drain(DRAINED);
        Took::to_settle(&mut scale).say(&mut out, "draining 100 nodes", moved)?;
        let peak = resident() / (1 << 20);
        writeln!(out, "  {peak} MiB resident in the end")?;
    }
    Ok(true)
}

/// Bytes of memory that this process has; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
