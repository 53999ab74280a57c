//! The certificate authority with the real CLI: looking at it, rotating it, bringing one's own, and
//! the refusals. The same script on dockerd's own swarm and on skep's must say the same; what only
//! skep promises comes after it.

#![allow(
    clippy::indexing_slicing,
    reason = "a panic fails the test, as it should"
)]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compat_tests::http::Http;
use compat_tests::swarm::*;
use fleet::{Cmd, Fleet, Host, Kind, Options, Part, wait_for};
use serde_json::Value;

/// How long a rotation may take on a busy machine: each node renews and comes back.
const ROTATION: Duration = Duration::from_secs(150);

fn fleet(name: &str, kind: Kind) -> Result<Fleet> {
    let fleet = Fleet::up(&Options {
        hosts: 3,
        managers: 2,
        swarm: true,
        kind,
        ..Options::test(name)
    })?;
    await_ready(&fleet, 3)?;
    Ok(fleet)
}

fn swarm(host: &Host) -> Result<Value> {
    let answer = Http::new(&host.socket(), PATIENCE).get("/swarm")?;
    ensure!(answer.success(), "{}", answer.message());
    Ok(answer.json())
}

fn ca(host: &Host, args: &[&str]) -> Result<String> {
    let all = [&["swarm", "ca"], args].concat();
    host.docker_cmd()?.args(all).timeout(ROTATION).ok()
}

fn token(host: &Host, role: &str) -> Result<String> {
    let text = host.docker(&["swarm", "join-token", "-q", role])?;
    Ok(text.trim().to_owned())
}

/// What every token of the root begins with.
fn digest(token: &str) -> String {
    token
        .rsplit_once('-')
        .map(|(kept, _)| kept.to_owned())
        .unwrap_or_default()
}

/// Whether every node shows what the cluster shows, and nothing is under way.
fn settled(host: &Host, nodes: &[&str]) -> Result<bool> {
    let swarm = swarm(host)?;
    for name in nodes {
        let node = node(host, name)?;
        if node["Description"]["TLSInfo"] != swarm["TLSInfo"] {
            return Ok(false);
        }
    }
    Ok(swarm["RootRotationInProgress"] == false)
}

/// A root made with OpenSSL: certificate and key.
fn own_root(dir: &Path, name: &str, days: &str) -> Result<(String, String)> {
    let path = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
    let (cert, key) = (path("pem"), path("key"));
    Cmd::new("openssl")
        .args([
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &key,
        ])
        .ok()?;
    let subject = format!("/O=Example/CN={name}");
    Cmd::new("openssl")
        .args(["req", "-x509", "-new", "-key", &key, "-subj", &subject])
        .args(["-days", days, "-out", &cert])
        .ok()?;
    Ok((cert, key))
}

/// What the CLI says to each step, where the answers must be the same.
fn script(fleet: &Fleet, dir: &Path) -> Result<Vec<(&'static str, String)>> {
    let n1 = fleet.host("n1")?;
    let mut said = Vec::new();
    let (own, own_key) = own_root(dir, "own", "3650")?;
    let (short, short_key) = own_root(dir, "short", "100")?;
    let (_, other_key) = own_root(dir, "other", "3650")?;
    let both = dir.join("both.pem");
    let text = std::fs::read_to_string(&own)? + &std::fs::read_to_string(&short)?;
    std::fs::write(&both, text)?;
    let both = both.display().to_string();
    let external = "protocol=cfssl,url=https://127.0.0.1:1/sign";
    for (name, args) in [
        ("without --rotate", vec!["--ca-cert", &own]),
        ("nobody outside", vec!["--rotate", "--ca-cert", &own]),
        (
            "nobody answers",
            vec!["--rotate", "--ca-cert", &own, "--external-ca", external],
        ),
        (
            "several",
            vec!["--rotate", "--ca-cert", &both, "--ca-key", &own_key],
        ),
        (
            "too short",
            vec!["--rotate", "--ca-cert", &short, "--ca-key", &short_key],
        ),
        (
            "too short an expiry",
            vec!["--rotate", "--cert-expiry", "30m"],
        ),
    ] {
        let args = [vec!["swarm", "ca"], args].concat();
        said.push((name, refusal(&n1, &args)?));
    }
    let mismatch = [
        "swarm",
        "ca",
        "--rotate",
        "--ca-cert",
        &own,
        "--ca-key",
        &other_key,
    ];
    ensure!(refusal(&n1, &mismatch)?.contains("certificate key mismatch"));

    let before = swarm(&n1)?;
    let tokens = (token(&n1, "worker")?, token(&n1, "manager")?);
    let root = before["TLSInfo"]["TrustRoot"].as_str().context("a root")?;
    ensure!(
        ca(&n1, &[])?.trim() == root.trim(),
        "`swarm ca` shows the root"
    );

    let shown = ca(&n1, &["--rotate", "--cert-expiry", "3h"])?;
    let after = swarm(&n1)?;
    let new = after["TLSInfo"]["TrustRoot"].as_str().context("a root")?;
    ensure!(new != root && shown.contains(new.trim()), "{shown}");
    ensure!(
        settled(&n1, &["n1", "n2", "n3"])?,
        "every node has the new root"
    );
    said.push(("spec", after["Spec"]["CAConfig"].to_string()));
    let fresh = (token(&n1, "worker")?, token(&n1, "manager")?);
    ensure!(digest(&fresh.0) != digest(&tokens.0) && fresh.1 != tokens.1);
    ensure!(
        digest(&fresh.0) == digest(&fresh.1),
        "both name the new root"
    );

    // The user's own, whose form stays as it is.
    ca(&n1, &["--rotate", "--ca-cert", &own, "--ca-key", &own_key])?;
    let root = swarm(&n1)?["TLSInfo"]["TrustRoot"]
        .as_str()
        .context("a root")?
        .to_owned();
    ensure!(root.trim() == std::fs::read_to_string(&own)?.trim());
    ensure!(settled(&n1, &["n1", "n2", "n3"])?);
    said.push(("spec with own", swarm(&n1)?["Spec"]["CAConfig"].to_string()));
    Ok(said)
}

#[test]
fn the_authority_answers_as_the_originals() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let theirs = {
        let fleet = fleet("ca-original", Kind::Builtin)?;
        script(&fleet, dir.path())?
    };
    let fleet = fleet("ca", Kind::Skep)?;
    let ours = script(&fleet, dir.path())?;
    for (theirs, ours) in theirs.iter().zip(&ours) {
        ensure!(theirs == ours, "dockerd: {theirs:?}\nskep:    {ours:?}");
    }
    Ok(())
}

#[test]
fn a_rotation_touches_no_task_and_waits_for_every_node() -> Result<()> {
    let fleet = fleet("rotation", Kind::Skep)?;
    let (n1, n2, n3) = (fleet.host("n1")?, fleet.host("n2")?, fleet.host("n3")?);
    let image = "registry:5000/busybox:latest";
    n1.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "3",
        image,
        "sleep",
        "inf",
    ])?;
    await_running(&n1, "web", 3)?;
    let running = || -> Result<Vec<String>> {
        let mut all = Vec::new();
        for host in [&n1, &n2, &n3] {
            all.extend(containers(host)?);
        }
        Ok(all)
    };
    let before = running()?;
    ca(&n1, &["--rotate"])?;
    ensure!(running()? == before, "the same containers as before");
    await_ready(&fleet, 3)?;

    // One that is down holds the rotation up; the tokens are still the old ones.
    let worker = token(&n1, "worker")?;
    n3.stop(Part::Skepd)?;
    ca(&n1, &["--rotate", "--detach"])?;
    wait_for("the others have renewed", ROTATION, || {
        let key = |value: &Value| value["TLSInfo"]["CertIssuerPublicKey"].clone();
        swarm(&n2).is_ok_and(|swarm| {
            ["n1", "n2"].iter().all(|name| {
                node(&n2, name).is_ok_and(|node| key(&node["Description"]) == key(&swarm))
            })
        })
    })?;
    ensure!(swarm(&n1)?["RootRotationInProgress"] == true);
    ensure!(token(&n1, "worker")? == worker);
    n3.start(Part::Skepd)?;
    wait_for("the rotation ends", ROTATION, || {
        settled(&n1, &["n1", "n2", "n3"]).unwrap_or(false)
    })?;
    let fresh = token(&n1, "worker")?;
    ensure!(digest(&fresh) != digest(&worker));

    // The old token knows the old root only.
    n3.docker(&["swarm", "leave"])?;
    let join =
        |token: &str| ["swarm", "join", "--token", token, "10.201.0.1:2377"].map(str::to_owned);
    let old = join(&worker);
    let args: Vec<&str> = old.iter().map(String::as_str).collect();
    let said = refusal(&n3, &args)?;
    ensure!(
        said.contains("remote CA does not match fingerprint"),
        "{said}"
    );
    let new = join(&fresh);
    let args: Vec<&str> = new.iter().map(String::as_str).collect();
    n3.docker(&args)?;
    await_running(&n1, "web", 3)
}
