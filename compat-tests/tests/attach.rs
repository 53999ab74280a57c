//! Plain containers on attachable networks, with the real CLI on a manager and two workers: their
//! addresses and places, who reaches whom, what is refused, and what is left when they are gone.

use std::collections::BTreeSet;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use compat_tests::http::Http;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Part, wait_for};
use serde_json::Value;

const IMAGE: &str = "registry:5000/busybox";
const SOON: Duration = Duration::from_secs(20);

#[test]
fn plain_containers_join_the_swarms_networks() -> Result<()> {
    let fleet = Fleet::up(&Options {
        managers: 1,
        swarm: true,
        ..Options::test("attach")
    })?;
    await_ready(&fleet, 3)?;
    let (n1, n2, n3) = (fleet.host("n1")?, fleet.host("n2")?, fleet.host("n3")?);
    let create = ["network", "create", "--driver", "overlay"];
    for name in ["ovl", "ovm"] {
        n1.docker(&[&create[..], &["--attachable", name]].concat())?;
    }
    n1.docker(&[&create[..], &["plain"]].concat())?;
    for host in [&n1, &n2, &n3] {
        host.docker(&["pull", "--quiet", IMAGE])?;
    }
    they_reach_each_other(&n1, &n2)?;
    addresses_are_asked_for(&n1, &n2)?;
    refusals_are_the_originals(&n1, &n2)?;
    they_connect_and_disconnect(&n1, &n2)?;
    what_is_in_use_stays(&n1, &n3)?;
    restarts_keep_places(&n1, &n2)?;
    a_daemon_comes_back_to_its_containers(&n1, &n2)?;
    a_node_leaves(&n1, &n2)?;
    it_comes_back_on_another_wire(&fleet, &n1, &n2)?;
    fleet.down()
}

fn run(host: &Host, name: &str, options: &[&str]) -> Result<()> {
    let run = ["run", "--detach", "--name", name, "--stop-timeout", "0"];
    host.docker(&[&run[..], options, &[IMAGE, "sleep", "100000"]].concat())?;
    Ok(())
}

/// A container's address on a network, as its own engine has it.
fn address(host: &Host, container: &str, network: &str) -> Result<Option<String>> {
    let id = network_id(host, network)?;
    let inspect = ["container", "inspect", container];
    let found = fleet::docker_ok(&host.engine_socket(), &inspect)?;
    let found: Value = serde_json::from_str(&found)?;
    let pointer = format!("/0/NetworkSettings/Networks/skep-{id}/IPAddress");
    let address = found.pointer(&pointer).and_then(Value::as_str);
    Ok(address.filter(|it| !it.is_empty()).map(str::to_owned))
}

fn network_id(host: &Host, network: &str) -> Result<String> {
    let format = "{{.Id}}";
    let id = host.docker(&["network", "inspect", "--format", format, network])?;
    Ok(id.trim().to_owned())
}

fn reaches(host: &Host, from: &str, to: &str) -> bool {
    let ping = ["exec", from, "ping", "-c", "1", "-W", "2", to];
    host.docker(&ping).is_ok()
}

/// The containers that have places, as the managers know them.
fn places(host: &Host) -> Result<Vec<Value>> {
    let path = "/tasks?filters=%7B%22runtime%22%3A%5B%22attachment%22%5D%7D";
    let answer = Http::new(&host.socket(), PATIENCE).get(path)?;
    ensure!(answer.success(), "{}", answer.message());
    answer.json().as_array().cloned().context("no list")
}

fn id_of(task: &Value) -> Result<String> {
    let id = task.get("ID").and_then(Value::as_str);
    id.map(str::to_owned).context("a task without an id")
}

fn await_places(host: &Host, count: usize) -> Result<()> {
    wait_for(&format!("{count} places"), SOON, || {
        places(host).is_ok_and(|all| all.len() == count)
    })
}

fn they_reach_each_other(n1: &Host, n2: &Host) -> Result<()> {
    run(n1, "c1", &["--network", "ovl"])?;
    run(n2, "c2", &["--network", "ovl"])?;
    let first = address(n1, "c1", "ovl")?.context("c1 has none")?;
    let second = address(n2, "c2", "ovl")?.context("c2 has none")?;
    ensure!(first != second, "both have {first}");
    for (host, from, to) in [(n1, "c1", &second), (n2, "c2", &first)] {
        wait_for(&format!("{from} reaches {to}"), SOON, || {
            reaches(host, from, to)
        })?;
    }
    peers_are_known(n1, n2)?;
    // No list shows them unasked.
    let tasks = Http::new(&n1.socket(), PATIENCE).get("/tasks")?.json();
    ensure!(tasks.as_array().is_some_and(Vec::is_empty), "{tasks}");
    ensure!(places(n1)?.len() == 2, "{:?}", places(n1)?);
    n1.docker(&["rm", "--force", "c1"])?;
    n2.docker(&["rm", "--force", "c2"])?;
    ensure!(places(n1)?.is_empty(), "given back before the answer");
    Ok(())
}

/// A worker says of a network that it has a part in who else has, as a manager does.
fn peers_are_known(n1: &Host, n2: &Host) -> Result<()> {
    let peers = |host: &Host| -> Result<Value> {
        let shown = host.docker(&["network", "inspect", "--format", "{{json .Peers}}", "ovl"])?;
        Ok(serde_json::from_str(&shown)?)
    };
    let known = peers(n1)?;
    let addresses: BTreeSet<&str> = known
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it.get("IP")?.as_str())
        .collect();
    let (first, second) = (n1.address(), n2.address());
    ensure!(addresses == [&*first, &*second].into(), "{known}");
    let told = peers(n2)?;
    ensure!(told == known, "{told} instead of {known}");
    Ok(())
}

fn addresses_are_asked_for(n1: &Host, n2: &Host) -> Result<()> {
    let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let subnet = n1.docker(&["network", "inspect", "--format", format, "ovl"])?;
    let asked = subnet.trim().replace("0/24", "77");
    run(
        n2,
        "asked",
        &[
            "--network",
            "ovl",
            "--ip",
            &asked,
            "--network-alias",
            "other",
        ],
    )?;
    ensure!(address(n2, "asked", "ovl")? == Some(asked.clone()));
    n2.docker(&["restart", "--time", "0", "asked"])?;
    ensure!(address(n2, "asked", "ovl")? == Some(asked.clone()));
    thread::scope(|scope| {
        let all = [asked.as_str(), "1.2.3.4"].map(|it| scope.spawn(|| no_such_address(n1, it)));
        all.into_iter().try_for_each(joined)
    })?;
    await_places(n1, 1)?;
    n2.docker(&["rm", "--force", "asked"])?;
    // Free again, it is anybody's.
    run(n1, "asked", &["--network", "ovl", "--ip", &asked])?;
    n1.docker(&["rm", "--force", "asked"])?;
    Ok(())
}

/// Whoever asks for an address that nobody can have waits for it as long as in the original.
fn no_such_address(host: &Host, address: &str) -> Result<()> {
    let start = Instant::now();
    let run = ["run", "--rm", "--network", "ovl", "--ip", address];
    let refused = refusal(host, &[&run[..], &[IMAGE, "true"]].concat())?;
    let text = "attaching to network failed, make sure your network options are correct and check \
                manager logs: context deadline exceeded";
    ensure!(refused.contains(text), "{refused}");
    let spent = start.elapsed();
    ensure!(spent >= Duration::from_secs(20), "{spent:?}");
    Ok(())
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

fn refusals_are_the_originals(n1: &Host, n2: &Host) -> Result<()> {
    let not_found = "Could not attach to network nope: rpc error: code = NotFound desc = network \
                     nope not found";
    let denied = "Could not attach to network plain: rpc error: code = PermissionDenied desc = \
                  network plain not manually attachable";
    for host in [n1, n2] {
        run(host, "own", &[])?;
        for (network, text) in [("nope", not_found), ("plain", denied)] {
            // Only the start says so.
            host.docker(&[
                "create",
                "--name",
                "made",
                "--network",
                network,
                IMAGE,
                "true",
            ])?;
            let refused = refusal(host, &["start", "made"])?;
            ensure!(refused.contains(text), "{refused}");
            host.docker(&["rm", "made"])?;
            let refused = refusal(host, &["network", "connect", network, "own"])?;
            ensure!(refused.contains(text), "{refused}");
        }
        host.docker(&["network", "create", "own-net"])?;
        host.docker(&["network", "connect", "own-net", "own"])?;
        host.docker(&["network", "disconnect", "own-net", "own"])?;
        host.docker(&["network", "rm", "own-net"])?;
        let refused = refusal(host, &["network", "connect", "ovl", "nobody"])?;
        ensure!(refused.contains("No such container: nobody"), "{refused}");
        let refused = refusal(host, &["network", "disconnect", "nope", "own"])?;
        ensure!(refused.contains("network nope not found"), "{refused}");
        host.docker(&["rm", "--force", "own"])?;
    }
    ensure!(places(n1)?.is_empty());
    Ok(())
}

fn they_connect_and_disconnect(n1: &Host, n2: &Host) -> Result<()> {
    run(n1, "peer", &["--network", "ovl"])?;
    run(n2, "late", &[])?;
    let by_id = network_id(n1, "ovm")?;
    n2.docker(&["network", "connect", "--alias", "x", "ovl", "late"])?;
    n2.docker(&["network", "connect", &by_id, "late"])?;
    ensure!(places(n1)?.len() == 3);
    let peer = address(n1, "peer", "ovl")?.context("peer has none")?;
    wait_for("late reaches peer", SOON, || reaches(n2, "late", &peer))?;
    for network in ["ovl", by_id.as_str()] {
        let refused = refusal(n2, &["network", "connect", network, "late"])?;
        ensure!(
            refused.contains("late is already attached to network ov"),
            "{refused}"
        );
    }
    n2.docker(&["network", "disconnect", "ovl", "late"])?;
    ensure!(places(n1)?.len() == 2, "one is given back");
    n2.docker(&["network", "disconnect", "ovm", "late"])?;
    ensure!(places(n1)?.len() == 1, "and the other");
    ensure!(!reaches(n2, "late", &peer));
    // One that does not run is connected when it does.
    n2.docker(&["create", "--name", "made", IMAGE, "sleep", "100000"])?;
    n2.docker(&["network", "connect", "ovl", "made"])?;
    ensure!(places(n1)?.len() == 1);
    n2.docker(&["start", "made"])?;
    ensure!(address(n2, "made", "ovl")?.is_some());
    wait_for("made reaches peer", SOON, || reaches(n2, "made", &peer))?;
    n2.docker(&["rm", "--force", "made", "late"])?;
    n1.docker(&["rm", "--force", "peer"])?;
    Ok(())
}

fn what_is_in_use_stays(n1: &Host, n3: &Host) -> Result<()> {
    run(n3, "user", &["--network", "ovm"])?;
    let task = places(n1)?.pop().context("no place")?;
    let (id, task) = (network_id(n1, "ovm")?, id_of(&task)?);
    let refused = refusal(n1, &["network", "rm", "ovm"])?;
    let text = format!("network {id} is in use by task {task}");
    ensure!(refused.contains(&text), "{refused}");
    n3.docker(&["stop", "--time", "0", "user"])?;
    n1.docker(&["network", "rm", "ovm"])?;
    let refused = refusal(n3, &["start", "user"])?;
    let text = "Could not attach to network ovm: rpc error: code = NotFound desc = network";
    ensure!(refused.contains(text), "{refused}");
    n3.docker(&["rm", "user"])?;
    let name = format!("skep-{id}");
    wait_for("nothing is left of it", SOON, || {
        let list = ["network", "ls", "--format", "{{.Name}}"];
        fleet::docker_ok(&n3.engine_socket(), &list).is_ok_and(|all| !all.contains(&name))
    })
}

fn restarts_keep_places(n1: &Host, n2: &Host) -> Result<()> {
    run(n1, "peer", &["--network", "ovl"])?;
    let options = [
        "--detach",
        "--restart",
        "always",
        "--name",
        "again",
        "--network",
        "ovl",
    ];
    let ends = "trap exit TERM; while :; do sleep 0.2; done";
    n2.docker(&[&["run"], &options[..], &[IMAGE, "sh", "-c", ends]].concat())?;
    let before = address(n2, "again", "ovl")?;
    let peer = address(n1, "peer", "ovl")?.context("peer has none")?;
    let place = |host: &Host| -> Result<BTreeSet<String>> {
        let all = places(host)?;
        let ids: Result<BTreeSet<String>> = all.iter().map(id_of).collect();
        ids
    };
    let had = place(n1)?;
    // It ends by itself, and the engine starts it again.
    n2.docker(&["exec", "again", "kill", "-TERM", "1"])?;
    let restarts = || n2.docker(&["inspect", "--format", "{{.RestartCount}}", "again"]);
    wait_for("a restart", SOON, || {
        restarts().is_ok_and(|count| count.trim() == "1")
    })?;
    wait_for("again runs", SOON, || reaches(n2, "again", &peer))?;
    ensure!(address(n2, "again", "ovl")? == before);
    ensure!(place(n1)? == had, "no place was lost");
    n2.stop(Part::Engine)?;
    n2.start(Part::Engine)?;
    wait_for("again is back", PATIENCE, || reaches(n2, "again", &peer))?;
    ensure!(address(n2, "again", "ovl")? == before);
    ensure!(place(n1)? == had, "no place was lost");
    // Stopped and started it may get another address, but is back.
    n2.docker(&["stop", "--time", "0", "again"])?;
    ensure!(place(n1)?.len() == 1);
    n2.docker(&["start", "again"])?;
    wait_for("again reaches peer", SOON, || reaches(n2, "again", &peer))
}

fn a_daemon_comes_back_to_its_containers(n1: &Host, n2: &Host) -> Result<()> {
    let peer = address(n1, "peer", "ovl")?.context("peer has none")?;
    n2.stop(Part::Skepd)?;
    n2.start(Part::Skepd)?;
    wait_for("n2 is back", PATIENCE, || n2.docker(&["info"]).is_ok())?;
    ensure!(reaches(n2, "again", &peer));
    ensure!(places(n1)?.len() == 2);
    // What ends while nobody looks is found to have ended.
    fleet::docker_ok(&n2.engine_socket(), &["rm", "--force", "again"])?;
    await_places(n1, 1)
}

fn a_node_leaves(n1: &Host, n2: &Host) -> Result<()> {
    run(n2, "left", &["--network", "ovl"])?;
    ensure!(places(n1)?.len() == 2);
    n2.docker(&["swarm", "leave"])?;
    await_places(n1, 1)?;
    let running = n2.docker(&["ps", "--format", "{{.Names}}"])?;
    ensure!(running.contains("left"), "{running}");
    let networks = fleet::docker_ok(&n2.engine_socket(), &["network", "ls"])?;
    ensure!(!networks.contains("skep-"), "{networks}");
    n1.docker(&["rm", "--force", "peer"])?;
    n1.docker(&["network", "rm", "ovl"])?;
    Ok(())
}

/// With an address for packets of networks alone, on an interface that takes smaller ones.
fn it_comes_back_on_another_wire(fleet: &Fleet, n1: &Host, n2: &Host) -> Result<()> {
    const WIRE: &str = "10.202.0.2";
    n1.exec(&["ip", "route", "add", "10.202.0.0/24", "dev", "eth0"])?;
    n2.exec(&["ip", "addr", "add", "10.202.0.2/24", "dev", "eth0"])?;
    n2.exec(&["ip", "link", "set", "eth0", "mtu", "1400"])?;
    let token = n1.docker(&["swarm", "join-token", "--quiet", "worker"])?;
    let join = ["swarm", "join", "--token", token.trim()];
    let manager = n1.address();
    n2.docker(&[&join[..], &["--data-path-addr", WIRE, &manager]].concat())?;
    wait_for("the node to be there", SOON, || {
        let info = n2.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]);
        info.is_ok_and(|state| state.trim() == "active")
    })?;
    // Everything else goes where it went.
    let own = n2.docker(&["info", "--format", "{{.Swarm.NodeAddr}}"])?;
    ensure!(own.trim() == n2.address(), "{own}");
    for (network, options, usual) in [
        ("wide", &["--attachable"][..], 1450),
        ("sealed", &["--attachable", "--opt", "encrypted"][..], 1390),
    ] {
        let create = ["network", "create", "--driver", "overlay"];
        n1.docker(&[&create[..], options, &[network]].concat())?;
        let (first, second) = (format!("{network}1"), format!("{network}2"));
        run(n1, &first, &["--network", network])?;
        run(n2, &second, &["--network", network])?;
        for (host, container, mtu) in [(n1, &first, usual), (n2, &second, usual - 100)] {
            let shown = host.docker(&["exec", container, "cat", "/sys/class/net/eth0/mtu"])?;
            ensure!(shown.trim() == mtu.to_string(), "{container}: {shown}");
        }
        much_arrives((n1, &first), (n2, &second), network)?;
        much_arrives((n2, &second), (n1, &first), network)?;
        let part: String = network_id(n1, network)?.chars().take(11).collect();
        let device = format!("skvx{part}");
        let sees = |host: &Host, command: &[&str], what: &str| -> Result<()> {
            let said = host.exec(command)?.stdout;
            ensure!(said.contains(what), "{command:?}: {said}");
            Ok(())
        };
        if network == "wide" {
            let fdb = ["bridge", "fdb", "show", "dev", &device];
            sees(n1, &fdb, &format!("dst {WIRE}"))?;
            let shown = ["ip", "-detail", "link", "show", &device];
            sees(n2, &shown, &format!("local {WIRE}"))?;
            sees(n1, &shown, &format!("local {}", n1.address()))?;
        } else {
            sees(n2, &["ss", "-ulnH"], &format!("{WIRE}:4790"))?;
        }
    }
    let told = inspect(n1, "network", "wide")?;
    let peers = told.get("Peers").map(Value::to_string).unwrap_or_default();
    ensure!(peers.contains(&n2.address()), "{peers}");
    await_ready(fleet, 3)
}

/// A connection carries packets of every size.
fn much_arrives(from: (&Host, &str), to: (&Host, &str), network: &str) -> Result<()> {
    let address = address(to.0, to.1, network)?.context("it has none")?;
    let listen = "sleep 60 | nc -l -p 9000 | wc -c > /got";
    to.0.docker(&["exec", "--detach", to.1, "sh", "-c", listen])?;
    let send = format!("head -c 3000000 /dev/zero | nc {address} 9000");
    wait_for(&format!("{} to send to {}", from.1, to.1), SOON, || {
        from.0.docker(&["exec", from.1, "sh", "-c", &send]).is_ok()
    })?;
    wait_for("all of it to arrive", SOON, || {
        let got = to.0.docker(&["exec", to.1, "cat", "/got"]);
        got.is_ok_and(|got| got.trim() == "3000000")
    })
}
