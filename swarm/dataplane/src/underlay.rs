//! What carries packets of networks between hosts: the interface that has the address which other
//! hosts send them to, and how large they may be. Changes nothing.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::LinkAttribute;

use super::{Error, Kernel, is_absence, refused};

/// What interfaces usually have: an Ethernet's.
const USUAL: u32 = 1500;
/// The most that IP can say.
const MOST: u32 = 65_535;
/// The smallest MTU of IPv4.
const LEAST: u32 = 68;
/// What VXLAN adds to a packet: an Ethernet header, its own, UDP's and IP's.
const VXLAN: [u32; 2] = [50, 70];
/// What sealing leaves room for, whichever IP it goes over.
const SEALED: u32 = 110;

/// The largest packet within a network of which packets between hosts go out from `local`, if they
/// may have `underlay` bytes there; where nobody knows, an Ethernet's.
pub fn mtu_over(underlay: Option<u32>, local: IpAddr, sealed: bool) -> u32 {
    let [four, six] = VXLAN;
    let added = match (sealed, local) {
        (true, _) => SEALED,
        (false, IpAddr::V4(_)) => four,
        (false, IpAddr::V6(_)) => six,
    };
    let underlay = underlay.unwrap_or(USUAL).min(MOST);
    underlay.saturating_sub(added).max(LEAST)
}

/// The MTU of the interface that has an address; `None` if none has it.
///
/// # Errors
/// When the kernel refuses.
pub async fn underlay(local: IpAddr) -> Result<Option<u32>, Error> {
    let kernel = Kernel::open()?;
    let Some(index) = interface(&kernel.handle, local).await? else {
        return Ok(None);
    };
    let mut links = kernel.handle.link().get().match_index(index).execute();
    let link = match links.try_next().await {
        Ok(link) => link,
        Err(error) if is_absence(&error) => None,
        Err(error) => return Err(refused("look at an interface")(error)),
    };
    let mtu = |it: &LinkAttribute| match it {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    };
    Ok(link.and_then(|link| link.attributes.iter().find_map(mtu)))
}

/// Which interface has an address.
pub(super) async fn interface(handle: &Handle, address: IpAddr) -> Result<Option<u32>, Error> {
    let all = handle.address().get().set_address_filter(address).execute();
    let all: Vec<_> = all.try_collect().await.map_err(refused("list addresses"))?;
    Ok(all.first().map(|it| it.header.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_fits() {
        let (four, six) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        for (underlay, local, sealed, mtu) in [
            (Some(1500), four, false, 1450),
            (Some(1500), six, false, 1430),
            (Some(1500), four, true, 1390),
            (Some(1500), six, true, 1390),
            (Some(1400), four, false, 1350),
            (Some(9000), four, false, 8950),
            (None, four, false, 1450),
            // A loopback says more than IP can.
            (Some(65_536), four, false, 65_485),
            (Some(100), four, true, 68),
        ] {
            assert_eq!(
                mtu_over(underlay, local, sealed),
                mtu,
                "{underlay:?} {local}"
            );
        }
    }
}
