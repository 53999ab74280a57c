//! Swarm mode in front of podman, which has none of its own: services, overlays, names, virtual
//! addresses, published ports, secrets, logs, exec and plain containers over three hosts, one of
//! which has dockerd, with the real CLI.

#[path = "podman/left.rs"]
mod left;
#[path = "podman/plain.rs"]
mod plain;
#[path = "podman/subnets.rs"]
mod subnets;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use compat_tests::traffic::{ask, outside};
use fleet::{Engine, Fleet, Host, Options, docker_ok, wait_for};

const PORT: u16 = 8080;
/// Asks the service by its name. Not wget: busybox's, linked statically, crashes in some containers.
const FETCH: &str = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 web 80";

#[test]
fn a_swarm_of_podmans_and_a_dockerd() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        managers: 1,
        engines: vec![Engine::Podman, Engine::Podman, Engine::Docker],
        ..Options::test("podman")
    })?;
    await_ready(&fleet, 3)?;
    let n1 = fleet.host("n1")?;
    deploy(&n1)?;
    names_and_addresses(&fleet)?;
    published(&fleet)?;
    a_secret(&fleet)?;
    logs_and_exec(&n1)?;
    plain::on_attachable_networks(&fleet)?;
    subnets::are_one_network(&fleet)?;
    scale_and_update(&fleet)?;
    drain(&fleet)?;
    left::containers_stay(&fleet)?;
    nothing_stays(&fleet)
}

fn deploy(n1: &Host) -> Result<()> {
    let network = ["network", "create", "--driver", "overlay"];
    n1.docker(&[&network[..], &["--attachable", "back"]].concat())?;
    n1.docker(&[&network[..], &["closed"]].concat())?;
    let secret = n1.docker_cmd()?.args(["secret", "create", "key", "-"]);
    secret.stdin("straw").ok()?;
    let port = format!("published={PORT},target=80");
    create(
        n1,
        "web",
        &[
            "--replicas",
            "3",
            "--publish",
            &port,
            "registry:5000/web:v1",
        ],
    )?;
    let asker = ["--mode", "global", "--secret", "key"];
    let command = [
        "registry:5000/busybox",
        "sh",
        "-c",
        "echo asking; sleep 1000000",
    ];
    create(n1, "ask", &[&asker[..], &command[..]].concat())?;
    await_running(n1, "web", 3)?;
    wait_for("an asker on every node", PATIENCE, || {
        running_tasks(n1, "ask").is_ok_and(|tasks| tasks.len() == 3)
    })
}

fn create(host: &Host, name: &str, rest: &[&str]) -> Result<()> {
    let create = ["service", "create", "--detach", "--quiet", "--name", name];
    let common = ["--network", "back", "--stop-grace-period", "0s"];
    host.docker(&[&create, &common[..], rest].concat())
        .map(drop)
}

/// Runs a command in the container of `ask` on a host.
fn inside(host: &Host, command: &[&str]) -> Result<String> {
    let all = containers(host)?;
    let asker = all.iter().find(|it| it.starts_with("ask."));
    let asker = asker.with_context(|| format!("nobody asks on {}: {all:?}", host.name()))?;
    docker_ok(&host.engine_socket(), &[&["exec", asker], command].concat())
}

/// From every host, the service is there by its name, and every task of it is reached in turn.
fn names_and_addresses(fleet: &Fleet) -> Result<()> {
    for host in fleet.hosts()? {
        let mut found = String::new();
        let what = format!("three tasks of web to be found from {}", host.name());
        wait_for(&what, PATIENCE, || {
            found = inside(&host, &["nslookup", "tasks.web"]).unwrap_or_default();
            let answers = found.split("\n\n").skip(1).flat_map(str::lines);
            answers.filter(|it| it.starts_with("Address: ")).count() == 3
        })
        .with_context(|| found.clone())?;
        let script = format!("for i in 1 2 3 4 5 6; do {FETCH}; done");
        let answers = inside(&host, &["sh", "-c", &script])?;
        let mut names: Vec<&str> = answers
            .lines()
            .filter_map(|it| it.strip_prefix("hostname: "))
            .map(str::trim_end)
            .collect();
        names.sort_unstable();
        names.dedup();
        ensure!(names.len() == 3, "from {}: {answers}", host.name());
    }
    Ok(())
}

/// Every host answers on the port, and the task sees who asked.
fn published(fleet: &Fleet) -> Result<()> {
    for host in fleet.hosts()? {
        let address: SocketAddr = format!("{}:{PORT}", host.address()).parse()?;
        let what = format!("{} to answer", host.name());
        let mut last = None;
        wait_for(&what, PATIENCE, || {
            let asked = outside(fleet, move || ask(address));
            let asked = asked.and_then(|it| it.join().unwrap_or_else(|_| Ok(String::new())));
            let seen = asked
                .as_ref()
                .is_ok_and(|it| it.contains("client: 10.201.0.100"));
            last = Some(asked);
            seen
        })
        .with_context(|| format!("{last:?}"))?;
    }
    Ok(())
}

fn a_secret(fleet: &Fleet) -> Result<()> {
    for host in fleet.hosts()? {
        ensure!(inside(&host, &["cat", "/run/secrets/key"])? == "straw");
    }
    Ok(())
}

fn logs_and_exec(n1: &Host) -> Result<()> {
    let mut logs = String::new();
    wait_for("every task's lines", PATIENCE, || {
        logs = n1.docker(&["service", "logs", "ask"]).unwrap_or_default();
        logs.lines().filter(|it| it.ends_with("asking")).count() == 3
    })
    .with_context(|| logs.clone())?;
    for slot in ["web.1", "web.2", "web.3"] {
        ensure!(n1.docker(&["exec", slot, "echo", "here"])? == "here\n");
    }
    Ok(())
}

fn scale_and_update(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    n1.docker(&["service", "scale", "--detach", "web=4"])?;
    await_running(&n1, "web", 4)?;
    let update = ["service", "update", "--detach", "--update-parallelism", "0"];
    n1.docker(&[&update[..], &["--image", "registry:5000/web:v2", "web"]].concat())?;
    wait_for("the new image everywhere", PATIENCE, || {
        running_tasks(&n1, "web").is_ok_and(|tasks| {
            tasks.len() == 4 && tasks.iter().all(|(_, _, image)| image.contains("web:v2"))
        })
    })?;
    let host = fleet.host("n3")?;
    wait_for("the new version to answer", PATIENCE, || {
        let answer = inside(&host, &["sh", "-c", FETCH]);
        answer.is_ok_and(|it| it.contains("version: 2"))
    })
}

fn drain(fleet: &Fleet) -> Result<()> {
    let (n1, n3) = (fleet.host("n1")?, fleet.host("n3")?);
    n1.docker(&["node", "update", "--availability", "drain", "n3"])?;
    wait_for("the tasks to move", PATIENCE, || {
        let elsewhere = running_tasks(&n1, "web");
        let moved = elsewhere
            .is_ok_and(|tasks| tasks.len() == 4 && tasks.iter().all(|(_, node, _)| node != "n3"));
        moved && containers(&n3).is_ok_and(|all| all.is_empty())
    })
}

/// What is removed is gone from every engine, the network's bridge too.
fn nothing_stays(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    n1.docker(&["service", "rm", "web", "ask"])?;
    for host in fleet.hosts()? {
        let what = format!("nothing to be left on {}", host.name());
        let mut left = String::new();
        wait_for(&what, PATIENCE, || {
            let socket = host.engine_socket();
            let all = docker_ok(&socket, &["ps", "--all", "--quiet"]).unwrap_or("?".into());
            let networks = ["network", "ls", "--filter", "label=skep.network", "--quiet"];
            let networks = docker_ok(&socket, &networks).unwrap_or("?".into());
            let devices = host.exec(&["ip", "-o", "link", "show", "type", "bridge"]);
            let devices = devices.map_or("?".into(), |it| it.stdout);
            left = format!("{all}\n{networks}\n{devices}");
            all.is_empty() && networks.is_empty() && !devices.contains("skep")
        })
        .with_context(|| left.clone())?;
    }
    n1.docker(&["network", "rm", "back", "closed", "wide"])
        .map(drop)
}
