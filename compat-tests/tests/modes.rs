//! Global services and jobs with the real CLI, on one swarm across three real engines.

use anyhow::{Context as _, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, wait_for};

const V1: &str = "registry:5000/web:v1";
const V2: &str = "registry:5000/web:v2";
const BUSYBOX: &str = "registry:5000/busybox";

#[test]
fn every_mode_does_what_it_says() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        ..Options::test("modes")
    })?;
    await_ready(&fleet, 3)?;
    let n1 = fleet.host("n1")?;
    global(&n1)?;
    replicated_job(&n1)?;
    global_job(&n1)?;
    fleet.down()
}

/// Hosts and images of a global service's running tasks.
fn everywhere(host: &Host, service: &str) -> Result<Vec<(String, String)>> {
    let tasks = running_tasks(host, service)?.into_iter();
    let mut found: Vec<_> = tasks.map(|(_, node, image)| (node, image)).collect();
    found.sort();
    Ok(found)
}

/// Waits until a global service runs on exactly these hosts with this image.
fn await_on(host: &Host, service: &str, nodes: &[&str], image: &str) -> Result<()> {
    let wanted: Vec<(String, String)> = nodes
        .iter()
        .map(|node| ((*node).to_owned(), image.to_owned()))
        .collect();
    let what = format!("{service} on {nodes:?}");
    wait_for(&what, PATIENCE, || {
        everywhere(host, service).is_ok_and(|found| found == wanted)
    })
    .with_context(|| {
        host.docker(&["service", "ps", service, "--no-trunc"])
            .unwrap_or_default()
    })
}

/// The columns MODE and REPLICAS.
fn columns(host: &Host, service: &str) -> Result<String> {
    let filter = format!("name={service}");
    let format = "{{.Mode}}: {{.Replicas}}";
    let text = host.docker(&["service", "ls", "--filter", &filter, "--format", format])?;
    Ok(text.trim().to_owned())
}

fn await_columns(host: &Host, service: &str, wanted: &str) -> Result<()> {
    wait_for(wanted, PATIENCE, || {
        columns(host, service).is_ok_and(|shown| shown == wanted)
    })
}

fn global(n1: &Host) -> Result<()> {
    let all = ["n1", "n2", "n3"];
    let created = n1.docker(&[
        "service",
        "create",
        "--name",
        "web",
        "--mode",
        "global",
        "--update-delay",
        "0s",
        "--update-monitor",
        "1s",
        "--rollback-monitor",
        "1s",
        "--stop-grace-period",
        "1s",
        V1,
    ])?;
    ensure!(created.contains("converged"), "{created}");
    await_on(n1, "web", &all, V1)?;
    await_columns(n1, "web", "global: 3/3")?;
    for task in tasks(n1, "web")? {
        ensure!(task.get("Slot").is_none(), "{task}");
    }
    for name in containers_of(n1, "web")? {
        let node = inspect(n1, "node", "n1")?;
        let id = node.get("ID").and_then(|id| id.as_str()).context("an id")?;
        ensure!(name.starts_with(&format!("web.{id}.")), "{name}");
    }
    let refused = refusal(n1, &["service", "scale", "web=2"])?;
    ensure!(
        refused.contains("scale can only be used with replicated"),
        "{refused}"
    );

    n1.docker(&["node", "update", "--availability", "drain", "n2"])?;
    await_on(n1, "web", &["n1", "n3"], V1)?;
    // What is being stopped counts until it has stopped.
    await_columns(n1, "web", "global: 2/2")?;
    n1.docker(&["node", "update", "--availability", "active", "n2"])?;
    await_on(n1, "web", &all, V1)?;

    // A paused node keeps its task, and is left out of an update until it is active again.
    n1.docker(&["node", "update", "--availability", "pause", "n3"])?;
    n1.docker(&["service", "update", "--detach", "--image", V2, "web"])?;
    wait_for("the update without n3", PATIENCE, || {
        let old = ("n3".to_owned(), V1.to_owned());
        let state = update_state(n1, "web").unwrap_or_default();
        everywhere(n1, "web").is_ok_and(|found| {
            found.len() == 3 && found.iter().filter(|(_, image)| image == V1).eq([&old])
        }) && state == "completed"
    })?;
    n1.docker(&["node", "update", "--availability", "active", "n3"])?;
    await_on(n1, "web", &all, V2)?;

    let rolled = n1.docker(&["service", "update", "--rollback", "web"])?;
    ensure!(
        rolled.contains("converged") || rolled.contains("rollback"),
        "{rolled}"
    );
    await_on(n1, "web", &all, V1)?;
    ensure!(update_state(n1, "web")? == "rollback_completed");

    // A constraint that no node satisfies until one gets the label.
    n1.docker(&[
        "service",
        "update",
        "--detach",
        "--constraint-add",
        "node.labels.disk==ssd",
        "web",
    ])?;
    await_on(n1, "web", &[], V1)?;
    n1.docker(&["node", "update", "--label-add", "disk=ssd", "n2"])?;
    await_on(n1, "web", &["n2"], V1)?;
    n1.docker(&["service", "rm", "web"])?;
    Ok(())
}

fn update_state(host: &Host, service: &str) -> Result<String> {
    let service = inspect(host, "service", service)?;
    let state = service.pointer("/UpdateStatus/State");
    Ok(state
        .and_then(|state| state.as_str())
        .unwrap_or_default()
        .to_owned())
}

/// The tasks of the present run that have completed.
fn completed(host: &Host, service: &str) -> Result<usize> {
    let run = inspect(host, "service", service)?;
    let run = run.pointer("/JobStatus/JobIteration").cloned();
    let all = tasks(host, service)?;
    let of_run = all
        .iter()
        .filter(|task| task.get("JobIteration") == run.as_ref());
    let ended = of_run.filter(|task| {
        task.pointer("/Status/State")
            .and_then(|state| state.as_str())
            == Some("complete")
    });
    Ok(ended.count())
}

fn replicated_job(n1: &Host) -> Result<()> {
    n1.docker(&[
        "service",
        "create",
        "--name",
        "job",
        "--mode",
        "replicated-job",
        "--replicas",
        "4",
        "--max-concurrent",
        "2",
        BUSYBOX,
        "sleep",
        "0.2",
    ])?;
    ensure!(completed(n1, "job")? == 4);
    let shown = columns(n1, "job")?;
    ensure!(shown == "replicated job: 0/2 (4/4 completed)", "{shown}");
    let refused = refusal(
        n1,
        &["service", "update", "--update-parallelism", "2", "job"],
    )?;
    ensure!(
        refused.contains("Jobs may not have an update config"),
        "{refused}"
    );
    n1.docker(&["service", "update", "--force", "job"])?;
    wait_for("the second run", PATIENCE, || {
        completed(n1, "job").is_ok_and(|count| count == 4)
    })?;
    let job = inspect(n1, "service", "job")?;
    ensure!(
        job.pointer("/JobStatus/JobIteration/Index") == Some(&1.into()),
        "{job}"
    );
    n1.docker(&["service", "rm", "job"])?;
    Ok(())
}

fn global_job(n1: &Host) -> Result<()> {
    n1.docker(&["node", "update", "--availability", "drain", "n3"])?;
    n1.docker(&[
        "service",
        "create",
        "--name",
        "sweep",
        "--mode",
        "global-job",
        BUSYBOX,
        "true",
    ])?;
    ensure!(completed(n1, "sweep")? == 2);
    let shown = columns(n1, "sweep")?;
    ensure!(
        shown.starts_with("global job: ") && shown.contains("2/2 completed"),
        "{shown}"
    );
    n1.docker(&["node", "update", "--availability", "active", "n3"])?;
    wait_for("the third completion", PATIENCE, || {
        completed(n1, "sweep").is_ok_and(|count| count == 3)
    })?;
    n1.docker(&["service", "update", "--force", "sweep"])?;
    wait_for("the second run", PATIENCE, || {
        completed(n1, "sweep").is_ok_and(|count| count == 3)
    })?;
    n1.docker(&["service", "rm", "sweep"])?;
    Ok(())
}
