//! What the swarm tests ask a socket with the real CLI: nodes, tasks, containers. Only reads and
//! waits; never sleeps for a fixed time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use fleet::{Fleet, Host, wait_for};
use serde_json::Value;

use crate::http::Http;

/// How long the cluster may take to become what it was asked to be, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of a CLI's output.
pub fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `docker node ls` as host name → (state, manager status). Of nodes with one name, the last.
pub fn nodes(host: &Host) -> Result<BTreeMap<String, (String, String)>> {
    let listed = listed(host)?.into_iter();
    Ok(listed
        .map(|[name, state, manager]| (name, (state, manager)))
        .collect())
}

/// `docker node ls` as host name, state and manager status.
fn listed(host: &Host) -> Result<Vec<[String; 3]>> {
    let format = "{{.Hostname}}|{{.Status}}|{{.ManagerStatus}}";
    let text = host.docker(&["node", "ls", "--format", format])?;
    lines(&text)
        .iter()
        .map(|line| {
            let parts: Vec<String> = line.split('|').map(str::to_owned).collect();
            parts
                .try_into()
                .map_err(|parts| anyhow!("node ls: {parts:?}"))
        })
        .collect()
}

/// The host name of the leader, as a host sees it.
pub fn leader(host: &Host) -> Result<String> {
    let nodes = nodes(host)?;
    let leader = nodes.iter().find(|(_, (_, manager))| manager == "Leader");
    leader
        .map(|(name, _)| name.clone())
        .with_context(|| format!("no leader in {nodes:?}"))
}

/// Names of a host's running containers, as its own engine shows them.
pub fn containers(host: &Host) -> Result<Vec<String>> {
    let text = fleet::docker_ok(&host.engine_socket(), &["ps", "--format", "{{.Names}}"])?;
    Ok(lines(&text))
}

/// Names of all containers of a service on a host, stopped ones included.
pub fn containers_of(host: &Host, service: &str) -> Result<Vec<String>> {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let args = ["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"];
    Ok(lines(&fleet::docker_ok(&host.engine_socket(), &args)?))
}

/// The tasks of a service that run and are meant to, as the CLI shows them: (name, host name,
/// image).
pub fn running_tasks(host: &Host, service: &str) -> Result<Vec<(String, String, String)>> {
    let format = "{{.Name}}|{{.Node}}|{{.Image}}|{{.CurrentState}}";
    let filter = "desired-state=running";
    let text = host.docker(&[
        "service", "ps", service, "--filter", filter, "--format", format,
    ])?;
    let mut found = Vec::new();
    for line in lines(&text) {
        let parts: Vec<&str> = line.split('|').collect();
        let [name, node, image, state] = parts.as_slice() else {
            bail!("service ps: {line:?}")
        };
        if state.starts_with("Running") {
            found.push(((*name).to_owned(), (*node).to_owned(), (*image).to_owned()));
        }
    }
    Ok(found)
}

/// The tasks of a replicated service that run and are meant to: (slot, host name, image).
pub fn running(host: &Host, service: &str) -> Result<Vec<(u64, String, String)>> {
    let mut found = Vec::new();
    for (name, node, image) in running_tasks(host, service)? {
        let slot = name
            .rsplit('.')
            .next()
            .context("a task's name has a slot")?;
        found.push((slot.parse()?, node, image));
    }
    found.sort();
    Ok(found)
}

/// Waits until a service has exactly so many running tasks, in slots 1 to `count`.
pub fn await_running(host: &Host, service: &str, count: u64) -> Result<()> {
    let what = format!("{count} running tasks of {service}");
    let slots: Vec<u64> = (1..=count).collect();
    wait_for(&what, PATIENCE, || {
        running(host, service)
            .is_ok_and(|tasks| tasks.iter().map(|(slot, _, _)| *slot).collect::<Vec<_>>() == slots)
    })
    .with_context(|| {
        host.docker(&["service", "ps", service, "--no-trunc"])
            .unwrap_or_default()
    })
}

/// Waits until every host of the fleet sees so many ready nodes and one leader. Several nodes may
/// have one name: one that left and joined again, or two that share a host.
pub fn await_ready(fleet: &Fleet, count: usize) -> Result<()> {
    for host in fleet.hosts()? {
        if host.is_off() || !is_manager(&host) {
            continue;
        }
        wait_for(
            &format!("{count} ready nodes seen from {}", host.name()),
            PATIENCE,
            || {
                let nodes = listed(&host).unwrap_or_default();
                let ready = nodes.iter().filter(|[_, status, _]| status == "Ready");
                let leaders = nodes.iter().filter(|[.., manager]| manager == "Leader");
                ready.count() == count && leaders.count() == 1
            },
        )?;
    }
    Ok(())
}

/// Whether the host is a manager.
fn is_manager(host: &Host) -> bool {
    let format = "{{.Swarm.ControlAvailable}}";
    host.docker(&["info", "--format", format])
        .is_ok_and(|text| text.trim() == "true")
}

/// `docker inspect` of anything, as JSON.
pub fn inspect(host: &Host, kind: &str, name: &str) -> Result<Value> {
    let text = host.docker(&[kind, "inspect", name])?;
    let mut list: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(list.len() == 1, "{kind} {name}: {} objects", list.len());
    list.pop().context("one object")
}

/// A CLI command that must fail: what it wrote to standard error.
pub fn refusal(host: &Host, args: &[&str]) -> Result<String> {
    let output = host.docker_cmd()?.args(args).timeout(PATIENCE).run()?;
    ensure!(
        output.status != 0,
        "docker {args:?} succeeded: {}",
        output.stdout
    );
    Ok(output.stderr)
}

/// Whether an error says that there is no leader, in one of the two ways of the original: a
/// manager that knows, and one whose deadline passed while it waited.
pub fn no_leader(said: &str) -> bool {
    said.contains(NO_LEADER) || said.contains("context deadline exceeded")
}

/// What a manager without a leader answers (swarmkit's text).
pub const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few \
    managers are online. Make sure more than half of the managers are online.";

/// All tasks of a service that the managers remember, as the API shows them.
pub fn tasks(host: &Host, service: &str) -> Result<Vec<Value>> {
    let filter = format!("%7B%22service%22%3A%5B%22{service}%22%5D%7D");
    let answer = Http::new(&host.socket(), PATIENCE).get(&format!("/tasks?filters={filter}"))?;
    ensure!(answer.success(), "{}", answer.message());
    match answer.json() {
        Value::Array(tasks) => Ok(tasks),
        other => bail!("tasks: {other}"),
    }
}

/// A node as the API shows it, named by its host.
pub fn node(seen_from: &Host, name: &str) -> Result<Value> {
    let answer = Http::new(&seen_from.socket(), PATIENCE).get(&format!("/nodes/{name}"))?;
    ensure!(answer.success(), "{}", answer.message());
    Ok(answer.json())
}
