//! What a container can do in its very first instruction: ask for the name of a service and connect
//! with its virtual address. Many containers one after the other and at once, on real engines; each
//! has one try.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value without the key is null"
)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, wait_for};

/// Containers that try each thing.
const TRIES: usize = 40;
/// How many of them at once.
const AT_ONCE: &str = "6";
/// A busy machine starts a container in a second.
const LONG: Duration = Duration::from_secs(400);

#[test]
fn the_first_instruction_finds_and_reaches_services() -> Result<()> {
    let fleet = Fleet::up(&Options {
        hosts: 2,
        swarm: true,
        managers: 1,
        ..Options::test("first")
    })?;
    await_ready(&fleet, 2)?;
    let n1 = fleet.host("n1")?;
    for (network, internal) in [("back", "--internal=false"), ("inner", "--internal")] {
        n1.docker(&[
            "network", "create", "--driver", "overlay", internal, network,
        ])?;
    }
    let networks = ["--network", "back", "--network", "inner"];
    let db = ["service", "create", "--detach", "--name", "db"];
    let image = ["--replicas", "2", "registry:5000/web:v1"];
    n1.docker(&[&db[..], &networks, &image].concat())?;
    await_running(&n1, "db", 2)?;
    let vip = vip(&n1, "db", "back")?;
    let jobs = [
        ("name", "back", vec!["nslookup", "db"]),
        ("inner-name", "inner", vec!["nslookup", "db"]),
        // Without input it ends once it is connected. It may take a busy machine a while, and no one
        // is refused.
        ("address", "back", vec!["nc", "-w", "10", &vip, "80"]),
    ];
    for (name, network, command) in &jobs {
        start(&n1, name, network, command)?;
    }
    for (name, ..) in &jobs {
        all_succeed(&n1, name)?;
    }
    fleet.down()
}

/// A job whose tasks do nothing but this.
fn start(host: &Host, name: &str, network: &str, command: &[&str]) -> Result<()> {
    let tries = TRIES.to_string();
    let create = ["service", "create", "--detach", "--quiet", "--name", name];
    let job = ["--mode", "replicated-job", "--replicas", &tries];
    let once = ["--max-concurrent", AT_ONCE, "--restart-condition", "none"];
    let rest = ["--network", network, "registry:5000/busybox"];
    host.docker(&[&create[..], &job, &once, &rest, command].concat())
        .map(drop)
}

fn all_succeed(host: &Host, name: &str) -> Result<()> {
    let ended = || -> Result<Vec<String>> {
        let tasks = tasks(host, name)?;
        let states = tasks.iter().filter_map(|it| it["Status"]["State"].as_str());
        let ended = states.filter(|it| ["complete", "failed", "rejected"].contains(it));
        Ok(ended.map(str::to_owned).collect())
    };
    wait_for(&format!("all tasks of {name}"), LONG, || {
        ended().is_ok_and(|it| it.len() >= TRIES)
    })?;
    let ended = ended()?;
    let failed = ended.iter().filter(|it| *it != "complete").count();
    let shown = ["service", "ps", "--no-trunc", name];
    ensure!(
        failed == 0,
        "{failed} of {} tasks of {name} had no luck:\n{}",
        ended.len(),
        host.docker(&shown)?
    );
    Ok(())
}

/// A service's virtual address on a network.
fn vip(host: &Host, service: &str, network: &str) -> Result<String> {
    let id = inspect(host, "network", network)?["Id"].clone();
    let service = inspect(host, "service", service)?;
    let vips = service["Endpoint"]["VirtualIPs"].as_array();
    let mut vips = vips.into_iter().flatten();
    let vip = vips
        .find(|it| it["NetworkID"] == id)
        .context("no address")?;
    let address = vip["Addr"].as_str().and_then(|it| it.split('/').next());
    address.map(str::to_owned).context("no address")
}
