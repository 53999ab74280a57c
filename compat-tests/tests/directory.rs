//! Who is to be found on a network, as containers on every node see it: tasks come when they run,
//! leave before they stop, and a node that is cut off goes on with what it knows. One manager and
//! two workers, with real engines.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value without the key is null"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compat_tests::faults::*;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Part, wait_for};

/// A net on a busy machine; the aim is a tenth of a second.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn every_node_finds_who_serves() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        managers: 1,
        ..Options::test("directory")
    })?;
    await_ready(&fleet, 3)?;
    let n1 = fleet.host("n1")?;
    n1.docker(&["network", "create", "--driver", "overlay", "front"])?;
    let on_front = ["--network", "front"];
    create(
        &n1,
        "web",
        "3",
        &[&on_front[..], &["--stop-grace-period", "9s"]].concat(),
    )?;
    n1.docker(&[
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "probe",
        "--mode",
        "global",
        "--network",
        "front",
        "registry:5000/busybox",
        "sleep",
        "1000000",
    ])?;
    await_running(&n1, "web", 3)?;
    await_found(&fleet, 3)?;
    let mut cases = Cases::of(&fleet);
    cases.run("a task leaves before it stops", a_task_leaves);
    cases.run("without a manager", without_a_manager);
    cases.finish()?;
    fleet.down()
}

/// The addresses that a name stands for, as the probe on a host hears them.
fn found(host: &Host, name: &str) -> Result<BTreeSet<String>> {
    let probe = containers_of(host, "probe")?;
    let probe = probe.first().context("no probe on this host")?;
    let socket = host.engine_socket();
    let answer = fleet::docker_ok(&socket, &["exec", probe, "nslookup", name])?;
    let addresses = answer.lines().filter_map(|it| it.strip_prefix("Address: "));
    let addresses = addresses.map(|it| it.trim().to_owned());
    Ok(addresses.filter(|it| it.starts_with("10.")).collect())
}

/// The addresses of the tasks of `web` that run and are meant to.
fn serving(manager: &Host) -> Result<BTreeSet<String>> {
    let mut addresses = BTreeSet::new();
    for task in tasks(manager, "web")? {
        if task["Status"]["State"] != "running" || task["DesiredState"] != "running" {
            continue;
        }
        let address = task["NetworksAttachments"][0]["Addresses"][0].as_str();
        let address = address.context("a running task has an address")?;
        let (address, _) = address.split_once('/').context("with a prefix")?;
        addresses.insert(address.to_owned());
    }
    Ok(addresses)
}

/// Waits until every host finds exactly the tasks that run, so many.
fn await_found(fleet: &Fleet, count: usize) -> Result<()> {
    let n1 = fleet.host("n1")?;
    for host in fleet.hosts()? {
        let what = format!("{} to find {count} tasks of web", host.name());
        wait_for(&what, SOON, || {
            let (found, serving) = (found(&host, "tasks.web"), serving(&n1));
            matches!((found, serving), (Ok(found), Ok(serving)) if found == serving && found.len() == count)
        })
        .with_context(|| format!("{:?}, {:?}", found(&host, "tasks.web"), serving(&n1)))?;
    }
    Ok(())
}

fn a_task_leaves(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    n1.docker(&["service", "scale", "--detach", "web=1"])?;
    await_found(fleet, 1)?;
    // They do not heed the signal, so they still run.
    let mut left = 0;
    for host in fleet.hosts()? {
        let running = containers(&host)?;
        left += running.iter().filter(|it| it.starts_with("web.")).count();
    }
    ensure!(left == 3, "{left} containers run while they leave");
    n1.docker(&["service", "scale", "--detach", "web=3"])?;
    await_running(&n1, "web", 3)?;
    await_found(fleet, 3)
}

fn without_a_manager(fleet: &Fleet) -> Result<()> {
    let (n1, n2) = (fleet.host("n1")?, fleet.host("n2")?);
    let before = found(&n2, "tasks.web")?;
    n1.kill(Part::Skepd)?;
    n2.stop(Part::Skepd)?;
    n2.start(Part::Skepd)?;
    wait_for("n2 to find all it knew", SOON, || {
        found(&n2, "tasks.web").is_ok_and(|now| now == before)
    })?;
    // Of its own tasks it knows best.
    let own = containers(&n2)?;
    let own: Vec<&String> = own.iter().filter(|it| it.starts_with("web.")).collect();
    ensure!(!own.is_empty(), "n2 has a task of web");
    for container in &own {
        fleet::docker_ok(&n2.engine_socket(), &["kill", container])?;
    }
    wait_for("n2 to drop its own", SOON, || {
        found(&n2, "tasks.web").is_ok_and(|now| now.len() == before.len() - own.len())
    })?;
    n1.start(Part::Skepd)?;
    await_ready(fleet, 3)?;
    await_running(&n1, "web", 3)?;
    await_found(fleet, 3)
}
