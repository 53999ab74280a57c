//! Where nodes share a host, each of its addresses has two bridges that lead to it: the subnet is on
//! both. A route of its own for every container here leads over its own bridge. The other way would
//! do, but for connections that the host translates: it would count them once more on the second
//! bridge, where they are not the ones it knows. Makes no route where a network has one bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::join::is_sibling;
use crate::plane::Part;
use crate::state::{State, Touched};
use crate::{Error, Kernel, is_gone, link, refused, settings};

/// Whose routes these are (`ip route show proto 84`).
const OURS: RouteProtocol = RouteProtocol::Other(84);

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// The containers' addresses here, by bridge.
    here: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Nothing of ours is there, for all that we know.
    clean: bool,
}

impl Part for Paths {
    fn name(&self) -> &'static str {
        "paths"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        if touched.all || !touched.networks.is_empty() || !touched.containers.is_empty() {
            self.here = here(state);
            self.bring().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn intact(&mut self) -> bool {
        let shared = self.shared().unwrap_or_default();
        if shared.is_empty() && self.clean {
            return true;
        }
        let looked = async {
            let kernel = Kernel::open()?;
            let wanted = wanted(&kernel.handle, &shared).await?;
            let found = found(&kernel.handle, &self.own(&kernel.handle).await?).await?;
            Ok::<_, Error>(found.into_keys().eq(wanted))
        };
        looked.await.unwrap_or(false)
    }
}

impl Paths {
    async fn bring(&mut self) -> Result<(), Error> {
        let shared = self.shared()?;
        if shared.is_empty() && self.clean {
            return Ok(());
        }
        let kernel = Kernel::open()?;
        let wanted = wanted(&kernel.handle, &shared).await?;
        let found = found(&kernel.handle, &self.own(&kernel.handle).await?).await?;
        for path in wanted.iter().filter(|path| !found.contains_key(path)) {
            add(&kernel.handle, *path).await?;
        }
        for (path, message) in found {
            if !wanted.contains(&path) {
                remove(&kernel.handle, message).await?;
            }
        }
        self.clean = wanted.is_empty();
        Ok(())
    }

    /// Those of the bridges that are not the only ones of their network, and what is on them.
    fn shared(&self) -> std::io::Result<BTreeMap<&str, &BTreeSet<IpAddr>>> {
        let devices = settings::devices()?;
        let is_shared = |bridge: &str| {
            let mut others = devices.iter().filter(|it| *it != bridge);
            others.any(|it| is_sibling(bridge, it))
        };
        let all = self.here.iter();
        let all = all.map(|(bridge, on)| (bridge.as_str(), on));
        Ok(all.filter(|(bridge, _)| is_shared(bridge)).collect())
    }

    /// The numbers of this node's bridges: what leads over another one is not its own.
    async fn own(&self, handle: &Handle) -> Result<BTreeSet<u32>, Error> {
        let mut own = BTreeSet::new();
        for bridge in self.here.keys() {
            own.extend(link::index(handle, bridge).await?);
        }
        Ok(own)
    }
}

/// An address, and the number of the bridge that it is behind.
type Path = (IpAddr, u32);

/// What is on which bridge.
fn here(state: &State) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let networks = state.networks.iter();
    let networks = networks.filter_map(|(id, known)| Some((id, known.network.as_ref()?)));
    let addresses = |id: &String| {
        let all = state.containers.values();
        let on = all.filter_map(|it| it.addresses.get(id));
        on.flatten().copied().collect()
    };
    networks
        .map(|(id, network)| (network.bridge.clone(), addresses(id)))
        .collect()
}

async fn wanted(
    handle: &Handle,
    shared: &BTreeMap<&str, &BTreeSet<IpAddr>>,
) -> Result<BTreeSet<Path>, Error> {
    let mut wanted = BTreeSet::new();
    for (bridge, addresses) in shared {
        // One that is gone takes its routes along.
        let Some(device) = link::index(handle, bridge).await? else {
            continue;
        };
        wanted.extend(addresses.iter().map(|address| (*address, device)));
    }
    Ok(wanted)
}

/// The routes of ours over these devices.
async fn found(
    handle: &Handle,
    own: &BTreeSet<u32>,
) -> Result<BTreeMap<Path, RouteMessage>, Error> {
    let questions = [
        RouteMessageBuilder::<Ipv4Addr>::new()
            .protocol(OURS)
            .build(),
        RouteMessageBuilder::<Ipv6Addr>::new()
            .protocol(OURS)
            .build(),
    ];
    let mut found = BTreeMap::new();
    for question in questions {
        let mut all = Box::pin(handle.route().get(question).execute());
        while let Some(route) = all.try_next().await.map_err(refused("list routes"))? {
            let ours = path(&route).filter(|_| route.header.protocol == OURS);
            found.extend(
                ours.filter(|(_, device)| own.contains(device))
                    .map(|path| (path, route)),
            );
        }
    }
    Ok(found)
}

fn path(route: &RouteMessage) -> Option<Path> {
    let mut address = None;
    let mut device = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => address = Some((*it).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(it)) => address = Some((*it).into()),
            RouteAttribute::Oif(it) => device = Some(*it),
            _ => {}
        }
    }
    address.zip(device)
}

async fn add(handle: &Handle, (address, device): Path) -> Result<(), Error> {
    let route = match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(device)
            .protocol(OURS)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .output_interface(device)
            .protocol(OURS)
            .build(),
    };
    let added = handle.route().add(route).replace().execute().await;
    added.map_err(refused(format!("lead to {address} over its own bridge")))
}

async fn remove(handle: &Handle, route: RouteMessage) -> Result<(), Error> {
    match handle.route().del(route).execute().await {
        Err(error) if !is_gone(&error) => Err(refused("remove a route to a container")(error)),
        _ => Ok(()),
    }
}
