//! Names inside an overlay, asked by containers on two hosts with the real CLI's services: services,
//! their tasks and other names, addresses back to names, names outside; and what a restart of the
//! daemon leaves of it.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Part, docker_ok, wait_for};

#[path = "names/ipv6.rs"]
mod ipv6;
#[path = "names/subnets.rs"]
mod subnets;

/// Where the fleet's outside machine is.
const RESOLVER: &str = "10.201.0.100";
/// What the resolver outside says of every name that begins with `ext`.
const OUTSIDE: [u8; 4] = [192, 0, 2, 80];

#[test]
fn containers_find_each_other_by_name() -> Result<()> {
    let fleet = Fleet::up(&Options {
        hosts: 2,
        swarm: true,
        managers: 1,
        ..Options::test("names")
    })?;
    await_ready(&fleet, 2)?;
    let _outside = Outside::start(&fleet)?;
    let n1 = fleet.host("n1")?;
    n1.docker(&["network", "create", "--driver", "overlay", "back"])?;
    n1.docker(&["network", "create", "--driver", "overlay", "front"])?;
    ipv6::create_network(&n1)?;
    ipv6::create_page(&n1)?;
    subnets::create_network(&n1)?;
    subnets::create_page(&n1)?;
    let asks = [
        "--mode",
        "global",
        "--network",
        "back",
        "--network",
        ipv6::NAME,
        "--network",
        subnets::NAME,
    ];
    create(&n1, "ask", &asks)?;
    let networks = ["--network", "name=back,alias=www", "--network", "front"];
    create(&n1, "web", &[&["--replicas", "2"], &networks[..]].concat())?;
    let dnsrr = [
        "--endpoint-mode",
        "dnsrr",
        "--network",
        "name=back,alias=round",
    ];
    create(&n1, "rr", &[&["--replicas", "3"], &dnsrr[..]].concat())?;
    for (service, tasks) in [("web", 2), ("rr", 3)] {
        await_running(&n1, service, tasks)?;
    }
    names_of_services(&fleet)?;
    names_of_tasks(&fleet)?;
    names_outside(&fleet)?;
    ipv6::hold(&fleet)?;
    subnets::hold(&fleet)?;
    what_changes_is_told(&fleet)?;
    a_restart_loses_no_question(&fleet)
}

fn create(host: &Host, name: &str, options: &[&str]) -> Result<()> {
    let create = ["service", "create", "--detach", "--quiet", "--name", name];
    let rest = [
        "--dns",
        RESOLVER,
        "--stop-grace-period",
        "0s",
        "registry:5000/busybox",
        "sleep",
        "1000000",
    ];
    host.docker(&[&create, options, &rest[..]].concat())
        .map(drop)
}

/// What a container of `ask` on this host hears of a name, or nothing.
fn ask(host: &Host, name: &str) -> Result<BTreeSet<String>> {
    let all = containers(host)?;
    let asker = all.iter().find(|it| it.starts_with("ask."));
    let asker = asker.with_context(|| format!("nobody asks on {}: {all:?}", host.name()))?;
    let command = ["exec", asker, "nslookup", name];
    // A name that is not there is an error for nslookup.
    let said = docker_ok(&host.engine_socket(), &command).unwrap_or_default();
    // The resolver's own address comes first.
    let answers = said.split("\n\n").skip(1);
    let lines = answers.flat_map(str::lines);
    let found = lines.filter_map(|line| {
        let address = line.strip_prefix("Address: ");
        let named = || line.split_once("name = ").map(|(_, name)| name);
        Some(address.or_else(named)?.trim().to_owned())
    });
    Ok(found.collect())
}

/// Waits until every host's container hears this of a name.
fn told(fleet: &Fleet, name: &str, expected: &BTreeSet<String>) -> Result<()> {
    for host in fleet.hosts()? {
        let what = format!("{name} to be {expected:?} on {}", host.name());
        wait_for(&what, PATIENCE, || {
            ask(&host, name).is_ok_and(|it| it == *expected)
        })
        .with_context(|| format!("it is {:?}", ask(&host, name)))?;
    }
    Ok(())
}

fn one(address: &str) -> BTreeSet<String> {
    BTreeSet::from([address.to_owned()])
}

/// A service's virtual address on a network.
fn vip(host: &Host, service: &str, network: &str) -> Result<String> {
    let id = inspect(host, "network", network)?["Id"].clone();
    let service = inspect(host, "service", service)?;
    let vips = service["Endpoint"]["VirtualIPs"].as_array().cloned();
    let mut vips = vips.unwrap_or_default().into_iter();
    let vip = vips
        .find(|it| it["NetworkID"] == id)
        .context("no address")?;
    let address = vip["Addr"].as_str().and_then(|it| it.split('/').next());
    address.map(str::to_owned).context("no address")
}

/// The addresses of a service's tasks that run, with the tasks' containers' names.
fn addresses(host: &Host, service: &str, network: &str) -> Result<Vec<(String, String)>> {
    let tasks = tasks(host, service)?;
    let running = tasks
        .iter()
        .filter(|task| task["Status"]["State"] == "running" && task["DesiredState"] == "running");
    let one = |task: &serde_json::Value| {
        let all = task["NetworksAttachments"].as_array()?;
        let on = all
            .iter()
            .find(|it| it["Network"]["Spec"]["Name"] == network)?;
        let address = on["Addresses"][0].as_str()?.split('/').next()?.to_owned();
        let name = format!("{service}.{}.{}", task["Slot"], task["ID"].as_str()?);
        Some((address, name))
    };
    Ok(running.filter_map(one).collect())
}

fn set(pairs: &[(String, String)]) -> BTreeSet<String> {
    pairs.iter().map(|(address, _)| address.clone()).collect()
}

fn names_of_services(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let back = vip(&n1, "web", "back")?;
    for name in ["web", "WEB", "web.back", "www"] {
        told(fleet, name, &one(&back))?;
    }
    let tasks = set(&addresses(&n1, "web", "back")?);
    ensure!(tasks.len() == 2, "{tasks:?}");
    for name in ["tasks.web", "tasks.www", "tasks.web.back"] {
        told(fleet, name, &tasks)?;
    }
    let tasks = set(&addresses(&n1, "rr", "back")?);
    ensure!(tasks.len() == 3, "{tasks:?}");
    for name in ["rr", "tasks.rr", "round", "rr.back"] {
        told(fleet, name, &tasks)?;
    }
    // Whoever asks is not on that network.
    told(fleet, "web.front", &BTreeSet::new())
}

fn names_of_tasks(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    for (address, name) in addresses(&n1, "web", "back")? {
        told(fleet, &name, &one(&address))?;
        told(fleet, &format!("{name}.back"), &one(&address))?;
        told(fleet, &address, &one(&format!("{name}.back")))?;
    }
    told(fleet, &vip(&n1, "web", "back")?, &one("web.back"))
}

fn names_outside(fleet: &Fleet) -> Result<()> {
    let address = OUTSIDE.map(|it| it.to_string()).join(".");
    told(fleet, "ext.example.com", &one(&address))?;
    told(fleet, "nothing.example.com", &BTreeSet::new())
}

fn what_changes_is_told(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    n1.docker(&["service", "scale", "--detach", "web=3"])?;
    await_running(&n1, "web", 3)?;
    told(fleet, "tasks.web", &set(&addresses(&n1, "web", "back")?))?;
    n1.docker(&["service", "scale", "--detach", "web=1"])?;
    wait_for("one task", PATIENCE, || {
        addresses(&n1, "web", "back").is_ok_and(|it| it.len() == 1)
    })?;
    told(fleet, "tasks.web", &set(&addresses(&n1, "web", "back")?))?;
    n1.docker(&["service", "rm", "rr"])?;
    told(fleet, "rr", &BTreeSet::new())
}

/// Whoever asks while the daemon is not there is answered by the next one.
fn a_restart_loses_no_question(fleet: &Fleet) -> Result<()> {
    let n2 = fleet.host("n2")?;
    let expected = one(&vip(&fleet.host("n1")?, "web", "back")?);
    n2.kill(Part::Skepd)?;
    let begin = Instant::now();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&n2, "web"));
        n2.start(Part::Skepd)?;
        asked.join().map_err(|_| anyhow::anyhow!("nobody asked"))?
    })?;
    // It asks for five seconds, and then gives up.
    let in_time = begin.elapsed() < Duration::from_secs(5);
    ensure!(asked == expected || !in_time, "{asked:?}");
    told(fleet, "web", &expected)
}

/// A resolver on the LAN, beside the hosts. It ends when it is dropped.
struct Outside {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    fn start(fleet: &Fleet) -> Result<Self> {
        let holder = fleet
            .machine(fleet::CLIENT)?
            .holder()
            .context("no client")?;
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let open = || -> Result<UdpSocket> {
                let namespace = File::open(format!("/proc/{holder}/ns/net"))?;
                let flags = nix::sched::CloneFlags::CLONE_NEWNET;
                nix::sched::setns(namespace.as_fd(), flags)?;
                let socket = UdpSocket::bind((RESOLVER, 53))?;
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                Ok(socket)
            };
            match open() {
                Ok(socket) => {
                    let _ = ready.send(Ok(()));
                    serve(&socket, &over);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        started.recv()??;
        let thread = Some(thread);
        Ok(Self { ended, thread })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Knows `ext...`, which has one address, and nothing else.
fn serve(socket: &UdpSocket, ended: &AtomicBool) {
    let mut buffer = [0; 512];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let query = &buffer[..length];
        // A head of 12 bytes, a name whose first part has its length in front, and the kind.
        let Some(end) = query.iter().skip(12).position(|it| *it == 0) else {
            continue;
        };
        let Some(asked) = query.get(12..12 + end + 5) else {
            continue;
        };
        let known = asked.starts_with(b"\x03ext");
        let one = known && asked[end + 1..].starts_with(&[0, 1]);
        let code = if known { 0x80 } else { 0x83 };
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, code, 0, 1, 0, u8::from(one), 0, 0, 0, 0]);
        answer.extend(asked);
        if one {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(OUTSIDE);
        }
        let _ = socket.send_to(&answer, from);
    }
}
