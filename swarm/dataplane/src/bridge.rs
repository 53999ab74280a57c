//! For engines that make a network's bridge with its first container only, and take it away with
//! the last: the bridge, made before anybody needs it, and the way out of containers on several
//! networks. Never touches what an engine has made.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::{Error, Kernel, Overlay, is_absence, link, mac, refused, settings};
use crate::ipv6::side_of;
use crate::netns::{self, Place};

/// What containers' first device is called.
const FIRST: &str = "eth0";

/// Makes a network's bridge, with the host's own address in a subnet of so many bits on it. One
/// that is there stays.
///
/// # Errors
/// When the kernel refuses.
pub async fn ensure(overlay: &Overlay, bits: u8) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let (handle, name) = (&kernel.handle, &overlay.bridge);
    let is_new = link::index(handle, name).await?.is_none();
    if is_new {
        let made = handle.link().add(LinkBridge::new(name).build()).execute();
        made.await.map_err(refused(format!("make bridge {name}")))?;
    }
    let index = link::index(handle, name).await?;
    let index = index.ok_or_else(|| Error::NoDevice(name.clone()))?;
    if is_new {
        // With one of its own, it does not take another one with each container.
        link::address(handle, index, &mac(overlay.gateway)).await?;
    }
    let up = LinkUnspec::new_with_index(index).mtu(overlay.mtu).up();
    let set = handle.link().set(up.build()).execute().await;
    set.map_err(refused(format!("start bridge {name}")))?;
    let side = side_of(&overlay.sides, overlay.gateway);
    let second = side.map(|it| (IpAddr::V6(it.address(overlay.gateway)), it.bits));
    let both = [Some((IpAddr::V4(overlay.gateway), bits)), second];
    settings::set(overlay)?;
    for (gateway, bits) in both.into_iter().flatten() {
        let add = handle.address().add(index, gateway, bits).replace();
        let added = add.execute().await;
        added.map_err(refused(format!("give bridge {name} its address")))?;
    }
    Ok(())
}

/// Removes a network's bridge. One that is not there is a success.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove(bridge: &str) -> Result<(), Error> {
    super::remove(bridge).await
}

/// Makes the network that a container was made on its way out, where it has several: published
/// ports are on that, and answers must go back the way that requests came. Without a way out there,
/// the others stay as they are.
///
/// # Errors
/// When the process is gone, or the kernel refuses.
pub async fn lead_out(pid: i32) -> Result<(), Error> {
    let kernel = Kernel::open_in(pid).await?;
    let handle = &kernel.handle;
    let Some(first) = link::index(handle, FIRST).await? else {
        return Ok(());
    };
    let routes = defaults(handle).await?;
    let leads_through = |route: &RouteMessage, index| {
        let mut all = route.attributes.iter();
        all.any(|it| matches!(it, RouteAttribute::Oif(device) if *device == index))
    };
    if !routes.iter().any(|it| leads_through(it, first)) {
        return Ok(());
    }
    for route in routes {
        if leads_through(&route, first) {
            continue;
        }
        match handle.route().del(route).execute().await {
            Err(error) if !is_absence(&error) => {
                return Err(refused("remove a route of a container")(error));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn defaults(handle: &Handle) -> Result<Vec<RouteMessage>, Error> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let found = handle.route().get(all).execute().try_collect::<Vec<_>>();
    let mut routes = found
        .await
        .map_err(refused("list the routes of a container"))?;
    routes.retain(|it| it.header.destination_prefix_length == 0);
    Ok(routes)
}

impl Kernel {
    /// That of a process's namespace.
    pub(crate) async fn open_in(pid: i32) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        let opened = netns::within(Place::Of(pid), move || {
            let _here = runtime.enter();
            rtnetlink::new_connection()
        });
        let (connection, handle, _) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return Err(error.into()),
        };
        let serving = tokio::spawn(connection);
        Ok(Self { handle, serving })
    }
}

impl From<netns::Error> for Error {
    fn from(error: netns::Error) -> Self {
        match error {
            netns::Error::Gone => Self::NoProcess,
            netns::Error::Failed(error) => error.into(),
        }
    }
}
