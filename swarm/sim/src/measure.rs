//! `skep-sim --scale`: how long the leader takes in large clusters, and how much memory they need.
//! Decides nothing: prints what it measured.
#![expect(
    clippy::disallowed_methods,
    reason = "measures how long things take; nothing is decided by it"
)]

use std::io::{self, Write};
use std::time::{Duration, Instant};

use skep_core::Batch;
use skep_sim::Scale;

/// Nodes, services and replicas of each.
const SHAPES: [(usize, usize, u64); 2] = [(1_000, 1_000, 100), (10_000, 10_000, 100)];
/// Nodes, and tasks of one service.
const HUGE: (usize, u64) = (1_000, 100_000);
/// Steps of its update that are measured.
const UPDATE_STEPS: usize = 1_000;
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
    telling: Duration,
}

impl Took {
    fn to_settle(scale: &mut Scale) -> Self {
        let mut took = Self::default();
        while took.step(scale).is_some() {}
        took
    }

    /// With agents that do as they are told; ends after so many steps at the latest.
    fn with_agents(scale: &mut Scale, steps: usize) -> Self {
        let mut took = Self::default();
        while took.steps < steps {
            let Some(batch) = took.step(scale) else { break };
            let begin = Instant::now();
            scale.tell();
            took.telling += begin.elapsed();
            scale.obey(&batch);
        }
        took
    }

    fn step(&mut self, scale: &mut Scale) -> Option<Batch> {
        let begin = Instant::now();
        let batch = scale.step();
        let planned = begin.elapsed();
        self.planning += planned;
        self.longest = self.longest.max(planned);
        let batch = batch?;
        self.steps += 1;
        self.changes += batch.txs.iter().map(|tx| tx.changes.len()).sum::<usize>();
        let begin = Instant::now();
        scale.commit(&batch);
        self.applying += begin.elapsed();
        Some(batch)
    }

    fn say(&self, out: &mut impl Write, what: &str, tasks: usize) -> io::Result<()> {
        let total = (self.planning + self.applying + self.telling).as_secs_f64();
        writeln!(
            out,
            "  {what}: {tasks} tasks in {total:.3} s ({:.0} a second, {:.1} us each); planning \
             {:.3} s in {} steps, the longest {:.2} ms; applying {:.3} s; telling agents {:.3} s; {} \
             changes",
            tasks as f64 / total,
            total * 1e6 / tasks.max(1) as f64,
            self.planning.as_secs_f64(),
            self.steps,
            self.longest.as_secs_f64() * 1e3,
            self.applying.as_secs_f64(),
            self.telling.as_secs_f64(),
            self.changes,
        )
    }
}

/// Runs all shapes, or none of the largest.
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
    // Last: what it frees would be found by the others, and not be counted as theirs.
    one_service(&mut out)?;
    Ok(true)
}

/// One service that has everything.
fn one_service(out: &mut impl Write) -> io::Result<()> {
    let (nodes, replicas) = HUGE;
    let mut scale = Scale::connected(nodes);
    writeln!(out, "{nodes} nodes, one service of {replicas} tasks")?;
    scale.create_one(replicas);
    let took = Took::with_agents(&mut scale, usize::MAX);
    took.say(out, "all made, placed and running", scale.running())?;
    scale.fail_one();
    Took::with_agents(&mut scale, usize::MAX).say(out, "one that failed", 1)?;
    scale.update_one("web:2");
    Took::with_agents(&mut scale, 1).say(out, "the update's first step", 1)?;
    let before = scale.of_image("web:2");
    let took = Took::with_agents(&mut scale, UPDATE_STEPS);
    let updated = scale.of_image("web:2") - before;
    took.say(out, "the next ones, one task at a time", updated)?;
    scale.scale_one(replicas / 2);
    let took = Took::with_agents(&mut scale, UPDATE_STEPS);
    let less = usize::try_from(replicas).unwrap_or(usize::MAX) - scale.running();
    took.say(out, "half of it taken away", less)?;
    let left = scale.state.tasks().len();
    scale.remove_one();
    Took::with_agents(&mut scale, usize::MAX).say(out, "all of it taken away", left)
}

/// Bytes of memory that this process has; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
