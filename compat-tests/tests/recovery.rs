//! A swarm that has lost its managers, with the real CLI: one goes on alone, and one comes back from
//! a backup.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::faults::{create, note, started, untouched};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Part, wait_for};

/// dockerd's deadline of 20 s and a margin for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn one_manager_goes_on_alone_and_another_comes_back_from_a_backup() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        ..Options::test("recovery")
    })?;
    await_ready(&fleet, 3)?;
    goes_on_alone(&fleet)?;
    comes_back_from_a_backup(&fleet)?;
    fleet.down()
}

fn goes_on_alone(fleet: &Fleet) -> Result<()> {
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| fleet.host(name));
    let (n1, n2, n3) = (n1?, n2?, n3?);
    create(&n1, "web", "3", &[])?;
    await_running(&n1, "web", 3)?;
    let (id, token) = (own_id(&n1)?, manager_token(&n1)?);
    let before = started(&n1)?;
    n2.kill(Part::Host)?;
    n3.kill(Part::Host)?;
    let asked = Instant::now();
    let image = ["registry:5000/busybox", "true"];
    let args = [
        &["service", "create", "--detach", "--name", "late"][..],
        &image,
    ];
    let said = refusal(&n1, &args.concat())?;
    ensure!(no_leader(&said), "{said}");
    ensure!(asked.elapsed() < DEADLINE, "{:?}", asked.elapsed());
    let refused = refusal(&n1, &["swarm", "init"])?;
    ensure!(refused.contains("already part of a swarm"), "{refused}");

    let address = n1.address();
    let asked = Instant::now();
    let force = ["swarm", "init", "--force-new-cluster", "--advertise-addr"];
    let welcome = n1.docker(&[&force[..], &[&address]].concat())?;
    note(&format!("alone after {:?}", asked.elapsed()));
    ensure!(
        welcome.contains("Swarm initialized: current node"),
        "{welcome}"
    );
    ensure!(own_id(&n1)? == id && manager_token(&n1)? == token);
    untouched(&n1, &before)?;
    await_running(&n1, "web", 3)?;
    let seen = nodes(&n1)?;
    for name in ["n2", "n3"] {
        let row = seen.get(name).context("a lost manager stays listed")?;
        ensure!(*row == ("Down".into(), String::new()), "{name}: {row:?}");
    }
    ensure!(leader(&n1)? == "n1");
    ensure!(!n1.docker(&["service", "ls", "-q"])?.is_empty());

    // They are down and no managers any more, so nothing keeps them in the list.
    n1.docker(&["node", "rm", "n2", "n3"])?;

    // One that was lost leaves what it remembers and joins as a new manager.
    n2.start(Part::Host)?;
    n2.docker(&["swarm", "leave", "--force"])?;
    let join = ["swarm", "join", "--token", &token, "10.201.0.1:2377"];
    n2.docker(&join)?;
    wait_for("two managers", PATIENCE, || {
        let managers = |host: &Host| {
            Some(
                nodes(host)
                    .ok()?
                    .values()
                    .filter(|it| !it.1.is_empty())
                    .count(),
            )
        };
        managers(&n1) == Some(2) && managers(&n2) == Some(2)
    })
}

fn comes_back_from_a_backup(fleet: &Fleet) -> Result<()> {
    let (n1, n2) = (fleet.host("n1")?, fleet.host("n2")?);
    let skepd = program(&n2)?;
    let file = n2.machine().base().join("backup.tar");
    let file = file.to_str().context("a path")?;
    let socket = format!("unix://{}", n2.socket().display());
    n1.kill(Part::Host)?;
    // Without a quorum: what this manager knows is what is saved.
    let saved = n2.exec(&[&skepd, "backup", "-H", &socket, file])?;
    ensure!(
        saved.status == 0 && saved.stdout.contains("saved"),
        "{saved:?}"
    );
    let again = n2.exec(&[&skepd, "backup", "-H", &socket, file])?;
    ensure!(
        again.status != 0 && again.stderr.contains("exists"),
        "{again:?}"
    );
    let id = own_id(&n2)?;
    n2.docker(&["swarm", "leave", "--force"])?;
    ensure!(containers(&n2)?.is_empty());
    let outside = n2.exec(&[&skepd, "backup", "-H", &socket, "/tmp/none"])?;
    ensure!(
        outside.stderr.contains("This node is not a swarm manager."),
        "{outside:?}"
    );

    let data_dir = n2.data_dir();
    let data_dir = data_dir.to_str().context("a path")?;
    let restore = [&skepd, "restore", file, "--data-dir", data_dir];
    let running = n2.exec(&restore)?;
    ensure!(
        running.status != 0 && running.stderr.contains("in use"),
        "{running:?}"
    );
    n2.stop(Part::Skepd)?;
    let restored = n2.exec(&restore)?;
    ensure!(
        restored.status == 0 && restored.stdout.contains(&id),
        "{restored:?}"
    );
    n2.start(Part::Skepd)?;
    let info = n2.docker(&[
        "info",
        "--format",
        "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}",
    ])?;
    ensure!(
        info.starts_with("error ") && info.contains("--force-new-cluster"),
        "{info}"
    );
    let address = n2.address();
    let force = ["swarm", "init", "--force-new-cluster", "--advertise-addr"];
    n2.docker(&[&force[..], &[&address]].concat())?;
    ensure!(own_id(&n2)? == id);
    await_running(&n2, "web", 3)
}

fn own_id(host: &Host) -> Result<String> {
    let id = host.docker(&["info", "--format", "{{.Swarm.NodeID}}"])?;
    Ok(id.trim().to_owned())
}

fn manager_token(host: &Host) -> Result<String> {
    let token = host.docker(&["swarm", "join-token", "-q", "manager"])?;
    Ok(token.trim().to_owned())
}

/// The program that a host's daemon runs.
fn program(host: &Host) -> Result<String> {
    let pid = host.pid(Part::Skepd).context("skepd runs")?;
    let path = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(path.to_str().context("a path")?.to_owned())
}
