//! A network of several subnets, each of which is a network of podman's on every host: whoever is in
//! one reaches whoever is in another.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, docker_ok, wait_for};

/// So small that one of them alone does not do.
const SUBNETS: [&str; 3] = ["10.81.0.0/29", "10.82.0.0/29", "10.83.0.0/29"];

pub fn are_one_network(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let mut network = vec!["network", "create", "--driver", "overlay"];
    network.extend(SUBNETS.iter().flat_map(|it| ["--subnet", it]));
    network.push("wide");
    n1.docker(&network)?;
    let create = ["service", "create", "--detach", "--quiet", "--name", "far"];
    let rest = [
        "--replicas",
        "6",
        "--network",
        "wide",
        "--stop-grace-period",
        "0s",
    ];
    // Not ping: podman's containers may not.
    let serve = "while :; do echo here | nc -l -p 80; done";
    let command = ["registry:5000/busybox", "sh", "-c", serve];
    n1.docker(&[&create[..], &rest, &command].concat())?;
    await_running(&n1, "far", 6)?;
    let mut addresses = BTreeSet::new();
    for task in tasks(&n1, "far")? {
        let address = task.pointer("/NetworksAttachments/0/Addresses/0");
        let address = address.and_then(serde_json::Value::as_str);
        let address = address.and_then(|it| it.split('/').next());
        addresses.insert(address.context("no address")?.to_owned());
    }
    let used: BTreeSet<&str> = addresses.iter().filter_map(|it| it.get(..5)).collect();
    ensure!(addresses.len() == 6 && used.len() > 1, "{addresses:?}");
    for host in fleet.hosts()? {
        let all = containers(&host)?;
        for container in all.iter().filter(|it| it.starts_with("far.")) {
            for address in &addresses {
                let ask = ["exec", container, "nc", "-w", "2", address, "80"];
                let what = format!("{address} to be reached from {container}");
                // One that has just answered is not there for a moment.
                let hears =
                    || docker_ok(&host.engine_socket(), &ask).is_ok_and(|it| it == "here\n");
                wait_for(&what, PATIENCE, hears)?;
            }
        }
        for address in &addresses {
            let ping = host.exec(&["ping", "-c", "1", "-W", "5", address])?;
            ensure!(ping.success(), "{} does not reach {address}", host.name());
        }
    }
    n1.docker(&["service", "rm", "far"]).map(drop)
}
