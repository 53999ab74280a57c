//! Runs seeds from the command line: many of them for confidence, one with its trace to look into a
//! failure; or measures large clusters. Never writes a file.
//!
//! `skep-sim --seeds 10000 [--from N] [--threads N]`, `skep-sim --seed N [--trace]`,
//! `skep-sim --scale [--small]`

mod measure;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use skep_sim::{Mutation, Outcome, Settings, run};

/// The one of the daemon: what is measured here is to be what the daemon takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: skep-sim --seeds COUNT [--from SEED] [--threads COUNT] [--mistake NAME]\n       \
                     skep-sim --seed SEED [--trace] [--mistake NAME]\n       \
                     skep-sim --scale [--small]";

#[derive(Default)]
struct Wish {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    threads: u64,
    trace: bool,
    scale: bool,
    small: bool,
    mistake: Option<Mutation>,
}

fn main() -> ExitCode {
    let Some(wish) = parse(std::env::args().skip(1)) else {
        drop(writeln!(io::stderr(), "{USAGE}"));
        return ExitCode::from(2);
    };
    let good = match wish.seed {
        _ if wish.scale => measure::run(wish.small),
        Some(seed) => one(seed, &wish),
        None => many(&wish),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        // A closed pipe is no verdict either.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Wish> {
    let mut wish = Wish {
        threads: 2,
        ..Wish::default()
    };
    while let Some(flag) = args.next() {
        let mut number = || args.next()?.parse().ok();
        match flag.as_str() {
            "--seed" => wish.seed = Some(number()?),
            "--seeds" => wish.seeds = number()?,
            "--from" => wish.from = number()?,
            "--threads" => wish.threads = number()?,
            "--scale" => wish.scale = true,
            "--small" => wish.small = true,
            "--trace" => wish.trace = true,
            "--mistake" => {
                let name = args.next()?;
                let mut all = Mutation::ALL.into_iter();
                wish.mistake = Some(all.find(|mutation| format!("{mutation:?}") == name)?);
            }
            _ => return None,
        }
    }
    (wish.seed.is_some() || wish.seeds > 0 || wish.scale).then_some(wish)
}

fn one(seed: u64, wish: &Wish) -> io::Result<bool> {
    let outcome = run(Settings {
        keep_trace: wish.trace,
        mutation: wish.mistake,
        ..Settings::of(seed)
    });
    let mut out = io::stdout().lock();
    for line in &outcome.lines {
        writeln!(out, "{line}")?;
    }
    say(&mut out, seed, &outcome)?;
    Ok(outcome.violation.is_none())
}

fn many(wish: &Wish) -> io::Result<bool> {
    let next = AtomicU64::new(wish.from);
    let end = wish.from.saturating_add(wish.seeds);
    let failed = Mutex::new(0u64);
    let work = || -> io::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            let outcome = run(Settings {
                mutation: wish.mistake,
                ..Settings::of(seed)
            });
            if outcome.violation.is_some() {
                if let Ok(mut failed) = failed.lock() {
                    *failed += 1;
                }
                say(&mut io::stdout().lock(), seed, &outcome)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..wish.threads.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a run panicked")))
        })
    })?;
    let failed = failed.into_inner().unwrap_or(u64::MAX);
    writeln!(io::stdout(), "{} seeds, {failed} failed", wish.seeds)?;
    Ok(failed == 0)
}

fn say(out: &mut impl Write, seed: u64, outcome: &Outcome) -> io::Result<()> {
    let verdict = match &outcome.violation {
        None => "fine".to_owned(),
        Some(violation) => format!("{}: {}", violation.invariant, violation.what),
    };
    writeln!(
        out,
        "seed {seed}: {verdict} (hash {:016x}, {} events, {} s, {} entries, {:?} commands, {} \
         batches refused)",
        outcome.hash,
        outcome.events,
        outcome.seconds,
        outcome.entries,
        outcome.commands,
        outcome.refusals
    )
}
