//! Stacks of real compose files, and the networks that they need, with the real CLI on three hosts:
//! what is deployed reaches each other on whatever host, and nothing is left of what is removed.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options, Part, docker_ok, wait_for};
use serde_json::Value;

#[test]
fn stacks_are_deployed_changed_and_removed() -> Result<()> {
    let fleet = Fleet::up(&Options {
        swarm: true,
        managers: 1,
        ..Options::test("stack")
    })?;
    await_ready(&fleet, 3)?;
    let n1 = fleet.host("n1")?;
    refusals(&fleet)?;
    deploy(&n1, &["shop.yml", "extra.yml"], "1", &[])?;
    await_running(&n1, "shop_web", 3)?;
    await_agents(&n1)?;
    await_running(&n1, "shop_extra", 1)?;
    what_the_cli_shows(&n1)?;
    containers_reach_each_other(&fleet)?;
    files_and_environment(&fleet)?;
    a_daemon_comes_back_to_its_networks(&fleet)?;
    only_what_changed_is_changed(&n1)?;
    containers_reach_each_other(&fleet)?;
    a_network_of_the_engines_own(&n1)?;
    an_encrypted_network(&fleet)?;
    nothing_is_left(&fleet)
}

fn file(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/stacks");
    dir.join(name).to_string_lossy().into_owned()
}

fn deploy(host: &Host, files: &[&str], stamp: &str, options: &[&str]) -> Result<String> {
    let files = files.iter().flat_map(|name| ["-c".to_owned(), file(name)]);
    let command = host.docker_cmd()?.args(["stack", "deploy"]).args(options);
    command.args(files).arg("shop").env("STAMP", stamp).ok()
}

fn refusals(fleet: &Fleet) -> Result<()> {
    let (n1, n3) = (fleet.host("n1")?, fleet.host("n3")?);
    n1.docker(&["network", "create", "--driver", "bridge", "mine"])?;
    let overlay = ["network", "create", "--driver", "overlay"];
    let refused = |host: &Host, rest: &[&str]| refusal(host, &[&overlay, rest].concat());
    let table = [
        (&n1, &["mine"][..], "network with name mine already exists"),
        (
            &n1,
            &["ingress"],
            "network with name ingress already exists",
        ),
        (&n1, &["a.b"], "name must be valid as a DNS name component"),
        (
            &n3,
            &["x"],
            "Cannot create a multi-host network from a worker node.",
        ),
    ];
    for (host, rest, text) in table {
        let said = refused(host, rest)?;
        ensure!(said.contains(text), "{rest:?}: {said}");
    }
    n1.docker(&["network", "rm", "mine"])?;
    let create = [
        "service",
        "create",
        "--detach",
        "--network",
        "nosuch",
        "registry:5000/busybox",
    ];
    let said = refusal(&n1, &create)?;
    ensure!(said.contains("network nosuch not found"), "{said}");
    // The option of a range, an own subnet and a pruned network.
    let options = [
        "--subnet",
        "10.77.0.0/24",
        "--ip-range",
        "10.77.0.128/25",
        "ranged",
    ];
    n1.docker(&[&overlay[..], &options].concat())?;
    let ipam = inspect(&n1, "network", "ranged")?["IPAM"]["Config"][0].clone();
    ensure!(
        ipam["Subnet"] == "10.77.0.0/24" && ipam["Gateway"] == "10.77.0.1",
        "{ipam}"
    );
    let said = refused(&n1, &["--subnet", "10.77.0.0/16", "y"])?;
    ensure!(said.contains("Pool overlaps with other one"), "{said}");
    let pruned = n1.docker(&["network", "prune", "--force"])?;
    ensure!(
        pruned.contains("ranged") && !pruned.contains("ingress"),
        "{pruned}"
    );
    what_a_host_has_is_not_chosen(&n1, &n3)
}

/// A network that an engine made for itself while its node was in the swarm.
fn what_a_host_has_is_not_chosen(n1: &Host, n3: &Host) -> Result<()> {
    let chosen = || -> Result<String> {
        n1.docker(&["network", "create", "--driver", "overlay", "next"])?;
        let network = inspect(n1, "network", "next")?;
        n1.docker(&["network", "rm", "next"])?;
        let subnet = network["IPAM"]["Config"][0]["Subnet"].as_str();
        Ok(subnet.context("a network has no subnet")?.to_owned())
    };
    let subnet = chosen()?;
    ensure!(chosen()? == subnet, "{subnet} is not chosen again");
    n3.docker(&["network", "create", "--subnet", &subnet, "own"])?;
    wait_for("a subnet that no host has", PATIENCE, || {
        chosen().is_ok_and(|next| next != subnet)
    })?;
    n3.docker(&["network", "rm", "own"])?;
    wait_for("the host's subnet to be free again", PATIENCE, || {
        chosen().is_ok_and(|next| next == subnet)
    })
}

fn await_agents(host: &Host) -> Result<()> {
    wait_for("an agent on every node", PATIENCE, || {
        tasks(host, "shop_agent").is_ok_and(|tasks| live(&tasks).len() == 3)
    })
}

/// The tasks that run and are meant to.
fn live(tasks: &[Value]) -> Vec<&Value> {
    let running =
        |task: &&Value| task["Status"]["State"] == "running" && task["DesiredState"] == "running";
    tasks.iter().filter(running).collect()
}

fn what_the_cli_shows(host: &Host) -> Result<()> {
    let format = ["--format", "{{.Name}} {{.Services}}"];
    let listed = host.docker(&[&["stack", "ls"], &format[..]].concat())?;
    ensure!(listed.trim() == "shop 3", "{listed}");
    let format = ["--format", "{{.Name}} {{.Replicas}}", "shop"];
    let listed = host.docker(&[&["stack", "services"], &format[..]].concat())?;
    let services: BTreeSet<String> = lines(&listed).into_iter().collect();
    let expected = [
        "shop_agent 3/3",
        "shop_extra 1/1",
        "shop_web 3/3 (max 1 per node)",
    ];
    ensure!(services == expected.map(str::to_owned).into(), "{listed}");
    let ps = host.docker(&["stack", "ps", "--quiet", "shop"])?;
    ensure!(lines(&ps).len() == 7, "{ps}");
    let config = host.docker(&["stack", "config", "-c", &file("shop.yml")])?;
    ensure!(config.contains("internal: true"), "{config}");

    let service = inspect(host, "service", "shop_web")?;
    let vips = &service["Endpoint"]["VirtualIPs"];
    ensure!(
        vips.as_array().is_some_and(|vips| vips.len() == 2),
        "{vips}"
    );
    let network = inspect(host, "network", "shop_front")?;
    let id = network["Id"].as_str().unwrap_or_default();
    ensure!(id.len() == 25 && network["Scope"] == "swarm", "{network}");
    ensure!(
        network["Labels"]["com.docker.stack.namespace"] == "shop",
        "{network}"
    );
    let here = network["Containers"].as_object().context("containers")?;
    // The one task of this node, and the node itself, as the original shows it.
    ensure!(
        here.len() == 2 && here.contains_key("lb-shop_front"),
        "{network}"
    );
    let said = refusal(host, &["network", "rm", "shop_front"])?;
    ensure!(
        said.contains(&format!("network {id} is in use by service")),
        "{said}"
    );
    Ok(())
}

/// The addresses of a service's live tasks on a network.
fn addresses(host: &Host, service: &str, network: &str) -> Result<Vec<String>> {
    let tasks = tasks(host, service)?;
    let attachments = live(&tasks).into_iter().flat_map(|task| {
        let attachments = task["NetworksAttachments"].as_array();
        attachments.cloned().unwrap_or_default()
    });
    let of = attachments.filter(|it| it["Network"]["Spec"]["Name"] == network);
    let address = |it: Value| it["Addresses"][0].as_str().map(str::to_owned);
    let bare = |cidr: String| cidr.split('/').next().unwrap_or_default().to_owned();
    Ok(of.filter_map(address).map(bare).collect())
}

/// Runs a command in the container of a service on a host.
fn within(host: &Host, service: &str, command: &[&str]) -> Result<String> {
    let all = containers(host)?;
    let prefix = format!("{service}.");
    let name = all.iter().find(|name| name.starts_with(&prefix));
    let name = name.with_context(|| format!("no {service} on {}: {all:?}", host.name()))?;
    docker_ok(&host.engine_socket(), &[&["exec", name], command].concat())
}

fn containers_reach_each_other(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let front = addresses(&n1, "shop_web", "shop_front")?;
    let back = addresses(&n1, "shop_web", "shop_back")?;
    let agents = addresses(&n1, "shop_agent", "shop_back")?;
    ensure!([&front, &back, &agents].iter().all(|all| all.len() == 3));
    let distinct: BTreeSet<&String> = front.iter().chain(&back).chain(&agents).collect();
    ensure!(distinct.len() == 9, "{distinct:?}");
    for host in fleet.hosts()? {
        let ping = |from: &str, to: &String, size: &str| {
            let command = ["ping", "-c", "1", "-W", "2", "-s", size, to];
            let reached = || within(&host, from, &command).is_ok();
            let what = format!("{from} on {} to reach {to}", host.name());
            let waited = wait_for(&what, PATIENCE, reached);
            // One of them may have been replaced meanwhile.
            waited.map_err(|error| {
                let tasks = ["service", "ps", "--no-trunc", "shop_web", "shop_agent"];
                error.context(n1.docker(&tasks).unwrap_or_default())
            })
        };
        // Whole packets of the network's MTU, too.
        for to in front.iter().chain(&back).chain(&agents) {
            ping("shop_web", to, "1422")?;
        }
        for to in back.iter().chain(&agents) {
            ping("shop_agent", to, "56")?;
        }
    }
    Ok(())
}

fn files_and_environment(fleet: &Fleet) -> Result<()> {
    for host in fleet.hosts()? {
        let look = ["sh", "-c", "cat /etc/motd /run/secrets/pw; echo $ROLE"];
        let seen = within(&host, "shop_web", &look)?;
        let expected = "Welcome to the shop\nnot a real password\nweb-";
        ensure!(seen.starts_with(expected), "{}: {seen}", host.name());
    }
    Ok(())
}

/// What goes between hosts on an encrypted network goes through a device of the daemon's, not
/// through VXLAN; and arrives.
fn an_encrypted_network(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    let create = ["network", "create", "--driver", "overlay"];
    n1.docker(&[&create[..], &["--opt", "encrypted", "sealed"]].concat())?;
    let options = inspect(&n1, "network", "sealed")?["Options"].clone();
    let how = "chacha20-poly1305 in user space";
    ensure!(options["skep.encryption"] == how, "{options}");
    let create = ["service", "create", "--detach", "--name", "shop_sealed"];
    let rest = [
        "--mode",
        "global",
        "--network",
        "sealed",
        "registry:5000/busybox",
    ];
    n1.docker(&[&create[..], &rest, &["sleep", "1000000"]].concat())?;
    wait_for("a task on every node", PATIENCE, || {
        running_tasks(&n1, "shop_sealed").is_ok_and(|all| all.len() == 3)
    })?;
    sealed_reach_each_other(fleet)?;
    // Those that come later as well.
    n1.docker(&["service", "update", "--quiet", "--force", "shop_sealed"])?;
    sealed_reach_each_other(fleet)?;
    for host in fleet.hosts()? {
        let id = inspect(&n1, "network", "sealed")?["Id"].clone();
        let part: String = id.as_str().unwrap_or_default().chars().take(11).collect();
        let device = host.exec(&["ip", "-detail", "link", "show", &format!("skvx{part}")])?;
        ensure!(device.stdout.contains("tun type tap"), "{}", device.stdout);
        ensure!(device.stdout.contains("mtu 1390"), "{}", device.stdout);
    }
    n1.docker(&["service", "rm", "shop_sealed"])?;
    wait_for("the encrypted network to be free", PATIENCE, || {
        n1.docker(&["network", "rm", "sealed"]).is_ok()
    })
}

/// Every task of the encrypted network reaches every other.
fn sealed_reach_each_other(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    for host in fleet.hosts()? {
        for to in addresses(&n1, "shop_sealed", "sealed")? {
            let command = ["ping", "-c", "1", "-W", "2", "-s", "1362", &to];
            let what = format!("{} to reach {to} unread", host.name());
            let reached = || within(&host, "shop_sealed", &command).is_ok();
            wait_for(&what, PATIENCE, reached)?;
        }
    }
    Ok(())
}

/// What realises the networks on a host.
fn realised(host: &Host) -> Result<Vec<String>> {
    let filter = ["network", "ls", "--quiet", "--filter", "label=skep.network"];
    let networks = docker_ok(&host.engine_socket(), &filter)?;
    let links = host.exec(&["ip", "-brief", "link", "show", "type", "vxlan"])?;
    Ok([lines(&networks), lines(&links.stdout)].concat())
}

fn a_daemon_comes_back_to_its_networks(fleet: &Fleet) -> Result<()> {
    let n2 = fleet.host("n2")?;
    let (before, containers_before) = (realised(&n2)?, containers(&n2)?);
    // The one of `extra` is on whatever host that is on.
    let networks = before.len() / 2;
    ensure!(
        before.len() % 2 == 0 && networks >= 2,
        "each has a device: {before:?}"
    );
    n2.kill(Part::Skepd)?;
    n2.start(Part::Skepd)?;
    await_ready(fleet, 3)?;
    containers_reach_each_other(fleet)?;
    ensure!(realised(&n2)? == before && containers(&n2)? == containers_before);
    // A worker shows what it has a part in, and none of what realises it.
    let listed = n2.docker(&[
        "network",
        "ls",
        "--format",
        "{{.Name}} {{.Driver}} {{.Scope}}",
    ])?;
    ensure!(listed.contains("shop_front overlay swarm"), "{listed}");
    ensure!(!listed.contains("skep-"), "{listed}");
    Ok(())
}

fn ids(host: &Host, service: &str) -> Result<BTreeSet<String>> {
    let tasks = tasks(host, service)?;
    let id = |task: &Value| task["ID"].as_str().unwrap_or_default().to_owned();
    Ok(live(&tasks).into_iter().map(id).collect())
}

fn only_what_changed_is_changed(host: &Host) -> Result<()> {
    let (web, agents) = (ids(host, "shop_web")?, ids(host, "shop_agent")?);
    let said = deploy(host, &["shop.yml", "extra.yml"], "2", &[])?;
    ensure!(said.contains("Updating service shop_agent"), "{said}");
    wait_for("other agents", PATIENCE, || {
        ids(host, "shop_agent").is_ok_and(|now| now.len() == 3 && now.is_disjoint(&agents))
    })?;
    ensure!(ids(host, "shop_web")? == web, "unchanged tasks stay");
    let said = deploy(host, &["shop.yml"], "2", &["--prune"])?;
    ensure!(said.contains("Removing service shop_extra"), "{said}");
    let services = host.docker(&["service", "ls", "--format", "{{.Name}}"])?;
    ensure!(!services.contains("shop_extra"), "{services}");
    ensure!(ids(host, "shop_web")? == web, "unchanged tasks stay");
    Ok(())
}

fn a_network_of_the_engines_own(host: &Host) -> Result<()> {
    let create = [
        "service",
        "create",
        "--quiet",
        "--name",
        "bare",
        "--network",
        "host",
    ];
    let rest = [
        "--constraint",
        "node.hostname==n1",
        "--stop-grace-period",
        "0s",
        "registry:5000/busybox",
        "sleep",
        "1000000",
    ];
    host.docker(&[&create[..], &rest].concat())?;
    let addresses = within(host, "bare", &["ip", "-4", "addr"])?;
    ensure!(addresses.contains(&host.address()), "{addresses}");
    host.docker(&["service", "rm", "bare"]).map(drop)
}

fn nothing_is_left(fleet: &Fleet) -> Result<()> {
    let n1 = fleet.host("n1")?;
    n1.docker(&["stack", "rm", "shop"])?;
    for kind in ["service", "secret", "config"] {
        let left = n1.docker(&[kind, "ls", "--quiet"])?;
        ensure!(left.trim().is_empty(), "{kind}: {left}");
    }
    let networks = n1.docker(&[
        "network",
        "ls",
        "--filter",
        "scope=swarm",
        "--format",
        "{{.Name}}",
    ])?;
    ensure!(networks.trim() == "ingress", "{networks}");
    for host in fleet.hosts()? {
        let what = format!("nothing to be left on {}", host.name());
        wait_for(&what, PATIENCE, || {
            containers(&host).is_ok_and(|left| left.is_empty())
                && realised(&host).is_ok_and(|left| left.is_empty())
        })
        .with_context(|| format!("{:?}", realised(&host)))?;
    }
    // A stack that comes back finds its networks free.
    deploy(&n1, &["shop.yml"], "3", &[])?;
    await_running(&n1, "shop_web", 3)?;
    n1.docker(&["stack", "rm", "shop"])?;
    deploy(&n1, &["shop.yml"], "4", &[])?;
    await_running(&n1, "shop_web", 3)?;
    await_agents(&n1)?;
    containers_reach_each_other(fleet)?;
    // Leaving takes along what was made.
    let n3 = fleet.host("n3")?;
    n3.docker(&["swarm", "leave"])?;
    ensure!(realised(&n3)?.is_empty() && containers(&n3)?.is_empty());
    Ok(())
}
