//! Nobody is dropped: constant new connections and long-lived ones from outside while a service is
//! updated, a node is drained, and a node dies. Requests that are lost are counted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use compat_tests::traffic::{Requests, Talk, nothing_lost};
use fleet::{Fleet, Host, Options, Part, wait_for};

/// Within this a node that dies is known to be down, and nobody is sent there any more.
const DETECTION: Duration = Duration::from_secs(5);

/// Talks back. Asked to stop, it takes no one new and lets who is there finish.
const ECHO: &str = "trap 'kill $server; sleep 8; exit 0' TERM; \
    nc -ll -p 7 -e /bin/cat & server=$!; wait $server; sleep 8";

fn at(host: &Host, port: u16) -> Result<SocketAddr> {
    let address = format!("{}:{port}", host.address());
    address.parse().with_context(|| address.clone())
}

#[test]
fn nobody_is_dropped() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        managers: 3,
        ..Options::test("load")
    })?;
    await_ready(&fleet, 3)?;
    let [n1, n2] = [fleet.host("n1")?, fleet.host("n2")?];
    serve(&n1)?;
    // Not through n3, which will be drained and die.
    let web = [at(&n1, 8080)?, at(&n2, 8080)?];
    wait_for("the web to answer", PATIENCE, || {
        Requests::start(&fleet, &web)
            .and_then(Requests::end)
            .is_ok()
    })?;
    update(&fleet, &web, "start-first", "registry:5000/web:v2")?;
    update(&fleet, &web, "stop-first", "registry:5000/web:v1")?;
    talks_go_on(&fleet)?;
    drain(&fleet, &web)?;
    kill(&fleet, &web)
}

fn serve(n1: &Host) -> Result<()> {
    let web = [
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "4",
        "--publish",
        "8080:80",
        "--update-delay",
        "0s",
        "--update-parallelism",
        "1",
        "--update-monitor",
        "0s",
        "--stop-grace-period",
        "10s",
        "--health-cmd",
        "wget -q -O /dev/null localhost",
        "--health-interval",
        "1s",
        "--health-start-period",
        "5s",
        "registry:5000/web:v1",
    ];
    n1.docker(&web)?;
    let echo = [
        "service",
        "create",
        "--detach",
        "--name",
        "echo",
        "--replicas",
        "2",
        "--publish",
        "7007:7",
        "--update-order",
        "start-first",
        "--update-monitor",
        "0s",
        "--stop-grace-period",
        "20s",
        "--constraint",
        "node.hostname!=n3",
        "registry:5000/busybox",
        "sh",
        "-c",
        ECHO,
    ];
    n1.docker(&echo)?;
    await_running(n1, "web", 4)?;
    await_running(n1, "echo", 2)
}

fn await_updated(n1: &Host, service: &str) -> Result<()> {
    wait_for("the update to complete", PATIENCE * 2, || {
        let shown = inspect(n1, "service", service);
        let state = shown.map(|it| it.pointer("/UpdateStatus/State").cloned());
        state.is_ok_and(|state| state.is_some_and(|it| it == "completed"))
    })
}

/// A rolling update loses no request.
fn update(fleet: &Fleet, web: &[SocketAddr], order: &str, image: &str) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let requests = Requests::start(fleet, web)?;
    n1.docker(&[
        "service",
        "update",
        "--detach",
        "--update-order",
        order,
        "--image",
        image,
        "web",
    ])?;
    await_updated(&n1, "web")?;
    requests.go_on(50)?;
    nothing_lost(&requests.end()?, None).context(format!("update, {order}"))
}

/// A connection outlives the task's being told to stop, for as long as its grace period allows,
/// while new ones go elsewhere.
fn talks_go_on(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let address = at(&n1, 7007)?;
    let mut talks = Vec::new();
    for _ in 0..4 {
        talks.push(Talk::open(fleet, address)?);
    }
    for talk in &mut talks {
        talk.say("before")?;
    }
    n1.docker(&["service", "update", "--detach", "--force", "echo"])?;
    await_updated(&n1, "echo")?;
    let mut alive = 0;
    for talk in &mut talks {
        alive += usize::from(talk.say("after").is_ok());
    }
    // The first of the two old tasks may have had its time by now; the second has just been told.
    ensure!(alive > 0, "all connections are gone");
    for _ in 0..8 {
        Talk::open(fleet, address)?.say("new")?;
    }
    Ok(())
}

/// So does a drain.
fn drain(fleet: &Fleet, web: &[SocketAddr]) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let requests = Requests::start(fleet, web)?;
    n1.docker(&["node", "update", "--availability", "drain", "n3"])?;
    let n3 = fleet.host("n3")?;
    wait_for("n3 to be empty", PATIENCE, || {
        containers(&n3).is_ok_and(|all| !all.iter().any(|it| it.starts_with("web.")))
    })?;
    await_running(&n1, "web", 4)?;
    requests.go_on(50)?;
    nothing_lost(&requests.end()?, None).context("drain")?;
    n1.docker(&["node", "update", "--availability", "active", "n3"])?;
    Ok(())
}

/// When a node dies, only what was sent to it before anybody knew is lost.
fn kill(fleet: &Fleet, web: &[SocketAddr]) -> Result<()> {
    let n1 = fleet.host("n1")?;
    n1.docker(&["service", "scale", "--detach", "web=12"])?;
    await_running(&n1, "web", 12)?;
    let there = running_tasks(&n1, "web")?;
    ensure!(there.iter().any(|(_, node, _)| node == "n3"), "{there:?}");
    let requests = Requests::start(fleet, web)?;
    let n3 = fleet.host("n3")?;
    let killed = Instant::now();
    n3.kill(Part::Host)?;
    wait_for("the tasks to run elsewhere", PATIENCE, || {
        let now = running_tasks(&n1, "web");
        now.is_ok_and(|now| now.len() == 12 && !now.iter().any(|(_, node, _)| node == "n3"))
    })?;
    requests.go_on(100)?;
    let report = requests.end()?;
    nothing_lost(&report, Some(killed + DETECTION)).context("after the death was known")?;
    let lost = report.lost.len();
    fleet::say::out(format!(
        "{lost} of {} requests were lost to the dead node",
        report.answered
    ));
    Ok(())
}
