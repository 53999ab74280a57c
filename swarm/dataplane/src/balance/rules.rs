//! What a namespace's table says, in steps that `nft` can be told as text and the kernel as bytes.
//! Pure. The first packet of a connection costs three look-ups, however many services and backends
//! there are, and a change touches only what belongs to its own address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::netlink::Family;

/// The table's name. Each kind of addresses has one.
pub(crate) const TABLE: &str = "skep-vip";

/// Whose namespace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The host's: for itself, and for containers whose own table is not there yet.
    Host,
    /// A container's.
    Container,
}

/// Where connections to a virtual address go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Who serves, in order and each once.
    pub(crate) backends: Vec<IpAddr>,
    /// As whom the host speaks with them.
    pub(crate) gateway: Option<IpAddr>,
}

/// By virtual address.
pub(crate) type Targets = BTreeMap<IpAddr, Arc<Target>>;

/// A table: whose it is, and a number that differs from client to client, so that not everybody's
/// first connection goes to the same backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) role: Role,
    pub(crate) seed: u32,
}

/// A chain of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// For addresses with nobody behind them.
    Nobody,
    /// Of a virtual address: whose turn it is among its backends.
    Vip(IpAddr),
    /// To the backend whose turn it is.
    Spread,
    /// What comes in.
    Prerouting,
    /// What is sent from here.
    Output,
    /// What goes out.
    Postrouting,
}

/// A map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Map {
    /// From a virtual address to its chain.
    Services,
    /// From a virtual address to the host's own on that network.
    Gateways,
    /// From a virtual address and a number to the backend that has that number.
    Backends,
}

/// Where something is in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Service(IpAddr),
    Gateway(IpAddr),
    Backend(IpAddr, u32),
}

impl Key {
    pub(crate) fn map(self) -> Map {
        match self {
            Self::Service(_) => Map::Services,
            Self::Gateway(_) => Map::Gateways,
            Self::Backend(..) => Map::Backends,
        }
    }
}

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Goto(Chain),
    Address(IpAddr),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Looks for the destination among the services.
    Lookup,
    /// Tells TCP at once that nobody is there.
    Reset,
    /// That one was told so is no connection to be refused.
    Told,
    /// Tells everybody else so. It asks for what is always true here, the state of the connection:
    /// as long as some rule does, the kernel keeps track in this namespace, and connections that
    /// were translated stay so when the last service has lost its last backend.
    Refuse,
    /// One number after the other, of so many, goes into the packet's priority: the only place
    /// where the next chain finds it and that nobody else looks at, since only the first packet
    /// of a connection comes here. A map of the rule's own would be simpler, but a kernel looks
    /// for a set among all others, one by one; and a map for all that all rules read would be
    /// checked against each of them. So one rule reads one map.
    Turn(u32),
    /// To the backend with the packet's number.
    Pick,
    /// The number is that of the first backend now: one that had a higher number may have gone in
    /// the moment in which the packet came.
    First,
    /// Speaks as the host's own address with whom a virtual address led to.
    Source,
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Table,
    NoTable,
    Map(Map),
    Chain(Chain),
    /// With the rules in it.
    NoChain(Chain),
    /// Only the rules in it.
    Flush(Chain),
    Rule(Chain, Rule),
    Element(Key, Value),
    NoElement(Key),
}

impl Table {
    /// Makes the table, whatever was there.
    pub(crate) fn whole(self, targets: &Targets) -> Vec<Step> {
        let mut steps = vec![Step::Table, Step::NoTable, Step::Table];
        steps.extend(self.maps().iter().copied().map(Step::Map));
        steps.push(Step::Chain(Chain::Nobody));
        let nobody = self.nobody().iter().cloned();
        steps.extend(nobody.map(|rule| Step::Rule(Chain::Nobody, rule)));
        steps.push(Step::Chain(Chain::Spread));
        let spread = [Rule::Pick, Rule::First, Rule::Pick];
        steps.extend(spread.map(|rule| Step::Rule(Chain::Spread, rule)));
        let chains = targets.iter();
        steps.extend(chains.flat_map(|(vip, target)| Self::chain(*vip, None, Some(target))));
        let elements = self.elements(targets);
        steps.extend(elements.map(|(key, value)| Step::Element(key, value)));
        for (chain, rule) in self.hooks() {
            steps.extend([Step::Chain(*chain), Step::Rule(*chain, rule.clone())]);
        }
        steps
    }

    /// Makes one address what it is now.
    pub(crate) fn change(
        self,
        vip: IpAddr,
        before: Option<&Target>,
        after: Option<&Target>,
    ) -> Vec<Step> {
        let list = |target: Option<&Target>| -> BTreeMap<Key, Value> {
            let maps = self.maps().iter();
            let all = target.map(|it| maps.flat_map(move |map| self.of_one(*map, vip, it)));
            all.into_iter().flatten().collect()
        };
        let (old, new) = (list(before), list(after));
        let mut steps = Vec::new();
        let gone = old
            .iter()
            .filter(|(key, value)| new.get(key) != Some(value));
        steps.extend(gone.map(|(key, _)| Step::NoElement(*key)));
        steps.extend(Self::chain(vip, before, after));
        let come = new
            .iter()
            .filter(|(key, value)| old.get(key) != Some(value));
        steps.extend(come.map(|(key, value)| Step::Element(*key, *value)));
        steps
    }

    /// Everything that the maps hold, map by map.
    pub(crate) fn elements(self, targets: &Targets) -> impl Iterator<Item = (Key, Value)> {
        let maps = self.maps().iter();
        maps.flat_map(move |map| {
            let all = targets.iter();
            all.flat_map(move |(vip, target)| self.of_one(*map, *vip, target))
        })
    }

    /// The maps that it has.
    pub(crate) fn maps(self) -> &'static [Map] {
        match self.role {
            Role::Host => &[Map::Services, Map::Gateways, Map::Backends],
            Role::Container => &[Map::Services, Map::Backends],
        }
    }

    /// The rules for addresses with nobody behind them. A host has the virtual addresses of IPv6 as
    /// its own and speaks as them with them: a reset is for such an address again.
    pub(crate) fn nobody(self) -> &'static [Rule] {
        match (self.family, self.role) {
            (Family::Ipv6, Role::Host) => &[Rule::Told, Rule::Reset, Rule::Refuse],
            _ => &[Rule::Reset, Rule::Refuse],
        }
    }

    /// The chains that packets come into, and the one rule of each.
    pub(crate) fn hooks(self) -> &'static [(Chain, Rule)] {
        match self.role {
            Role::Host => &[
                (Chain::Prerouting, Rule::Lookup),
                (Chain::Output, Rule::Lookup),
                (Chain::Postrouting, Rule::Source),
            ],
            Role::Container => &[(Chain::Output, Rule::Lookup)],
        }
    }

    /// What a map holds of one address.
    fn of_one(self, map: Map, vip: IpAddr, target: &Target) -> Vec<(Key, Value)> {
        match map {
            Map::Services => {
                let chain = match target.backends.is_empty() {
                    true => Chain::Nobody,
                    false => Chain::Vip(vip),
                };
                vec![(Key::Service(vip), Value::Goto(chain))]
            }
            Map::Gateways => {
                let gateway = target.gateway.into_iter();
                let value = |it| (Key::Gateway(vip), Value::Address(it));
                gateway.map(value).collect()
            }
            Map::Backends => {
                let numbered = (0..).zip(self.order(&target.backends));
                let value = |(number, it)| (Key::Backend(vip, number), Value::Address(it));
                numbered.map(value).collect()
            }
        }
    }

    /// From a chain for one target to the chain for another.
    fn chain(vip: IpAddr, before: Option<&Target>, after: Option<&Target>) -> Vec<Step> {
        let chain = Chain::Vip(vip);
        let backends = |of: Option<&Target>| of.map_or(0, |it| it.backends.len());
        let (had, has) = (backends(before), backends(after));
        let number = u32::try_from(has).unwrap_or(u32::MAX);
        let rule = Step::Rule(chain, Rule::Turn(number));
        match (had, has) {
            (had, has) if had == has => Vec::new(),
            (0, _) => vec![Step::Chain(chain), rule],
            (_, 0) => vec![Step::NoChain(chain)],
            _ => vec![Step::Flush(chain), rule],
        }
    }

    /// The order in which this client meets the backends.
    fn order(self, backends: &[IpAddr]) -> Vec<IpAddr> {
        let mut order = backends.to_vec();
        order.sort_by_key(|it| (mix(end(*it) ^ mix(self.seed)), *it));
        order
    }
}

/// The part of an address in which those of one network differ.
fn end(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => (address.to_bits() & u128::from(u32::MAX)) as u32,
    }
}

/// Neighbours among the numbers end up far from each other.
fn mix(number: u32) -> u32 {
    let number = (number ^ number >> 16).wrapping_mul(0x7feb_352d);
    let number = (number ^ number >> 15).wrapping_mul(0x846c_a68b);
    number ^ number >> 16
}

#[cfg(test)]
mod tests;
