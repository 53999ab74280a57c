//! The node's part of a network: a bridge network of the engine's, and a VXLAN device on its bridge
//! that leads to other nodes. Never chooses an address and never starts or stops a container.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bollard::models::{
    Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, NetworkInspect,
};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};
use bollard::{BollardRequest, body_full};
use bytes::Bytes;
use serde_json::{Value, json};
use skep_core::Id;
use skep_core::assignment::{Branch, Overlay};
use skep_core::ipv6::Ipv6;
use skep_core::network::{LABEL, LABEL_NAME, LABEL_SHOWN, MTU_OPTION, branch_name, vxlan_name};
use skep_core::worker::{OpError, OpOutput, OpResult};
use skep_dataplane::Overlays;
use skep_dataplane::crypt::Key;
use tracing::warn;

use super::clear;
use super::connect::Link;
use super::local;

/// Questions.
const ASK: Duration = Duration::from_secs(30);
/// Networks are made and removed in moments, but the engine may be busy.
const ACT: Duration = Duration::from_secs(120);

/// A bridge network of the engine's that is one of a network's IPv4 subnets.
pub(super) struct Piece {
    /// What the engine calls it.
    pub(super) name: String,
    /// Its bridge.
    pub(super) bridge: String,
    /// The host's address on it.
    pub(super) gateway: Ipv4Addr,
    /// Bits of the subnet's prefix.
    pub(super) bits: u8,
    /// The subnet, and the IPv6 subnet beside it if it has one: each with the host's own address.
    pub(super) pools: Vec<(String, String)>,
}

/// All that the engine is to have of a network: an engine's bridges have one IPv4 subnet each.
pub(super) fn pieces(overlay: &Overlay) -> Vec<Piece> {
    let all = overlay.subnets().zip(overlay.bridges());
    let piece = |(it, bridge): (Branch, String)| {
        let ipv4 = (it.subnet.to_string(), it.gateway.to_string());
        let ipv6 = it.ipv6;
        let ipv6 = ipv6.map(|of| (of.subnet.to_string(), of.address(it.gateway).to_string()));
        Piece {
            name: branch_name(&overlay.id, overlay.ingress, it.number),
            bridge,
            gateway: it.gateway,
            bits: it.subnet.bits,
            pools: std::iter::once(ipv4).chain(ipv6).collect(),
        }
    };
    all.map(piece).collect()
}

/// The networks of the swarm that the engine has something of.
pub(super) async fn list(link: &Link) -> OpResult {
    let found = labelled(link, LABEL.to_owned()).await?;
    let ids = found.into_iter().filter_map(|it| it.labels?.remove(LABEL));
    Ok(OpOutput::Networks(
        ids.map(|id| Id::from(id.as_str())).collect(),
    ))
}

/// What the engine calls all that it has of one network.
pub(super) async fn names(link: &Link, network: &Id) -> Result<Vec<String>, OpError> {
    let found = labelled(link, format!("{LABEL}={network}")).await?;
    Ok(found.into_iter().filter_map(|it| it.name).collect())
}

async fn labelled(link: &Link, label: String) -> Result<Vec<Network>, OpError> {
    let options = Some(ListNetworksOptions {
        filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
    });
    link.call(Some(ASK), |docker| async move {
        docker.list_networks(options).await
    })
    .await
}

/// Makes a network what it should be.
pub(super) async fn make(link: &Link, overlays: &Overlays, overlay: &Overlay) -> OpResult {
    if let Some(driver) = &overlay.driver {
        return local::make(link, overlay, driver).await;
    }
    let mut size = None;
    for piece in pieces(overlay) {
        let there = match inspect(link, &piece.name).await {
            Ok(found) if is_same(&found, &piece, overlay) => Some(found),
            Ok(_) => {
                delete(link, &piece.name).await?;
                None
            }
            Err(OpError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        // All of it goes by what the first one has.
        let mtu = match size {
            Some(mtu) => mtu,
            None => mtu(overlay, there.as_ref()).await,
        };
        size = Some(mtu);
        if there.is_none() {
            clear::check(overlay)?;
            create(link, &piece, overlay, mtu).await?;
        }
    }
    let mtu = size.unwrap_or(overlay.mtu);
    lead_elsewhere(overlays, &in_kernel(overlay, mtu), overlay).await
}

/// The largest packet of a network's containers here: what was asked for, what the engine's network
/// was made with, since its containers have that, or what the interface to other nodes leaves.
pub(super) async fn mtu(overlay: &Overlay, there: Option<&NetworkInspect>) -> u32 {
    if !overlay.mtu_follows {
        return overlay.mtu;
    }
    let options = there.and_then(|it| it.options.as_ref());
    let made_with = options.and_then(|it| it.get(MTU_OPTION).or_else(|| it.get("mtu")));
    if let Some(mtu) = made_with.and_then(|mtu| mtu.parse().ok()) {
        return mtu;
    }
    let underlay = skep_dataplane::underlay(overlay.local).await;
    let underlay = underlay.inspect_err(|error| warn!(%error, "an interface's MTU is not known"));
    let sealed = !overlay.keys.is_empty();
    skep_dataplane::mtu_over(underlay.ok().flatten(), overlay.local, sealed)
}

/// What is to be of a network in the kernel.
pub(super) fn in_kernel(overlay: &Overlay, mtu: u32) -> skep_dataplane::Overlay {
    let mut bridges = overlay.bridges();
    let first = bridges.next();
    skep_dataplane::Overlay {
        bridge: first.unwrap_or_default(),
        branches: bridges.collect(),
        device: vxlan_name(&overlay.id),
        vni: overlay.vni,
        port: overlay.port,
        mtu,
        local: overlay.local,
        gateway: overlay.gateway,
        sides: overlay.sides().map(side).collect(),
    }
}

/// What one of a network's subnets has of IPv6, in the kernel.
fn side(of: Ipv6) -> skep_dataplane::Ipv6 {
    skep_dataplane::Ipv6 {
        of: (of.of.address, of.of.bits),
        first: of.first,
        bits: of.subnet.bits,
    }
}

/// Makes the way to other nodes, from a bridge that is there.
pub(super) async fn lead_elsewhere(
    overlays: &Overlays,
    local: &skep_dataplane::Overlay,
    overlay: &Overlay,
) -> OpResult {
    let keys = overlay.keys.iter().map(|key| Key {
        id: key.number,
        secret: key.secret.as_bytes().to_vec(),
    });
    let made = overlays.ensure(local, keys.collect(), &overlay.remotes);
    done(made.await)
}

/// Addresses are somewhere else now.
pub(super) async fn moved(
    overlays: &Overlays,
    network: &Id,
    sides: Vec<Ipv6>,
    moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>,
) -> OpResult {
    let device = vxlan_name(network);
    let sides: Vec<_> = sides.into_iter().map(side).collect();
    done(overlays.change(&device, &sides, moves).await)
}

/// Removes all of a network. The engine goes first: it refuses while containers are on it.
pub(super) async fn remove(link: &Link, overlays: &Overlays, network: &Id) -> OpResult {
    withdraw(link, network).await?;
    lead_nowhere(overlays, network).await
}

/// Removes the engine's part of a network. Containers of tasks are gone by then; what else is there
/// has no place on it, and is taken off.
pub(super) async fn withdraw(link: &Link, network: &Id) -> Result<(), OpError> {
    for name in names(link, network).await? {
        let outcome = match delete(link, &name).await {
            Err(OpError::Failed(_) | OpError::Conflict(_)) => clear(link, &name).await,
            other => other,
        };
        match outcome {
            Ok(()) | Err(OpError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the way to other nodes, once the bridge is gone.
pub(super) async fn lead_nowhere(overlays: &Overlays, network: &Id) -> OpResult {
    done(overlays.remove(&vxlan_name(network)).await)
}

/// Takes off a network whoever is on it, and removes it. A container that is gone meanwhile is off.
async fn clear(link: &Link, name: &str) -> Result<(), OpError> {
    let there = inspect(link, name).await?.containers.unwrap_or_default();
    for container in there.into_keys() {
        match disconnect(link, &container, name).await {
            Ok(_) | Err(OpError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    delete(link, name).await
}

/// Connects a container that does not run yet.
pub(super) async fn connect(
    link: &Link,
    container: &str,
    network: &str,
    endpoint: &Value,
) -> Result<(), OpError> {
    let body = json!({ "Container": container, "EndpointConfig": endpoint });
    let placeholder = NetworkConnectRequest::default();
    let connected = link
        .call(Some(ACT), |docker| async move {
            let docker = docker.with(raw(body));
            docker.connect_network(network, placeholder).await
        })
        .await;
    match connected {
        // It was connected before the daemon died.
        Err(OpError::Failed(text) | OpError::Conflict(text)) if text.contains("already") => Ok(()),
        other => other,
    }
}

/// Takes a container off a network, whatever it does.
pub(super) async fn disconnect(link: &Link, container: &str, network: &str) -> OpResult {
    let request = NetworkDisconnectRequest {
        container: container.to_owned(),
        force: Some(true),
    };
    link.call(Some(ACT), |docker| async move {
        docker.disconnect_network(network, request).await
    })
    .await?;
    Ok(OpOutput::Done)
}

pub(super) async fn inspect(link: &Link, name: &str) -> Result<NetworkInspect, OpError> {
    link.call(Some(ASK), |docker| async move {
        docker
            .inspect_network(name, None::<InspectNetworkOptions>)
            .await
    })
    .await
}

async fn create(link: &Link, piece: &Piece, overlay: &Overlay, mtu: u32) -> Result<(), OpError> {
    let pools = piece
        .pools
        .iter()
        .map(|(subnet, gateway)| json!({ "Subnet": subnet, "Gateway": gateway }));
    let pools: Vec<Value> = pools.collect();
    let body = json!({
        "Name": piece.name,
        // Older engines would make a second one of the same name.
        "CheckDuplicate": true,
        "Driver": "bridge",
        "Internal": overlay.internal,
        "EnableIPv6": pools.len() > 1,
        "IPAM": { "Driver": "default", "Config": pools },
        "Options": {
            "com.docker.network.bridge.name": piece.bridge,
            MTU_OPTION: mtu.to_string(),
        },
        "Labels": {
            LABEL: overlay.id.to_string(), LABEL_NAME: overlay.name, LABEL_SHOWN: overlay.shown,
        },
    });
    create_as(link, body).await
}

/// Has the engine make a network.
pub(super) async fn create_as(link: &Link, body: Value) -> Result<(), OpError> {
    let placeholder = NetworkCreateRequest::default();
    link.call(Some(ACT), |docker| async move {
        docker.with(raw(body)).create_network(placeholder).await
    })
    .await?;
    Ok(())
}

pub(super) async fn delete(link: &Link, name: &str) -> Result<(), OpError> {
    link.call(Some(ACT), |docker| async move {
        docker.remove_network(name).await
    })
    .await
}

/// bollard's types know fewer fields than we send, or fewer than older engines heed.
fn raw(body: Value) -> impl Fn(BollardRequest) -> BollardRequest + Send + Sync + 'static {
    let body = Bytes::from(body.to_string());
    move |request: BollardRequest| request.map(|_| body_full(body.clone()))
}

/// Whether the engine's network is ours as it should be.
pub(super) fn is_same(found: &NetworkInspect, piece: &Piece, overlay: &Overlay) -> bool {
    let configs = found.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    let configs = configs.into_iter().flatten();
    let configs = configs.map(|it| (it.subnet.clone(), it.gateway.clone()));
    let wanted = piece.pools.iter().cloned();
    let wanted = wanted.map(|(subnet, gateway)| (Some(subnet), Some(gateway)));
    configs.eq(wanted) && found.internal.unwrap_or_default() == overlay.internal
}

/// What the kernel said, as what an engine says.
pub(super) fn done(result: Result<(), skep_dataplane::Error>) -> OpResult {
    match result {
        Ok(()) => Ok(OpOutput::Done),
        Err(error) => Err(OpError::Failed(error.to_string())),
    }
}
