//! Autolock with the real CLI: the same script on dockerd's own swarm and on skep's must say the
//! same; then what only skep promises.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use anyhow::{Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Kind, Options, wait_for};

/// What a step was called, and what came of it.
type Said = Vec<(&'static str, String)>;

fn fleet(name: &str, kind: Kind) -> Result<Fleet> {
    Fleet::up(&Options {
        hosts: 1,
        kind,
        ..Options::test(name)
    })
}

fn state(host: &Host) -> Result<String> {
    let text = host.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"])?;
    Ok(text.trim().to_owned())
}

fn key(host: &Host) -> Result<String> {
    let key = host.docker(&["swarm", "unlock-key", "-q"])?;
    let key = key.trim().to_owned();
    ensure!(key.starts_with("SWMKEY-1-") && key.len() == 52, "{key}");
    Ok(key)
}

/// `docker swarm unlock` with this key as its input: whether it succeeded, and what it said.
fn unlock(host: &Host, key: &str) -> Result<(bool, String)> {
    let output = host
        .docker_cmd()?
        .args(["swarm", "unlock"])
        .stdin(format!("{key}\n"))
        .timeout(PATIENCE)
        .run()?;
    Ok((output.status == 0, output.stderr))
}

fn restart(host: &Host) -> Result<()> {
    host.stop(host.daemon())?;
    host.start(host.daemon())
}

/// Restarts the daemon that is to come back locked.
fn restart_locked(host: &Host) -> Result<()> {
    restart(host)?;
    wait_for("the node to be locked", PATIENCE, || {
        state(host).is_ok_and(|state| state == "locked")
    })
}

fn await_manager(host: &Host) -> Result<()> {
    wait_for("the manager to answer", PATIENCE, || nodes(host).is_ok())
}

/// What a locked manager says to everything.
fn locked(said: &mut Said, host: &Host) -> Result<()> {
    for (name, args) in [
        ("ls", &["node", "ls"][..]),
        ("services", &["service", "ls"]),
        ("inspect", &["node", "inspect", "self"]),
        ("unlock-key", &["swarm", "unlock-key"]),
        ("token", &["swarm", "join-token", "worker"]),
        ("update", &["swarm", "update", "--autolock=false"]),
        ("init", &["swarm", "init"]),
        (
            "join",
            &["swarm", "join", "--token", "x", "10.201.0.9:2377"],
        ),
        ("leave", &["swarm", "leave"]),
    ] {
        said.push((name, refusal(host, args)?));
    }
    let fields = "{{.Swarm.LocalNodeState}} {{len .Swarm.NodeID}} {{.Swarm.NodeAddr}} \
                  {{.Swarm.ControlAvailable}} {{.Swarm.Nodes}} {{.Swarm.Cluster}} \
                  {{.Swarm.RemoteManagers}} {{.Swarm.Error}}";
    said.push(("info", host.docker(&["info", "--format", fields])?));
    let shown = lines(&host.docker(&["info"])?);
    let swarm = shown.into_iter().filter(|line| line.contains("Swarm"));
    said.push(("shown", swarm.collect::<Vec<_>>().join("\n")));
    Ok(())
}

fn script(n1: &Host) -> Result<Said> {
    let mut said = Said::new();
    said.push(("unlock in no swarm", unlock(n1, "x")?.1));
    let welcome = n1.docker(&["swarm", "init", "--autolock"])?;
    let first = key(n1)?;
    ensure!(welcome.contains(&first), "{welcome}");
    let told = n1.docker(&["swarm", "unlock-key"])?;
    said.push(("told", told.replace(&first, "KEY")));
    said.push(("unlock while open", unlock(n1, &first)?.1));

    restart_locked(n1)?;
    locked(&mut said, n1)?;
    for (name, wrong) in [
        ("malformed", "nonsense"),
        ("empty", ""),
        ("short", "SWMKEY-1-AAAA"),
        (
            "wrong",
            "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
    ] {
        let (unlocked, text) = unlock(n1, wrong)?;
        ensure!(!unlocked, "{name}");
        said.push((name, text));
    }
    let (unlocked, text) = unlock(n1, &first)?;
    ensure!(unlocked, "{text}");
    await_manager(n1)?;
    ensure!(key(n1)? == first);

    let rotated = n1.docker(&["swarm", "unlock-key", "--rotate", "-q"])?;
    let second = key(n1)?;
    ensure!(second != first && rotated.trim() == second, "{rotated}");
    n1.docker(&["swarm", "update", "--task-history-limit", "3"])?;
    ensure!(key(n1)? == second, "other updates keep the key");
    n1.docker(&["swarm", "update", "--autolock=false"])?;
    said.push(("no key", refusal(n1, &["swarm", "unlock-key"])?));
    let quietly = ["swarm", "unlock-key", "-q"];
    said.push(("no key, quietly", refusal(n1, &quietly)?));
    let rotate = ["swarm", "unlock-key", "--rotate"];
    said.push(("nothing to rotate", refusal(n1, &rotate)?));
    let told = n1.docker(&["swarm", "update", "--autolock=true"])?;
    let third = key(n1)?;
    ensure!(third != second);
    said.push(("on again", told.replace(&third, "KEY")));
    Ok(said)
}

#[test]
fn autolock_is_dockerds() -> Result<()> {
    let theirs = fleet("lockdocker", Kind::Builtin)?;
    let original = script(&theirs.host("n1")?)?;
    theirs.down()?;
    let ours = fleet("lockskep", Kind::Skep)?;
    let n1 = ours.host("n1")?;
    let said = script(&n1)?;
    let mut different = Vec::new();
    for ((step, theirs), (_, ours)) in original.iter().zip(&said) {
        if theirs != ours {
            different.push(format!("{step}\n  dockerd: {theirs}\n  skep:    {ours}"));
        }
    }
    ensure!(different.is_empty(), "{}", different.join("\n"));
    ensure!(said.len() == original.len());
    beyond(&n1)
}

/// Containers outlive the daemon and the lock, the file is wrapped when the CLI returns or very
/// soon after, and leaving takes everything along.
fn beyond(n1: &Host) -> Result<()> {
    n1.docker(&[
        "service",
        "create",
        "--name",
        "web",
        "--env",
        "PASSWORD=correct-horse-battery",
        "registry:5000/web",
    ])?;
    let running = containers(n1)?;
    ensure!(running.len() == 1);
    let last = key(n1)?;
    restart_locked(n1)?;
    ensure!(containers(n1)? == running, "containers go on");
    let grep = ["grep", "-rlaE", "correct-horse|PRIVATE KEY|SWMKEY|SWMTKN"];
    let dir = n1.data_dir().to_string_lossy().into_owned();
    let found = n1.exec(&[&grep[..], &[&dir]].concat())?;
    // grep's status says that it has looked at everything and found nothing.
    ensure!(found.status == 1, "{} {}", found.stdout, found.stderr);

    n1.kill(n1.daemon())?;
    n1.start(n1.daemon())?;
    ensure!(state(n1)? == "locked", "also after being killed");
    let (unlocked, text) = unlock(n1, &last)?;
    ensure!(unlocked, "{text}");
    // As soon as the CLI returns.
    ensure!(nodes(n1)?.len() == 1);
    await_running(n1, "web", 1)?;
    ensure!(containers(n1)? == running, "containers are adopted");

    restart_locked(n1)?;
    n1.docker(&["swarm", "leave", "--force"])?;
    ensure!(state(n1)? == "inactive" && containers(n1)?.is_empty());
    n1.docker(&["swarm", "init"])?;
    restart(n1)?;
    await_manager(n1)
}
