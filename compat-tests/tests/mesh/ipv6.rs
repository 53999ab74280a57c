//! IPv6 on hosts whose firewall forwards none of it that nobody has allowed: ports published at the
//! hosts' IPv6 addresses, on a network without and with IPv6, and an encrypted network with it.

use super::*;

/// What the network is called.
const NETWORK: &str = "six";
/// Whoever is refused by a packet of his own kernel hears it within this; asking a second time takes
/// the kernel longer.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Runs all of it, while `web` is published at 8080 and has two tasks.
pub fn hold(fleet: &Fleet, hosts: &[Host]) -> Result<()> {
    let own = |number: u16| format!("fd00:c9::{number}/64");
    let add = |address: &str| format!("ip -6 addr add {address} dev eth0 nodad");
    for (number, host) in (1..).zip(hosts) {
        let script = add(&own(number)) + " && ip6tables -w -P FORWARD DROP";
        let done = host.exec(&["sh", "-c", &script])?;
        ensure!(done.success(), "{done:?}");
    }
    let script = add("fd00:c9::64/64");
    ensure!(fleet.client(&["sh", "-c", &script])?.success());
    for number in 1..=hosts.len() {
        pages(fleet, None, &format!("[fd00:c9::{number}]:8080"), 2)?;
    }
    within_a_network(fleet, hosts)
}

/// Every task reaches every other, on any host.
fn within_a_network(fleet: &Fleet, hosts: &[Host]) -> Result<()> {
    let [n1, ..] = hosts else { bail!("no hosts") };
    let create = ["network", "create", "--driver", "overlay", "--ipv6"];
    n1.docker(&[&create[..], &["--opt", "encrypted", NETWORK]].concat())?;
    // Engines lead a container's way out over a network with IPv6: clients are answered all the same.
    let on_it = [
        "--network",
        NETWORK,
        "--replicas-max-per-node",
        "1",
        "--publish",
        "8090:80",
    ];
    create_web(n1, "page", "3", &on_it)?;
    create_web(n1, "none", "0", &["--detach", "--network", NETWORK])?;
    await_running(n1, "page", 3)?;
    for host in hosts {
        pages(fleet, None, &format!("{}:8090", host.address()), 3)?;
    }
    let vip = ipv6_of(n1, "page")?;
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {vip} 80");
    for host in hosts {
        for container in containers_of(host, "page")? {
            let ask = ["exec", &container, "sh", "-c", &script];
            let mut seen = BTreeSet::new();
            wait_for("an answer of every task", SOON, || {
                let said = fleet::docker_ok(&host.engine_socket(), &ask).unwrap_or_default();
                let name = said.lines().find(|line| line.starts_with("hostname:"));
                seen.extend(name.map(str::to_owned));
                seen.len() == 3
            })
            .map_err(|error| error.context(format!("on {}: {seen:?}", host.name())))?;
        }
    }
    let nobody = ipv6_of(n1, "none")?;
    for host in hosts {
        is_refused_at_once(host, &nobody)?;
    }
    n1.docker(&["service", "rm", "page", "none"])?;
    wait_for("the network to be free", SOON, || {
        n1.docker(&["network", "rm", NETWORK]).is_ok()
    })
}

/// The network that ports are published on is made again with IPv6, while nothing is published: tasks
/// see who comes by IPv6, too. The hosts' firewalls are as [`hold`] has left them.
pub fn is_seen_by_tasks(fleet: &Fleet, hosts: &[Host]) -> Result<()> {
    let [n1, ..] = hosts else { bail!("no hosts") };
    wait_for("the network to be gone", SOON, || {
        let remove = |it: fleet::Cmd| it.args(["network", "rm", "ingress"]).stdin("y\n").ok();
        n1.docker_cmd().and_then(remove).is_ok()
    })?;
    let create = ["network", "create", "--driver", "overlay", "--ingress"];
    n1.docker(
        &[
            &create[..],
            &["--ipv6", "--subnet", "10.99.0.0/24", "front"],
        ]
        .concat(),
    )?;
    let options = ["--publish", "8080:80", "--replicas-max-per-node", "1"];
    create_web(n1, "web", "2", &options)?;
    await_running(n1, "web", 2)?;
    for number in 1..=hosts.len() {
        let at = format!("[fd00:c9::{number}]:8080");
        let mut seen = BTreeSet::new();
        wait_for("tasks to see who asks", SOON, || {
            seen = pages(fleet, None, &at, 2).unwrap_or_default();
            seen.len() == 1 && seen.iter().all(|it| it.contains("fd00:c9::64"))
        })
        .map_err(|error| error.context(format!("{at}: {seen:?}")))?;
    }
    n1.docker(&["service", "rm", "web"]).map(drop)
}

/// A service's IPv6 address.
fn ipv6_of(host: &Host, service: &str) -> Result<String> {
    let service = inspect(host, "service", service)?;
    let all = service.pointer("/Endpoint/VirtualIPs");
    let all = all.and_then(|it| it.as_array()).into_iter().flatten();
    let plain = |it: &str| it.split('/').next().map(str::to_owned);
    let mut all = all.filter_map(|it| plain(it.get("Addr")?.as_str()?));
    match all.find(|it| it.contains(':')) {
        Some(address) => Ok(address),
        None => bail!("no address of IPv6: {service}"),
    }
}

fn is_refused_at_once(host: &Host, address: &str) -> Result<()> {
    let url = format!("http://[{address}]/");
    let mut last = String::new();
    wait_for("a refusal at once", SOON, || {
        let begun = Instant::now();
        let asked = host.exec(&["wget", "-nv", "-t", "1", "-T", "5", "-O", "-", &url]);
        let took = begun.elapsed();
        last = format!("{took:?}: {asked:?}");
        took < AT_ONCE && last.contains("refused")
    })
    .map_err(|error| error.context(format!("on {}: {last}", host.name())))
}
