//! Where addresses are: for each that is on another host, what its hardware address is, which port
//! of the bridge leads to it, and which host the VXLAN device sends it to. Makes no device.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{Error, Ipv6, is_absence, mac, refused};
use crate::ipv6::side_of;

/// The addresses that a device has entries for.
pub(super) async fn known(handle: &Handle, device: u32) -> Result<Vec<Ipv4Addr>, Error> {
    let all = handle.neighbours().get();
    let mut all = Box::pin(all.set_address_family(AddressFamily::Inet).execute());
    let mut known = Vec::new();
    while let Some(entry) = all.try_next().await.map_err(refused("list neighbours"))? {
        if entry.header.ifindex != device {
            continue;
        }
        known.extend(
            entry
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                        Some(*address)
                    }
                    _ => None,
                }),
        );
    }
    Ok(known)
}

/// The addresses that the bridge looks for behind a device.
pub(super) async fn behind(handle: &Handle, device: u32) -> Result<Vec<Ipv4Addr>, Error> {
    let all = handle.neighbours().get();
    let mut all = Box::pin(all.set_address_family(AddressFamily::Bridge).execute());
    let mut known = Vec::new();
    while let Some(entry) = all.try_next().await.map_err(refused("list a bridge"))? {
        let attributes = entry.attributes.iter();
        let here = attributes.filter(|_| entry.header.ifindex == device);
        known.extend(here.filter_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => address_of(mac),
            _ => None,
        }));
    }
    Ok(known)
}

/// The reverse of [`mac`].
fn address_of(mac: &[u8]) -> Option<Ipv4Addr> {
    match *mac {
        [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// The bridge finds an address behind a device.
pub(super) async fn point(handle: &Handle, device: u32, address: Ipv4Addr) -> Result<(), Error> {
    // Static to the bridge, whose word for that is "needs no ARP".
    let port = handle.neighbours().add_bridge(device, &mac(address));
    let port = port
        .state(NeighbourState::Noarp)
        .flags(NeighbourFlags::Controller);
    let set = port.replace().execute().await;
    set.map_err(refused(format!("say that {address} is not on this host")))
}

/// An address is on another host, and with it what it stands for on the network's IPv6 sides.
pub(super) async fn set(
    handle: &Handle,
    device: u32,
    (address, sides): (Ipv4Addr, &[Ipv6]),
    host: IpAddr,
) -> Result<(), Error> {
    point(handle, device, address).await?;
    let mac = mac(address);
    let what = || format!("say that {address} is on {host}");
    let table = handle.neighbours();
    let host = table.add_bridge(device, &mac).destination(host);
    let host = host.flags(NeighbourFlags::Own).replace();
    host.execute().await.map_err(refused(what()))?;
    let second = side_of(sides, address).map(|side| side.address(address).into());
    for address in [Some(address.into()), second].into_iter().flatten() {
        let answer = table.add(device, address).link_layer_address(&mac);
        let answer = answer.replace();
        answer.execute().await.map_err(refused(what()))?;
    }
    Ok(())
}

/// An address is on no other host. One that has no entries is a success.
pub(super) async fn remove(
    handle: &Handle,
    device: u32,
    address: Ipv4Addr,
    sides: &[Ipv6],
) -> Result<(), Error> {
    let on_bridge = NeighbourAttribute::LinkLayerAddress(mac(address).to_vec());
    let inside = |address| NeighbourAttribute::Destination(address);
    let second = side_of(sides, address);
    let second = second.map(|it| inside(NeighbourAddress::Inet6(it.address(address))));
    let second = second.map(|it| (AddressFamily::Inet6, it, NeighbourFlags::empty()));
    let first = inside(NeighbourAddress::Inet(address));
    let entries = [
        (AddressFamily::Inet, first, NeighbourFlags::empty()),
        (AddressFamily::Bridge, on_bridge, NeighbourFlags::Own),
    ];
    // The one that others are known by goes after what it stands for.
    for entry in second.into_iter().chain(entries) {
        forget(handle, device, address, entry).await?;
    }
    withdraw(handle, device, address).await
}

/// The bridge does not look for an address behind a device any more; the reverse of [`point`]. The
/// device may be of any kind.
pub(super) async fn withdraw(handle: &Handle, device: u32, address: Ipv4Addr) -> Result<(), Error> {
    let on_bridge = NeighbourAttribute::LinkLayerAddress(mac(address).to_vec());
    let entry = (AddressFamily::Bridge, on_bridge, NeighbourFlags::Controller);
    forget(handle, device, address, entry).await
}

async fn forget(
    handle: &Handle,
    device: u32,
    address: Ipv4Addr,
    (family, attribute, flags): (AddressFamily, NeighbourAttribute, NeighbourFlags),
) -> Result<(), Error> {
    let mut entry = NeighbourMessage::default();
    entry.header.family = family;
    entry.header.ifindex = device;
    entry.header.flags = flags;
    entry.attributes.push(attribute);
    match handle.neighbours().del(entry).execute().await {
        Err(error) if !is_absence(&error) => {
            Err(refused(format!("forget where {address} was"))(error))
        }
        _ => Ok(()),
    }
}
