//! Settings, events and `info` with the real CLI: the same script on dockerd's own swarm and on
//! skep's must say the same; then what only skep promises.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Kind, Options, Part, wait_for};
use serde_json::Value;

/// Where the original that is asked (20.10) must not be followed, and why.
const KNOWN: [(&str, &str); 3] = [
    (
        "pools",
        "later versions show the pool in force instead of null",
    ),
    (
        "membership=accepted",
        "the original forgets that a node was accepted when it is updated",
    ),
    ("membership=pending", "the same"),
];

/// What a step was called, and what came of it.
type Said = Vec<(&'static str, String)>;

fn fleet(name: &str, kind: Kind) -> Result<Fleet> {
    Fleet::up(&Options {
        hosts: 2,
        kind,
        ..Options::test(name)
    })
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

fn info(host: &Host, format: &str) -> Result<String> {
    let text = host.docker(&["info", "--format", format])?;
    Ok(text.trim().to_owned())
}

/// The events of a while, as `<action> <attributes>`, in the order in which they happened; those
/// that tell of no change but that there was one are left out: how many there are is chance.
fn events(host: &Host, since: f64, until: f64, filters: &[&str]) -> Result<Vec<String>> {
    let (since, until) = (format!("{since:.6}"), format!("{until:.6}"));
    let mut args = vec!["events", "--since", &since, "--until", &until];
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    args.extend([
        "--format",
        "{{.Type}} {{.Action}} {{json .Actor.Attributes}}",
    ]);
    let said = lines(&host.docker(&args)?);
    let bare = |line: &String| line.contains(" update {\"name\":\"") && !line.contains(',');
    Ok(said.into_iter().filter(|line| !bare(line)).collect())
}

fn settings(said: &mut Said, n1: &Host) -> Result<()> {
    let spec = "{{json .Swarm.Cluster.Spec}}";
    said.push(("spec after init", info(n1, spec)?));
    for (name, args) in [
        (
            "everything",
            &[
                "--task-history-limit",
                "7",
                "--snapshot-interval",
                "500",
                "--max-snapshots",
                "3",
                "--dispatcher-heartbeat",
                "7s",
                "--cert-expiry",
                "48h",
            ][..],
        ),
        ("one more", &["--task-history-limit", "0"][..]),
        (
            "back",
            &["--task-history-limit", "5", "--dispatcher-heartbeat", "5s"][..],
        ),
    ] {
        let done = n1.docker(&[&["swarm", "update"], args].concat())?;
        said.push((name, format!("{done}{}", info(n1, spec)?)));
    }
    for (name, args) in [
        ("a short life", ["--cert-expiry", "59m"]),
        ("a negative heartbeat", ["--dispatcher-heartbeat", "-1s"]),
    ] {
        said.push((
            name,
            refusal(n1, &[&["swarm", "update"][..], &args].concat())?,
        ));
    }
    let pool = info(
        n1,
        "{{json .Swarm.Cluster.DefaultAddrPool}} {{.Swarm.Cluster.SubnetSize}} {{.Swarm.Cluster.DataPathPort}}",
    )?;
    said.push(("pools", pool));
    Ok(())
}

fn nodes_and_their_filters(said: &mut Said, n1: &Host) -> Result<()> {
    for filter in [
        "role=manager",
        "role=worker",
        "membership=accepted",
        "membership=pending",
        "name=n",
        "name=n2",
        "name=x",
        "node.label=zone=1",
        "node.label=zone",
        "label=none",
    ] {
        let args = [
            "node",
            "ls",
            "--filter",
            filter,
            "--format",
            "{{.Hostname}} {{.Availability}}",
        ];
        let mut found = lines(&n1.docker(&args)?);
        found.sort();
        said.push((filter, found.join(", ")));
    }
    for filter in ["role=x", "membership=x"] {
        said.push((filter, refusal(n1, &["node", "ls", "--filter", filter])?));
    }
    Ok(())
}

/// What happens to nodes and services, as both managers tell it afterwards.
fn happenings(said: &mut Said, n1: &Host, n2: &Host) -> Result<()> {
    let begun = now()?;
    n1.docker(&["node", "update", "--availability", "drain", "n2"])?;
    n2.docker(&[
        "node",
        "update",
        "--availability",
        "active",
        "--label-add",
        "zone=1",
        "n2",
    ])?;
    let args = [
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "web",
    ];
    n1.docker(
        &[
            &args[..],
            &["--replicas", "0", "registry:5000/busybox", "sleep", "9d"],
        ]
        .concat(),
    )?;
    n1.docker(&["service", "update", "--detach", "--replicas", "2", "web"])?;
    n1.docker(&["service", "rm", "web"])?;
    for (name, host) in [("events on n1", n1), ("events on n2", n2)] {
        let filters = ["scope=swarm", "type=node", "type=service"];
        wait_for("the last event to arrive", PATIENCE, || {
            let told = now().and_then(|now| events(host, begun, now, &filters));
            told.is_ok_and(|told| told.iter().any(|line| line.starts_with("service remove")))
        })?;
        said.push((name, events(host, begun, now()?, &filters)?.join("\n")));
        for filter in [
            "node=n2",
            "service=we",
            "event=create",
            "label=replicas.new=2",
            "container=web",
        ] {
            let told = events(host, begun, now()?, &["scope=swarm", filter])?;
            said.push((filter, told.join("\n")));
        }
        let none = events(host, begun, now()?, &["scope=local", "type=node"])?;
        said.push(("none of the cluster's is local", none.join("\n")));
    }
    let (late, early) = (format!("{}", begun + 5.0), format!("{begun}"));
    let said_no = refusal(n1, &["events", "--since", &late, "--until", &early])?;
    ensure!(
        said_no.contains("cannot be after `until` time"),
        "{said_no}"
    );
    Ok(())
}

fn script(fleet: &Fleet) -> Result<Said> {
    let (n1, n2) = (fleet.host("n1")?, fleet.host("n2")?);
    let mut said = Said::new();
    let state = "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{json .Swarm.Error}} {{.Swarm.Nodes}} {{.Swarm.Managers}}";
    said.push(("in no swarm", info(&n1, state)?));
    n1.docker(&["swarm", "init", "--advertise-addr", &n1.address()])?;
    said.push(("alone", info(&n1, state)?));
    settings(&mut said, &n1)?;
    let token = n1.docker(&["swarm", "join-token", "--quiet", "manager"])?;
    let address = format!("{}:2377", n1.address());
    n2.docker(&["swarm", "join", "--token", token.trim(), &address])?;
    await_ready(fleet, 2)?;
    for (name, host) in [("two on n1", &n1), ("two on n2", &n2)] {
        said.push((name, info(host, state)?));
        let warnings: Vec<Value> = serde_json::from_str(&info(host, "{{json .Warnings}}")?)?;
        let about = |text: &&Value| text.as_str().is_some_and(|text| text.contains("Swarm"));
        said.push((
            "warnings",
            format!("{:?}", warnings.iter().filter(about).collect::<Vec<_>>()),
        ));
    }
    happenings(&mut said, &n1, &n2)?;
    nodes_and_their_filters(&mut said, &n1)?;
    Ok(said)
}

#[test]
fn the_same_is_said_as_by_the_original() -> Result<()> {
    let original = {
        let fleet = fleet("builtin", Kind::Builtin)?;
        let said = script(&fleet)?;
        fleet.down()?;
        said
    };
    let fleet = fleet("settings", Kind::Skep)?;
    let ours = script(&fleet)?;
    let mut differences = String::new();
    ensure!(original.len() == ours.len());
    for ((name, theirs), (_, ours)) in original.iter().zip(&ours) {
        if KNOWN.iter().any(|(known, _)| known == name) {
            continue;
        }
        if theirs != ours {
            differences += &format!("== {name}\n-- original\n{theirs}\n-- skep\n{ours}\n");
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    promises(&fleet)?;
    fleet.down()
}

/// A live stream on either manager, and what is said without a quorum.
fn promises(fleet: &Fleet) -> Result<()> {
    let (n1, n2) = (fleet.host("n1")?, fleet.host("n2")?);
    let until = now()? + 6.0;
    let told = std::thread::scope(|scope| {
        let following = [&n1, &n2].map(|host| {
            scope.spawn(move || {
                events(host, until - 1e-3, until, &["type=node"])
                    .or_else(|_| events(host, now()?, until, &["type=node"]))
            })
        });
        let begun = Instant::now();
        let mut flip = ["pause", "active"].into_iter().cycle();
        while begun.elapsed() < Duration::from_secs(4) {
            let availability = flip.next().context("it goes on for ever")?;
            n2.docker(&["node", "update", "--availability", availability, "n1"])?;
        }
        n2.docker(&["node", "update", "--availability", "active", "n1"])?;
        let told = following.map(|one| one.join());
        anyhow::Ok(told)
    })?;
    for told in told {
        let told = told.ok().context("a reader has panicked")??;
        let paused = told
            .iter()
            .any(|line| line.contains("\"availability.new\":\"pause\""));
        ensure!(paused, "{told:?}");
    }
    n2.kill(Part::Skepd)?;
    wait_for("n1 to notice", PATIENCE, || {
        info(&n1, "{{.Swarm.Error}}").is_ok_and(|text| text.contains("does not have a leader"))
    })?;
    let begun = Instant::now();
    let state = info(&n1, "{{.Swarm.ControlAvailable}} {{.Swarm.LocalNodeState}}")?;
    ensure!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    ensure!(state == "true active", "{state}");
    for args in [
        &["node", "ls"][..],
        &["swarm", "update", "--task-history-limit", "3"],
    ] {
        let begun = Instant::now();
        let said = refusal(&n1, args)?;
        let text = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online.";
        ensure!(said.contains(text), "{said}");
        let took = begun.elapsed();
        ensure!(
            took > Duration::from_secs(18) && took < Duration::from_secs(23),
            "{took:?}"
        );
    }
    n2.start(Part::Skepd)?;
    await_ready(fleet, 2)
}
