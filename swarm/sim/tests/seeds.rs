//! Many seeds through the whole simulation: those that ever failed first, then a run of others.
//! Prints the seed of every failure; `cargo run -p skep-sim -- --seed N --trace` shows it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use skep_sim::{Settings, run};

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

fn all_hold(seeds: impl IntoIterator<Item = u64>) {
    let mut failures = 0;
    for seed in seeds {
        if let Some(violation) = run(Settings::of(seed)).violation {
            println!("seed {seed}: {}: {}", violation.invariant, violation.what);
            failures += 1;
        }
    }
    assert_eq!(failures, 0, "seeds failed");
}

#[test]
fn seeds_that_failed_once_hold() {
    all_hold(remembered());
}

// Several tests, so that they run at the same time.

#[test]
fn seeds_1_to_60_hold() {
    all_hold(1..=60);
}

#[test]
fn seeds_61_to_120_hold() {
    all_hold(61..=120);
}

#[test]
fn seeds_121_to_180_hold() {
    all_hold(121..=180);
}

#[test]
fn seeds_181_to_240_hold() {
    all_hold(181..=240);
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
