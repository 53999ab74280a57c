//! The way back of answers to clients of published ports: a task answers to the very host that the
//! client came to, so that its own host does no more than bridge, in either direction. Rules in the
//! task's namespace know of a connection which host's hardware address it came with, and write that
//! into what is sent back. Where the kernel has no place for such rules, the task's host sends on what
//! is answered (see `mesh/base.rs`).

mod rules;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use self::rules::{Chain, Rules};
use crate::blocks::{Block, blocks};
use crate::errands::{Devices, Errand, Made};
use crate::model::{Container, Network, Subnet6};
use crate::netlink::nftables::{Batch, Nftables, Refused, Tables};
use crate::netns::{self, Home, Place};
use crate::state::State;
use crate::{Error, Kernel, link};

/// How often somebody else may be faster before it is tried later.
const TRIES: usize = 8;

/// What a container on the network of published ports is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pid: i32,
    /// Its address there.
    own: Ipv4Addr,
    blocks: Vec<Block>,
    /// The IPv6 subnets.
    subnets6: Vec<Subnet6>,
    /// The address of its host there.
    gateway: Ipv4Addr,
}

impl Errand for Reply {
    const NAME: &'static str = "replies";
    const UNDONE: &'static str = "a task does not answer clients by the way they came";

    type Watch = Watch;

    fn wanted(state: &State) -> BTreeMap<String, Self> {
        let networks = state.networks.values();
        let mut networks = networks.filter_map(|it| it.network.as_ref());
        let Some(network) = networks.find(|it| it.ingress) else {
            return BTreeMap::new();
        };
        let containers = state.containers.values().filter(|it| it.pid != 0);
        let all = containers.filter_map(|it| Some((it.id.clone(), reply(network, it)?)));
        all.collect()
    }

    fn pid(&self) -> i32 {
        self.pid
    }

    async fn make(
        &self,
        kernel: &Kernel,
        home: Home,
        devices: &Devices,
    ) -> Result<Made<Watch>, Error> {
        let device = match devices.get(&self.own) {
            Some(index) => link::name(&kernel.handle, *index).await?,
            None => None,
        };
        let Some(device) = device else {
            return Ok(Made::Lacks(self.own));
        };
        let rules = Rules {
            blocks: self.blocks.clone(),
            subnets6: self.subnets6.clone(),
            gateway: self.gateway,
            device,
        };
        let made = netns::within(Place::Same(home), move || bring(rules));
        match made.await {
            Ok(watch) => Ok(Made::All(watch)),
            Err(netns::Error::Gone) => Err(Error::NoProcess),
            Err(netns::Error::Failed(error)) => Err(Error::Refused {
                what: "lead answers back to where clients came to".to_owned(),
                why: error.to_string(),
            }),
        }
    }

    fn is_well(&self, watch: &mut Watch) -> bool {
        watch.is_well().unwrap_or(false)
    }
}

/// Rules as they were made, through a socket that stays open in their namespace.
pub(crate) struct Watch {
    rules: Rules,
    nftables: Nftables,
    generation: u32,
}

impl Watch {
    /// In this thread's namespace.
    fn begin(rules: Rules) -> io::Result<Self> {
        let mut nftables = Nftables::open()?;
        let generation = nftables.generation()?;
        Ok(Self {
            rules,
            nftables,
            generation,
        })
    }

    /// Whether the rules are there, if anybody has changed any since the last look.
    fn is_well(&mut self) -> io::Result<bool> {
        let generation = self.nftables.generation()?;
        if generation != self.generation && !is_there(&mut self.nftables, &self.rules)? {
            return Ok(false);
        }
        self.generation = generation;
        Ok(true)
    }
}

fn reply(network: &Network, container: &Container) -> Option<Reply> {
    let mut own = container.addresses.get(&network.id)?.iter();
    let own = own.find_map(|it| match it {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })?;
    Some(Reply {
        pid: container.pid,
        own,
        blocks: blocks(network),
        subnets6: network.subnets6().into_iter().collect(),
        gateway: network.gateway,
    })
}

/// Whether the kernel has rules for what leaves by a device (Linux 5.16 and later, if it is built
/// so). Asks it once, by rules that go before anybody could meet them.
pub(crate) fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let asked = attempt(rules::trial);
        if let Err(error) = &asked {
            tracing::info!(%error, "answers to clients of other hosts go through this host");
        }
        asked.is_ok()
    })
}

/// Makes the rules of this thread's namespace what they should be, if they are not.
fn bring(rules: Rules) -> io::Result<Watch> {
    let mut watch = Watch::begin(rules)?;
    if !is_there(&mut watch.nftables, &watch.rules)? {
        attempt(|batch| watch.rules.write(batch))?;
    }
    Ok(watch)
}

/// One transaction, again while somebody else is faster.
fn attempt(write: impl Fn(&mut Batch)) -> io::Result<()> {
    let mut nftables = Nftables::open()?;
    for _ in 0..TRIES {
        let mut batch = Batch::new(Tables::Devices, nftables.generation()?);
        write(&mut batch);
        match nftables.commit(batch) {
            Ok(_) => return Ok(()),
            Err(Refused::Overtaken) => {}
            Err(Refused::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(Refused::Overtaken.to_string()))
}

/// Whether all of the chains are there, with as many rules as they should have.
fn is_there(nftables: &mut Nftables, rules: &Rules) -> io::Result<bool> {
    for tables in rules.tables() {
        let found = nftables.chains(tables, rules::TABLE)?;
        let is_whole =
            |chain: &Chain| found.get(chain.name().as_bytes()) == Some(&rules.count(*chain));
        if !rules::chains(tables).iter().all(is_whole) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Change;
    use crate::state::Touched;

    fn container(id: &str, pid: i32, on: &[(&str, [u8; 4])]) -> Change {
        let on = on.iter();
        Change::Container(Container {
            id: id.to_owned(),
            pid,
            addresses: on
                .map(|(network, address)| ((*network).to_owned(), vec![IpAddr::from(*address)]))
                .collect(),
            ..Container::default()
        })
    }

    #[test]
    fn whoever_is_on_the_network_of_published_ports_answers_there() {
        let mut state = State::default();
        let network = |id: &str, number: u8, ingress| {
            Change::Network(Network {
                id: id.to_owned(),
                name: id.to_owned(),
                bridge: id.to_owned(),
                subnet: (Ipv4Addr::new(10, number, 0, 0), 24),
                gateway: Ipv4Addr::new(10, number, 0, 3),
                ipv6: None,
                internal: false,
                ingress,
                hosts: BTreeMap::new(),
                branches: Vec::new(),
            })
        };
        for change in [
            network("in", 0, true),
            network("other", 1, false),
            container(
                "both",
                11,
                &[("in", [10, 0, 0, 9]), ("other", [10, 1, 0, 9])],
            ),
            container("other", 12, &[("other", [10, 1, 0, 10])]),
            container("unborn", 0, &[("in", [10, 0, 0, 11])]),
        ] {
            state.apply(change, &mut Touched::default());
        }
        let reply = Reply {
            pid: 11,
            own: Ipv4Addr::new(10, 0, 0, 9),
            blocks: vec![Block {
                subnet: (Ipv4Addr::new(10, 0, 0, 0), 24),
                first: 0,
            }],
            subnets6: Vec::new(),
            gateway: Ipv4Addr::new(10, 0, 0, 3),
        };
        assert_eq!(Reply::wanted(&state), [("both".to_owned(), reply)].into());
    }
}
