//! A network with IPv6: everybody on it has two addresses, that of IPv6 at the same place as that of
//! IPv4; names, virtual addresses and direct ways work with either, between hosts, and whoever is
//! reached sees who asks.

use std::net::Ipv6Addr;

use super::*;

/// What the network is called, and its subnets.
pub const NAME: &str = "six";
const IPV4: &str = "10.66.0.0/24";
const IPV6: &str = "fd00:66::/64";

/// Makes the network.
pub fn create_network(host: &Host) -> Result<()> {
    let create = ["network", "create", "--driver", "overlay", "--attachable"];
    let pools = ["--ipv6", "--subnet", IPV6, "--subnet", IPV4, NAME];
    host.docker(&[&create[..], &pools].concat()).map(drop)
}

/// Makes a service whose tasks say who they are, and who asks.
pub fn create_page(host: &Host) -> Result<()> {
    let create = ["service", "create", "--detach", "--quiet", "--name", "page"];
    let rest = ["--replicas", "2", "--network", NAME, "registry:5000/web:v1"];
    host.docker(&[&create[..], &rest].concat()).map(drop)
}

/// Runs all of it.
pub fn hold(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    // Nobody forwards IPv6 here that is not allowed to.
    for host in fleet.hosts()? {
        let drop = ["ip6tables", "-w", "-P", "FORWARD", "DROP"];
        ensure!(host.exec(&drop)?.success());
    }
    await_running(&n1, "page", 2)?;
    let tasks = places(&n1, "page")?;
    ensure!(tasks.len() == 2, "{tasks:?}");
    let service = inspect(&n1, "service", "page")?;
    let vips = service["Endpoint"]["VirtualIPs"].as_array().cloned();
    let vips = vips.unwrap_or_default().into_iter();
    let vips: Vec<String> = vips.filter_map(|it| plain(&it["Addr"])).collect();
    let [_, vip] = pair(&vips)?;
    let all = tasks.iter().flat_map(|(both, _)| both.clone());
    told(fleet, "page", &vips.iter().cloned().collect())?;
    told(fleet, "tasks.page.six", &all.collect())?;
    told(fleet, &vip, &one("page.six"))?;
    // One of the network's that nobody has.
    told(fleet, "fd00:66::fe", &BTreeSet::new())?;
    for ([_, address], name) in &tasks {
        told(fleet, address, &one(&format!("{name}.six")))?;
    }
    for host in fleet.hosts()? {
        reaches(&host, &vip, &tasks).with_context(|| format!("from {}", host.name()))?;
    }
    a_container_is_there_too(&fleet.host("n2")?, &vip)
}

/// An address without the length of its prefix.
fn plain(address: &serde_json::Value) -> Option<String> {
    let address = address.as_str()?.split('/').next()?;
    Some(address.to_owned())
}

/// An address of IPv4 and one of IPv6, at the same place in their subnets.
fn pair(addresses: &[String]) -> Result<[String; 2]> {
    let [ipv4, ipv6] = addresses else {
        anyhow::bail!("{addresses:?}");
    };
    let place = ipv4.strip_prefix("10.66.0.").context("another subnet")?;
    let expected = Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, place.parse()?);
    ensure!(ipv6.parse::<Ipv6Addr>()? == expected, "{addresses:?}");
    Ok([ipv4.clone(), ipv6.clone()])
}

/// The addresses of a service's tasks, with the tasks' containers' names.
fn places(host: &Host, service: &str) -> Result<Vec<([String; 2], String)>> {
    let tasks = tasks(host, service)?;
    let running = tasks.iter().filter(|it| it["Status"]["State"] == "running");
    let one = |task: &serde_json::Value| {
        let all = task["NetworksAttachments"][0]["Addresses"].as_array();
        let all = all.into_iter().flatten().filter_map(plain);
        let both = pair(&all.collect::<Vec<_>>())?;
        let id = task["ID"].as_str().unwrap_or_default();
        Ok((both, format!("{service}.{}.{id}", task["Slot"])))
    };
    running.map(one).collect()
}

/// What is said by whoever serves at an address, asked by a container.
pub fn fetch(host: &Host, container: &str, address: &str) -> Result<String> {
    let script = request(address);
    let ask = ["exec", container, "sh", "-c", &script];
    docker_ok(&host.engine_socket(), &ask)
}

/// That, which has to be said to this address of the container.
pub fn fetch_as(host: &Host, (container, own): (&str, &str), address: &str) -> Result<String> {
    let page = fetch(host, container, address)?;
    ensure!(page.contains(&format!("client: {own}\n")), "{own}: {page}");
    Ok(page)
}

/// Whether all tasks of a service answer at its address in turn.
pub fn take_turns(host: &Host, from: (&str, &str), vip: &str, tasks: usize) -> Result<()> {
    let mut answers = BTreeSet::new();
    for _ in 0..2 * tasks {
        let page = fetch_as(host, from, vip)?;
        let name = page.lines().find(|line| line.starts_with("hostname:"));
        answers.extend(name.map(str::to_owned));
    }
    ensure!(answers.len() == tasks, "{answers:?}");
    Ok(())
}

/// Not wget: busybox's, linked statically, crashes in some containers.
fn request(address: &str) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80")
}

/// Whether a host's container reaches every task, by the service's address and by its own.
fn reaches(host: &Host, vip: &str, tasks: &[([String; 2], String)]) -> Result<()> {
    let all = containers(host)?;
    let asker = all.iter().find(|it| it.starts_with("ask."));
    let asker = asker.context("nobody asks")?;
    let name = asker.clone();
    let command = ["exec", &name, "ip", "-6", "addr", "show", "scope", "global"];
    let own = docker_ok(&host.engine_socket(), &command)?;
    let own = own
        .lines()
        .filter_map(|it| it.trim().strip_prefix("inet6 "));
    let mut own = own.filter_map(|it| it.split('/').next());
    let own = own.find(|it| it.starts_with("fd00:66::"));
    let own = own.context("no address")?;
    take_turns(host, (asker, own), vip, tasks.len())?;
    for ([_, address], _) in tasks {
        fetch_as(host, (asker, own), address)?;
    }
    let ping = ["exec", &name, "ping", "-c", "1", "-W", "5", vip];
    docker_ok(&host.engine_socket(), &ping).map(drop)
}

/// A container that is no task's may ask for its address of IPv6, and uses it at once.
fn a_container_is_there_too(host: &Host, vip: &str) -> Result<()> {
    let script = request(vip);
    let run = ["run", "--rm", "--network", NAME, "--ip6", "fd00:66::77"];
    let what = ["registry:5000/busybox", "sh", "-c", script.as_str()];
    let page = host.docker(&[&run[..], &what].concat())?;
    ensure!(page.contains("client: fd00:66::77\n"), "{page}");
    Ok(())
}
