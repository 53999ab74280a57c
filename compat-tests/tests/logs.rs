//! Logs of services and tasks with the real CLI: three real engines, of which a worker is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::http::Http;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const IMAGE: &str = "registry:5000/busybox";
/// Twenty lines to standard output and one to standard error.
const QUIET: &str = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; done; echo oops >&2; \
    trap 'exit 0' TERM; sleep 1000000 & wait";
/// Numbers without end.
const CHATTY: &str = "trap 'exit 0' TERM; i=0; while true; do i=$((i+1)); echo number $i; \
    sleep 0.1; done";
const LOST: &str = "warning: incomplete log stream. some logs could not be retrieved for the \
    following reasons: ";

#[test]
fn logs_come_from_all_nodes_to_any_manager() -> Result<()> {
    let fleet = Fleet::up(&Options {
        managers: 2,
        swarm: true,
        ..Options::test("logs")
    })?;
    await_ready(&fleet, 3)?;
    let (n1, n2, n3) = (fleet.host("n1")?, fleet.host("n2")?, fleet.host("n3")?);
    create(&n1, "quiet", &["--replicas", "3"], QUIET)?;
    create(&n1, "term", &["--tty"], QUIET)?;
    create(&n1, "chat", &["--constraint", "node.hostname==n1"], CHATTY)?;
    await_running(&n1, "quiet", 3)?;
    await_running(&n1, "term", 1)?;
    for manager in [&n1, &n2] {
        whole_logs(manager)?;
        parts_of_logs(manager)?;
        one_task(manager)?;
        terminals(manager)?;
    }
    nothing_to_show(&n2)?;
    follow(&n2, &n3)?;
    fleet.down()
}

fn create(host: &Host, name: &str, flags: &[&str], script: &str) -> Result<()> {
    let create = ["service", "create", "--detach", "--no-resolve-image"];
    let what = ["--name", name, "--stop-grace-period", "2s"];
    let run = [IMAGE, "sh", "-c", script];
    host.docker(&[&create[..], &what, flags, &run].concat())?;
    Ok(())
}

/// What the CLI writes to its two outputs.
fn said(host: &Host, flags: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
    let args = [&["service", "logs"], flags].concat();
    let done = host.docker_cmd()?.args(&args).timeout(SOON).run()?;
    ensure!(done.status == 0, "{args:?}: {done:?}");
    Ok((lines(&done.stdout), lines(&done.stderr)))
}

/// `web.1.abcdef@n1    | text` as (task, text).
fn told_apart(lines: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let (from, text) = line.split_once('|').with_context(|| line.clone())?;
        let task = found.entry(from.trim().to_owned()).or_default();
        task.push(text.trim().to_owned());
    }
    Ok(found)
}

fn whole_logs(host: &Host) -> Result<()> {
    let expected: Vec<String> = (1..=20).map(|number| format!("line {number}")).collect();
    wait_for("all of three logs", SOON, || {
        said(host, &["quiet"]).is_ok_and(|(out, err)| out.len() + err.len() == 63)
    })?;
    let (out, err) = said(host, &["quiet"])?;
    let (out, err) = (told_apart(&out)?, told_apart(&err)?);
    let names = out.keys().cloned().collect::<Vec<_>>().join(" ");
    for number in ["1", "2", "3"] {
        ensure!(names.contains(&format!("quiet.{number}.")), "{names}");
        ensure!(names.contains(&format!("@n{number}")), "{names}");
    }
    ensure!(out.values().all(|lines| *lines == expected), "{out:?}");
    ensure!(err.values().all(|lines| *lines == ["oops"]), "{err:?}");
    ensure!(err.len() == 3, "{err:?}");
    Ok(())
}

fn parts_of_logs(host: &Host) -> Result<()> {
    let (out, err) = said(host, &["--tail", "3", "quiet"])?;
    // Which of its two outputs an engine reads first is its own affair.
    ensure!(out.len() + err.len() == 9, "{out:?} {err:?}");
    let (out, _) = said(host, &["--raw", "--tail", "2", "quiet"])?;
    ensure!(
        out.iter().filter(|line| *line == "line 20").count() == 3,
        "{out:?}"
    );
    let (out, _) = said(host, &["--timestamps", "quiet"])?;
    let times = out.iter().filter_map(|line| line.split(' ').next());
    let times: BTreeSet<&str> = times.collect();
    ensure!(
        times.iter().all(|it| it.len() == 30 && it.ends_with('Z')),
        "{out:?}"
    );
    let last = times.last().context("no times")?;
    let (since, _) = said(host, &["--raw", "--since", last, "quiet"])?;
    ensure!(
        since.len() < 60 && since.contains(&"line 20".to_owned()),
        "{since:?}"
    );
    let (none, err) = said(host, &["--since", "2100-01-01T00:00:00Z", "quiet"])?;
    ensure!(none.is_empty() && err.is_empty(), "{none:?} {err:?}");
    let answer = get(
        host,
        "/services/quiet/logs?stderr=1&details=1&tail=21&since=0",
    )?;
    let service = inspect(host, "service", "quiet")?;
    let id = service
        .pointer("/ID")
        .and_then(Value::as_str)
        .context("id")?;
    let details = format!("com.docker.swarm.service.id={id},com.docker.swarm.task.id=");
    ensure!(answer.contains(&details), "{answer}");
    Ok(())
}

fn one_task(host: &Host) -> Result<()> {
    let task = tasks(host, "quiet")?.pop().context("a task")?;
    let id = task.pointer("/ID").and_then(Value::as_str).context("id")?;
    let slot = task
        .pointer("/Slot")
        .and_then(Value::as_u64)
        .context("slot")?;
    let (out, err) = said(host, &[id])?;
    ensure!((out.len(), err.len()) == (20, 1), "{out:?} {err:?}");
    ensure!(
        out.iter()
            .all(|line| line.starts_with(&format!("quiet.{slot}."))),
        "{out:?}"
    );
    let prefix: String = id.chars().take(12).collect();
    for name in [prefix, format!("quiet.{slot}.{id}")] {
        let answer = get(host, &format!("/tasks/{name}/logs?stderr=1"))?;
        ensure!(
            answer.contains("oops\n") && !answer.contains("line"),
            "{answer}"
        );
    }
    let refused = refusal(host, &["service", "logs", "nobody"])?;
    ensure!(
        refused.contains("no such task or service: nobody"),
        "{refused}"
    );
    Ok(())
}

fn get(host: &Host, path: &str) -> Result<String> {
    let answer = Http::new(&host.socket(), SOON).get(path)?;
    ensure!(answer.success(), "{}", answer.message());
    Ok(answer.body)
}

fn terminals(host: &Host) -> Result<()> {
    let refused = refusal(host, &["service", "logs", "term"])?;
    ensure!(refused.contains("only supported with --raw"), "{refused}");
    let answer = get(host, "/services/term/logs?stdout=1&tail=2")?;
    ensure!(answer == "line 20\r\noops\r\n", "{answer:?}");
    let (out, _) = said(host, &["--raw", "term"])?;
    ensure!(out.len() == 21, "{out:?}");
    Ok(())
}

fn nothing_to_show(host: &Host) -> Result<()> {
    create(
        host,
        "pending",
        &["--constraint", "node.hostname==nowhere"],
        QUIET,
    )?;
    create(host, "mute", &["--log-driver", "none"], QUIET)?;
    await_running(host, "mute", 1)?;
    for service in ["pending", "mute"] {
        let (out, err) = said(host, &[service])?;
        ensure!(
            out.is_empty() && err.is_empty(),
            "{service}: {out:?} {err:?}"
        );
    }
    let task = tasks(host, "pending")?.pop().context("a task")?;
    let id = task.pointer("/ID").and_then(Value::as_str).context("id")?;
    let refused = refusal(host, &["service", "logs", id])?;
    let text = format!("Error grabbing logs: rpc error: code = Unknown desc = {LOST}task {id} has");
    ensure!(refused.contains(&text), "{refused}");
    host.docker(&["service", "rm", "pending", "mute"])?;
    Ok(())
}

/// A CLI that follows; ends with this.
struct Follower {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Follower {
    fn start(host: &Host, dir: &tempfile::TempDir, args: &[&str]) -> Result<Self> {
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        let child = Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", host.socket().display()))
            .args([&["service", "logs", "--follow"], args].concat())
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()?;
        Ok(Self { child, out, err })
    }

    /// The numbers so far, by task.
    fn numbers(&self) -> Result<BTreeMap<String, Vec<u64>>> {
        let text = std::fs::read_to_string(&self.out)?;
        // The last line may not be there in full.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut found = BTreeMap::new();
        for (from, texts) in told_apart(&lines(whole))? {
            let numbers = texts
                .iter()
                .map(|text| Ok(text.replace("number ", "").parse()?));
            found.insert(from, numbers.collect::<Result<Vec<u64>>>()?);
        }
        Ok(found)
    }

    /// The last number of the task on a host; 0 while there is none.
    fn last(&self, host: &str) -> u64 {
        let numbers = self.numbers().unwrap_or_default();
        let mut of_host = numbers.iter().filter(|(from, _)| from.ends_with(host));
        let last = of_host
            .next()
            .and_then(|(_, numbers)| numbers.last().copied());
        last.unwrap_or_default()
    }

    fn await_more(&self, host: &str) -> Result<()> {
        let last = self.last(host);
        wait_for(&format!("more of {host}"), SOON, || {
            self.last(host) > last + 3
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It fails where the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// New tasks are followed; a node that goes away for a while delays its own lines and no others'.
fn follow(manager: &Host, worker: &Host) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut follower = Follower::start(manager, &dir, &["--tail", "1", "chat"])?;
    follower.await_more("@n1")?;
    manager.docker(&[
        "service",
        "update",
        "-d",
        "--constraint-rm",
        "node.hostname==n1",
        "chat",
    ])?;
    manager.docker(&["service", "scale", "-d", "chat=3"])?;
    await_running(manager, "chat", 3)?;
    follower.await_more(&format!("@{}", worker.name()))?;
    follower.await_more("@n2")?;

    worker.cut()?;
    wait_for("a warning", SOON, || {
        let said = std::fs::read_to_string(&follower.err);
        said.is_ok_and(|said| said.contains(LOST))
    })?;
    let start = Instant::now();
    let (out, err) = said(manager, &["--tail", "1", "chat"])?;
    ensure!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
    ensure!(out.len() >= 2, "the others' logs: {out:?}");
    ensure!(err.iter().any(|line| line.contains("| warning")), "{err:?}");
    follower.await_more("@n2")?;
    worker.heal()?;
    follower.await_more(&format!("@{}", worker.name()))?;
    // Nothing was lost, and nothing came twice.
    for (from, numbers) in follower.numbers()? {
        let gap = numbers
            .windows(2)
            .find(|pair| pair.first().map(|n| n + 1) != pair.last().copied());
        ensure!(gap.is_none(), "{from}: {gap:?}");
    }
    manager.docker(&["service", "rm", "chat"])?;
    let mut status = None;
    wait_for("the end of the logs", SOON, || {
        status = follower.child.try_wait().ok().flatten();
        status.is_some()
    })?;
    let said = std::fs::read_to_string(&follower.err)?;
    ensure!(
        status.is_some_and(|status| status.success()),
        "{status:?}: {said}"
    );
    Ok(())
}
