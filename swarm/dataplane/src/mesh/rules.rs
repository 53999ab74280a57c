//! The rules of the mesh as nftables text: all of them, or what turns one state into another. Pure.
//!
//! A packet to a published port finds its chain by one look into a map, however many there are. The
//! chain marks the connection and chooses a task. The first packet decides; the kernel remembers
//! for the rest, so a task that is no longer in the chain keeps the connections that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::base::{self, Passing};
use super::listing::{has, named};
use super::marks::{BACK, TRANSLATED};
use super::plan::{Key, Manner, Plan, Published};
use crate::blocks::number;
use crate::mac;
use crate::model::Protocol;
use crate::nft;

/// The table of what is about IPv4, and the one about IPv6.
pub(super) const TABLES: [&str; 2] = ["ip skep-mesh", "ip6 skep-mesh"];

/// The one about bridges.
pub(super) const BRIDGES: &str = "bridge skep-mesh";

/// A set or map and its table: first [`TABLES`], then the name.
type Set = (usize, &'static str);

/// All there is to be in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Chains and sets that are always there, by table.
    base: [String; 2],
    /// What the table about bridges has, where there is a use for it.
    bridges: Option<String>,
    /// By set: keys, and in maps what they lead to.
    elements: BTreeMap<Set, BTreeMap<String, String>>,
    /// By table and name: the rules of each port's chain.
    chains: BTreeMap<(usize, String), Vec<String>>,
}

impl Rules {
    /// The rules for a plan. Ports that are `taken` by others are left to them; `inside` are
    /// subnets of this host's containers that the swarm knows nothing of.
    pub(super) fn of(
        plan: &Plan,
        taken: &BTreeSet<Key>,
        inside: &BTreeSet<(Ipv4Addr, u8)>,
        passing: Passing,
    ) -> Self {
        let ipv6 = plan.gateway6.filter(|_| passing != Passing::Routed);
        let more = ipv6.map(|own| base::ipv6(plan, own, passing));
        let mut rules = Self {
            base: [
                base::ipv4(plan, passing),
                base::IPV6.to_owned() + &more.unwrap_or_default(),
            ],
            bridges: (passing == Passing::Routed).then(|| base::bridges(plan)),
            elements: base::SETS.map(|set| (set, BTreeMap::new())).into(),
            chains: BTreeMap::new(),
        };
        if passing != Passing::Bridged {
            let hosts = base::HOSTS.map(|set| (set, BTreeMap::new()));
            rules.elements.extend(hosts);
        }
        for (address, length) in outermost(plan.inside.union(inside)) {
            rules.put((0, "inside"), format!("{address}/{length}"), None);
        }
        for (address, length) in plan.inside6.iter().filter(|_| ipv6.is_some()) {
            rules.put((1, "inside"), format!("{address}/{length}"), None);
        }
        for (there, host) in &plan.hosts {
            rules.host(plan, (*there, *host), ipv6.is_some());
        }
        let ports = plan.ports.iter().filter(|(key, _)| !taken.contains(key));
        for (key, published) in ports {
            rules.port(plan, *key, published, ipv6.is_some());
        }
        rules
    }

    fn host(&mut self, plan: &Plan, (there, host): (Ipv4Addr, IpAddr), ipv6: bool) {
        if host.is_ipv4() || ipv6 {
            let table = usize::from(host.is_ipv6());
            self.put((table, "hosts"), host.to_string(), None);
        }
        let is_known = self.elements.contains_key(&base::HOSTS[0]);
        let Some(number) = number(&plan.blocks, there).filter(|_| is_known) else {
            return;
        };
        let mac = base::hardware(mac(there));
        let back = format!("{:#010x}", BACK | u32::from(number));
        self.put((0, "back"), mac.clone(), Some(back));
        for table in 0..=usize::from(ipv6) {
            self.put((table, "zones"), mac.clone(), Some(number.to_string()));
        }
    }

    fn port(&mut self, plan: &Plan, (protocol, port): Key, published: &Published, ipv6: bool) {
        let protocol = name(protocol);
        let key = format!("{protocol} . {port}");
        if published.backends.is_empty() {
            self.put((0, "refused"), key.clone(), None);
            self.put((1, "refused"), key, None);
            return;
        }
        if published.manner == Manner::Announced {
            return;
        }
        // Where hosts cannot be told apart by a number, answers would not find back.
        let numbered = number(&plan.blocks, plan.gateway).is_some();
        let kept = published.manner == Manner::Kept && numbered;
        let backends = published.backends.iter();
        let ipv4 = backends.clone().map(|it| it.address.into()).collect();
        let ipv6 = backends.filter_map(|it| it.ipv6.filter(|_| ipv6));
        let ipv6: Vec<IpAddr> = ipv6.map(IpAddr::from).collect();
        for (table, tasks) in [(0, ipv4), (1, ipv6)] {
            if tasks.is_empty() {
                continue;
            }
            let kept = kept || table == 1 && published.manner == Manner::Kept;
            let first = match kept {
                true => "jump sources".to_owned(),
                false => format!("ct mark set {TRANSLATED:#x}"),
            };
            let chain = format!("{protocol}-{port}");
            let rules = vec![first, choice(protocol, published.target, &tasks)];
            self.put((table, "ports"), key.clone(), Some(format!("goto {chain}")));
            self.chains.insert((table, chain), rules);
        }
    }

    fn put(&mut self, set: Set, key: String, value: Option<String>) {
        let elements = self.elements.entry(set).or_default();
        elements.insert(key, value.unwrap_or_default());
    }

    /// Text that makes it what it should be, whatever was there before.
    pub(super) fn anew(&self) -> String {
        let mut text = gone();
        if let Some(bridges) = &self.bridges {
            text.push_str(&nft::anew(BRIDGES, bridges));
        }
        for (index, table) in TABLES.iter().enumerate() {
            let body = self.base.get(index).map_or("", String::as_str);
            let _ = writeln!(text, "table {table} {{\n{body}}}");
        }
        for (chain, rules) in &self.chains {
            fill(&mut text, chain, rules);
        }
        for (set, elements) in &self.elements {
            let all = elements.iter().map(|(key, value)| pair(key, value));
            edit(&mut text, "add", *set, all.collect());
        }
        text
    }

    /// Whether every chain is in a listing, with something in it.
    pub(super) fn are_in(&self, listing: &str) -> bool {
        let base = self.base.iter().chain(&self.bridges);
        let ports = self.chains.keys().map(|(_, name)| name.as_str());
        ports
            .chain(base.flat_map(|it| named(it)))
            .all(|name| has(listing, name))
    }

    /// Text that turns `before` into this, and touches only what differs. Empty if nothing does.
    pub(super) fn since(&self, before: &Self) -> String {
        if (&self.base, &self.bridges) != (&before.base, &before.bridges) {
            return self.anew();
        }
        let mut text = String::new();
        for (chain, rules) in &self.chains {
            let known = before.chains.get(chain);
            if known == Some(rules) {
                continue;
            }
            if known.is_some() {
                let _ = writeln!(text, "flush chain {}", called(chain));
            }
            fill(&mut text, chain, rules);
        }
        for (set, elements) in &self.elements {
            let none = BTreeMap::new();
            let known = before.elements.get(set).unwrap_or(&none);
            let gone = known
                .iter()
                .filter(|(key, value)| elements.get(*key) != Some(value));
            edit(
                &mut text,
                "delete",
                *set,
                gone.map(|(key, _)| key.clone()).collect(),
            );
            let new = elements
                .iter()
                .filter(|(key, value)| known.get(*key) != Some(value));
            let new = new.map(|(key, value)| pair(key, value));
            edit(&mut text, "add", *set, new.collect());
        }
        for chain in before
            .chains
            .keys()
            .filter(|it| !self.chains.contains_key(*it))
        {
            // Only now does nothing lead to it any more.
            let _ = writeln!(text, "delete chain {}", called(chain));
        }
        text
    }
}

/// Text that takes everything away but the table about bridges, which not every kernel can have.
pub(super) fn gone() -> String {
    TABLES.map(nft::gone).concat()
}

pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Those subnets that are not part of another: nothing may be in a set of intervals twice.
fn outermost<'a>(subnets: impl Iterator<Item = &'a (Ipv4Addr, u8)>) -> BTreeSet<(Ipv4Addr, u8)> {
    let inside = |length: u8| u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    let mut found: BTreeSet<(Ipv4Addr, u8)> = BTreeSet::new();
    // In this order a subnet comes after the one that it is part of.
    for (address, length) in subnets {
        let contains = |(first, length): &(Ipv4Addr, u8)| {
            u32::from(*first) | inside(*length) == u32::from(*address) | inside(*length)
        };
        if !found.last().is_some_and(contains) {
            found.insert((*address, *length));
        }
    }
    found
}

/// Each new connection goes to the next task.
fn choice(protocol: &str, target: u16, tasks: &[IpAddr]) -> String {
    let to = match tasks {
        [only] => SocketAddr::new(*only, target).to_string(),
        all => {
            let numbered = all.iter().enumerate();
            let each: Vec<_> = numbered
                .map(|(index, task)| format!("{index} : {task}"))
                .collect();
            let (count, map) = (all.len(), each.join(", "));
            format!("numgen inc mod {count} map {{ {map} }}:{target}")
        }
    };
    format!("meta l4proto {protocol} dnat to {to}")
}

/// A chain with its table.
fn called((table, chain): &(usize, String)) -> String {
    let table = TABLES.get(*table).copied().unwrap_or_default();
    format!("{table} {chain}")
}

fn fill(text: &mut String, chain: &(usize, String), rules: &[String]) {
    let chain = called(chain);
    let _ = writeln!(text, "add chain {chain}");
    for rule in rules {
        let _ = writeln!(text, "add rule {chain} {rule}");
    }
}

fn pair(key: &str, value: &str) -> String {
    match value {
        "" => key.to_owned(),
        value => format!("{key} : {value}"),
    }
}

fn edit(text: &mut String, verb: &str, (table, set): Set, elements: Vec<String>) {
    if elements.is_empty() {
        return;
    }
    let table = TABLES.get(table).copied().unwrap_or_default();
    let elements = elements.join(", ");
    let _ = writeln!(text, "{verb} element {table} {set} {{ {elements} }}");
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::super::plan::plan;
    use super::super::plan::tests::{served, service, state, task};
    use super::*;
    use crate::model::{Change, Service};

    const PORTS: [(Protocol, u16, u16); 2] = [(Protocol::Tcp, 8080, 80), (Protocol::Udp, 53, 5353)];

    fn of(told: Vec<Change>) -> Rules {
        let inside = BTreeSet::from([(Ipv4Addr::new(172, 17, 0, 0), 16)]);
        Rules::of(
            &plan(&state(told)).unwrap(),
            &BTreeSet::new(),
            &inside,
            Passing::Bridged,
        )
    }

    fn web() -> Vec<Change> {
        vec![
            served(service("web", &PORTS)),
            task("web", 10, None),
            task("web", 11, Some(3)),
        ]
    }

    #[test]
    fn all_of_them_are_as_in_the_golden_file() {
        let hidden = Service {
            snat: true,
            ..service("hidden", &[(Protocol::Tcp, 8081, 80)])
        };
        let announced = Service {
            proxy_protocol: true,
            ..service("announced", &[(Protocol::Tcp, 8082, 80)])
        };
        let more = [
            served(hidden),
            task("hidden", 20, Some(4)),
            served(announced),
            task("announced", 21, None),
            served(service("nobody", &[(Protocol::Sctp, 8083, 80)])),
        ];
        let rules = of(web().into_iter().chain(more).collect());
        let golden = include_str!("../../../../fixtures/nft/mesh.nft");
        assert_eq!(rules.anew(), golden);
        assert_eq!(rules.since(&rules), "");
    }

    #[test]
    fn those_about_ipv6_are_as_in_the_golden_file() {
        let mut plan = plan(&state(web())).unwrap();
        let subnet = ("fd00:a::".parse().unwrap(), 64);
        plan.gateway6 = "fd00:a::2".parse().ok();
        plan.subnets6.push(subnet);
        plan.inside6.insert(subnet);
        let other = "fd00::3".parse().unwrap();
        plan.hosts.insert(Ipv4Addr::new(10, 0, 0, 3), other);
        for published in plan.ports.values_mut() {
            for (backend, last) in published.backends.iter_mut().zip(10..) {
                backend.ipv6 = Some(Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, last));
            }
        }
        let text = |passing| {
            let all = Rules::of(&plan, &BTreeSet::new(), &BTreeSet::new(), passing).anew();
            let table = all.split("table ip6 skep-mesh {").nth(1).unwrap();
            let (body, rest) = table.split_once("\n}\n").unwrap();
            let more = rest.lines().filter(|line| line.contains(" ip6 "));
            let more: Vec<_> = more.collect();
            format!("table ip6 skep-mesh {{{body}\n}}\n{}\n", more.join("\n"))
        };
        assert_eq!(
            text(Passing::Bridged),
            include_str!("../../../../fixtures/nft/mesh6.nft")
        );
        assert_eq!(
            text(Passing::Tracked),
            include_str!("../../../../fixtures/nft/mesh6-tracked.nft")
        );
        // Tasks that cannot answer by themselves are served by a process.
        assert!(!text(Passing::Routed).contains("dnat"));
    }

    #[test]
    fn where_tasks_cannot_answer_by_themselves_their_host_does() {
        let plan = plan(&state(web())).unwrap();
        let rules = |passing| Rules::of(&plan, &BTreeSet::new(), &BTreeSet::new(), passing);
        let [routed, tracked, bridged] =
            [Passing::Routed, Passing::Tracked, Passing::Bridged].map(rules);
        let turned = routed.since(&bridged);
        assert_eq!(
            turned,
            include_str!("../../../../fixtures/nft/mesh-routed.nft")
        );
        // But for the table about bridges it is the same where this host has to know connections.
        assert!(turned.ends_with(tracked.anew().trim_start_matches(&gone())));
        assert!(!tracked.anew().contains("bridge"));
        assert!(bridged.since(&routed).contains("table ip skep-mesh {"));
    }

    #[test]
    fn a_change_touches_only_its_own() {
        let before = of(web());
        let mut told = web();
        told.push(task("web", 12, Some(4)));
        told.push(served(service("other", &[(Protocol::Tcp, 81, 81)])));
        let after = of(told);
        let golden = include_str!("../../../../fixtures/nft/mesh-change.nft");
        let there = after.since(&before);
        let back = before.since(&after);
        let begin = before.anew();
        assert_eq!(format!("{begin}\n{there}\n{back}"), golden);
    }

    #[test]
    fn no_subnet_is_there_twice() {
        let of = |all: &[(u8, u8)]| {
            let all: BTreeSet<_> = all
                .iter()
                .map(|(net, length)| (Ipv4Addr::new(10, 0, *net, 0), *length))
                .collect();
            let kept = outermost(all.iter()).into_iter();
            kept.map(|(first, length)| (first.octets()[2], length))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&[(0, 24), (1, 24), (2, 24)]),
            [(0, 24), (1, 24), (2, 24)]
        );
        assert_eq!(of(&[(0, 16), (0, 24), (1, 24)]), [(0, 16)]);
        assert_eq!(of(&[(0, 23), (1, 24), (2, 24)]), [(0, 23), (2, 24)]);
    }

    #[test]
    fn ports_of_others_are_left_alone() {
        let plan = plan(&state(web())).unwrap();
        let taken = BTreeSet::from([(Protocol::Tcp, 8080)]);
        let text = Rules::of(&plan, &taken, &BTreeSet::new(), Passing::Bridged).anew();
        assert!(!text.contains("8080") && text.contains("udp . 53"));
    }

    #[test]
    fn another_place_on_the_network_is_other_rules() {
        let mut other = plan(&state(web())).unwrap();
        let none = BTreeSet::new();
        let before = Rules::of(&other, &BTreeSet::new(), &none, Passing::Bridged);
        other.gateway = Ipv4Addr::new(10, 0, 0, 9);
        let after = Rules::of(&other, &BTreeSet::new(), &none, Passing::Bridged);
        assert_eq!(after.since(&before), after.anew());
    }
}
