//! Containers of tasks through a manager of another node, with the real CLI: three real engines, two
//! managers and a worker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A task's container.
struct Target {
    task: String,
    slot: String,
    container: String,
    node: String,
}

#[test]
fn containers_of_other_nodes_are_within_reach() -> Result<()> {
    let fleet = Fleet::up(&Options {
        managers: 2,
        swarm: true,
        ..Options::test("reach")
    })?;
    await_ready(&fleet, 3)?;
    let (n1, n3) = (fleet.host("n1")?, fleet.host("n3")?);
    let script = "while true; do date; sleep 0.2; done";
    let image = "registry:5000/busybox";
    let create = ["service", "create", "--name", "web", "--replicas", "3"];
    n1.docker(&[&create[..], &[image, "sh", "-c", script]].concat())?;
    let all = targets(&n1)?;
    let on = |node: &str| {
        all.iter()
            .find(|it| it.node == node)
            .context("no task there")
    };
    for (from, to) in [("n1", "n3"), ("n2", "n3"), ("n2", "n1"), ("n1", "n1")] {
        let host = fleet.host(from)?;
        for name in names(on(to)?) {
            runs(&host, &name).with_context(|| format!("{name} from {from}"))?;
        }
        looks(&host, on(to)?)?;
        copies(&host, on(to)?)?;
        streams(&host, on(to)?)?;
    }
    // A worker knows only what is its own.
    let refused = refusal(&n3, &["exec", &on("n1")?.slot, "true"])?;
    ensure!(refused.contains("No such container: web."), "{refused}");
    let none = refusal(&n1, &["exec", "web.9", "true"])?;
    ensure!(none.contains("No such container: web.9"), "{none}");
    stops(&n1, on("n3")?)?;
    // A node that is gone.
    let before = targets(&n1)?;
    let gone = before
        .iter()
        .find(|it| it.node == "n3")
        .context("none on n3")?;
    n3.cut()?;
    let start = Instant::now();
    let refused = refusal(&n1, &["exec", &gone.container, "true"])?;
    ensure!(
        refused.contains("cannot reach the engine of node n3"),
        "{refused}"
    );
    ensure!(
        start.elapsed() < Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
    n3.heal()?;
    fleet.down()
}

/// The running tasks of the service.
fn targets(host: &Host) -> Result<Vec<Target>> {
    await_running(host, "web", 3)?;
    let nodes = host.docker(&["node", "ls", "--format", "{{.ID}} {{.Hostname}}"])?;
    let mut found = Vec::new();
    for task in tasks(host, "web")? {
        let text = |pointer: &str| {
            let value = task.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        if text("/Status/State") != "running" || text("/DesiredState") != "running" {
            continue;
        }
        let node = lines(&nodes).into_iter().find_map(|line| {
            let (id, name) = line.split_once(' ')?;
            (id == text("/NodeID")).then(|| name.to_owned())
        });
        found.push(Target {
            task: text("/ID"),
            slot: format!("web.{}", task.get("Slot").context("no slot")?),
            container: text("/Status/ContainerStatus/ContainerID"),
            node: node.context("no node")?,
        });
    }
    Ok(found)
}

fn names(target: &Target) -> [String; 5] {
    let short = target.container.chars().take(12).collect();
    [
        target.container.clone(),
        short,
        target.task.clone(),
        format!("{}.{}", target.slot, target.task),
        target.slot.clone(),
    ]
}

/// Input, output, the end of input and the exit code.
fn runs(host: &Host, name: &str) -> Result<()> {
    let done = host
        .docker_cmd()?
        .args(["exec", "-i", name, "sh", "-c", "cat; exit 7"])
        .stdin("hello")
        .timeout(SOON)
        .run()?;
    ensure!(
        (done.stdout.as_str(), done.status) == ("hello", 7),
        "{done:?}"
    );
    Ok(())
}

fn looks(host: &Host, target: &Target) -> Result<()> {
    let name = target.slot.as_str();
    let shown = host.docker(&["inspect", "-f", "{{.Id}} {{.State.Status}}", name])?;
    ensure!(
        shown.trim() == format!("{} running", target.container),
        "{shown}"
    );
    // As ever, of a task.
    let format = "{{.Status.State}} {{.Status.ContainerStatus.ContainerID}} {{.DesiredState}}";
    let shown = host.docker(&["inspect", "-f", format, &target.task])?;
    ensure!(
        shown.trim() == format!("running {} running", target.container),
        "{shown}"
    );
    ensure!(host.docker(&["top", name])?.contains("date"));
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", name];
    ensure!(host.docker(&stats)?.contains("iB"));
    ensure!(!host.docker(&["logs", "--tail", "1", name])?.is_empty());
    Ok(())
}

fn copies(host: &Host, target: &Target) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let much: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 5) as u8).collect();
    std::fs::write(&from, &much)?;
    let inside = format!("{}:/tmp/file", target.slot);
    host.docker(&["cp", from.to_str().context("path")?, &inside])?;
    host.docker(&["cp", &inside, to.to_str().context("path")?])?;
    ensure!(std::fs::read(&to)? == much);
    Ok(())
}

/// What goes on until the client leaves, and a terminal.
fn streams(host: &Host, target: &Target) -> Result<()> {
    let socket = format!("unix://{}", host.socket().display());
    for what in ["logs -f --tail 1", "attach --no-stdin"] {
        let script = format!(
            "timeout 3 docker -H {socket} {what} {} | head -3",
            target.slot
        );
        let said = shell(&script)?;
        ensure!(lines(&said).len() == 3, "{what}: {said:?}");
    }
    let inner = "sleep 0.5; stty size";
    let exec = format!(
        "docker -H {socket} exec -it {} sh -c '{inner}'",
        target.slot
    );
    let script = format!("script -qec \"stty rows 33 cols 91; {exec}\" /dev/null < /dev/null");
    let said = shell(&script)?;
    ensure!(said.contains("33 91"), "{said:?}");
    Ok(())
}

fn shell(script: &str) -> Result<String> {
    let done = std::process::Command::new("sh")
        .args(["-c", script])
        .output()?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn stops(host: &Host, target: &Target) -> Result<()> {
    host.docker(&["kill", &target.slot])?;
    wait_for("the task to be replaced", SOON, || {
        targets(host).is_ok_and(|all| all.iter().all(|it| it.task != target.task))
    })?;
    let all = targets(host)?;
    let other = all
        .iter()
        .find(|it| it.slot == target.slot)
        .context("no successor")?;
    host.docker(&["restart", "-t", "1", &other.task])?;
    wait_for("three tasks again", SOON, || {
        targets(host).is_ok_and(|all| all.len() == 3)
    })
}
