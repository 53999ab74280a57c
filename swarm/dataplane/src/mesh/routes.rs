//! Ways through other hosts: for each of them a routing table with one route, and a rule that leads
//! marked packets to it. Packets without a mark of ours pass all of these rules in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::marks::{OURS, OURS_MASK, WAY_MASK, is_table, table, way};
use crate::blocks::{Block, number};
use crate::{Error, Kernel, is_absence, is_gone, link, refused};

/// Where our rules begin: before those of most others, and after the kernel's own first one.
const FIRST: u32 = 1470;
/// The rules of hosts.
const EACH: u32 = FIRST + 1;
/// Where packets without a mark go on.
const LAST: u32 = FIRST + 2;
/// So many ways are looked at in one go.
const SAMPLE: usize = 16;
/// Somewhere to ask the way to: an address that nobody has.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The ways there are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    bridge: String,
    hosts: BTreeMap<u16, Ipv4Addr>,
}

impl Ways {
    /// To these hosts over a bridge.
    pub(super) fn new<'a>(
        bridge: &str,
        blocks: &[Block],
        hosts: impl Iterator<Item = &'a Ipv4Addr>,
    ) -> Self {
        Self {
            bridge: bridge.to_owned(),
            hosts: hosts
                .filter_map(|host| Some((number(blocks, *host)?, *host)))
                .collect(),
        }
    }

    fn rules(&self) -> BTreeSet<Rule> {
        let hosts = self.hosts.keys().map(|number| Rule::Host(*number));
        let frame = [Rule::Past, Rule::End];
        match self.hosts.is_empty() {
            true => BTreeSet::new(),
            false => hosts.chain(frame).collect(),
        }
    }

    /// Makes the kernel have these and no others.
    pub(super) async fn set(&self) -> Result<(), Error> {
        let kernel = Kernel::open()?;
        let bridge = link::index(&kernel.handle, &self.bridge).await?;
        let bridge = bridge.ok_or_else(|| Error::NoDevice(self.bridge.clone()))?;
        for (number, host) in &self.hosts {
            // Nothing has to know yet that the host's address is on the bridge.
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(*host)
                .output_interface(bridge)
                .table_id(table(*number))
                .onlink()
                .build();
            let added = kernel.handle.route().add(route).replace().execute().await;
            added.map_err(refused(format!("lead packets through {host}")))?;
        }
        let wanted = self.rules();
        let found = rules(&kernel.handle).await?;
        // The one that packets skip to has to be there before the one that makes them.
        for rule in wanted.iter().filter(|rule| !found.contains_key(rule)) {
            rule.add(&kernel.handle).await?;
        }
        for (rule, message) in found {
            if !wanted.contains(&rule) {
                remove(&kernel.handle, message).await?;
                if let Rule::Host(number) = rule {
                    flush(&kernel.handle, |table| table == super::marks::table(number)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel has them: all rules, and of the routes some, beginning with the `turn`th.
    pub(super) async fn are_set(&self, turn: usize) -> Result<bool, Error> {
        let kernel = Kernel::open()?;
        let found: BTreeSet<Rule> = rules(&kernel.handle).await?.into_keys().collect();
        if found != self.rules() {
            return Ok(false);
        }
        let begin = turn.saturating_mul(SAMPLE) % self.hosts.len().max(1);
        for (number, host) in self
            .hosts
            .iter()
            .cycle()
            .skip(begin)
            .take(SAMPLE.min(self.hosts.len()))
        {
            if next(&kernel.handle, *number).await != Some(*host) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Takes all ways away.
pub(super) async fn clear() -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let found = rules(&kernel.handle).await?;
    for (_, message) in found {
        remove(&kernel.handle, message).await?;
    }
    flush(&kernel.handle, is_table).await
}

/// A rule of ours. In the order in which they are to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// Does nothing; those that were led past the others go on here.
    End,
    /// Packets with a host's number take its table.
    Host(u16),
    /// Packets without a mark of ours go past the others.
    Past,
}

impl Rule {
    fn of(message: &RuleMessage) -> Option<Self> {
        let find =
            |wanted: fn(&RuleAttribute) -> Option<u32>| message.attributes.iter().find_map(wanted);
        let priority = find(|it| match it {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        let mark = find(|it| match it {
            RuleAttribute::FwMark(mark) => Some(*mark),
            _ => None,
        });
        let action = message.header.action;
        match (priority?, action, mark) {
            (FIRST, RuleAction::Goto, Some(OURS)) => Some(Self::Past),
            (EACH, RuleAction::ToTable, Some(mark)) if is_table(mark) => {
                u16::try_from(mark & 0xffff).ok().map(Self::Host)
            }
            (LAST, RuleAction::Nop, None) => Some(Self::End),
            _ => None,
        }
    }

    async fn add(self, handle: &Handle) -> Result<(), Error> {
        let rule = handle.rule().add().v4();
        let mut rule = match self {
            Self::End => rule.priority(LAST).action(RuleAction::Nop),
            Self::Host(number) => {
                let rule = rule.priority(EACH).action(RuleAction::ToTable);
                rule.table_id(table(number)).fw_mark(way(number))
            }
            Self::Past => rule.priority(FIRST).action(RuleAction::Goto).fw_mark(OURS),
        };
        let message = rule.message_mut();
        match self {
            Self::End => {}
            Self::Host(_) => message.attributes.push(RuleAttribute::FwMask(WAY_MASK)),
            Self::Past => {
                message.header.flags |= RuleFlags::Invert;
                message.attributes.push(RuleAttribute::FwMask(OURS_MASK));
                message.attributes.push(RuleAttribute::Goto(LAST));
            }
        }
        let added = rule.execute().await;
        added.map_err(refused("lead marked packets to their routes"))
    }
}

/// Our rules that are there.
async fn rules(handle: &Handle) -> Result<BTreeMap<Rule, RuleMessage>, Error> {
    let mut all = Box::pin(handle.rule().get(IpVersion::V4).execute());
    let mut found = BTreeMap::new();
    while let Some(message) = all.try_next().await.map_err(refused("list rules"))? {
        if let Some(rule) = Rule::of(&message) {
            found.insert(rule, message);
        }
    }
    Ok(found)
}

async fn remove(handle: &Handle, rule: RuleMessage) -> Result<(), Error> {
    match handle.rule().del(rule).execute().await {
        Err(error) if !is_absence(&error) => {
            Err(refused("remove a rule for marked packets")(error))
        }
        _ => Ok(()),
    }
}

/// Removes the routes of these tables.
async fn flush(handle: &Handle, of: impl Fn(u32) -> bool) -> Result<(), Error> {
    // A question without a protocol, scope and so on is about all routes.
    let all = RouteMessageBuilder::<Ipv4Addr>::new()
        .protocol(RouteProtocol::Unspec)
        .build();
    let mut all = Box::pin(handle.route().get(all).execute());
    let mut found = Vec::new();
    while let Some(message) = all.try_next().await.map_err(refused("list routes"))? {
        let mut attributes = message.attributes.iter();
        if attributes.any(|it| matches!(it, RouteAttribute::Table(table) if of(*table))) {
            found.push(message);
        }
    }
    for message in found {
        match handle.route().del(message).execute().await {
            Err(error) if !is_gone(&error) => {
                return Err(refused("remove a route through a host")(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Which address marked packets go to next; `None` if to none that is on the way.
async fn next(handle: &Handle, number: u16) -> Option<Ipv4Addr> {
    let mut question: RouteMessage = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(ANYWHERE, 32)
        .mark(way(number))
        .build();
    question.header.flags |= RouteFlags::FibMatch;
    let mut answers = Box::pin(handle.route().get(question).execute());
    let answer = answers.try_next().await.ok().flatten()?;
    answer.attributes.iter().find_map(|it| match it {
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
        _ => None,
    })
}

/// The subnets of the engine's own networks here.
pub(super) async fn engine_subnets() -> Result<BTreeSet<(Ipv4Addr, u8)>, Error> {
    use rtnetlink::packet_route::address::AddressAttribute;

    let kernel = Kernel::open()?;
    let mut all = Box::pin(kernel.handle.address().get().execute());
    let mut found = BTreeSet::new();
    while let Some(message) = all.try_next().await.map_err(refused("list addresses"))? {
        let length = message.header.prefix_len;
        let mut address = None;
        let mut label = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(IpAddr::V4(it)) => address = Some(*it),
                AddressAttribute::Label(it) => label = Some(it.as_str()),
                _ => {}
            }
        }
        if let (Some(address), Some(label)) = (address, label)
            && is_engines(label)
        {
            let inside = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            found.insert((Ipv4Addr::from(u32::from(address) & !inside), length));
        }
    }
    Ok(found)
}

/// Whether a bridge has a name that engines give to theirs. Clients that come over another one are
/// taken for what they may well be, somebody from outside.
fn is_engines(name: &str) -> bool {
    let is_id = |id: &str| id.len() == 12 && id.bytes().all(|it| it.is_ascii_hexdigit());
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    name == "docker0"
        || name.strip_prefix("br-").is_some_and(is_id)
        || ["podman", "cni-podman"]
            .into_iter()
            .any(|it| name.strip_prefix(it).is_some_and(is_number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_of_engines_are_known_by_their_names() {
        let known = ["docker0", "br-0123456789ab", "podman0", "cni-podman12"];
        assert!(known.into_iter().all(is_engines));
        let others = ["br-lan", "eth0", "podman", "docker", "br0", "virbr0"];
        assert!(!others.into_iter().any(is_engines));
    }
}
