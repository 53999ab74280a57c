//! Many seeds through the whole simulation: those that ever failed first, then a run of others.
//! Prints the seed of every failure; `cargo run -p skep-sim -- --seed N --trace` shows it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use skep_sim::{Settings, run};

const SEEDS: u64 = 200;
const THREADS: usize = 2;

/// One decimal seed a line; what follows a `#` is a comment.
fn remembered() -> Vec<u64> {
    let text = include_str!("../../../fixtures/seeds.txt");
    let bare = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    bare.filter(|line| !line.is_empty())
        .map(|line| {
            line.parse()
                .unwrap_or_else(|_| panic!("not a seed: {line}"))
        })
        .collect()
}

fn all_hold(seeds: &[u64]) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(violation) = run(Settings::of(*seed)).violation {
                failures.lock().unwrap().push((*seed, violation));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    for (seed, violation) in &failures {
        println!("seed {seed}: {}: {}", violation.invariant, violation.what);
    }
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed",
        failures.len(),
        seeds.len()
    );
}

#[test]
fn seeds_that_failed_once_hold() {
    all_hold(&remembered());
}

#[test]
fn seeds_hold() {
    all_hold(&(1..=SEEDS).collect::<Vec<_>>());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 7, 11] {
        let (first, again) = (run(Settings::of(seed)), run(Settings::of(seed)));
        assert_eq!(
            (first.hash, first.events),
            (again.hash, again.events),
            "seed {seed}"
        );
        let kept = run(Settings {
            keep_trace: true,
            ..Settings::of(seed)
        });
        assert_eq!(
            first.hash, kept.hash,
            "keeping the trace of seed {seed} changes it"
        );
        let other = run(Settings::of(seed + 1000));
        assert_ne!(
            first.hash, other.hash,
            "the trace does not depend on the seed"
        );
    }
}
