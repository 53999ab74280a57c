//! The TAP device of an encrypted network on its bridge, and what the bridge finds behind it. Opens
//! no device.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Error, Kernel, Overlay, entries, link, mac, settings};

/// Puts the device on the bridge, and behind it what is on other hosts.
pub(super) async fn enslave(
    overlay: &Overlay,
    remotes: &BTreeMap<Ipv4Addr, IpAddr>,
) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let there = |index: Option<u32>, name: &str| index.ok_or_else(|| Error::NoDevice(name.into()));
    let bridge = link::index(&kernel.handle, &overlay.bridge).await?;
    let bridge = there(bridge, &overlay.bridge)?;
    link::address(&kernel.handle, bridge, &mac(overlay.gateway)).await?;
    let device = link::index(&kernel.handle, &overlay.device).await?;
    let device = there(device, &overlay.device)?;
    settings::set(overlay)?;
    link::enslave(&kernel.handle, overlay, device, bridge).await?;
    for address in entries::behind(&kernel.handle, device).await? {
        if !remotes.contains_key(&address) {
            entries::withdraw(&kernel.handle, device, address).await?;
        }
    }
    for address in remotes.keys() {
        entries::point(&kernel.handle, device, *address).await?;
    }
    Ok(())
}

/// Addresses are on another host now or, without one, on none.
pub(super) async fn moved(
    device: &str,
    moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>,
) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let index = link::index(&kernel.handle, device).await?;
    let index = index.ok_or_else(|| Error::NoDevice(device.to_owned()))?;
    for (address, host) in moves {
        match host {
            Some(_) => entries::point(&kernel.handle, index, *address).await?,
            None => entries::withdraw(&kernel.handle, index, *address).await?,
        }
    }
    Ok(())
}
