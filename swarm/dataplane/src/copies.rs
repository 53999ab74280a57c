//! Where a network with IPv6 has several bridges on a host, each answers for all that the host has of
//! the network. A bridge does not pass on a question about any address of its host, whichever device
//! has that (`neigh_suppress`, see `join.rs`), but answers only for what it has itself: so it has
//! copies of the others' addresses. From copies nothing is sent unasked, and they make no routes.
//! Which addresses there are shows in the kernel alone, since another node's may be among them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use crate::join::is_sibling;
use crate::model::{Subnet6, is_in6};
use crate::netlink::route::{Held, Routes};
use crate::netns::on_host;
use crate::plane::Part;
use crate::settings;
use crate::state::{State, Touched};

/// An address, and the number of the device that has a copy of it.
type Copy = (Ipv6Addr, u32);

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    networks: Vec<Network>,
    /// There is no copy, for all that we know.
    clean: bool,
}

/// A network with IPv6, as far as it matters here.
#[derive(Clone, Debug)]
struct Network {
    subnets: Vec<Subnet6>,
    /// This node's bridges.
    bridges: Vec<String>,
}

/// Its devices by number.
#[derive(Debug)]
struct Devices {
    subnets: Vec<Subnet6>,
    own: BTreeSet<u32>,
    /// With those of other nodes of this host.
    all: BTreeSet<u32>,
}

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Steps {
    gone: BTreeSet<Copy>,
    new: BTreeSet<Copy>,
}

impl Part for Copies {
    const SEES_ENDPOINTS: bool = false;

    fn name(&self) -> &'static str {
        "copies of addresses"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        if touched.all || !touched.networks.is_empty() {
            self.networks = networks(state);
            self.bring().await?;
        }
        Ok(())
    }

    async fn intact(&mut self) -> bool {
        // What other parts and nodes do is no change that anybody tells of.
        self.bring().await.is_ok()
    }
}

impl Copies {
    async fn bring(&mut self) -> Result<(), String> {
        if self.networks.is_empty() {
            return Ok(());
        }
        let (networks, clean) = (self.networks.clone(), self.clean);
        self.clean = on_host(move || {
            let devices = devices(&networks)?;
            if clean && devices.iter().all(|it| it.all.len() < 2) {
                return Ok(true);
            }
            let mut routes = Routes::open()?;
            let held = routes.held()?;
            let steps = steps(&held, &devices);
            routes.copy(&steps.gone, &steps.new)?;
            Ok(wanted(&held, &devices).is_empty())
        })
        .await?;
        Ok(())
    }
}

/// The networks that have IPv6.
fn networks(state: &State) -> Vec<Network> {
    let all = state.networks.values();
    let all = all.filter_map(|known| known.network.as_ref());
    let all = all.map(|network| Network {
        subnets: network.subnets6().into_iter().collect(),
        bridges: network.bridges().map(str::to_owned).collect(),
    });
    all.filter(|it| !it.subnets.is_empty()).collect()
}

/// The devices that networks have now.
fn devices(networks: &[Network]) -> io::Result<Vec<Devices>> {
    let names = settings::devices()?;
    let number = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).ok();
    let of = |network: &Network| {
        let is_its = |name: &&String| network.bridges.iter().any(|it| is_sibling(it, name));
        Devices {
            subnets: network.subnets.clone(),
            own: network.bridges.iter().filter_map(number).collect(),
            all: names.iter().filter(is_its).filter_map(number).collect(),
        }
    };
    Ok(networks.iter().map(of).collect())
}

/// The copies that there are to be.
fn wanted(held: &[Held], networks: &[Devices]) -> BTreeSet<Copy> {
    let mut wanted = BTreeSet::new();
    for network in networks {
        let on_it = |it: &&Held| {
            let is_its = |subnet: &Subnet6| is_in6(it.address, *subnet);
            !it.copy && network.all.contains(&it.device) && network.subnets.iter().any(is_its)
        };
        let mut originals: BTreeMap<Ipv6Addr, BTreeSet<u32>> = BTreeMap::new();
        for it in held.iter().filter(on_it) {
            originals.entry(it.address).or_default().insert(it.device);
        }
        for (address, on) in originals {
            let without = network.own.difference(&on);
            wanted.extend(without.map(|device| (address, *device)));
        }
    }
    wanted
}

fn steps(held: &[Held], networks: &[Devices]) -> Steps {
    let wanted = wanted(held, networks);
    let ours: BTreeSet<u32> = networks.iter().flat_map(|it| it.own.clone()).collect();
    let copies = held
        .iter()
        .filter(|it| it.copy && ours.contains(&it.device));
    let found: BTreeSet<Copy> = copies.map(|it| (it.address, it.device)).collect();
    Steps {
        gone: found.difference(&wanted).copied().collect(),
        new: wanted.difference(&found).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bridge_has_what_the_others_have() {
        let at = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let held = |all: &[(&str, u32, bool)]| {
            let all = all.iter().map(|(address, device, copy)| Held {
                address: at(address),
                device: *device,
                copy: *copy,
            });
            all.collect::<Vec<_>>()
        };
        let network = Devices {
            subnets: vec![(at("fd00:5::"), 64), (at("fd00:6::"), 64)],
            own: [1, 2].into(),
            // The last one is another node's.
            all: [1, 2, 3].into(),
        };
        let there = [
            ("fd00:5::3", 1, false),
            ("fd00:6::1", 2, false),
            ("fd00:5::4", 3, false),
            // A service's, of both nodes.
            ("fd00:6::9", 1, false),
            ("fd00:6::9", 3, false),
            ("fe80::1", 1, false),
            ("fd00:7::1", 1, false),
            ("fd00:5::8", 4, false),
            // The other node's are its own.
            ("fd00:6::1", 3, true),
        ];
        let networks = [network];
        let expected: BTreeSet<Copy> = [
            (at("fd00:5::3"), 2),
            (at("fd00:6::1"), 1),
            (at("fd00:5::4"), 1),
            (at("fd00:5::4"), 2),
            (at("fd00:6::9"), 2),
        ]
        .into();
        let first = steps(&held(&there), &networks);
        let none = BTreeSet::new();
        assert_eq!((first.gone, first.new), (none, expected.clone()));
        let made = expected.iter().map(|(address, device)| Held {
            address: *address,
            device: *device,
            copy: true,
        });
        let mut all = held(&there);
        all.extend(made);
        assert_eq!(steps(&all, &networks), Steps::default());
        // What is gone elsewhere is gone here.
        all.retain(|it| it.address != at("fd00:5::4") || it.copy);
        let gone = [(at("fd00:5::4"), 1), (at("fd00:5::4"), 2)].into();
        let new = BTreeSet::new();
        assert_eq!(steps(&all, &networks), Steps { gone, new });
    }
}
