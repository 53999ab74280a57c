//! The network that ports are published on is made again with several subnets: hosts and tasks have
//! their addresses in different ones, every host leads to every task all the same, and tasks see who
//! asks, by IPv4 and by IPv6.

use super::*;

/// What the network is called.
const NETWORK: &str = "wide";
/// In each there are three addresses: in the order in which they are given out, the service's and
/// those of two hosts, that of the third one and of tasks, and those of the others. One is left for a
/// node that has been beside another on a host.
const POOLS: [[&str; 2]; 6] = [
    ["--subnet", "10.97.0.0/29"],
    ["--ip-range", "10.97.0.4/30"],
    ["--subnet", "10.98.0.0/29"],
    ["--ip-range", "10.98.0.4/30"],
    ["--subnet", "10.99.0.0/29"],
    ["--ip-range", "10.99.0.4/30"],
];
const TASKS: usize = 4;

/// Runs all of it, after [`super::ipv6`] and while nothing is published.
pub fn work(fleet: &Fleet, hosts: &[Host], client: &str) -> Result<()> {
    let [n1, ..] = hosts else { bail!("no hosts") };
    wait_for("the network to be gone", SOON, || {
        let remove = |it: fleet::Cmd| it.args(["network", "rm", "front"]).stdin("y\n").ok();
        n1.docker_cmd().and_then(remove).is_ok()
    })?;
    let create = ["network", "create", "--driver", "overlay", "--ingress"];
    n1.docker(&[&create[..], POOLS.as_flattened(), &["--ipv6", NETWORK]].concat())?;
    create_web(n1, "web", "4", &["--publish", "8080:80"])?;
    await_running(n1, "web", 4)?;
    are_in_different_ones(hosts)?;
    for (number, host) in (1..).zip(hosts) {
        let at = [
            (format!("{}:8080", host.address()), client),
            (format!("[fd00:c9::{number}]:8080"), "fd00:c9::64"),
        ];
        for (at, client) in at {
            let mut seen = BTreeSet::new();
            wait_for("tasks to see who asks", SOON, || {
                seen = pages(fleet, None, &at, TASKS).unwrap_or_default();
                seen.len() == 1 && seen.contains(client)
            })
            .map_err(|error| error.context(format!("{at}: {seen:?}")))?;
        }
    }
    // Plain containers are asked for before, while no other engine has been at their bridge.
    for host in hosts {
        pages(fleet, Some(host), "127.0.0.1:8080", TASKS)?;
    }
    n1.docker(&["service", "rm", "web"]).map(drop)
}

/// Hosts have their addresses in two of the subnets, and tasks in two.
fn are_in_different_ones(hosts: &[Host]) -> Result<()> {
    let [n1, ..] = hosts else { bail!("no hosts") };
    let beginning = |address: &serde_json::Value| {
        let address = address.as_str().unwrap_or_default();
        address.get(..5).map(str::to_owned)
    };
    let (mut own, mut of_tasks) = (BTreeSet::new(), BTreeSet::new());
    for host in hosts {
        let network = inspect(host, "network", NETWORK)?;
        let here = network.pointer("/Containers/ingress-sbox/IPv4Address");
        own.extend(here.and_then(beginning));
    }
    for task in tasks(n1, "web")? {
        let address = task.pointer("/NetworksAttachments/0/Addresses/0");
        of_tasks.extend(address.and_then(beginning));
    }
    // The CLI names them in any order.
    let both = own.intersection(&of_tasks).count();
    let counts = (own.len(), both, of_tasks.len());
    ensure!(counts == (2, 1, 2), "{own:?} {of_tasks:?}");
    Ok(())
}
