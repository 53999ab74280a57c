//! The bridge and the VXLAN device on it. Never touches the entries of either.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVxlan};
use tracing::warn;

use super::{Error, Overlay, is_absence, is_presence, join, refused, underlay};

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(refused(format!("look for device {name}"))(error)),
    }
}

/// The number of a device, if there is one of this name.
pub(super) async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    Ok(find(handle, name).await?.map(|link| link.header.index))
}

/// What the device of this number is called, if there is one.
pub(super) async fn name(handle: &Handle, index: u32) -> Result<Option<String>, Error> {
    let mut links = handle.link().get().match_index(index).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.as_ref().and_then(name_of)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(refused("look for the name of a device")(error)),
    }
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|it| match it {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Gives a device its hardware address.
pub(super) async fn address(handle: &Handle, index: u32, mac: &[u8; 6]) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(index)
        .address(mac.to_vec())
        .build();
    let set = handle.link().set(message).execute().await;
    set.map_err(refused("set the address of a bridge"))
}

pub(super) async fn delete(handle: &Handle, index: u32) -> Result<(), Error> {
    match handle.link().del(index).execute().await {
        Err(error) if !is_absence(&error) => Err(refused("remove a device")(error)),
        _ => Ok(()),
    }
}

/// The VXLAN device of a network, on its bridge: made if it is not there or another one.
pub(super) async fn vxlan(handle: &Handle, overlay: &Overlay, bridge: u32) -> Result<u32, Error> {
    let name = &overlay.device;
    // The kernel sends nothing from an address that the host does not have, because somebody
    // translates it on the way for example.
    let own = underlay::interface(handle, overlay.local).await?;
    let local = own.map(|_| overlay.local);
    let mut found = find(handle, name).await?;
    if let Some(link) = &found
        && !is_same(link, overlay, local)
    {
        delete(handle, link.header.index).await?;
        found = None;
    }
    let device = match found {
        Some(link) => link.header.index,
        None => {
            create(handle, overlay, local).await?;
            let made = index(handle, name).await?;
            made.ok_or_else(|| Error::NoDevice(name.clone()))?
        }
    };
    enslave(handle, overlay, device, bridge).await?;
    Ok(device)
}

/// Puts a network's device on its bridge, which then needs no other node's.
pub(super) async fn enslave(
    handle: &Handle,
    overlay: &Overlay,
    device: u32,
    bridge: u32,
) -> Result<(), Error> {
    let name = &overlay.device;
    join::part(handle, overlay).await?;
    let message = LinkUnspec::new_with_index(device)
        .mtu(overlay.mtu)
        .controller(bridge)
        .up()
        .build();
    let set = handle.link().set(message).execute().await;
    set.map_err(refused(format!("put {name} on its bridge")))?;
    // Whatever the bridge does not know is on no other host either.
    let port = LinkBridgePort::new(device).learning(false).flood(false);
    let set = handle.link().set_port(port.build()).execute().await;
    set.map_err(refused(format!("keep {name} from learning")))
}

/// Makes the device. The kernel takes one of an id on a port: one of ours that no network uses gives
/// way, since somebody left it behind.
async fn create(handle: &Handle, overlay: &Overlay, local: Option<IpAddr>) -> Result<(), Error> {
    let (vni, port) = (overlay.vni, overlay.port);
    let what = format!("make a VXLAN device with id {vni} on port {port}");
    let error = match add(handle, overlay, local).await {
        Err(error) if is_presence(&error) => error,
        made => return made.map_err(refused(what)),
    };
    let Some((holder, name)) = holder(handle, overlay).await? else {
        return Err(refused(what)(error));
    };
    if join::strays(handle).await?.contains(&holder) {
        warn!(
            device = name,
            vni, "removed a device that nobody has a use for"
        );
        delete(handle, holder).await?;
        let made = add(handle, overlay, local).await;
        return made.map_err(refused(what));
    }
    // Whoever it is, only somebody who knows what for can tell whether it may go.
    let what = format!("{what}, which device {name} has");
    Err(refused(what)(error))
}

/// The device that has a network's id and port, and what it is called.
async fn holder(handle: &Handle, overlay: &Overlay) -> Result<Option<(u32, String)>, Error> {
    let mut all = handle.link().get().execute();
    while let Some(link) = all.try_next().await.map_err(refused("list devices"))? {
        if vxlan_data(&link).is_some_and(|it| has_id(it, overlay)) {
            return Ok(name_of(&link).map(|name| (link.header.index, name)));
        }
    }
    Ok(None)
}

async fn add(
    handle: &Handle,
    overlay: &Overlay,
    local: Option<IpAddr>,
) -> Result<(), rtnetlink::Error> {
    let device = LinkVxlan::new(&overlay.device, overlay.vni)
        .port(overlay.port)
        .learning(false)
        .proxy(true);
    let device = match local {
        Some(IpAddr::V4(local)) => device.local(local),
        Some(IpAddr::V6(local)) => device.local6(local),
        None => device,
    };
    handle.link().add(device.build()).execute().await
}

/// Whether a device that was found leads where it should.
fn is_same(link: &LinkMessage, overlay: &Overlay, local: Option<IpAddr>) -> bool {
    vxlan_data(link).is_some_and(|data| {
        let from = data.iter().find_map(|info| match info {
            InfoVxlan::Local(local) => Some(IpAddr::V4(*local)),
            InfoVxlan::Local6(local) => Some(IpAddr::V6(*local)),
            _ => None,
        });
        has_id(data, overlay) && from == local
    })
}

fn has_id(data: &[InfoVxlan], overlay: &Overlay) -> bool {
    let wanted = [InfoVxlan::Id(overlay.vni), InfoVxlan::Port(overlay.port)];
    wanted.iter().all(|info| data.contains(info))
}

/// What a device says of itself if it is a VXLAN.
fn vxlan_data(link: &LinkMessage) -> Option<&Vec<InfoVxlan>> {
    let infos = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    infos.flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })
}
