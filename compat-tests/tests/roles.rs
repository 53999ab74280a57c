//! Who is a manager, with the real CLI: promoted, demoted, the leader too, several at once, killed
//! in between; labels and availability; removed, gone and back again.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, wait_for};

const MANAGER: &str = "10.201.0.1:2377";

#[test]
fn managers_and_workers_change_places() -> Result<()> {
    let fleet = Fleet::up(&Options::test("roles"))?;
    let (n1, n2, n3) = (fleet.host("n1")?, fleet.host("n2")?, fleet.host("n3")?);
    n1.docker(&["swarm", "init"])?;
    join(&n1, &n2, "worker", "drain")?;
    join(&n1, &n3, "worker", "pause")?;
    await_ready(&fleet, 3)?;
    ensure!(column(&n1, "n2", "{{.Spec.Availability}}")? == "drain");
    ensure!(column(&n1, "n3", "{{.Spec.Availability}}")? == "pause");
    settings(&n1)?;
    for name in ["n2", "n3"] {
        n1.docker(&["node", "update", "--availability", "active", name])?;
    }

    n1.docker(&["node", "promote", "n2", "n3"])?;
    await_managers(&[&n1, &n2, &n3], &[])?;
    let said = refusal(&n2, &["swarm", "leave"])?;
    ensure!(
        said.contains("Doing so may lose the consensus of your cluster."),
        "{said}"
    );
    n2.docker(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "3",
        "registry:5000/web",
    ])?;
    await_running(&n2, "web", 3)?;
    let before = [containers(&n1)?, containers(&n2)?, containers(&n3)?];

    // The leader is demoted by its own hand, then another one while the last is refused.
    let first = leader(&n1)?;
    ensure!(first == "n1", "{first} leads");
    n1.docker(&["node", "demote", "n1"])?;
    await_managers(&[&n2, &n3], &[&n1])?;
    let said = refusal(&n3, &["node", "demote", "n2", "n3"])?;
    ensure!(
        said.contains("attempting to demote the last manager of the swarm"),
        "{said}"
    );
    await_managers(&[&n3], &[&n1, &n2])?;
    let said = refusal(&n3, &["swarm", "leave"])?;
    ensure!(said.contains("Removing the last manager erases"), "{said}");
    let after = [containers(&n1)?, containers(&n2)?, containers(&n3)?];
    ensure!(before == after, "{before:?} became {after:?}");
    await_running(&n3, "web", 3)?;

    killed_in_between(&n3, &n1)?;
    removed_and_back(&n3, &n2)?;
    await_running(&n3, "web", 3)?;
    fleet.down()
}

fn join(manager: &Host, host: &Host, kind: &str, availability: &str) -> Result<()> {
    let token = manager.docker(&["swarm", "join-token", "-q", kind])?;
    let (token, option) = (token.trim(), format!("--availability={availability}"));
    let said = host.docker(&["swarm", "join", "--token", token, &option, MANAGER])?;
    let expected = format!("This node joined a swarm as a {kind}.");
    ensure!(said.contains(&expected), "{said}");
    Ok(())
}

/// One field of a node.
fn column(host: &Host, node: &str, format: &str) -> Result<String> {
    let text = host.docker(&["node", "inspect", "--format", format, node])?;
    Ok(text.trim().to_owned())
}

/// Waits until exactly these hosts are managers, in their own eyes and in the others'.
fn await_managers(managers: &[&Host], workers: &[&Host]) -> Result<()> {
    let names = |hosts: &[&Host]| -> Vec<String> {
        hosts.iter().map(|host| host.name().to_owned()).collect()
    };
    let what = format!("{:?} and nobody else to manage", names(managers));
    let all_see = || {
        managers.iter().all(|host| {
            nodes(host).is_ok_and(|nodes| {
                let seen = nodes.iter().filter(|(_, (_, manager))| !manager.is_empty());
                let seen: Vec<String> = seen.map(|(name, _)| name.clone()).collect();
                let ready = nodes.values().filter(|(state, _)| state == "Ready").count();
                seen == names(managers) && ready == managers.len() + workers.len()
            })
        })
    };
    let is = |host: &Host, expected: &str| {
        let format = "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}";
        host.docker(&["info", "--format", format])
            .is_ok_and(|text| text.trim() == expected)
    };
    wait_for(&what, PATIENCE, || {
        all_see()
            && managers.iter().all(|host| is(host, "active true"))
            && workers.iter().all(|host| is(host, "active false"))
    })
}

/// What `node update` and `node rm` say of a worker that is there.
fn settings(manager: &Host) -> Result<()> {
    manager.docker(&[
        "node",
        "update",
        "--label-add",
        "disk=ssd",
        "--label-add",
        "zone",
        "n2",
    ])?;
    let labels = column(manager, "n2", "{{json .Spec.Labels}}")?;
    ensure!(labels == r#"{"disk":"ssd","zone":""}"#, "{labels}");
    manager.docker(&["node", "update", "--label-rm", "zone", "n2"])?;
    let labels = column(manager, "n2", "{{json .Spec.Labels}}")?;
    ensure!(labels == r#"{"disk":"ssd"}"#, "{labels}");
    let said = refusal(manager, &["node", "rm", "n2"])?;
    ensure!(said.contains("is not down and can't be removed"), "{said}");
    let said = refusal(manager, &["node", "rm", "--force", "n1"])?;
    ensure!(
        said.contains(
            "is a cluster manager and is a member of the raft cluster. It must be demoted"
        ),
        "{said}"
    );
    let said = refusal(manager, &["node", "demote", "n1"])?;
    ensure!(
        said.contains("attempting to demote the last manager of the swarm"),
        "{said}"
    );
    let said = refusal(manager, &["node", "promote", "nobody"])?;
    ensure!(said.contains("node nobody not found"), "{said}");
    Ok(())
}

/// A daemon that is killed while its node turns gets there after its restart.
fn killed_in_between(manager: &Host, host: &Host) -> Result<()> {
    let name = host.name();
    let is = |state: &str| -> Result<bool> {
        let row = nodes(manager)?.remove(name).context("no such node")?;
        Ok(row == ("Ready".to_owned(), state.to_owned()))
    };
    for (round, delay) in [0_u64, 60, 150, 300].into_iter().enumerate() {
        for (verb, role, seen) in [
            ("promote", "manager", "Reachable"),
            ("demote", "worker", ""),
        ] {
            manager.docker(&["node", verb, name])?;
            // Each time somewhere else in the turn.
            thread::sleep(Duration::from_millis(delay));
            host.shoot()?;
            host.restore()?;
            let what = format!("{name} to be a {role} after the kill in round {round}");
            wait_for(&what, PATIENCE, || is(seen).unwrap_or(false))?;
            let control = (verb == "promote").to_string();
            wait_for(&format!("{name} to know"), PATIENCE, || {
                let format = "{{.Swarm.ControlAvailable}}";
                host.docker(&["info", "--format", format])
                    .is_ok_and(|text| text.trim() == control)
            })?;
        }
    }
    ensure!(leader(manager)? == manager.name());
    Ok(())
}

/// A node that was removed by force is nobody any more, leaves, and comes back as a new one.
fn removed_and_back(manager: &Host, host: &Host) -> Result<()> {
    let name = host.name();
    let old = column(manager, name, "{{.ID}}")?;
    manager.docker(&["node", "rm", "--force", name])?;
    ensure!(!nodes(manager)?.contains_key(name));
    await_running(manager, "web", 3)?;
    ensure!(
        !nodes(manager)?.contains_key(name),
        "its certificate is worth nothing"
    );
    host.docker(&["swarm", "leave"])?;
    ensure!(containers(host)?.is_empty());
    let token = manager.docker(&["swarm", "join-token", "-q", "manager"])?;
    let addr = format!("{}:2377", manager.address());
    host.docker(&["swarm", "join", "--token", token.trim(), &addr])?;
    wait_for("the node to be back", PATIENCE, || {
        nodes(manager)
            .is_ok_and(|nodes| nodes.get(name).is_some_and(|(_, seen)| seen == "Reachable"))
    })?;
    ensure!(column(manager, name, "{{.ID}}")? != old);
    host.docker(&["swarm", "leave", "--force"])?;
    wait_for("the manager that left to be out of raft", PATIENCE, || {
        nodes(manager).is_ok_and(|nodes| {
            nodes
                .get(name)
                .is_some_and(|row| row == &("Down".to_owned(), String::new()))
        })
    })?;
    manager.docker(&["node", "rm", name])?;
    Ok(())
}
