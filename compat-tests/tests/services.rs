//! One swarm across three real engines: the life of a replicated service with the real CLI.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use compat_tests::both::for_both;
use compat_tests::swarm::*;
use fleet::{Fleet, Options, wait_for};

const SLEEP: [&str; 3] = ["registry:5000/busybox", "sleep", "1000000"];

/// Tasks a host.
fn spread(tasks: &[(u64, String, String)]) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for (_, node, _) in tasks {
        *count.entry(node.as_str()).or_default() += 1;
    }
    count
}

fn fleet(name: &str) -> Result<Fleet> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        ..Options::test(name)
    })?;
    await_ready(&fleet, 3)?;
    Ok(fleet)
}

#[test]
fn a_service_lives_across_three_engines() -> Result<()> {
    let options = Options {
        swarm: true,
        ..Options::test("services")
    };
    for_both(&options, a_service_lives)
}

fn a_service_lives(fleet: &Fleet) -> Result<()> {
    await_ready(fleet, 3)?;
    let n1 = fleet.host("n1")?;
    for host in fleet.hosts()? {
        let seen = nodes(&host)?;
        ensure!(
            seen.keys().collect::<Vec<_>>() == ["n1", "n2", "n3"],
            "{seen:?}"
        );
    }

    // The CLI shows its progress and comes back once the service has converged.
    let created = n1.docker(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "6",
        "--env",
        "COLOUR=blue",
        "--mount",
        "type=volume,source=data,target=/data",
        "--label",
        "tier=front",
        "--container-label",
        "inner=yes",
        "--update-delay",
        "0s",
        "--update-monitor",
        "1s",
        "registry:5000/web:v1",
    ])?;
    ensure!(created.contains("converged"), "{created}");
    let tasks = running(&n1, "web")?;
    ensure!(
        spread(&tasks) == BTreeMap::from([("n1", 2), ("n2", 2), ("n3", 2)]),
        "{tasks:?}"
    );
    for host in fleet.hosts()? {
        check_containers(&host)?;
    }

    for (count, from) in [(9, "n2"), (2, "n3")] {
        let host = fleet.host(from)?;
        host.docker(&["service", "scale", &format!("web={count}")])?;
        await_running(&n1, "web", count)?;
    }
    n1.docker(&["service", "scale", "web=4"])?;

    let update = [
        "service",
        "update",
        "--image",
        "registry:5000/web:v2",
        "--update-parallelism",
        "1",
        "web",
    ];
    n1.docker(&update)?;
    let images = |version: &str| -> Result<bool> {
        let tasks = running(&n1, "web")?;
        Ok(tasks.len() == 4 && tasks.iter().all(|(_, _, image)| image.contains(version)))
    };
    ensure!(images(":v2")?, "{:?}", running(&n1, "web")?);
    await_update(&n1, "completed")?;

    n1.docker(&["service", "rollback", "web"])?;
    ensure!(images(":v1")?, "{:?}", running(&n1, "web")?);
    await_update(&n1, "rollback_completed")?;
    let pretty = n1.docker(&["service", "inspect", "--pretty", "web"])?;
    ensure!(
        pretty.contains("Replicas:\t4") && pretty.contains("COLOUR=blue"),
        "{pretty}"
    );

    // A container that dies or is removed by hand is replaced by a new task in its slot.
    for action in [&["kill"] as &[&str], &["rm", "--force"]] {
        let victim = containers(&n1)?
            .into_iter()
            .find(|name| name.starts_with("web."));
        let Some(victim) = victim else { continue };
        let args: Vec<&str> = action.iter().copied().chain([victim.as_str()]).collect();
        fleet::docker_ok(&n1.engine_socket(), &args)?;
        wait_for("the dead container's task to be replaced", PATIENCE, || {
            running(&n1, "web").is_ok_and(|tasks| tasks.len() == 4)
                && !containers(&n1).is_ok_and(|names| names.contains(&victim))
        })?;
    }

    n1.docker(&["service", "rm", "web"])?;
    for host in fleet.hosts()? {
        wait_for("no container to be left", PATIENCE, || {
            containers_of(&host, "web").is_ok_and(|left| left.is_empty())
        })?;
    }
    Ok(())
}

/// The CLI comes back once the tasks are right, which is before the manager has watched the last.
fn await_update(host: &fleet::Host, state: &str) -> Result<()> {
    wait_for(&format!("the update to be {state}"), PATIENCE, || {
        inspect(host, "service", "web").is_ok_and(|found| found["UpdateStatus"]["State"] == state)
    })
}

/// Containers are named and labelled as the original does it.
fn check_containers(host: &fleet::Host) -> Result<()> {
    let names = containers(host)?;
    let of_web: Vec<&String> = names
        .iter()
        .filter(|name| name.starts_with("web."))
        .collect();
    ensure!(of_web.len() == 2, "{names:?}");
    for name in of_web {
        let container = inspect(host, "container", name)?;
        let labels = &container["Config"]["Labels"];
        let task = labels["com.docker.swarm.task.id"]
            .as_str()
            .unwrap_or_default();
        ensure!(task.len() == 25 && name.ends_with(task), "{name} {labels}");
        ensure!(
            labels["com.docker.swarm.task.name"] == name.as_str(),
            "{labels}"
        );
        ensure!(labels["com.docker.swarm.service.name"] == "web", "{labels}");
        ensure!(
            labels["inner"] == "yes" && labels["com.docker.swarm.task"] == "",
            "{labels}"
        );
        let env = container["Config"]["Env"].to_string();
        ensure!(env.contains("COLOUR=blue"), "{env}");
        ensure!(
            container["Mounts"][0]["Name"] == "data",
            "{}",
            container["Mounts"]
        );
        ensure!(
            container["HostConfig"]["RestartPolicy"]["Name"] != "always",
            "no restart policy"
        );
    }
    Ok(())
}

#[test]
fn constraints_drain_and_refusals() -> Result<()> {
    let fleet = fleet("placement")?;
    let n1 = fleet.host("n1")?;
    let on_n2 = ["--constraint", "node.hostname==n2"];
    let create = [
        "service",
        "create",
        "--name",
        "pinned",
        "--replicas",
        "2",
        "--detach",
    ];
    n1.docker(&[&create[..], &on_n2, &SLEEP].concat())?;
    await_running(&n1, "pinned", 2)?;
    ensure!(
        running(&n1, "pinned")?
            .iter()
            .all(|(_, node, _)| node == "n2")
    );

    n1.docker(&["node", "update", "--label-add", "disk=ssd", "n3"])?;
    let labelled = [
        "service",
        "create",
        "--detach",
        "--name",
        "fast",
        "--constraint",
    ];
    n1.docker(&[&labelled[..], &["node.labels.disk==ssd"], &SLEEP].concat())?;
    await_running(&n1, "fast", 1)?;
    ensure!(
        running(&n1, "fast")?
            .iter()
            .all(|(_, node, _)| node == "n3")
    );

    let spread = [
        "service",
        "create",
        "--detach",
        "--name",
        "all",
        "--replicas",
        "3",
    ];
    n1.docker(&[&spread[..], &SLEEP].concat())?;
    await_running(&n1, "all", 3)?;
    n1.docker(&["node", "update", "--availability", "drain", "n2"])?;
    wait_for("the drained node to be empty", PATIENCE, || {
        let n2 = fleet.host("n2").and_then(|n2| containers(&n2));
        running(&n1, "all")
            .is_ok_and(|tasks| tasks.len() == 3 && tasks.iter().all(|(_, node, _)| node != "n2"))
            && n2.is_ok_and(|names| names.is_empty())
    })?;
    wait_for("the reason why the pinned tasks wait", PATIENCE, || {
        n1.docker(&["service", "ps", "pinned", "--no-trunc"])
            .is_ok_and(|text| text.contains("no suitable node ("))
    })?;
    n1.docker(&["node", "update", "--availability", "active", "n2"])?;
    await_running(&n1, "pinned", 2)?;

    for (args, text) in [
        (
            &["service", "create", "--name", "all", "busybox"][..],
            "service all already exists",
        ),
        (&["service", "inspect", "nope"], "no such service: nope"),
        (
            &["service", "create", "--name", "-", "busybox"],
            "must be valid as a DNS name",
        ),
        (
            &["service", "create", "--constraint", "x=y", "busybox"],
            "expected one operator from",
        ),
        (
            &["service", "create", "--mode", "nowhere", "busybox"],
            "Unknown mode: nowhere",
        ),
        (
            &["node", "rm", "n3"],
            "is a cluster manager and is a member of the raft cluster",
        ),
        (&["swarm", "init"], "This node is already part of a swarm"),
        (
            &["swarm", "leave"],
            "You are attempting to leave the swarm on a node",
        ),
    ] {
        let said = refusal(&n1, args)?;
        ensure!(said.contains(text), "docker {args:?} said {said:?}");
    }
    fleet.down()
}
