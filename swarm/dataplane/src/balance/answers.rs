//! The host answers for virtual addresses, to whoever looks for their hardware address and to pings:
//! each of IPv4 is a local route on its network's bridge, each of IPv6 an address of the bridge. So a
//! container whose own table is not there yet finds the host's.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::catalogue::{Catalogue, Changed};
use crate::netlink::route::{Answer, Routes};
use crate::state::State;

/// What the host is to answer for on one network.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The network's bridge, and the host's address there; `None` if there is no such network.
    bridge: Option<(String, Ipv4Addr)>,
    /// Virtual addresses, and whether they are there.
    vips: Vec<(IpAddr, bool)>,
}

/// What has changed, or everything.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    all: bool,
    networks: Vec<Wish>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    routes: Option<Routes>,
    /// What the host answers for; `None` until somebody has looked.
    known: Option<BTreeMap<IpAddr, Answer>>,
    /// The numbers of the bridges, by name, as they were last seen: 0 if they were not there.
    bridges: BTreeMap<String, u32>,
}

impl Answers {
    /// What there is to do.
    pub(crate) fn wishes(
        &self,
        state: &State,
        catalogue: &Catalogue,
        changed: &Changed,
        all: bool,
    ) -> Wishes {
        let all = all || self.known.is_none();
        let wish = |network: &String, vips: Vec<IpAddr>| {
            let known = state.networks.get(network);
            let known = known.and_then(|it| it.network.as_ref());
            let is_there = |vip| (vip, catalogue.target(network, vip).is_some());
            Wish {
                bridge: known.map(|it| (it.bridge.clone(), it.gateway)),
                vips: vips.into_iter().map(is_there).collect(),
            }
        };
        let networks = if all {
            let vips = |it| catalogue.on(it).into_iter().flatten().map(|(vip, _)| *vip);
            let networks = catalogue.networks();
            networks.map(|it| wish(it, vips(it).collect())).collect()
        } else {
            let changed = changed.iter();
            changed
                .map(|(it, vips)| wish(it, vips.iter().copied().collect()))
                .collect()
        };
        Wishes { all, networks }
    }

    /// Does it.
    pub(crate) fn follow(&mut self, wishes: Wishes) -> Result<(), String> {
        self.bring(wishes).map_err(|error| {
            (self.routes, self.known) = (None, None);
            format!("routes of virtual addresses: {error}")
        })
    }

    fn bring(&mut self, wishes: Wishes) -> io::Result<()> {
        let mut routes = match self.routes.take() {
            Some(routes) => routes,
            None => Routes::open()?,
        };
        // What an earlier daemon left is ours to take away.
        let mut known = match self.known.take() {
            Some(known) => known,
            None => routes.answers()?,
        };
        let mut wanted = BTreeMap::new();
        if wishes.all {
            self.bridges.clear();
            wanted.extend(known.keys().map(|vip| (*vip, None)));
        }
        for Wish { bridge, vips } in wishes.networks {
            let answer = bridge.and_then(|(name, gateway)| {
                let number = number(&name);
                self.bridges.insert(name, number);
                // Without a bridge nobody asks; somebody looks again when it is there.
                (number != 0).then_some((number, gateway))
            });
            let answer = |vip: IpAddr| match vip {
                IpAddr::V4(_) => answer.map(|(number, gateway)| (number, gateway.into())),
                // One that is the bridge's own needs no other to answer as.
                IpAddr::V6(_) => answer.map(|(number, _)| (number, Ipv6Addr::UNSPECIFIED.into())),
            };
            let vips = vips.into_iter();
            wanted.extend(vips.map(|(vip, is_there)| (vip, answer(vip).filter(|_| is_there))));
        }
        let news = wanted.into_iter();
        let news = news.filter(|(vip, answer)| known.get(vip) != answer.as_ref());
        let changes: Vec<_> = news.collect();
        let before = |vip: &IpAddr| known.get(vip).copied();
        let steps = changes.iter().map(|(vip, new)| (*vip, before(vip), *new));
        routes.answer(&steps.collect::<Vec<_>>())?;
        for (vip, answer) in changes {
            match answer {
                Some(answer) => known.insert(vip, answer),
                None => known.remove(&vip),
            };
        }
        (self.routes, self.known) = (Some(routes), Some(known));
        Ok(())
    }

    /// Whether the bridges are those that they were: routes go with their bridge.
    pub(crate) fn intact(&mut self) -> bool {
        let same = self.bridges.iter().all(|(name, was)| number(name) == *was);
        let same = same && self.has_addresses();
        if !same {
            self.known = None;
        }
        same
    }
}

impl Answers {
    /// Whether the bridges have their IPv6 addresses: an engine that starts takes away those that it
    /// does not know.
    fn has_addresses(&mut self) -> bool {
        let known = self.known.iter().flatten().filter(|(vip, _)| vip.is_ipv6());
        let known: BTreeMap<IpAddr, Answer> = known.map(|(vip, it)| (*vip, *it)).collect();
        let Some(routes) = self.routes.as_mut().filter(|_| !known.is_empty()) else {
            return true;
        };
        routes.addresses().is_ok_and(|found| found == known)
    }
}

/// Takes away all that we ever made the host answer for.
pub(crate) fn clean() -> io::Result<()> {
    let mut routes = Routes::open()?;
    let found = routes.answers()?.into_iter();
    let found = found.map(|(vip, answer)| (vip, Some(answer), None));
    routes.answer(&found.collect::<Vec<_>>())
}

fn number(bridge: &str) -> u32 {
    nix::net::if_::if_nametoindex(bridge).unwrap_or(0)
}
