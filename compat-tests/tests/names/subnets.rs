//! A network of several subnets of each kind: whoever is on it, in whichever of them, is found and
//! reached by whoever else is, by IPv4 and by IPv6, between hosts and by the hosts themselves; it is
//! shown as one, and nothing of it is left behind.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::ipv6::{fetch_as, take_turns};
use super::*;

/// What the network is called. Its subnets are so small that one alone does not do.
pub const NAME: &str = "wide";
const SUBNETS: [&str; 3] = ["10.71.0.0/29", "10.72.0.0/29", "10.73.0.0/29"];
/// The first two of those have one of these each, and the third one has a part of the first.
const SUBNETS6: [&str; 2] = ["fd00:71::/64", "fd00:72::/64"];
/// One that nothing else is on.
const BRIEF: &str = "brief";
const TASKS: u64 = 4;

/// Makes the network.
pub fn create_network(host: &Host) -> Result<()> {
    create_as(host, NAME, &[&SUBNETS[..], &SUBNETS6].concat())
}

fn create_as(host: &Host, name: &str, subnets: &[&str]) -> Result<()> {
    let mut create = vec!["network", "create", "--driver", "overlay", "--attachable"];
    create.push("--ipv6");
    create.extend(subnets.iter().flat_map(|it| ["--subnet", it]));
    create.push(name);
    host.docker(&create).map(drop)
}

/// Makes a service whose tasks say who they are, and who asks.
pub fn create_page(host: &Host) -> Result<()> {
    let create = [
        "service", "create", "--detach", "--quiet", "--name", "spread",
    ];
    let replicas = TASKS.to_string();
    let rest = [
        "--replicas",
        &replicas,
        "--network",
        NAME,
        "registry:5000/web:v1",
    ];
    host.docker(&[&create[..], &rest].concat()).map(drop)
}

/// Runs all of it.
pub fn hold(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    await_running(&n1, "spread", TASKS)?;
    let found = addresses(&n1, "spread", NAME)?;
    let all = set(&found);
    ensure!(all.len() == 4, "{all:?}");
    let askers = set(&addresses(&n1, "ask", NAME)?);
    let used = all.iter().chain(&askers).filter_map(|it| it.get(..5));
    ensure!(
        used.collect::<BTreeSet<_>>().len() > 1,
        "{all:?} {askers:?}"
    );
    let vip = vip(&n1, "spread", NAME)?;
    told(fleet, "spread", &[vip.clone(), six(&vip)?].into())?;
    let both = all.iter().map(|it| Ok([it.clone(), six(it)?]));
    let both = both.collect::<Result<Vec<_>>>()?;
    told(
        fleet,
        "tasks.spread.wide",
        &both.concat().into_iter().collect(),
    )?;
    for (address, name) in &found {
        told(fleet, address, &one(&format!("{name}.wide")))?;
        told(fleet, &six(address)?, &one(&format!("{name}.wide")))?;
    }
    for host in fleet.hosts()? {
        reaches(&host, &vip, &all).with_context(|| format!("from {}", host.name()))?;
    }
    shown(fleet, &all, &askers)?;
    a_container_asks_for_an_address(&fleet.host("n2")?, &vip)?;
    nothing_stays(&n1, &fleet.host("n2")?)
}

/// The address of IPv6 that goes with one of IPv4.
fn six(address: &str) -> Result<String> {
    let [_, subnet, _, last] = address.parse::<Ipv4Addr>()?.octets();
    let (subnet, place) = match subnet {
        71 => (0x71, 0),
        72 => (0x72, 0),
        73 => (0x71, 8),
        _ => anyhow::bail!("{address} is in none of the subnets"),
    };
    let last = place + u16::from(last);
    Ok(Ipv6Addr::new(0xfd00, subnet, 0, 0, 0, 0, 0, last).to_string())
}

/// Whether a host's container reaches every task, as itself, by the service's address and by its
/// own; and whether the host does.
fn reaches(host: &Host, vip: &str, tasks: &BTreeSet<String>) -> Result<()> {
    let containers = containers(host)?;
    let asker = containers.iter().find(|it| it.starts_with("ask."));
    let asker = asker.context("nobody asks")?;
    let own = own_address(host, asker)?;
    let own6 = six(&own)?;
    take_turns(host, (asker, &own), vip, tasks.len())?;
    take_turns(host, (asker, &own6), &six(vip)?, tasks.len())?;
    for address in tasks {
        for (own, address) in [(&own, address), (&own6, &six(address)?)] {
            fetch_as(host, (asker, own), address)?;
            let ping = host.exec(&["ping", "-c", "1", "-W", "5", address])?;
            ensure!(
                ping.success(),
                "the host does not reach {address}: {}",
                ping.stdout
            );
        }
    }
    Ok(())
}

/// A container's address on the network, as clients see it.
fn own_address(host: &Host, container: &str) -> Result<String> {
    let format = "{{.NetworkSettings.Networks.wide.IPAddress}}";
    let own = host.docker(&["container", "inspect", "--format", format, container])?;
    Ok(own.trim().to_owned())
}

/// It is one network to whoever looks at it, with all who are there.
fn shown(fleet: &Fleet, tasks: &BTreeSet<String>, askers: &BTreeSet<String>) -> Result<()> {
    let mut there = BTreeSet::new();
    for host in fleet.hosts()? {
        let network = inspect(&host, "network", NAME)?;
        let pools = network["IPAM"]["Config"].as_array().cloned();
        let pools = pools.unwrap_or_default();
        let subnets: BTreeSet<&str> = pools
            .iter()
            .filter_map(|it| it["Subnet"].as_str())
            .collect();
        let expected = SUBNETS.into_iter().chain(SUBNETS6).collect();
        ensure!(subnets == expected, "{network}");
        let ids = &network["Options"]["com.docker.network.driver.overlay.vxlanid_list"];
        ensure!(
            ids.as_str().is_some_and(|it| it.split(',').count() == 3),
            "{ids}"
        );
        let containers = network["Containers"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        ensure!(containers.contains_key("lb-wide"), "{network}");
        let gateways: Vec<&Value> = pools.iter().map(|it| &it["Gateway"]).collect();
        for it in containers.values() {
            let address = it["IPv4Address"]
                .as_str()
                .and_then(|it| it.split('/').next());
            let address = address.context("no address")?;
            ensure!(!gateways.iter().any(|it| *it == address), "{network}");
            ensure!(there.insert(address.to_owned()), "{network}");
            let second = it["IPv6Address"]
                .as_str()
                .and_then(|it| it.split('/').next());
            ensure!(second == Some(&six(address)?), "{network}");
        }
        let listed = host.docker(&[
            "network",
            "ls",
            "--filter",
            "name=wide",
            "--format",
            "{{.Name}}",
        ]);
        ensure!(listed? == "wide\n");
        let on = host.docker(&["ps", "--quiet", "--filter", "network=wide"])?;
        ensure!(
            on.lines().count() == containers.len() - 1,
            "{on}: {network}"
        );
    }
    // Two hosts, and those of the tasks.
    ensure!(there.len() == 2 + tasks.len() + askers.len(), "{there:?}");
    ensure!(
        there.is_superset(tasks) && there.is_superset(askers),
        "{there:?}"
    );
    Ok(())
}

/// A container that is no task's may ask for an address of any subnet, and uses it at once.
fn a_container_asks_for_an_address(host: &Host, vip: &str) -> Result<()> {
    let network = inspect(host, "network", NAME)?;
    // The last one is given out last.
    let last = network["IPAM"]["Config"][2]["Subnet"].as_str();
    let address = last.context("no subnet")?.replace(".0/29", ".6");
    // Out of the network it goes by the way that every node has there.
    let out = format!("ping -c 1 -W 5 {RESOLVER} > /dev/null || echo nothing outside");
    let (vip, address6) = ([vip.to_owned(), six(vip)?], six(&address)?);
    let ask = vip.map(|vip| format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {vip} 80"));
    let script = format!("ip route; {out}; {}", ask.join("; "));
    let run = ["run", "--rm", "--network", NAME, "--ip6", &address6];
    let what = ["registry:5000/busybox", "sh", "-c", script.as_str()];
    let page = host.docker(&[&run[..], &what].concat())?;
    for address in [address, address6] {
        ensure!(page.contains(&format!("client: {address}\n")), "{page}");
    }
    ensure!(!page.contains("nothing outside"), "{page}");
    Ok(())
}

/// What the host had of a network goes with the last who was on it.
fn nothing_stays(manager: &Host, host: &Host) -> Result<()> {
    // Without one of IPv6 there is one of the swarm's own.
    create_as(manager, BRIEF, &["10.75.0.0/24", "10.76.0.0/24"])?;
    let run = [
        "run",
        "--detach",
        "--name",
        "short",
        "--stop-timeout",
        "0",
        "--network",
        BRIEF,
    ];
    host.docker(&[&run[..], &["registry:5000/busybox", "sleep", "100000"]].concat())?;
    let id = inspect(manager, "network", BRIEF)?["Id"].clone();
    let start = id.as_str().and_then(|it| it.get(..7)).context("no id")?;
    let left = || -> Result<String> {
        let devices = host.exec(&["ip", "-o", "link", "show"])?.stdout;
        let routes = host.exec(&["ip", "route", "show"])?.stdout;
        let routes6 = host.exec(&["ip", "-6", "route", "show"])?.stdout;
        let is_its = |line: &&str| {
            line.contains(start) || line.contains("10.75.0.") || line.contains("10.76.0.")
        };
        let all = [devices, routes, routes6].concat();
        let all: Vec<&str> = all.lines().filter(is_its).collect();
        Ok(all.join("\n"))
    };
    // Two bridges, the way between them and the one to other hosts.
    let before = left()?;
    ensure!(before.lines().count() >= 5, "{before}");
    host.docker(&["rm", "--force", "short"])?;
    wait_for("nothing to be left of the network", PATIENCE, || {
        left().is_ok_and(|it| it.is_empty())
    })
    .with_context(|| left().unwrap_or_default())?;
    manager.docker(&["network", "rm", BRIEF]).map(drop)
}
