//! How long the leader takes to give tasks their nodes, in the shapes of swarmkit's own benchmark:
//! ready nodes, and as many services as pending tasks, until all are assigned in the store. Then one
//! update in a large cluster and a drain in a smaller one, and one service of very many tasks. Only
//! measures; `tests/scale.rs` says that what is measured happens.
//!
//! `cargo bench -p skep-sim`; with `-- --test` everything runs once in clusters a hundred times
//! smaller. Whole shapes by name: `cargo bench -p skep-sim -- 'place/1000x100000'`.
#![allow(missing_docs, reason = "criterion's macros make functions without")]
#![allow(clippy::disallowed_methods, reason = "measures how long things take")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skep_sim::Scale;

/// Nodes, and tasks with a service for each.
const SHAPES: [(usize, usize); 4] = [
    (1_000, 1_000),
    (1_000, 10_000),
    (1_000, 100_000),
    (100_000, 100_000),
];
/// Nodes, services and replicas of each, all running.
const LARGE: (usize, usize, u64) = (10_000, 10_000, 100);
/// Nodes, and tasks of one service.
const HUGE: (usize, u64) = (1_000, 100_000);

/// Updates that are made for a sample at most: each takes a service that had none before.
const UPDATES: u64 = 20;

/// How much smaller everything is when it is only to be seen that it runs.
fn divisor() -> usize {
    if std::env::args().any(|arg| arg == "--test") {
        100
    } else {
        1
    }
}

/// The time that `what` takes so many times, each time in a cluster of its own, which is neither made
/// nor taken down within that time.
fn time(times: u64, make: impl Fn() -> Scale, what: impl Fn(&mut Scale)) -> Duration {
    let once = |_| {
        let mut scale = make();
        let begin = Instant::now();
        what(&mut scale);
        begin.elapsed()
    };
    (0..times).map(once).sum()
}

fn settle(scale: &mut Scale) {
    scale.settle();
}

fn settle_all(scale: &mut Scale) {
    scale.settle_all();
}

fn place(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    for (nodes, tasks) in SHAPES {
        let (nodes, tasks) = (nodes / divisor(), tasks / divisor());
        let name = BenchmarkId::from_parameter(format_args!("{nodes}x{tasks}"));
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_function(name, |bench| {
            bench.iter_custom(|times| time(times, || Scale::pending(nodes, tasks, 1), settle));
        });
    }
    group.finish();
}

/// The plan of an update's first step, in one cluster that changes little by little; and drains of a
/// hundred nodes in clusters a tenth as large, a new one each time.
fn large(criterion: &mut Criterion) {
    let (nodes, services, replicas) = LARGE;
    let (nodes, services) = (nodes / divisor(), services / divisor());
    let drained = 100 / divisor().min(100);
    let tasks = services as u64 * replicas;
    let mut group = criterion.benchmark_group("large");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    let mut cluster = None;
    group.bench_function(BenchmarkId::new("update_one", tasks), |bench| {
        let scale = cluster.get_or_insert_with(|| running(nodes, services, replicas));
        bench.iter_custom(|times| {
            let once = |_| {
                scale.update_one("web:2");
                let begin = Instant::now();
                let batch = scale.step();
                let took = begin.elapsed();
                batch.iter().for_each(|batch| scale.commit(batch));
                scale.settle();
                took
            };
            let made = times.min(UPDATES);
            let took: Duration = (0..made).map(once).sum();
            took.mul_f64(times as f64 / made as f64)
        });
    });
    drop(cluster);
    group.measurement_time(Duration::from_secs(1));
    group.bench_function(BenchmarkId::new("drain", drained), |bench| {
        bench.iter_custom(|times| {
            let make = || {
                let mut scale = running(nodes / 10, services / 10, replicas);
                scale.drain(drained);
                scale
            };
            time(times, make, settle)
        });
    });
    group.finish();
}

fn running(nodes: usize, services: usize, replicas: u64) -> Scale {
    let mut scale = Scale::pending(nodes, services, replicas);
    scale.settle();
    scale.run();
    scale
}

/// One service: until all of it runs, and what one task of it takes that fails.
fn huge(criterion: &mut Criterion) {
    let (nodes, tasks) = (HUGE.0 / divisor(), HUGE.1 / divisor() as u64);
    let make = || {
        let mut scale = Scale::connected(nodes);
        scale.create_one(tasks);
        scale
    };
    let mut group = criterion.benchmark_group("one_service");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.bench_function(BenchmarkId::new("run", tasks), |bench| {
        bench.iter_custom(|times| time(times, make, settle_all));
    });
    let mut cluster = None;
    group.bench_function(BenchmarkId::new("fail", tasks), |bench| {
        let scale = cluster.get_or_insert_with(|| {
            let mut scale = make();
            scale.settle_all();
            scale
        });
        bench.iter_custom(|times| {
            let once = |_| {
                scale.fail_one();
                let begin = Instant::now();
                scale.settle_all();
                begin.elapsed()
            };
            let made = times.min(UPDATES);
            let took: Duration = (0..made).map(once).sum();
            took.mul_f64(times as f64 / made as f64)
        });
    });
    group.finish();
}

criterion_group!(benches, place, large, huge);
criterion_main!(benches);
