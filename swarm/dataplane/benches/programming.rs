//! How long a host takes to tell its kernel: 1,000 services of 10 tasks, and one change among
//! them, with 1, 10 and 100 containers. `cargo bench -p skep-dataplane`; needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lab::{Lab, here, inside, lab, network, run};
use skep_dataplane::model::{Change, Endpoint, Service};

const SERVICES: u32 = 1000;
const TASKS: u32 = 10;
const ROUNDS: usize = 5;
const CHANGES: usize = 40;

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

/// Tells, and waits until every part has followed.
fn timed(lab: &Lab, changes: Vec<Change>) -> Duration {
    let start = Instant::now();
    lab.tell(changes);
    assert!(lab.settled(), "the data plane is behind");
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn measure(containers: u8) {
    lab(|lab| {
        let mut all = vec![network()];
        all.extend((0..SERVICES).map(service));
        all.extend((0..SERVICES).flat_map(|it| (0..TASKS).map(move |task| endpoint(it, task))));
        for last in 1..=containers {
            let pid = lab.bare(last);
            inside(pid, || run("ip link set lo up"));
            all.push(here(last, pid));
        }
        let (mut whole, mut changes) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            lab.restart(Vec::new());
            whole.push(timed(lab, all.clone()));
        }
        for number in 0..CHANGES {
            let service = u32::try_from(number).unwrap() * 7;
            changes.push(timed(lab, vec![gone(service, 3)]));
            changes.push(timed(lab, vec![endpoint(service, 3)]));
        }
        println!(
            "{containers:>10} {:>22.1?} {:>22.2?}",
            median(whole),
            median(changes)
        );
    });
}

fn main() {
    println!("containers  1,000 services of 10      one change among them");
    for containers in [1, 10, 100] {
        measure(containers);
    }
}
