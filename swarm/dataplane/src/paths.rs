//! Which bridge the host sends packets over where a network has several. Makes no route where it has
//! one.
//!
//! Where nodes share a host, each of its addresses has two bridges that lead to it: the subnet is on
//! both. A route of its own for every container here leads over its own bridge. The other way would
//! do, but for connections that the host translates: it would count them once more on the second
//! bridge, where they are not the ones it knows.
//!
//! Of a network with several subnets each has a bridge, on which every host has the same address.
//! Whatever is not here answers to the one that nobody else has, so all of such a subnet is reached
//! over the bridge with that. Half of it by one route and half by another: these are heeded before
//! the kernel's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::join::is_sibling;
use crate::model::{Network, Subnet, Subnet6};
use crate::plane::Part;
use crate::state::{State, Touched};
use crate::{Error, Kernel, is_gone, link, refused, settings};

/// Whose routes these are (`ip route show proto 84`).
pub(crate) const OURS: RouteProtocol = RouteProtocol::Other(84);

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// The containers' addresses here, by bridge.
    here: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Halves of subnets that are reached over a bridge with an address of this host's alone, by
    /// bridge.
    halves: BTreeMap<String, BTreeSet<Half>>,
    /// Nothing of ours is there, for all that we know.
    clean: bool,
}

impl Part for Paths {
    const SEES_ENDPOINTS: bool = false;

    fn name(&self) -> &'static str {
        "paths"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        if touched.all || !touched.networks.is_empty() || !touched.containers.is_empty() {
            self.here = here(state);
            self.halves = halves(state);
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
            let wanted = self.wanted(&kernel.handle, &shared).await?;
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
        let wanted = self.wanted(&kernel.handle, &shared).await?;
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

    async fn wanted(
        &self,
        handle: &Handle,
        shared: &BTreeMap<&str, &BTreeSet<IpAddr>>,
    ) -> Result<BTreeSet<Path>, Error> {
        let mut wanted = BTreeSet::new();
        for (bridge, addresses) in shared {
            // One that is gone takes its routes along.
            let Some(device) = link::index(handle, bridge).await? else {
                continue;
            };
            wanted.extend(addresses.iter().map(|it| Path::alone(*it, device)));
            let halves = self.halves.get(*bridge).into_iter().flatten();
            wanted.extend(halves.map(|it| Path::half(*it, device)));
        }
        Ok(wanted)
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

/// What is behind a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    /// The address, or that of the subnet.
    to: IpAddr,
    /// Bits of its prefix.
    bits: u8,
    /// The number of the bridge.
    device: u32,
    /// As whom the host speaks to it.
    own: Option<IpAddr>,
}

/// Half of a subnet: its address, the bits of its prefix, and as whom the host speaks to it.
type Half = (IpAddr, u8, IpAddr);

impl Path {
    fn alone(to: IpAddr, device: u32) -> Self {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        Self {
            to,
            bits,
            device,
            own: None,
        }
    }

    fn half((to, bits, own): Half, device: u32) -> Self {
        Self {
            to,
            bits,
            device,
            own: Some(own),
        }
    }
}

/// What is on which bridge.
fn here(state: &State) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let networks = state.networks.iter();
    let networks = networks.filter_map(|(id, known)| Some((id, known.network.as_ref()?)));
    let mut here = BTreeMap::new();
    for (id, network) in networks {
        // A bridge without anybody behind it is one all the same.
        for bridge in network.bridges() {
            here.insert(bridge.to_owned(), BTreeSet::new());
        }
        let all = state.containers.values();
        for address in all.filter_map(|it| it.addresses.get(id)).flatten() {
            let on = here.entry(network.bridge_of(*address).to_owned());
            on.or_default().insert(*address);
        }
    }
    here
}

/// What is reached over the bridges with addresses of this host's alone.
fn halves(state: &State) -> BTreeMap<String, BTreeSet<Half>> {
    let networks = state.networks.values();
    let networks = networks.filter_map(|known| known.network.as_ref());
    let several = networks.filter(|network| !network.branches.is_empty());
    several
        .map(|network| (network.bridge.clone(), beside(network)))
        .collect()
}

/// The halves of a network's further subnets.
fn beside(network: &Network) -> BTreeSet<Half> {
    let branches = network.branches.iter();
    let own = network.gateway;
    let first = branches.clone().flat_map(|it| cut(it.subnet));
    let first = first.map(|(to, bits)| (to.into(), bits, own.into()));
    let second = network.ipv6.into_iter().flat_map(|own| {
        let halves = branches.clone().filter_map(|it| it.ipv6).flat_map(cut6);
        halves.map(move |(to, bits)| (to.into(), bits, own.gateway.into()))
    });
    first.chain(second).collect()
}

/// The halves of a subnet.
fn cut((subnet, bits): Subnet) -> [Subnet; 2] {
    let bits = bits.saturating_add(1).min(32);
    let middle = 1_u32.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    let second = Ipv4Addr::from_bits(subnet.to_bits() | middle);
    [(subnet, bits), (second, bits)]
}

/// The same of IPv6.
fn cut6((subnet, bits): Subnet6) -> [Subnet6; 2] {
    let bits = bits.saturating_add(1).min(128);
    let middle = 1_u128.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    let second = Ipv6Addr::from_bits(subnet.to_bits() | middle);
    [(subnet, bits), (second, bits)]
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
                ours.filter(|path| own.contains(&path.device))
                    .map(|path| (path, route)),
            );
        }
    }
    Ok(found)
}

fn path(route: &RouteMessage) -> Option<Path> {
    let (mut address, mut device, mut own) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => address = Some((*it).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(it)) => address = Some((*it).into()),
            RouteAttribute::Oif(it) => device = Some(*it),
            RouteAttribute::PrefSource(RouteAddress::Inet(it)) => own = Some((*it).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(it)) => own = Some((*it).into()),
            _ => {}
        }
    }
    Some(Path {
        to: address?,
        bits: route.header.destination_prefix_length,
        device: device?,
        own,
    })
}

async fn add(handle: &Handle, path: Path) -> Result<(), Error> {
    let Path {
        to, bits, device, ..
    } = path;
    let route = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(device)
        .protocol(OURS)
        .scope(RouteScope::Link)
        .destination_prefix(to, bits);
    let route = match path.own {
        // Of nodes that share the host each has one: as many as there are bridges.
        Some(own) => route.and_then(|it| it.priority(device).pref_source(own)),
        None => route,
    };
    // No prefix is too long, and both addresses are of one kind.
    let Ok(route) = route else { return Ok(()) };
    let added = handle.route().add(route.build()).replace().execute().await;
    added.map_err(refused(format!("lead to {to}/{bits} over a bridge")))
}

async fn remove(handle: &Handle, route: RouteMessage) -> Result<(), Error> {
    match handle.route().del(route).execute().await {
        Err(error) if !is_gone(&error) => Err(refused("remove a route to a container")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_have_two_halves() {
        let at = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let expected = [(at("10.6.0.0"), 25), (at("10.6.0.128"), 25)];
        assert_eq!(cut((at("10.6.0.0"), 24)), expected);
        let expected = [(at("10.6.0.8"), 30), (at("10.6.0.12"), 30)];
        assert_eq!(cut((at("10.6.0.8"), 29)), expected);
        let at = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let expected = [(at("fd00:6::"), 65), (at("fd00:6::8000:0:0:0"), 65)];
        assert_eq!(cut6((at("fd00:6::"), 64)), expected);
        let expected = [(at("fd00:6::8"), 126), (at("fd00:6::c"), 126)];
        assert_eq!(cut6((at("fd00:6::8"), 125)), expected);
    }
}
