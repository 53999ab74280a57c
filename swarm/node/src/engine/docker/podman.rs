//! What podman does in another way than dockerd, all of it: states that it alone has, networks
//! without a name server of its own, bridges that come and go with containers, and ways out in any
//! order. Everything else is the same call as for dockerd.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemVersion};
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_core::Id;
use skep_core::assignment::Overlay;
use skep_core::network::{ENGINE_PREFIXES, LABEL, LABEL_NAME, LABEL_SHOWN, vxlan_name};
use skep_core::worker::{EngineOp, OpError, OpOutput, OpResult};
use skep_dataplane::{Overlays, bridge};
use tokio::time::timeout;

use super::connect::Link;
use super::error::unintelligible;
use super::network::Piece;
use super::ops::{self, Tell};
use super::{clear, network, raw};

/// Questions.
const ASK: Duration = Duration::from_secs(30);
/// What waits for disks and locks.
const ACT: Duration = Duration::from_secs(120);
/// What holds up the packets of a network meanwhile.
const SHORT: Duration = Duration::from_secs(5);
/// The version of its own API: every one that Debian has since 12 knows it.
const API: &str = "/v4.0.0/libpod";
/// Its states that dockerd has no word for, and dockerd's word. Both pass within moments, unless
/// the host fell in one.
const STATES: [(&str, &str); 4] = [
    ("configured", "created"),
    ("initialized", "created"),
    ("stopped", "exited"),
    ("unknown", "dead"),
];

/// Whether it is podman that says this of itself.
pub(super) fn is_it(version: &SystemVersion) -> bool {
    let parts = version.components.iter().flatten();
    let mut names = parts.map(|part| part.name.as_str());
    names.any(|name| name.starts_with("Podman"))
}

/// Carries out one operation.
pub(super) async fn run(link: &Link, overlays: &Overlays, op: EngineOp, tell: &Tell) -> OpResult {
    match op {
        EngineOp::List { node } => list(link, &node).await,
        EngineOp::Inspect { container } => inspect(link, &container)
            .await
            .map(|found| OpOutput::Container(ops::inspected(found))),
        EngineOp::Create {
            name,
            task,
            mut body,
            files,
        } => {
            open_up(&mut body);
            let op = EngineOp::Create {
                name,
                task,
                body,
                files,
            };
            ops::common(link, overlays, op, tell).await
        }
        EngineOp::Start {
            container,
            networks,
        } => start(link, &container, &networks).await,
        EngineOp::MakeNetwork { network } => make(link, overlays, &network).await,
        EngineOp::RemoveNetwork { network } => remove(link, overlays, &network).await,
        EngineOp::Disconnect { container, network } => {
            disconnect(link, overlays, &container, &network).await
        }
        other => ops::common(link, overlays, other, tell).await,
    }
}

/// A tmpfs of which no mode is said is everybody's, as in dockerd; podman would make it nobody's.
fn open_up(body: &mut Value) {
    let mounts = body.pointer_mut("/HostConfig/Mounts");
    for mount in mounts.and_then(Value::as_array_mut).into_iter().flatten() {
        let options = mount.as_object_mut().filter(|it| {
            let kind = it.get("Type");
            kind.and_then(Value::as_str) == Some("tmpfs")
        });
        let Some(mount) = options else { continue };
        let options = mount.entry("TmpfsOptions").or_insert(Value::Null);
        if options.is_null() {
            *options = json!({});
        }
        let mode = options.get("Mode").and_then(Value::as_u64);
        if let Some(options) = options.as_object_mut().filter(|_| mode.unwrap_or(0) == 0) {
            options.insert("Mode".to_owned(), json!(0o1777));
        }
    }
}

async fn list(link: &Link, node: &str) -> OpResult {
    let label = format!("{}={node}", ops::NODE_LABEL);
    let filters = json!({ "label": [label] }).to_string();
    let path = format!(
        "/v1.41/containers/json?all=true&filters={}",
        encoded(&filters)
    );
    let mut found = raw::ask(link, ASK, Method::GET, &path, None).await?;
    for container in found.as_array_mut().into_iter().flatten() {
        say_as_dockerd(container.get_mut("State"));
    }
    let found: Vec<ContainerSummary> = parsed(found)?;
    let found = found.into_iter().map(ops::listed).collect();
    Ok(OpOutput::Containers(found))
}

async fn inspect(link: &Link, container: &str) -> Result<ContainerInspectResponse, OpError> {
    let path = format!("/v1.41/containers/{}/json", encoded(container));
    let mut found = raw::ask(link, ASK, Method::GET, &path, None).await?;
    say_as_dockerd(found.pointer_mut("/State/Status"));
    parsed(found)
}

fn say_as_dockerd(state: Option<&mut Value>) {
    let Some(state) = state else { return };
    let known = STATES.iter().find(|(own, _)| state.as_str() == Some(own));
    if let Some((_, word)) = known {
        *state = Value::from(*word);
    }
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, OpError> {
    serde_json::from_value(value).map_err(|error| unintelligible(&error.to_string()))
}

/// It gives a container a way out on each of its networks, and any of them may come first.
async fn start(link: &Link, container: &str, networks: &[(String, Value)]) -> OpResult {
    let started = ops::start(link, container, networks).await?;
    if !networks.is_empty() {
        let state = inspect(link, container).await?.state.unwrap_or_default();
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.filter(|pid| *pid > 0)
            && let Err(error) = bridge::lead_out(pid).await
        {
            // It may have ended by itself meanwhile.
            tracing::warn!(container, %error, "a container has its way out anywhere");
        }
    }
    Ok(started)
}

/// Takes a container off a network. Of one that runs the device goes, and then netavark looks at
/// what is left on the bridge. The one of Debian 12 cannot read a VXLAN device as kernels since 5.18
/// describe it, and podman cannot describe the container any more after that.
async fn disconnect(link: &Link, overlays: &Overlays, container: &str, network: &str) -> OpResult {
    let mut prefixes = ENGINE_PREFIXES.iter();
    let Some(id) = prefixes.find_map(|prefix| network.strip_prefix(prefix)) else {
        return network::disconnect(link, container, network).await;
    };
    let work = timeout(SHORT, network::disconnect(link, container, network));
    match overlays.aside(&vxlan_name(&id.into()), work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(OpError::Unavailable("the engine takes too long".to_owned())),
        Err(error) => Err(OpError::Failed(error.to_string())),
    }
}

/// Makes a network what it should be. The bridge comes after the engine's network, which would
/// refuse a subnet that is in use, and before what leads to other nodes.
async fn make(link: &Link, overlays: &Overlays, overlay: &Overlay) -> OpResult {
    if overlay.driver.is_some() {
        return network::make(link, overlays, overlay).await;
    }
    let mut size = None;
    for piece in network::pieces(overlay) {
        size = Some(make_piece(link, overlay, &piece, size).await?);
    }
    let local = network::in_kernel(overlay, size.unwrap_or(overlay.mtu));
    network::lead_elsewhere(overlays, &local, overlay).await
}

/// Makes one of a network's subnets, whose packets are as long as those of the others, if that is
/// known. How long that is.
async fn make_piece(
    link: &Link,
    overlay: &Overlay,
    piece: &Piece,
    size: Option<u32>,
) -> Result<u32, OpError> {
    let name = &piece.name;
    let there = match network::inspect(link, name).await {
        Ok(found) if network::is_same(&found, piece, overlay) => Some(found),
        Ok(_) => {
            let before = bridge_of(link, name).await?;
            network::delete(link, name).await?;
            if let Some(it) = before {
                network::done(bridge::remove(&it).await)?;
            }
            None
        }
        Err(OpError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let mtu = match size {
        Some(mtu) => mtu,
        None => network::mtu(overlay, there.as_ref()).await,
    };
    if there.is_none() {
        clear::check(overlay)?;
        network::done(bridge::remove(&piece.bridge).await)?;
        let path = format!("{API}/networks/create");
        let body = wanted(piece, overlay, mtu);
        raw::ask(link, ACT, Method::POST, &path, Some(&body)).await?;
    }
    let local = skep_dataplane::Overlay {
        bridge: piece.bridge.clone(),
        gateway: piece.gateway,
        ..network::in_kernel(overlay, mtu)
    };
    network::done(bridge::ensure(&local, piece.bits).await)?;
    Ok(mtu)
}

/// The network in podman's own words: what dockerd's cannot say is that it shall answer no names
/// there, which is ours to do.
fn wanted(piece: &Piece, overlay: &Overlay, mtu: u32) -> Value {
    let pools = piece.pools.iter();
    let pools = pools.map(|(subnet, gateway)| json!({ "subnet": subnet, "gateway": gateway }));
    let pools: Vec<Value> = pools.collect();
    json!({
        "name": piece.name,
        "driver": "bridge",
        "network_interface": piece.bridge,
        "ipv6_enabled": pools.len() > 1,
        "subnets": pools,
        "internal": overlay.internal,
        "dns_enabled": false,
        "options": { "mtu": mtu.to_string() },
        "labels": {
            LABEL: overlay.id.to_string(), LABEL_NAME: overlay.name, LABEL_SHOWN: overlay.shown,
        },
    })
}

async fn remove(link: &Link, overlays: &Overlays, id: &Id) -> OpResult {
    let mut bridges = Vec::new();
    for name in network::names(link, id).await? {
        bridges.extend(bridge_of(link, &name).await?);
        clear(link, overlays, &name).await?;
    }
    network::withdraw(link, id).await?;
    for it in bridges {
        network::done(bridge::remove(&it).await)?;
    }
    network::lead_nowhere(overlays, id).await
}

/// Takes off a network whoever is on it: nobody there has a place any more.
async fn clear(link: &Link, overlays: &Overlays, name: &str) -> Result<(), OpError> {
    let found = match network::inspect(link, name).await {
        Err(OpError::NotFound(_)) => return Ok(()),
        found => found?,
    };
    for container in found.containers.unwrap_or_default().into_keys() {
        match disconnect(link, overlays, &container, name).await {
            Ok(_) | Err(OpError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The bridge of one of its networks, which stays when the network goes.
async fn bridge_of(link: &Link, name: &str) -> Result<Option<String>, OpError> {
    let path = format!("{API}/networks/{name}/json");
    let found = match raw::ask(link, ASK, Method::GET, &path, None).await {
        Err(OpError::NotFound(_)) => return Ok(None),
        found => found?,
    };
    // Before 4.5 it answered with a list of one.
    let found = found.get(0).unwrap_or(&found);
    let bridge = found.get("network_interface").and_then(Value::as_str);
    Ok(bridge.map(str::to_owned))
}

/// Percent-encodes what stands for itself nowhere in a path or query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_is_told_from_dockerd() {
        let version = |name: &str| {
            let part = json!({"Name": name, "Version": "1"});
            serde_json::from_value(json!({ "Components": [part] })).unwrap()
        };
        assert!(is_it(&version("Podman Engine")));
        assert!(!is_it(&version("Engine")));
        assert!(!is_it(&SystemVersion::default()));
    }

    #[test]
    fn its_own_states_become_dockerds() {
        for (state, word) in [("stopped", "exited"), ("running", "running")] {
            let mut state = Value::from(state);
            say_as_dockerd(Some(&mut state));
            assert_eq!(state, word);
        }
        say_as_dockerd(None);
    }

    #[test]
    fn a_tmpfs_has_a_mode() {
        let mut body = json!({"HostConfig": {"Mounts": [
            {"Type": "tmpfs", "Target": "/a"},
            {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 9, "Mode": 448}},
            {"Type": "volume", "Target": "/c"},
        ]}});
        open_up(&mut body);
        let mounts = &body["HostConfig"]["Mounts"];
        assert_eq!(mounts[0]["TmpfsOptions"], json!({"Mode": 1023}));
        assert_eq!(mounts[1]["TmpfsOptions"]["Mode"], 448);
        assert_eq!(mounts[2].get("TmpfsOptions"), None);
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(
            encoded("{\"a\":[\"b.c=d\"]}"),
            "%7B%22a%22%3A%5B%22b.c%3Dd%22%5D%7D"
        );
        assert_eq!(encoded("web.1.t"), "web.1.t");
    }
}
