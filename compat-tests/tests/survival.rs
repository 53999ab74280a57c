//! What happens to hosts in their lives, while clients outside and inside go on asking: daemons and
//! engines that end and come back, rules that somebody else removes, a node that hears of no manager.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value without the key is null"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::faults::{Cases, note};
use compat_tests::swarm::*;
use compat_tests::traffic::{Report, Requests, Talk, nothing_lost};
use fleet::{Fleet, Host, Options, Part, docker_ok, wait_for};

/// Within this, what somebody removed is there again.
const REPAIR: Duration = Duration::from_secs(2);
/// How long a host may take to know again who serves.
const SOON: Duration = Duration::from_secs(60);

/// Asks a service by its name, again and again, and writes down how that went. Not wget: busybox's,
/// linked statically, crashes in some containers.
const ASK: &str = "trap exit TERM; while :; do \
    to=$(nslookup web | sed -n '/^$/,$s/^Address: //p' | head -n 1); \
    if printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 3 nc -w 3 $to 80 | grep -q version; \
    then echo ok; else echo lost $to; fi; sleep 0.1; done";

/// Whoever ended with an engine is still asked for at most as long.
const MISSED: Duration = Duration::from_secs(3);

/// Talks back.
const ECHO: &str = "trap exit TERM; nc -ll -p 7 -e /bin/cat & wait";

#[test]
fn networks_survive() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        managers: 1,
        ..Options::test("survival")
    })?;
    await_ready(&fleet, 3)?;
    serve(&fleet.host("n1")?)?;
    await_settled(&fleet)?;
    let mut cases = Cases::of(&fleet);
    cases.run("daemons start again", daemons_start_again);
    cases.run("rules are removed", rules_are_removed);
    cases.run("an engine starts again", |fleet| {
        an_engine_starts_again(fleet, "n3", Host::stop)
    });
    cases.run("an engine is killed", |fleet| {
        an_engine_starts_again(fleet, "n2", Host::kill)
    });
    cases.run("no manager is heard", no_manager_is_heard);
    // Last: the engines' own rules are not ours to bring back.
    cases.run("a firewall is loaded", a_firewall_is_loaded);
    cases.finish()?;
    fleet.down()
}

/// Four tasks on the workers, somebody on every host who asks for them, and one to talk to.
fn serve(n1: &Host) -> Result<()> {
    n1.docker(&["network", "create", "--driver", "overlay", "front"])?;
    let place = ["--network", "front", "--constraint", "node.hostname!=n1"];
    let web = [
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "4",
    ];
    let web = [
        &web[..],
        &place,
        &["--publish", "8080:80", "registry:5000/web:v1"],
    ]
    .concat();
    n1.docker(&web)?;
    let sh = ["registry:5000/busybox", "sh", "-c"];
    let grace = ["--stop-grace-period", "0s"];
    let ask = [
        "service", "create", "--detach", "--name", "ask", "--mode", "global",
    ];
    n1.docker(&[&ask[..], &grace, &["--network", "front"], &sh, &[ASK]].concat())?;
    let echo = [
        "service",
        "create",
        "--detach",
        "--name",
        "echo",
        "--publish",
        "7007:7",
    ];
    let on = ["--constraint", "node.hostname==n2"];
    n1.docker(&[&echo[..], &grace, &on, &sh, &[ECHO]].concat())?;
    await_running(n1, "web", 4)?;
    await_running(n1, "echo", 1)
}

fn at(host: &Host, port: u16) -> Result<SocketAddr> {
    let address = format!("{}:{port}", host.address());
    address.parse().with_context(|| address.clone())
}

/// Clients outside, one for each host.
fn requests(fleet: &Fleet, hosts: &[&str]) -> Result<Requests> {
    let hosts = hosts.iter().map(|name| at(&fleet.host(name)?, 8080));
    Requests::start(fleet, &hosts.collect::<Result<Vec<_>>>()?)
}

/// The running container of a global service on a host.
fn container(host: &Host, service: &str) -> Result<String> {
    let all = containers(host)?;
    let found = all
        .into_iter()
        .find(|it| it.starts_with(&format!("{service}.")));
    found.with_context(|| format!("{service} runs on {}", host.name()))
}

/// How often whoever asks on a host was answered, and how often not.
fn asked(host: &Host) -> Result<(usize, usize)> {
    let said = docker_ok(&host.engine_socket(), &["logs", &container(host, "ask")?])?;
    let all = said.lines();
    let (answered, lost): (Vec<_>, Vec<_>) = all.partition(|line| *line == "ok");
    Ok((answered.len(), lost.len()))
}

/// Waits until everybody inside is answered, so many times in a row.
fn asking_goes_on(fleet: &Fleet, times: usize) -> Result<()> {
    for host in fleet.hosts()? {
        let what = format!("answers in a row inside {}", host.name());
        let mut since = asked(&host);
        wait_for(&what, SOON, || {
            let now = asked(&host);
            match (&since, &now) {
                (Ok((before, lost)), Ok((answered, now))) if lost == now => {
                    *answered >= before + times
                }
                _ => {
                    since = now;
                    false
                }
            }
        })
        .with_context(|| format!("at first {since:?}, now {:?}", asked(&host)))?;
    }
    Ok(())
}

/// The addresses that a name stands for, as heard on a host.
fn found(host: &Host, name: &str) -> Result<BTreeSet<String>> {
    let command = ["exec", &container(host, "ask")?, "nslookup", name];
    let answer = docker_ok(&host.engine_socket(), &command)?;
    let addresses = answer.lines().filter_map(|it| it.strip_prefix("Address: "));
    let addresses = addresses.map(|it| it.trim().to_owned());
    Ok(addresses.filter(|it| it.starts_with("10.")).collect())
}

/// The addresses of the tasks of `web` that run and are meant to, on the network that names are
/// asked on.
fn serving(manager: &Host) -> Result<BTreeSet<String>> {
    let mut addresses = BTreeSet::new();
    for task in tasks(manager, "web")? {
        if task["Status"]["State"] != "running" || task["DesiredState"] != "running" {
            continue;
        }
        let all = task["NetworksAttachments"].as_array();
        let mut all = all.context("a running task has networks")?.iter();
        let on = all.find(|it| it["Network"]["Spec"]["Name"] == "front");
        let address = on.and_then(|it| it["Addresses"][0].as_str());
        let address = address.and_then(|it| it.split('/').next());
        addresses.insert(address.context("a running task has an address")?.to_owned());
    }
    Ok(addresses)
}

/// Waits until every host finds exactly the four tasks that run, and everybody is answered.
fn await_settled(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    await_running(&n1, "web", 4)?;
    for host in fleet.hosts()? {
        let what = format!("{} to find those who serve", host.name());
        wait_for(&what, SOON, || {
            let (found, serving) = (found(&host, "tasks.web"), serving(&n1));
            matches!((found, serving), (Ok(found), Ok(serving)) if found == serving && found.len() == 4)
        })
        .with_context(|| format!("{:?}, {:?}", found(&host, "tasks.web"), serving(&n1)))?;
    }
    asking_goes_on(fleet, 5)?;
    let requests = requests(fleet, &["n1", "n2", "n3"])?;
    requests.go_on(30)?;
    nothing_lost(&requests.end()?, None).context("at rest")
}

/// How long after something the last request began that was lost.
fn told(what: &str, report: &Report, since: Instant) {
    let last = report.lost.iter().map(|it| it.at).max();
    let last = last.map(|at| at.saturating_duration_since(since).as_secs_f32());
    let (lost, answered) = (report.lost.len(), report.answered);
    note(&format!(
        "{what}: {lost} lost of {answered}, the last after {last:?} s"
    ));
}

/// A restart of skepd disturbs no packet: neither those on their way nor new ones, by name or port.
fn daemons_start_again(fleet: &Fleet) -> Result<()> {
    let mut talk = Talk::open(fleet, at(&fleet.host("n3")?, 7007)?)?;
    let before: Vec<_> = fleet.hosts()?.iter().map(asked).collect::<Result<_>>()?;
    let requests = requests(fleet, &["n1", "n2", "n3"])?;
    for host in fleet.hosts()? {
        host.kill(Part::Skepd)?;
        talk.say("without")?;
        requests.go_on(20)?;
        host.start(Part::Skepd)?;
        talk.say("again")?;
        requests.go_on(20)?;
    }
    await_ready(fleet, 3)?;
    asking_goes_on(fleet, 5)?;
    talk.say("after")?;
    nothing_lost(&requests.end()?, None)?;
    for (host, (_, lost)) in fleet.hosts()?.iter().zip(before) {
        let (_, now) = asked(host)?;
        ensure!(now == lost, "{} lost inside {}", now - lost, host.name());
    }
    Ok(())
}

/// Everything that anybody ever told the kernel's filter, of hosts and inside containers.
fn rules_are_removed(fleet: &Fleet) -> Result<()> {
    let requests = requests(fleet, &["n1", "n2", "n3"])?;
    for host in fleet.hosts()? {
        let begun = Instant::now();
        ensure!(host.exec(&["nft", "flush", "ruleset"])?.success());
        wait_for("the rules to be back", SOON, || {
            let rules = host.exec(&["nft", "list", "ruleset"]);
            rules.is_ok_and(|it| it.stdout.contains("table ip skep-mesh"))
        })?;
        let took = begun.elapsed();
        note(&format!("{}: rules back after {took:?}", host.name()));
        ensure!(took < REPAIR, "{}: back after {took:?}", host.name());
        let asker = container(&host, "ask")?;
        let format = ["inspect", "--format", "{{.State.Pid}}", &asker];
        let pid = docker_ok(&host.engine_socket(), &format)?;
        let inside = [
            "nsenter",
            "--net",
            "--target",
            pid.trim(),
            "nft",
            "flush",
            "ruleset",
        ];
        ensure!(host.exec(&inside)?.success());
    }
    let last = Instant::now();
    requests.go_on(100)?;
    asking_goes_on(fleet, 10)?;
    let report = requests.end()?;
    told("rules removed", &report, last);
    nothing_lost(&report, Some(last + REPAIR))
}

/// What firewalls do when they are loaded: all that others have added is gone, and nothing passes
/// that they do not know.
fn a_firewall_is_loaded(fleet: &Fleet) -> Result<()> {
    let requests = requests(fleet, &["n1", "n2", "n3"])?;
    let load = "for table in filter nat mangle raw; do iptables -w -t $table -F; \
        iptables -w -t $table -X; done; iptables -w -P FORWARD DROP";
    for host in fleet.hosts()? {
        let said = host.exec(&["sh", "-c", load])?;
        ensure!(said.success(), "{}", said.stderr);
    }
    let last = Instant::now();
    requests.go_on(100)?;
    let talked = Talk::open(fleet, at(&fleet.host("n3")?, 7007)?).and_then(|mut it| it.say("x"));
    asking_goes_on(fleet, 10)?;
    let report = requests.end()?;
    told("firewall loaded", &report, last);
    nothing_lost(&report, Some(last + REPAIR))?;
    talked.context("across hosts")
}

/// The tasks of an engine that ends are replaced or come back, and nobody is sent to the old ones.
fn an_engine_starts_again(
    fleet: &Fleet,
    name: &str,
    end: fn(&Host, Part) -> Result<()>,
) -> Result<()> {
    let host = fleet.host(name)?;
    let before = serving(&fleet.host("n1")?)?;
    let requests = requests(fleet, &["n1", name])?;
    let begun = Instant::now();
    end(&host, Part::Engine)?;
    host.start(Part::Engine)?;
    await_settled(fleet)?;
    note(&format!("settled after {:?}", begun.elapsed()));
    let settled = Instant::now();
    requests.go_on(50)?;
    let report = requests.end()?;
    told("engine ended", &report, begun);
    // The containers ended with it, or when it came back; all nodes hear of that from the kernel of
    // theirs, long before everything is settled.
    let late = report.lost.iter().filter(|it| it.at > begun + MISSED);
    ensure!(
        late.count() == 0,
        "lost later than {MISSED:?} after the end"
    );
    let now = serving(&fleet.host("n1")?)?;
    ensure!(before != now, "nothing has happened: {now:?}");
    nothing_lost(&report, Some(settled))
}

/// A node that hears of no manager goes on with what it knew, but for its own tasks that end.
fn no_manager_is_heard(fleet: &Fleet) -> Result<()> {
    let (n1, n3) = (fleet.host("n1")?, fleet.host("n3")?);
    let before = found(&n3, "tasks.web")?;
    let requests = requests(fleet, &["n3"])?;
    n3.cut_from(&n1)?;
    wait_for("the manager to miss it", PATIENCE, || {
        nodes(&n1).is_ok_and(|all| all.get("n3").is_some_and(|(state, _)| state == "Down"))
    })?;
    requests.go_on(50)?;
    let now = found(&n3, "tasks.web")?;
    ensure!(now == before, "{before:?} before, {now:?} now");
    nothing_lost(&requests.end()?, None).context("cut off")?;
    let own = containers(&n3)?;
    let own: Vec<&str> = own
        .iter()
        .filter(|it| it.starts_with("web."))
        .map(String::as_str)
        .collect();
    let (dies, _) = own.split_first().context("n3 has a task of web")?;
    docker_ok(&n3.engine_socket(), &["kill", dies])?;
    let died = Instant::now();
    wait_for("the dead to be dropped", SOON, || {
        found(&n3, "tasks.web").is_ok_and(|now| now.len() + 1 == before.len())
    })?;
    note(&format!("dropped after {:?}", died.elapsed()));
    let requests = self::requests(fleet, &["n3"])?;
    requests.go_on(50)?;
    nothing_lost(&requests.end()?, None).context("after a death")?;
    n3.heal()?;
    await_ready(fleet, 3)?;
    await_settled(fleet)
}
