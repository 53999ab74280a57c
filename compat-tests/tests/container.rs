//! The container that a service's fields make, on dockerd's own swarm and on skep's: what
//! `docker inspect` shows of it, and how tasks end that cannot have one.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use compat_tests::both::for_both;
use compat_tests::http::Http;
use compat_tests::swarm::*;
use fleet::{Host, Options, docker_ok, wait_for};
use serde_json::{Value, json};

const IMAGE: &str = "registry:5000/busybox";

/// Every field that the CLI has a flag for.
const MAXIMAL: &str = "--hostname h-{{.Task.Slot}} --env A={{.Service.Name}}-{{.Node.Hostname}} \
    --env B=1 --env C --workdir /tmp --user 0:0 --group 1 --init --stop-signal SIGINT \
    --stop-grace-period 2s --tty --read-only \
    --mount type=volume,src=v-{{.Task.Slot}},dst=/v,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-label=of={{.Service.Name}} \
    --mount type=volume,dst=/anonymous,volume-nocopy=true \
    --mount type=bind,src=/usr,dst=/u,readonly,bind-propagation=rslave \
    --mount type=tmpfs,dst=/t,tmpfs-size=1048576,tmpfs-mode=1770 \
    --health-cmd true --health-interval 1s --health-timeout 2s --health-retries 4 \
    --health-start-period 1s --host one:10.0.0.1 --dns 10.0.0.10 --dns-search example.org \
    --dns-option ndots:1 --sysctl net.core.somaxconn=1024 --cap-add NET_ADMIN --cap-drop MKNOD \
    --ulimit nofile=1024:2048 --limit-cpu 0.5 --limit-memory 64m --limit-pids 50 \
    --reserve-memory 8m --reserve-cpu 0.1 --log-driver json-file --log-opt max-size=1m \
    --container-label c=d --label l=1 --publish mode=host,published=8099,target=80 \
    --publish mode=host,target=81,protocol=udp --restart-condition on-failure";

/// Services whose task cannot become what it should.
const BROKEN: [(&str, &str); 6] = [
    (
        "source",
        "--mount type=bind,src=/nowhere,dst=/x IMAGE sleep 600",
    ),
    ("image", "--no-resolve-image registry:5000/absent:1"),
    ("command", "IMAGE /no/such/command"),
    (
        "pipe",
        "--mount type=npipe,src=//./pipe/a,dst=/x IMAGE sleep 600",
    ),
    (
        "unhealthy",
        "--health-cmd false --health-interval 500ms --health-retries 1 IMAGE sleep 600",
    ),
    ("exits", "IMAGE sh -c exit\u{a0}3"),
];

fn service(host: &Host, name: &str, flags: &str) -> Result<String> {
    let flags = flags.replace("IMAGE", IMAGE);
    let words: Vec<String> = flags
        .split_ascii_whitespace()
        .map(|word| word.replace('\u{a0}', " "))
        .collect();
    let mut args = vec!["service", "create", "--name", name];
    args.extend(words.iter().map(String::as_str));
    host.docker(&args)
}

fn one_host(name: &str) -> Options {
    Options {
        swarm: true,
        hosts: 1,
        managers: 1,
        ..Options::test(name)
    }
}

#[test]
fn every_field_makes_the_container_that_the_original_makes() -> Result<()> {
    let found = RefCell::new(Vec::new());
    for_both(&one_host("container"), |fleet| {
        let host = fleet.host("n1")?;
        await_ready(fleet, 1)?;
        let mut seen = BTreeMap::new();
        for (name, flags) in BROKEN {
            let flags = format!("--detach --restart-condition none {flags}");
            service(&host, name, &flags)?;
        }
        service(&host, "max", &format!("{MAXIMAL} {IMAGE} sleep 600"))?;
        service(&host, "min", &format!("{IMAGE} sleep 600"))?;
        for name in ["max", "min"] {
            seen.extend(made(&host, name)?);
        }
        for (name, _) in BROKEN {
            seen.extend(ended(&host, name)?);
        }
        if fleet.options().kind == fleet::Kind::Skep {
            beyond(&host)?;
        }
        images(&host, &mut seen)?;
        found.borrow_mut().push(seen);
        Ok(())
    })?;
    let found = found.into_inner();
    let mut told = String::new();
    for (path, original) in &found[1] {
        let ours = found[0].get(path);
        if ours != Some(original) {
            told.push_str(&format!(
                "{path}: {original} in the original, here {ours:?}\n"
            ));
        }
    }
    for (path, ours) in &found[0] {
        if !found[1].contains_key(path) {
            told.push_str(&format!("{path}: only here: {ours}\n"));
        }
    }
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

type Seen = BTreeMap<String, Value>;

/// What there is of a service with one running task, ids aside.
fn made(host: &Host, name: &str) -> Result<Seen> {
    await_running(host, name, 1)?;
    let task = tasks(host, name)?.pop().context("a task")?;
    let service = inspect(host, "service", name)?;
    let container = task["Status"]["ContainerStatus"]["ContainerID"].clone();
    let container = container.as_str().unwrap_or_default();
    let text = docker_ok(&host.engine_socket(), &["inspect", container])?;
    let inspected: Value = serde_json::from_str(&text)?;
    let inspected = &inspected[0];
    let ids = [
        (&task["ID"], "TASK"),
        (&task["NodeID"], "NODE"),
        (&service["ID"], "SERVICE"),
    ];
    let mut ids: Vec<(String, &str)> = ids
        .iter()
        .map(|(id, name)| (id.as_str().unwrap_or_default().to_owned(), *name))
        .collect();
    ids.push((container.to_owned(), "CONTAINER"));
    ids.push((container.chars().take(12).collect(), "CONTAINER"));
    let mut seen = Seen::new();
    let parts = [
        ("Name", &inspected["Name"]),
        ("Config", &inspected["Config"]),
        ("HostConfig", &inspected["HostConfig"]),
        ("Mounts", &inspected["Mounts"]),
        ("Ports", &inspected["NetworkSettings"]["Ports"]),
        ("Endpoint", &service["Endpoint"]),
        ("PortStatus", &task["Status"]["PortStatus"]),
    ];
    for (part, value) in parts {
        flatten(&format!("{name}.{part}"), value, &ids, &mut seen);
    }
    if name == "max" {
        let volume = docker_ok(&host.engine_socket(), &["volume", "inspect", "v-1"])?;
        let mut volume: Value = serde_json::from_str(&volume)?;
        volume[0]["CreatedAt"] = Value::Null;
        flatten("max.volume", &volume[0], &ids, &mut seen);
    }
    Ok(seen)
}

/// One entry per leaf. Ports that the engine chose, digests and names of anonymous volumes become
/// words; lists without an order of their own are sorted.
fn flatten(path: &str, value: &Value, ids: &[(String, &str)], into: &mut Seen) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = tidy(key, ids);
                flatten(&format!("{path}.{key}"), value, ids, into);
            }
        }
        Value::Array(items) if path.contains("Port") || path.contains("Mounts") => {
            let mut items: Vec<String> = items
                .iter()
                .map(|item| tidy(&item.to_string(), ids))
                .collect();
            items.sort();
            into.insert(path.to_owned(), json!(items));
        }
        Value::Array(_) => {
            into.insert(path.to_owned(), json!(tidy(&value.to_string(), ids)));
        }
        Value::String(text) => {
            into.insert(path.to_owned(), json!(tidy(text, ids)));
        }
        other => {
            into.insert(path.to_owned(), other.clone());
        }
    }
}

fn tidy(text: &str, ids: &[(String, &str)]) -> String {
    let mut text = text.to_owned();
    for (id, name) in ids {
        text = text.replace(id, name);
    }
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let hex = word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        // The range that engines choose ports from.
        let port = word.len() == 5 && word.parse::<u32>().is_ok_and(|port| port >= 32768);
        out.push_str(if hex {
            "HEX"
        } else if port {
            "PORT"
        } else {
            &word
        });
        word.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

/// How the only task of a service ended.
fn ended(host: &Host, name: &str) -> Result<Seen> {
    let mut last = Value::Null;
    wait_for(&format!("the task of {name} to end"), PATIENCE, || {
        last = tasks(host, name)
            .ok()
            .and_then(|mut tasks| tasks.pop())
            .unwrap_or_default();
        let state = last["Status"]["State"].as_str().unwrap_or_default();
        ["failed", "rejected", "complete"].contains(&state)
    })
    .with_context(|| format!("{last}"))?;
    let mut seen = Seen::new();
    for key in ["State", "Err", "Message"] {
        flatten(
            &format!("{name}.{key}"),
            &last["Status"][key],
            &[],
            &mut seen,
        );
    }
    let code = &last["Status"]["ContainerStatus"]["ExitCode"];
    flatten(&format!("{name}.ExitCode"), code, &[], &mut seen);
    host.docker(&["service", "rm", name])?;
    Ok(seen)
}

/// Digests, credentials, and registries that are not there.
fn images(host: &Host, seen: &mut Seen) -> Result<()> {
    let engine = host.engine_socket();
    // A node whose registry is down runs what it has.
    docker_ok(&engine, &["tag", IMAGE, "nowhere:5000/busybox"])?;
    service(host, "local", "nowhere:5000/busybox sleep 600")?;
    // The registry with a password: the credentials travel with the service, and only there.
    let door = "registry:5001/web:v1";
    let config = format!("/tmp/container-test-{}", std::process::id());
    let login = [
        "--config",
        &config,
        "login",
        "-u",
        fleet::REGISTRY_USER,
        "-p",
    ];
    let login: Vec<&str> = login
        .into_iter()
        .chain([fleet::REGISTRY_PASSWORD, "registry:5001"])
        .collect();
    host.docker(&login)?;
    service(
        host,
        "stranger",
        &format!("--detach --restart-condition none {door}"),
    )?;
    seen.extend(ended(host, "stranger")?);
    let known = [
        "--config",
        &config,
        "service",
        "create",
        "--name",
        "known",
        "--with-registry-auth",
        door,
    ];
    host.docker(&known)?;
    await_running(host, "known", 1)?;
    let known = inspect(host, "service", "known")?;
    let image = &known["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
    seen.insert(
        "known.Image".into(),
        json!(tidy(image.as_str().unwrap_or_default(), &[])),
    );
    std::fs::remove_dir_all(&config)?;
    // Old clients leave pinning to the daemon.
    let mut http = Http::new(&host.socket(), PATIENCE);
    for (name, image) in [
        ("old", "registry:5000/web"),
        ("lost", "nowhere:5000/lost:1"),
    ] {
        let spec = json!({"Name": name, "Mode": {"Replicated": {"Replicas": 0}},
            "TaskTemplate": {"ContainerSpec": {"Image": image}}});
        let answer = http.post("/v1.29/services/create", &spec)?;
        ensure!(answer.success(), "{}", answer.message());
        seen.insert(
            format!("{name}.Warnings"),
            answer.json()["Warnings"].clone(),
        );
        let service = inspect(host, "service", name)?;
        let image = &service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
        seen.insert(
            format!("{name}.Image"),
            json!(tidy(image.as_str().unwrap_or_default(), &[])),
        );
    }
    Ok(())
}

/// Devices and privileges, which the original has not, only on nodes that allow them; and tasks
/// that run only once they are healthy.
fn beyond(host: &Host) -> Result<()> {
    let said = refusal(
        host,
        &["service", "create", "--label", "skep.device=fuse", IMAGE],
    )?;
    ensure!(
        said.contains("label skep.device: \"fuse\" is not an absolute path"),
        "{said}"
    );
    let flags = "--detach --label skep.device=/dev/null:/dev/zilch:rw IMAGE sleep 600";
    service(host, "bold", flags)?;
    wait_for("the task to find no node", PATIENCE, || {
        let task = tasks(host, "bold").ok().and_then(|mut tasks| tasks.pop());
        task.is_some_and(|task| {
            task["Status"]["Err"]
                == "no suitable node (node label skep.allow-privileged missing on 1 node)"
        })
    })?;
    let allow = [
        "node",
        "update",
        "--label-add",
        "skep.allow-privileged=true",
        "n1",
    ];
    host.docker(&allow)?;
    await_running(host, "bold", 1)?;
    let id = containers_of(host, "bold")?.pop().context("a container")?;
    docker_ok(
        &host.engine_socket(),
        &["exec", &id, "test", "-c", "/dev/zilch"],
    )?;
    // Labels alone, and yet another container. A machine that has not every capability itself
    // cannot start it, which is the engine's to say.
    let update = [
        "service",
        "update",
        "--detach",
        "--label-add",
        "skep.privileged=true",
        "bold",
    ];
    host.docker(&update)?;
    wait_for("a container with privileges", PATIENCE, || {
        let ids = containers_of(host, "bold").unwrap_or_default();
        ids.iter().any(|id| {
            let format = "{{.HostConfig.Privileged}} {{len .HostConfig.Devices}}";
            docker_ok(&host.engine_socket(), &["inspect", "--format", format, id])
                .is_ok_and(|said| said.trim() == "true 1")
        })
    })?;
    host.docker(&["service", "rm", "bold"])?;

    service(
        host,
        "slow",
        "--detach --health-cmd test\u{a0}-e\u{a0}/tmp/well --health-interval 500ms \
        --health-retries 1000 IMAGE sleep 600",
    )?;
    wait_for("a container that starts", PATIENCE, || {
        containers_of(host, "slow").is_ok_and(|found| !found.is_empty())
            && tasks(host, "slow").is_ok_and(|tasks| tasks[0]["Status"]["State"] == "starting")
    })?;
    let id = containers_of(host, "slow")?.pop().context("a container")?;
    docker_ok(&host.engine_socket(), &["exec", &id, "touch", "/tmp/well"])?;
    await_running(host, "slow", 1)?;
    host.docker(&["service", "rm", "slow"])?;
    Ok(())
}
