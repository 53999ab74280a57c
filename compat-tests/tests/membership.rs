//! Into a swarm and out of it with the real CLI: tokens, workers, refusals, leaving.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use anyhow::{Context, Result, ensure};
use compat_tests::both::for_both;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Kind, Options};

#[test]
fn nodes_come_and_go() -> Result<()> {
    for_both(&Options::test("members"), come_and_go)
}

fn come_and_go(fleet: &Fleet) -> Result<()> {
    let (n1, n2, n3) = (fleet.host("n1")?, fleet.host("n2")?, fleet.host("n3")?);
    let swarm = |host: &fleet::Host| -> Result<String> {
        Ok(host
            .docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"])?
            .trim()
            .to_owned())
    };
    ensure!(swarm(&n1)? == "inactive");
    let said = refusal(&n1, &["node", "ls"])?;
    ensure!(
        said.contains("This node is not a swarm manager. Use \"docker swarm init\""),
        "{said}"
    );
    let said = refusal(&n1, &["swarm", "leave"])?;
    ensure!(said.contains("This node is not part of a swarm"), "{said}");
    let said = refusal(&n1, &["swarm", "init", "--advertise-addr", "nope0"])?;
    ensure!(
        said.contains("advertise address must be a non-zero IP address"),
        "{said}"
    );

    // The host has one address beside its engine's: it is found.
    let welcome = n1.docker(&["swarm", "init"])?;
    ensure!(
        welcome.contains("Swarm initialized: current node"),
        "{welcome}"
    );
    ensure!(welcome.contains("10.201.0.1:2377"), "{welcome}");
    let token = |kind: &str| -> Result<String> {
        Ok(n1
            .docker(&["swarm", "join-token", "-q", kind])?
            .trim()
            .to_owned())
    };
    let (worker, manager) = (token("worker")?, token("manager")?);
    ensure!(worker != manager && worker.starts_with("SWMTKN-1-"));

    let forged = format!("{}0000000000000000000000000", &worker[..worker.len() - 25]);
    let said = refusal(
        &n2,
        &["swarm", "join", "--token", &forged, "10.201.0.1:2377"],
    )?;
    ensure!(
        said.contains("A valid join token is necessary to join this cluster"),
        "{said}"
    );
    let said = refusal(&n2, &["swarm", "join", "--token", "x", "10.201.0.1:2377"])?;
    ensure!(said.contains("invalid join token"), "{said}");
    ensure!(swarm(&n2)? == "inactive", "a failed join leaves nothing");

    let joined = n2.docker(&["swarm", "join", "--token", &worker, "10.201.0.1:2377"])?;
    ensure!(
        joined.contains("This node joined a swarm as a worker."),
        "{joined}"
    );
    let joined = n3.docker(&["swarm", "join", "--token", &manager, "10.201.0.1:2377"])?;
    ensure!(
        joined.contains("This node joined a swarm as a manager."),
        "{joined}"
    );
    await_ready(fleet, 3)?;
    let said = refusal(&n2, &["service", "ls"])?;
    ensure!(
        said.contains("Worker nodes can't be used to view or modify cluster state."),
        "{said}"
    );
    let said = refusal(
        &n2,
        &["swarm", "join", "--token", &worker, "10.201.0.1:2377"],
    )?;
    ensure!(
        said.contains("This node is already part of a swarm."),
        "{said}"
    );

    let rotated = n3.docker(&["swarm", "join-token", "--rotate", "-q", "worker"])?;
    ensure!(rotated.trim() != worker && rotated.trim() == token("worker")?);
    let own = n3.docker(&["node", "inspect", "self", "--pretty"])?;
    ensure!(own.contains("Hostname:") && own.contains("n3"), "{own}");
    let ping = n2.exec(&["true"])?;
    ensure!(ping.status == 0);
    if fleet.options().kind == Kind::Skep {
        certificate_is_there(&n2)?;
    }

    n1.docker(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "3",
        "registry:5000/web",
    ])?;
    ensure!(containers(&n2)?.len() == 1);
    n2.docker(&["swarm", "leave"])?;
    ensure!(swarm(&n2)? == "inactive" && containers(&n2)?.is_empty());
    await_running(&n1, "web", 3)?;
    fleet::wait_for("the node that left to be down", PATIENCE, || {
        nodes(&n1).is_ok_and(|nodes| nodes.get("n2").is_some_and(|(state, _)| state == "Down"))
    })?;
    n1.docker(&["node", "rm", "n2"])?;
    ensure!(!nodes(&n1)?.contains_key("n2"));

    if fleet.options().kind == Kind::Builtin {
        // The original's two managers lose their quorum when one of them leaves by force.
        return Ok(());
    }
    // A leader that leaves hands over; the last manager takes everything with it.
    n1.docker(&["swarm", "leave", "--force"])?;
    fleet::wait_for("n3 to lead alone", PATIENCE, || {
        leader(&n3).is_ok_and(|name| name == "n3")
    })?;
    n3.docker(&["service", "ls"])
        .context("a swarm of one takes requests")?;
    let said = refusal(&n3, &["swarm", "leave"])?;
    ensure!(
        said.contains("Removing the last manager erases all current state"),
        "{said}"
    );
    n3.docker(&["swarm", "leave", "--force"])?;
    ensure!(swarm(&n3)? == "inactive" && containers(&n3)?.is_empty());
    Ok(())
}

fn certificate_is_there(n2: &Host) -> Result<()> {
    let certificate = n2.data_dir().join("certificates/swarm-node.crt");
    ensure!(certificate.exists(), "{}", certificate.display());
    Ok(())
}
