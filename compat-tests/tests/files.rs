//! Secrets and configs of services, with the real CLI: they are files in the containers that use
//! them, in memory alone, and gone with the task.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Part, wait_for};

/// A node's daemon that is back sooner than this has its session before the node counts as down,
/// three seconds after a connection broke.
const MAY_BE_AWAY: Duration = Duration::from_millis(1500);

const LOOK: &str = "ls -ln /etc/pw /run/secrets/pw /app.conf | awk '{print $1,$3,$4}'; \
    cat /etc/pw /run/secrets/pw /app.conf; touch /etc/pw 2>/dev/null || echo ' fixed'";

#[test]
fn secrets_and_configs_are_files_in_memory() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        ..Options::test("files")
    })?;
    await_ready(&fleet, 3)?;
    let n1 = fleet.host("n1")?;
    create_from(&n1, "hush-hush", &["secret", "create", "pw", "-"])?;
    let template = "slot {{.Task.Slot}} {{secret \"pw\"}}";
    let golang = [
        "config",
        "create",
        "--template-driver",
        "golang",
        "conf",
        "-",
    ];
    create_from(&n1, template, &golang)?;
    let create = [
        "service",
        "create",
        "--quiet",
        "--name",
        "use",
        "--constraint",
        "node.hostname==n2",
        "--stop-grace-period",
        "0s",
        "--secret",
        "source=pw,target=/etc/pw,uid=12,gid=13,mode=0440",
        "--secret",
        "pw",
        "--config",
        "source=conf,target=/app.conf",
        "registry:5000/busybox",
        "sleep",
        "1000000",
    ];
    n1.docker(&create)?;
    let n2 = fleet.host("n2")?;
    let seen = look(&n2)?;
    let expected = "-r--r--r-- 0 0\n-r--r----- 12 13\n-r--r--r-- 0 0\n\
        hush-hushhush-hushslot 1 hush-hush fixed";
    ensure!(seen.trim() == expected, "{seen}");

    let said = refusal(&n1, &["secret", "rm", "pw"])?;
    let in_use = "secret 'pw' is in use by the following service: use";
    ensure!(said.contains(in_use), "{said}");
    for host in fleet.hosts()? {
        let shown = on_disk(&host)?;
        ensure!(shown.is_empty(), "{}: {shown}", host.name());
        let tmpfs = task_mounts(&host)?;
        ensure!(
            tmpfs == usize::from(host.name() == "n2"),
            "{}: {tmpfs}",
            host.name()
        );
    }

    comes_back(&fleet, &n1, &n2)?;

    n1.docker(&["service", "rm", "use"])?;
    wait_for("the files to be gone", PATIENCE, || {
        task_mounts(&n2).is_ok_and(|left| left == 0)
    })?;
    n1.docker(&["secret", "rm", "pw"])?;
    n1.docker(&["config", "rm", "conf"]).map(drop)
}

/// The daemon comes back to the same container with the same files. One that a busy machine kept
/// away for longer than a node may be finds another task, and is killed once more.
fn comes_back(fleet: &Fleet, n1: &Host, n2: &Host) -> Result<()> {
    for last in [false, false, true] {
        let before = containers(n2)?;
        let killed = Instant::now();
        n2.kill(Part::Skepd)?;
        n2.start(Part::Skepd)?;
        await_ready(fleet, 3)?;
        let quick = killed.elapsed() < MAY_BE_AWAY;
        wait_for("the files", PATIENCE, || {
            look(n2).is_ok_and(|seen| seen.contains("hush-hush"))
        })?;
        let after = containers(n2)?;
        if after == before {
            return Ok(());
        }
        let tasks = n1.docker(&["service", "ps", "--no-trunc", "use"])?;
        ensure!(!quick && !last, "{after:?}: {tasks}");
    }
    Ok(())
}

/// A CLI command with its standard input.
fn create_from(host: &Host, input: &str, args: &[&str]) -> Result<()> {
    host.docker_cmd()?.args(args).stdin(input).ok().map(drop)
}

fn look(host: &Host) -> Result<String> {
    let names = containers_of(host, "use")?;
    let name = names.first().map_or("none", String::as_str);
    fleet::docker_ok(&host.engine_socket(), &["exec", name, "sh", "-c", LOOK])
}

/// Files of the daemon or the engine that hold the secret, where they can be read on disk.
fn on_disk(host: &Host) -> Result<String> {
    let data = host.data_dir();
    let find = format!(
        "grep -rlsF --exclude-dir=files hush-hush {}",
        data.display()
    );
    Ok(host.exec(&["sh", "-c", &find])?.stdout)
}

/// How many tasks have files in memory here.
fn task_mounts(host: &Host) -> Result<usize> {
    let data = host.data_dir();
    let mounts = host.exec(&["cat", "/proc/self/mounts"])?.stdout;
    let ours = |line: &&str| line.contains(&*data.to_string_lossy()) && line.starts_with("tmpfs ");
    Ok(mounts.lines().filter(ours).count())
}
