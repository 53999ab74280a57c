//! What the original has no field for and skep does by label, with the real CLI: start order, tasks
//! that move to a node that joins, restarts that back off, secrets and configs that change in place.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use compat_tests::http::Http;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, wait_for};
use serde_json::json;

const SLEEP: [&str; 3] = ["registry:5000/busybox", "sleep", "1000000"];

#[test]
fn labels_ask_for_more_than_the_api_can_say() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        ..Options::test("beyond")
    })?;
    await_ready(&fleet, 3)?;
    let n1 = fleet.host("n1")?;
    nonsense_is_refused(&n1)?;
    a_service_waits_for_another(&n1)?;
    tasks_move_to_a_node_that_is_active_again(&n1)?;
    secrets_change_in_place(&n1)?;
    a_crash_loop_backs_off(&n1)
}

/// Creates a service in the background: some of them are not to converge yet.
fn create(host: &Host, name: &str, options: &[&str], command: &[&str]) -> Result<String> {
    let head = ["service", "create", "--quiet", "--detach", "--name", name];
    host.docker(&[&head, options, command].concat())
}

fn nonsense_is_refused(host: &Host) -> Result<()> {
    let said = refusal(
        host,
        &[
            "service",
            "create",
            "--label",
            "skep.depends-on=db:happy",
            "registry:5000/busybox",
        ],
    )?;
    let expected = "label skep.depends-on: \"happy\" is none of healthy, started and completed";
    ensure!(said.contains(expected), "{said}");
    Ok(())
}

fn states(host: &Host, service: &str) -> Result<Vec<String>> {
    let format = "{{.DesiredState}} {{.CurrentState}}";
    let text = host.docker(&["service", "ps", service, "--format", format])?;
    // Without the time at the end: `Ready Ready 3 seconds ago`.
    let words = |line: &String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(lines(&text).iter().map(words).collect())
}

fn is(states: Result<Vec<String>>, expected: &[&str]) -> bool {
    states.is_ok_and(|states| states == expected)
}

fn a_service_waits_for_another(host: &Host) -> Result<()> {
    create(
        host,
        "app",
        &["--replicas", "2", "--label", "skep.depends-on=base:healthy"],
        &SLEEP,
    )?;
    wait_for("two tasks that are prepared", PATIENCE, || {
        is(states(host, "app"), &["Ready Ready", "Ready Ready"])
    })?;
    create(
        host,
        "base",
        &[
            "--health-cmd",
            "test -e /ready",
            "--health-interval",
            "200ms",
            "--health-start-period",
            "30s",
        ],
        &[
            "registry:5000/busybox",
            "sh",
            "-c",
            "sleep 3; touch /ready; sleep 1000000",
        ],
    )?;
    wait_for("the base to start", PATIENCE, || {
        is(states(host, "base"), &["Running Starting"])
    })?;
    ensure!(
        states(host, "app")? == ["Ready Ready", "Ready Ready"],
        "it is not healthy yet"
    );
    await_running(host, "app", 2)?;
    ensure!(states(host, "base")? == ["Running Running"]);
    host.docker(&["service", "rm", "app", "base"]).map(drop)
}

fn spread(host: &Host, service: &str) -> Result<Vec<usize>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, node, _) in running(host, service)? {
        *counts.entry(node).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    Ok(counts)
}

fn tasks_move_to_a_node_that_is_active_again(host: &Host) -> Result<()> {
    host.docker(&["node", "update", "--availability", "drain", "n3"])?;
    let options = [
        "--replicas",
        "4",
        "--label",
        "skep.rebalance=true",
        "--update-monitor",
        "1s",
        "--stop-grace-period",
        "0s",
    ];
    create(host, "even", &options, &SLEEP)?;
    await_running(host, "even", 4)?;
    ensure!(spread(host, "even")? == [2, 2]);
    host.docker(&["node", "update", "--availability", "active", "n3"])?;
    wait_for("tasks on all nodes", PATIENCE, || {
        spread(host, "even").is_ok_and(|counts| counts == [1, 1, 2])
    })?;
    wait_for("the end of the move", PATIENCE, || {
        let format = "{{.UpdateStatus.State}}";
        let state = host.docker(&["service", "inspect", "--format", format, "even"]);
        state.is_ok_and(|state| state.trim() == "completed")
    })?;
    host.docker(&["service", "rm", "even"]).map(drop)
}

/// When tasks of the service failed, oldest first, in seconds since the hour began.
fn failed_at(host: &Host, service: &str) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for task in tasks(host, service)? {
        let text = task["Status"]["Timestamp"].as_str().unwrap_or_default();
        let failed = task["Status"]["State"] == "failed";
        let seconds = text.get(14..19).and_then(|minute| {
            let (minutes, seconds) = minute.split_once(':')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        });
        times.extend(seconds.filter(|_| failed));
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// After 2, 4 and 8 seconds: between the first four failures there are more than 12 s, where a fixed
/// delay would take 6. More than these the history does not keep.
fn a_crash_loop_backs_off(host: &Host) -> Result<()> {
    let options = [
        "--restart-delay",
        "2s",
        "--label",
        "skep.restart.max-delay=8s",
    ];
    create(host, "crash", &options, &["registry:5000/busybox", "false"])?;
    wait_for("four failures", PATIENCE, || {
        failed_at(host, "crash").is_ok_and(|times| times.len() >= 4)
    })?;
    let times = failed_at(host, "crash")?;
    let span = times.last().unwrap_or(&0.0) - times.first().unwrap_or(&0.0);
    // Across the turn of an hour the minutes begin anew.
    ensure!(span.rem_euclid(3600.0) >= 12.0, "{times:?}");
    host.docker(&["service", "rm", "crash"]).map(drop)
}

/// What the two tasks of the stack have in their secret and their config, by slot; nothing if one of
/// them does not run.
fn contents(host: &Host) -> Result<[String; 2]> {
    let read = |slot: u64| {
        let name = format!("roll_web.{slot}");
        let files = ["cat", "/run/secrets/pw", "/conf"];
        host.docker(&[&["exec", &name], &files[..]].concat())
    };
    Ok([read(1)?, read(2)?])
}

fn await_contents(host: &Host, what: &str, expected: [&str; 2]) -> Result<()> {
    wait_for(what, PATIENCE, || {
        contents(host).is_ok_and(|now| now == expected)
    })
    .with_context(|| format!("{:?}", contents(host)))
}

fn secrets_change_in_place(host: &Host) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stack = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/stacks/roll.yml");
    let deploy = |conf: &str| {
        std::fs::write(dir.path().join("pw"), "old ")?;
        std::fs::write(dir.path().join("conf"), conf)?;
        let command = host.docker_cmd()?.args(["stack", "deploy", "-c"]);
        let command = command.arg(&stack).arg("roll");
        command.env("DIR", dir.path()).ok()
    };
    deploy("old")?;
    await_contents(host, "two tasks", ["old old"; 2])?;
    let spec = inspect(host, "service", "roll_web")?["Spec"].clone();

    // A client with secrets to update: the CLI has no command for it.
    let secret = inspect(host, "secret", "roll_pw")?;
    let version = &secret["Version"]["Index"];
    let mut new = secret["Spec"].clone();
    new["Data"] = json!("bmV3IA==");
    let update = format!("/secrets/roll_pw/update?version={version}");
    let answer = Http::new(&host.socket(), PATIENCE).post(&update, &new)?;
    ensure!(answer.success(), "{}", answer.message());
    // One after the other, and the one whose turn has not come keeps what it has.
    await_contents(host, "the first to be replaced", ["new old", "old old"])?;
    await_contents(host, "both to be replaced", ["new old"; 2])?;
    wait_for("the end of the roll", PATIENCE, || {
        let service = inspect(host, "service", "roll_web");
        service.is_ok_and(|service| {
            service["UpdateStatus"]["State"] == "completed" && service["Spec"] == spec
        })
    })?;

    // A second deploy with other files fails with the original, where they have no such label.
    deploy("newer")?;
    await_contents(host, "what was deployed", ["old newer"; 2])?;
    host.docker(&["stack", "rm", "roll"]).map(drop)
}
