//! How long a host takes to tell its kernel: 1,000 services of 10 tasks, and one change among
//! them, with 1, 10 and 100 containers. Targets: 0.2 s, and 5 ms with 1 container, 100 ms with 100.
//! `cargo bench -p skep-dataplane`; needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

#[path = "../tests/lab/mod.rs"]
mod lab;
#[path = "shared/work.rs"]
mod work;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lab::{Lab, here, inside, lab, network, run};
use skep_dataplane::model::{Change, Endpoint, Service};
use work::worked;

const SERVICES: u32 = 1000;
const TASKS: u32 = 10;
const ROUNDS: usize = 3;
const CHANGES: u32 = 20;

fn service(number: u32) -> Change {
    let vip = Ipv4Addr::from_bits(0x0a02_0000 + number);
    Change::Service(
        "n".to_owned(),
        Service {
            id: format!("s{number}"),
            name: format!("service{number}"),
            vips: vec![IpAddr::V4(vip)],
            ..Service::default()
        },
    )
}

fn endpoint(service: u32, task: u32) -> Change {
    let address = Ipv4Addr::from_bits(0x0a10_0000 + service * TASKS + task);
    Change::Endpoint(
        "n".to_owned(),
        Endpoint {
            id: format!("t{service}.{task}"),
            service: Some(format!("s{service}")),
            addresses: vec![IpAddr::V4(address)],
            ..Endpoint::default()
        },
    )
}

fn gone(service: u32, task: u32) -> Change {
    Change::EndpointGone("n".to_owned(), format!("t{service}.{task}"))
}

/// How long it took, and how much of that this process worked: on a machine that does other things
/// as well, only the second says something.
#[derive(Clone, Copy)]
struct Took {
    time: Duration,
    work: Duration,
}

/// Tells, and waits until every part has followed.
fn timed(lab: &Lab, changes: Vec<Change>) -> Took {
    let (start, before) = (Instant::now(), worked());
    lab.tell(changes);
    assert!(lab.settled(), "the data plane is behind");
    Took {
        time: start.elapsed(),
        work: worked() - before,
    }
}

fn median(times: &[Took], which: impl Fn(&Took) -> Duration) -> Duration {
    let mut times: Vec<Duration> = times.iter().map(which).collect();
    times.sort();
    times[times.len() / 2]
}

fn shown(times: &[Took]) -> String {
    let (time, work) = (median(times, |it| it.time), median(times, |it| it.work));
    format!("{time:.1?} (work {work:.1?})")
}

fn everything(lab: &mut Lab, containers: u8) -> Vec<Change> {
    let mut all = vec![network()];
    all.extend((0..SERVICES).map(service));
    all.extend((0..SERVICES).flat_map(|it| (0..TASKS).map(move |task| endpoint(it, task))));
    for last in 1..=containers {
        let pid = lab.bare(last);
        inside(pid, || run("ip link set lo up"));
        all.push(here(last, pid));
    }
    all
}

fn measure(containers: u8) {
    let (mut first, mut again, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        lab(|lab| {
            let all = everything(lab, containers);
            first.push(timed(lab, all.clone()));
            lab.restart(Vec::new());
            again.push(timed(lab, all));
            for service in (0..CHANGES).map(|number| number * 7) {
                changes.push(timed(lab, vec![gone(service, 3)]));
                changes.push(timed(lab, vec![endpoint(service, 3)]));
            }
        });
    }
    let columns = [&first, &again, &changes].map(|it| shown(it));
    let [first, again, changes] = columns;
    println!("{containers:>10}  {first:>26}  {again:>26}  {changes:>26}");
}

fn main() {
    println!(
        "containers  {:>26}  {:>26}  {:>26}",
        "1,000 services of 10", "again, after a restart", "one change among them"
    );
    for containers in [1, 10, 100] {
        measure(containers);
    }
}
