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
use crate::model::{Network, Subnet};
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
    halves: BTreeMap<String, (Ipv4Addr, Vec<Subnet>)>,
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
            if let Some((own, halves)) = self.halves.get(*bridge) {
                wanted.extend(halves.iter().map(|it| Path::half(*it, device, *own)));
            }
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
    own: Option<Ipv4Addr>,
}

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

    fn half((to, bits): Subnet, device: u32, own: Ipv4Addr) -> Self {
        Self {
            to: to.into(),
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
fn halves(state: &State) -> BTreeMap<String, (Ipv4Addr, Vec<Subnet>)> {
    let networks = state.networks.values();
    let networks = networks.filter_map(|known| known.network.as_ref());
    let several = networks.filter(|network| !network.branches.is_empty());
    let halves = |network: &Network| {
        let subnets = network.branches.iter().flat_map(|it| cut(it.subnet));
        (network.gateway, subnets.collect())
    };
    several
        .map(|network| (network.bridge.clone(), halves(network)))
        .collect()
}

/// The halves of a subnet.
fn cut((subnet, bits): Subnet) -> [Subnet; 2] {
    let bits = bits.saturating_add(1).min(32);
    let middle = 1_u32.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    let second = Ipv4Addr::from_bits(subnet.to_bits() | middle);
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
            RouteAttribute::PrefSource(RouteAddress::Inet(it)) => own = Some(*it),
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
    let route = match to {
        IpAddr::V4(to) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, bits)
                .output_interface(device)
                .protocol(OURS)
                .scope(RouteScope::Link);
            match path.own {
                // Of nodes that share the host each has one: as many as there are bridges.
                Some(own) => route.pref_source(own).priority(device).build(),
                None => route.build(),
            }
        }
        IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to, bits)
            .output_interface(device)
            .protocol(OURS)
            .build(),
    };
    let added = handle.route().add(route).replace().execute().await;
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
    }
}
