//! Containers of one's own on attachable networks, which podman would have to know when it makes
//! them: who finds whom, what is shown, and that they are back after all that ends something.

use anyhow::{Context, Result, ensure};
use compat_tests::http::Http;
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Part, docker_ok, wait_for};
use serde_json::Value;

use super::{FETCH, inside};

pub const IMAGE: &str = "registry:5000/busybox";

pub fn on_attachable_networks(fleet: &Fleet) -> Result<()> {
    let (n1, n2) = (fleet.host("n1")?, fleet.host("n2")?);
    let subnet = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let subnet = n1.docker(&["network", "inspect", "--format", subnet, "back"])?;
    let asked = subnet.trim().replace("0/24", "77");
    let options = [
        "--network",
        "back",
        "--ip",
        &asked,
        "--network-alias",
        "www",
    ];
    run(&n1, "own", &options)?;
    run(&n2, "other", &["--network", "back"])?;
    finds(&n2, "other", "www", &asked)?;
    finds(&n1, "own", "other", &address(&n2, "other")?)?;
    let answer = n1.docker(&["exec", "own", "sh", "-c", FETCH])?;
    ensure!(answer.contains("hostname: "), "{answer}");
    what_is_only_made_has_no_place(&n1, &n2)?;
    podmans_own_words(&n2)?;
    after_restarts(&n1, &n2, &asked)?;
    off_and_on_again(&n1, &n2)?;
    started_past_skepd(&n1, &n2, &asked)?;
    n2.docker(&["rm", "--force", "other"])?;
    n1.docker(&["rm", "--force", "own"])?;
    ensure!(places(&n1)? == 0, "given back before the answer");
    alone_on_a_network(&n1, &n2)
}

pub fn run(host: &Host, name: &str, options: &[&str]) -> Result<()> {
    let run = ["run", "--detach", "--name", name, "--stop-timeout", "0"];
    host.docker(&[&run[..], options, &[IMAGE, "sleep", "100000"]].concat())
        .map(drop)
}

/// Makes a container on a network, without starting it.
pub fn make(host: &Host, name: &str, network: &str, command: &[&str]) -> Result<()> {
    let create = ["create", "--name", name, "--network", network, IMAGE];
    host.docker(&[&create[..], command].concat()).map(drop)
}

/// A container's networks and what it was made on, as clients see them.
pub fn shown(host: &Host, container: &str) -> Result<(Value, String)> {
    let format = "[{{json .NetworkSettings.Networks}},{{json .HostConfig.NetworkMode}}]";
    let shown = host.docker(&["container", "inspect", "--format", format, container])?;
    let (networks, mode): (Value, String) = serde_json::from_str(&shown)?;
    Ok((networks, mode))
}

fn address(host: &Host, container: &str) -> Result<String> {
    let (networks, _) = shown(host, container)?;
    let address = networks.pointer("/back/IPAddress").and_then(Value::as_str);
    let address = address.filter(|it| !it.is_empty()).map(str::to_owned);
    address.with_context(|| format!("{container}: {networks}"))
}

fn finds(host: &Host, from: &str, name: &str, address: &str) -> Result<()> {
    let mut found = String::new();
    wait_for(&format!("{from} to find {name}"), PATIENCE, || {
        found = host
            .docker(&["exec", from, "nslookup", name])
            .unwrap_or_default();
        found.lines().any(|it| it == format!("Address: {address}"))
    })
    .with_context(|| format!("{address}: {found}"))
}

/// How many containers have places, as the managers know it.
fn places(host: &Host) -> Result<usize> {
    let path = "/tasks?filters=%7B%22runtime%22%3A%5B%22attachment%22%5D%7D";
    let answer = Http::new(&host.socket(), PATIENCE).get(path)?;
    ensure!(answer.success(), "{}", answer.message());
    answer.json().as_array().map(Vec::len).context("no list")
}

fn what_is_only_made_has_no_place(n1: &Host, n2: &Host) -> Result<()> {
    make(n2, "made", "back", &["true"])?;
    let (networks, mode) = shown(n2, "made")?;
    let names: Vec<&String> = networks
        .as_object()
        .into_iter()
        .flat_map(|it| it.keys())
        .collect();
    ensure!(names == ["back"] && mode == "back", "{networks} {mode}");
    ensure!(places(n1)? == 2, "it does not run");
    n2.docker(&["rm", "made"])?;
    for (network, text) in [
        ("nope", "network nope not found"),
        ("closed", "network closed not manually attachable"),
    ] {
        let refused = refusal(n2, &["run", "--rm", "--network", network, IMAGE, "true"])?;
        ensure!(refused.contains(text), "{refused}");
    }
    Ok(())
}

/// Podman's own API makes containers on podman's own networks alone, and says so.
fn podmans_own_words(n2: &Host) -> Result<()> {
    let mut http = Http::new(&n2.socket(), PATIENCE);
    let mut create = |networks: Value| {
        let netns = serde_json::json!({ "nsmode": "bridge" });
        let body = serde_json::json!({ "image": IMAGE, "netns": netns, "Networks": networks });
        http.post("/v4.0.0/libpod/containers/create", &body)
    };
    let refused = create(serde_json::json!({ "back": {} }))?;
    let text = refused.message();
    ensure!(text.contains("docker run --network back"), "{text}");
    let made = create(serde_json::json!({ "podman": {} }))?;
    ensure!(made.success(), "{}", made.message());
    let made = made.json();
    let id = made.get("Id").and_then(Value::as_str);
    n2.docker(&["rm", id.context("no id")?]).map(drop)
}

fn after_restarts(n1: &Host, n2: &Host, asked: &str) -> Result<()> {
    n2.stop(Part::Skepd)?;
    n2.start(Part::Skepd)?;
    n1.kill(Part::Engine)?;
    n1.start(Part::Engine)?;
    finds(n2, "other", "www", asked)?;
    n1.docker(&["restart", "--time", "0", "own"])?;
    ensure!(address(n1, "own")? == asked);
    finds(n1, "own", "other", &address(n2, "other")?)?;
    n1.docker(&["stop", "own"])?;
    ensure!(places(n1)? == 1, "it does not run");
    n1.docker(&["start", "own"])?;
    ensure!(address(n1, "own")? == asked);
    finds(n2, "other", "own", asked)
}

/// What netavark makes of the VXLAN device on the bridge is nobody's trouble.
fn off_and_on_again(n1: &Host, n2: &Host) -> Result<()> {
    n2.docker(&["network", "disconnect", "back", "other"])?;
    ensure!(places(n1)? == 1, "the other's is given back");
    let (networks, _) = shown(n2, "other")?;
    ensure!(networks == serde_json::json!({}), "{networks}");
    let devices = n2.docker(&["exec", "other", "ip", "-o", "link"])?;
    ensure!(!devices.contains("eth"), "{devices}");
    let answer = inside(n2, &["sh", "-c", FETCH])?;
    ensure!(answer.contains("hostname: "), "others stay on it: {answer}");
    finds_own(n2)?;
    n2.docker(&["network", "connect", "--alias", "late", "back", "other"])?;
    finds(n1, "own", "late", &address(n2, "other")?)
}

/// Over the network that somebody has just been taken off.
fn finds_own(host: &Host) -> Result<()> {
    let script = "nc -w 5 own 9 2>&1 | grep refused";
    let refused = inside(host, &["sh", "-c", script])?;
    ensure!(refused.contains("refused"), "own answers: {refused}");
    Ok(())
}

/// Podman's own socket knows nothing of the network: the container is put on it as soon as it runs.
fn started_past_skepd(n1: &Host, n2: &Host, own: &str) -> Result<()> {
    let create = ["create", "--name", "past", "--stop-timeout", "0"];
    let rest = ["--network", "back", "--network-alias", "elsewhere", IMAGE];
    n2.docker(&[&create[..], &rest[..], &["sleep", "100000"]].concat())?;
    let past = |command: &[&str]| docker_ok(&n2.engine_socket(), command);
    past(&["start", "past"])?;
    let mut given = Err(anyhow::anyhow!("never asked"));
    wait_for("a place", PATIENCE, || {
        given = address(n2, "past");
        given.is_ok()
    })?;
    let given = given?;
    let (networks, _) = shown(n2, "past")?;
    let names: Vec<&String> = networks
        .as_object()
        .into_iter()
        .flatten()
        .map(|(it, _)| it)
        .collect();
    ensure!(names == ["back"], "{networks}");
    finds(n1, "own", "elsewhere", &given)?;
    finds(n2, "past", "own", own)?;
    let routes = n2.docker(&["exec", "past", "ip", "route"])?;
    ensure!(routes.matches("default").count() == 1, "{routes}");
    // It had lost its place when it stopped.
    past(&["stop", "past"])?;
    wait_for("the place to be given back", PATIENCE, || {
        places(n1).is_ok_and(|count| count == 2)
    })?;
    past(&["start", "past"])?;
    wait_for("a place again", PATIENCE, || {
        places(n1).is_ok_and(|count| count == 3)
    })?;
    ensure!(address(n2, "past")? == given, "the same one");
    finds(n1, "own", "elsewhere", &given)?;
    // Nobody gives one back that is taken off.
    n2.docker(&["network", "disconnect", "back", "past"])?;
    ensure!(places(n1)? == 2, "it is off");
    n2.docker(&["rm", "--force", "past"]).map(drop)
}

/// The only container of a node on a network, which that node has not while it does not run.
fn alone_on_a_network(n1: &Host, n2: &Host) -> Result<()> {
    let create = ["network", "create", "--driver", "overlay", "--attachable"];
    let id = n1.docker(&[&create[..], &["lone"]].concat())?;
    let name = format!("skep-{}", id.trim());
    n2.docker(&["create", "--name", "only", IMAGE, "sleep", "100000"])?;
    n2.docker(&["network", "connect", "lone", "only"])?;
    for _ in 0..2 {
        n2.docker(&["start", "only"])?;
        let (networks, _) = shown(n2, "only")?;
        let address = networks.pointer("/lone/IPAddress").and_then(Value::as_str);
        ensure!(address.is_some_and(|it| !it.is_empty()), "{networks}");
        n2.docker(&["stop", "--time", "0", "only"])?;
        wait_for("the network to be gone", PATIENCE, || {
            let list = ["network", "ls", "--format", "{{.Name}}"];
            docker_ok(&n2.engine_socket(), &list).is_ok_and(|all| !all.contains(&name))
        })?;
    }
    n1.docker(&["network", "rm", "lone"])?;
    let refused = refusal(n2, &["start", "only"])?;
    ensure!(
        refused.contains("Could not attach to network lone"),
        "{refused}"
    );
    n2.docker(&["rm", "only"]).map(drop)
}
