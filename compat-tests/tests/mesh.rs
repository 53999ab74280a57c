//! Published ports with the real CLI, on hosts with real engines: whichever host a client comes to,
//! it is served, and the tasks see who it is.

#[path = "mesh/beside.rs"]
mod beside;
#[path = "mesh/ipv6.rs"]
mod ipv6;
#[path = "mesh/subnets.rs"]
mod subnets;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use compat_tests::faults::seconds_until;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Output, Part, wait_for};

const WEB: &str = "registry:5000/web:v1";
/// How long a host may take to serve what runs.
const SOON: Duration = Duration::from_secs(20);

/// What a page says: which container it is from, and whom that sees.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Page {
    container: String,
    client: String,
}

/// Asks for a page from the outside or, with one, from a host.
fn page(fleet: &Fleet, from: Option<&Host>, at: &str) -> Result<Page> {
    let url = format!("http://{at}/");
    let ask = ["wget", "-q", "-T", "3", "-O", "-", url.as_str()];
    let said = match from {
        None => fleet.client(&ask)?,
        Some(host) => host.exec(&ask)?,
    };
    read(&said)
}

fn read(said: &Output) -> Result<Page> {
    let text = said.stdout.as_str();
    let after = |word: &str| {
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(word));
        found.unwrap_or_default().trim().to_owned()
    };
    let (container, client) = (after("hostname:"), after("client:"));
    ensure!(!container.is_empty(), "no page: {text:?}");
    Ok(Page { container, client })
}

/// Asks until `count` containers have answered; returns whom they saw.
fn pages(fleet: &Fleet, from: Option<&Host>, at: &str, count: usize) -> Result<BTreeSet<String>> {
    let (mut containers, mut clients) = (BTreeSet::new(), BTreeSet::new());
    let mut last = String::new();
    let enough = wait_for(&format!("{count} containers at {at}"), SOON, || {
        match page(fleet, from, at) {
            Ok(page) => {
                containers.insert(page.container);
                clients.insert(page.client);
            }
            Err(error) => last = error.to_string(),
        }
        containers.len() >= count
    });
    enough.map_err(|error| error.context(last))?;
    ensure!(containers.len() == count, "{containers:?}");
    Ok(clients)
}

fn own_address(fleet: &Fleet) -> Result<String> {
    let said = fleet.client(&["ip", "-4", "-o", "addr", "show", "scope", "global"])?;
    let mut words = said.stdout.split_whitespace();
    let address = words.find(|it| it.contains('/')).unwrap_or_default();
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

#[test]
fn every_host_answers_and_tasks_see_who_asks() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        ..Options::test("mesh")
    })?;
    await_ready(&fleet, 3)?;
    let hosts = fleet.hosts()?;
    let n1 = fleet.host("n1")?;
    // On two of three hosts, so that one has none.
    let place = ["--constraint", "node.hostname!=n3", "--publish", "8080:80"];
    let options = [&place[..], &["--replicas-max-per-node", "1"]].concat();
    create_web(&n1, "web", "2", &options)?;
    let client = own_address(&fleet)?;
    for host in &hosts {
        let at = format!("{}:8080", host.address());
        let seen = pages(&fleet, None, &at, 2)?;
        ensure!(seen == BTreeSet::from([client.clone()]), "{at}: {seen:?}");
    }
    from_hosts_and_containers(&fleet, &hosts, 2)?;
    leaves_first(&fleet, &n1)?;
    comes_back(&fleet, &hosts, &client)?;
    another_program_has_it(&fleet, &n1)?;
    ipv6::hold(&fleet, &hosts)?;
    beside::works(&fleet, &n1)?;

    n1.docker(&["service", "rm", "web"])?;
    nothing_is_left(&fleet, &hosts)?;
    ipv6::is_seen_by_tasks(&fleet, &hosts)?;
    nothing_is_left(&fleet, &hosts)?;
    subnets::work(&fleet, &hosts, &client)?;
    nothing_is_left(&fleet, &hosts)?;
    fleet.down()
}

/// Nothing is published, and so nothing of the mesh is in the hosts' kernels.
fn nothing_is_left(fleet: &Fleet, hosts: &[Host]) -> Result<()> {
    for host in hosts {
        wait_for("nothing of it to be left", SOON, || {
            left(host).is_ok_and(|left| left.is_empty())
        })
        .map_err(|error| error.context(left(host).unwrap_or_default()))?;
        ensure!(page(fleet, None, &format!("{}:8080", host.address())).is_err());
    }
    Ok(())
}

fn create_web(host: &Host, name: &str, replicas: &str, options: &[&str]) -> Result<()> {
    let create = [
        "service",
        "create",
        "--quiet",
        "--name",
        name,
        "--replicas",
        replicas,
    ];
    let all = [&create[..], options, &[WEB]].concat();
    host.docker(&all).map(drop)
}

/// The host itself, by its address and by those of loopback, and any container of it.
fn from_hosts_and_containers(fleet: &Fleet, hosts: &[Host], tasks: usize) -> Result<()> {
    for host in hosts {
        let own = format!("{}:8080", host.address());
        for at in [own.as_str(), "127.0.0.1:8080", "[::1]:8080"] {
            pages(fleet, Some(host), at, tasks)?;
        }
        // Not wget: busybox's, linked statically, crashes in some containers.
        let script = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {} 8080",
            host.address()
        );
        let ask = ["sh", "-c", script.as_str()];
        let plain = [&["run", "--rm", "busybox"], &ask[..]].concat();
        let said = fleet::docker_ok(&host.engine_socket(), &plain)?;
        ensure!(said.contains("hostname:"), "{said}");
        for container in containers_of(host, "web")? {
            let inside = [&["exec", container.as_str()], &ask[..]].concat();
            let said = fleet::docker_ok(&host.engine_socket(), &inside)?;
            ensure!(said.contains("hostname:"), "{said}");
        }
    }
    Ok(())
}

/// While one of two tasks is replaced, nobody who asks is without an answer.
fn leaves_first(fleet: &Fleet, n1: &Host) -> Result<()> {
    let at = format!("{}:8080", fleet.host("n3")?.address());
    let over = AtomicBool::new(false);
    let (mut asked, mut lost) = (0, Vec::new());
    std::thread::scope(|scope| {
        let update = scope.spawn(|| {
            let done = n1.docker(&["service", "update", "--quiet", "--force", "web"]);
            over.store(true, Ordering::Relaxed);
            done
        });
        while !over.load(Ordering::Relaxed) {
            asked += 1;
            lost.extend(page(fleet, None, &at).err().map(|error| error.to_string()));
        }
        update
            .join()
            .unwrap_or_else(|_| bail!("the update's thread failed"))
    })?;
    ensure!(lost.is_empty(), "{} of {asked} lost: {lost:?}", lost.len());
    Ok(())
}

/// What others do to the host: it is as before within a second or so.
fn comes_back(fleet: &Fleet, hosts: &[Host], client: &str) -> Result<()> {
    let n3 = fleet.host("n3")?;
    let at = format!("{}:8080", n3.address());
    let damage = ["nft", "delete", "table", "ip", "skep-mesh"];
    ensure!(n3.exec(&damage)?.success());
    let begun = Instant::now();
    seconds_until("the rules to be back", || {
        page(fleet, None, &at).is_ok_and(|page| page.client == client)
    })?;
    ensure!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    // A daemon that is gone takes nothing with it, and one that comes back disturbs nothing.
    n3.kill(Part::Skepd)?;
    pages(fleet, None, &at, 2)?;
    n3.start(Part::Skepd)?;
    await_ready(fleet, 3)?;
    for host in hosts {
        pages(fleet, None, &format!("{}:8080", host.address()), 2)?;
    }
    Ok(())
}

/// A port that another program of a host has is that program's there, as the tasks on that host say;
/// everywhere else it is the service's.
fn another_program_has_it(fleet: &Fleet, n1: &Host) -> Result<()> {
    let run = ["run", "--detach", "--network", "host", "--name", "other"];
    let serve = ["busybox", "httpd", "-f", "-p", "8081"];
    fleet::docker_ok(&n1.engine_socket(), &[&run[..], &serve].concat())?;
    let place = ["--constraint", "node.hostname!=n3", "--publish", "8081:80"];
    let options = [&place[..], &["--replicas-max-per-node", "1"]].concat();
    create_web(n1, "late", "2", &options)?;

    let said = |node: &str| {
        let on = format!("node={node}");
        let format = "{{.CurrentState}} {{.Error}}";
        let ps = ["service", "ps", "late", "--no-trunc", "--filter", &on];
        let said = n1.docker(&[&ps[..], &["--format", format]].concat())?;
        Ok::<_, anyhow::Error>(said)
    };
    let taken = "published port not to be had on this node: 8081/tcp: Address already in use";
    wait_for("the task to say so", SOON, || {
        said("n1").is_ok_and(|said| said.starts_with("Running") && said.contains(taken))
    })
    .map_err(|error| error.context(said("n1").unwrap_or_default()))?;
    ensure!(!said("n2")?.contains("published port"), "{}", said("n2")?);
    // It serves all the same: whoever comes to another host finds it.
    for name in ["n2", "n3"] {
        let at = format!("{}:8081", fleet.host(name)?.address());
        pages(fleet, None, &at, 2)?;
    }

    fleet::docker_ok(&n1.engine_socket(), &["rm", "--force", "other"])?;
    wait_for("the port to be the service's", SOON, || {
        said("n1").is_ok_and(|said| !said.contains("published port"))
    })?;
    pages(fleet, None, &format!("{}:8081", n1.address()), 2)?;
    n1.docker(&["service", "rm", "late"]).map(drop)
}

/// What the mesh has in a host's kernel.
fn left(host: &Host) -> Result<String> {
    let look = "nft list tables | grep mesh; ip rule | grep -E '^147[012]:'; \
        iptables -w -S FORWARD | grep skep; ip6tables -w -S FORWARD | grep skep; true";
    let said = host.exec(&["sh", "-c", look])?;
    Ok(said.stdout)
}
