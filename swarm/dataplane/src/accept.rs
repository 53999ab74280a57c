//! Rules that let pass what a firewall forwards nothing of that it does not know: the mesh's
//! connections and, where bridged packets go through the host's rules too, those within a network,
//! which the engine's own rules let pass until somebody loads a firewall without them. A drop in one
//! of nftables' tables is final, whatever another table accepts, so they have to be in the very
//! chain, `FORWARD` of iptables: right after the chain that is the user's own (`DOCKER-USER`), so that
//! what the user forbids stays forbidden, and before the engine's. What stays within a network is not
//! masked either: an engine has a rule for everything that leaves a network's subnet by another
//! bridge than its own, and where nodes share a host there is another bridge of the same network.
//! Nor is it dropped before that, in raw `PREROUTING`, for coming in by another bridge.
//!
//! An engine whose firewall is nftables itself (Docker from 29 on, if told so) has a flag for what to
//! let pass, `--bridge-accept-fwmark=0x5be00000/0xfff00000`; nobody can add to its tables.

mod crossings;
mod marks;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::mesh::{OURS, OURS_MASK};
use crate::program::run;
use crossings::CROSSING;
pub(crate) use marks::{Marks, marks};

/// How bridges that are networks are called.
const BRIDGES: &str = "skep";
/// By these comments the rules are found again, and those that let pass what crosses between bridges
/// of one network.
const NAMES: [&str; 2] = [MESH, BRIDGED];
/// That of the rule for the mesh's packets.
const MESH: &str = "skep-mesh";
/// That of the rule for packets that stay within a network.
const BRIDGED: &str = "skep-bridged";
/// Chains after which the rules have their place: what the user forbids, or what leads there.
const BEFORE: [&str; 3] = ["DOCKER-USER", "CNI-FORWARD", "NETAVARK_FORWARD"];
/// How long to wait for others that are at the rules, in seconds.
const WAIT: &str = "5";

/// Where rules are: a table and a chain of it.
type Chain = [&'static str; 2];

/// What is forwarded.
const FORWARD: Chain = ["filter", "FORWARD"];
/// What is masked.
const POSTROUTING: Chain = ["nat", "POSTROUTING"];
/// What has come in, before anything else.
const PREROUTING: Chain = ["raw", "PREROUTING"];
/// All that rules of ours are in.
const CHAINS: [Chain; 3] = [FORWARD, POSTROUTING, PREROUTING];

/// A kind of addresses, each of which has a firewall of its own.
struct Kind {
    ipv6: bool,
    /// What shows and changes the rules: through nftables, in the older way, and whichever it is.
    programs: [[&'static str; 2]; 3],
    /// Where the kernel names the tables of the older kind.
    older: &'static str,
    /// The kernel's switch: whether bridged packets go through the rules.
    bridged: &'static str,
}

/// What there is to be let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The mesh's packets, which have a mark by then.
    pub(crate) mesh: bool,
    /// What stays within a network.
    pub(crate) networks: bool,
}

static KINDS: [Kind; 2] = [
    Kind {
        ipv6: false,
        programs: [
            ["iptables-nft", "iptables-nft-restore"],
            ["iptables-legacy", "iptables-legacy-restore"],
            ["iptables", "iptables-restore"],
        ],
        older: "/proc/thread-self/net/ip_tables_names",
        bridged: "/proc/sys/net/bridge/bridge-nf-call-iptables",
    },
    Kind {
        ipv6: true,
        programs: [
            ["ip6tables-nft", "ip6tables-nft-restore"],
            ["ip6tables-legacy", "ip6tables-legacy-restore"],
            ["ip6tables", "ip6tables-restore"],
        ],
        older: "/proc/thread-self/net/ip6_tables_names",
        bridged: "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    },
];

/// The names of the rules there is a use for, by kind of addresses (its place in [`KINDS`]) and chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan(BTreeMap<Place, Vec<String>>);

/// A kind of addresses and a chain.
type Place = (usize, Chain);

/// What is done with a rule.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Remove one that is listed like this.
    Remove(&'a str),
    /// Put that of this name at this place, counted from 1.
    Insert(usize, &'a str),
}

/// What the rules are to be, as the host is now.
pub(crate) fn plan(wanted: Wanted) -> io::Result<Plan> {
    let mut plan = BTreeMap::new();
    for (number, kind) in KINDS.iter().enumerate() {
        let crossings = match kind.is_bridged() && wanted.networks {
            true => crossings::names(kind.ipv6)?,
            false => Vec::new(),
        };
        for chain in CHAINS {
            let names = match chain == PREROUTING {
                true => crossings.clone(),
                false => used(wanted, chain, kind.is_bridged()),
            };
            plan.insert((number, chain), names);
        }
    }
    Ok(Plan(plan))
}

/// Puts the rules where they belong, in each of the firewalls that are in use; those that there is no
/// use for go. Where there was none by the plan before either, nobody looks.
pub(crate) fn set(plan: &Plan, before: Option<&Plan>) -> io::Result<()> {
    let was = |place: &Place| before.is_none_or(|it| it.uses(place));
    let mut used = plan
        .0
        .iter()
        .filter(|(place, _)| plan.uses(place) || was(place));
    used.try_for_each(|(place, names)| apply(*place, names))
}

/// Whether the rules are where they belong.
pub(crate) fn is_set(plan: &Plan) -> bool {
    let mut used = plan.0.iter().filter(|(place, _)| plan.uses(place));
    used.all(|((number, chain), names)| {
        let mut programs = programs(*number, *chain).into_iter();
        programs.all(|[show, _]| {
            list(show, *chain).is_ok_and(|listed| steps(&listed, *chain, names).is_empty())
        })
    })
}

/// Takes the rules away.
pub(crate) fn clear() -> io::Result<()> {
    set(&plan(Wanted::default())?, None)
}

fn programs(number: usize, chain: Chain) -> Vec<[&'static str; 2]> {
    KINDS
        .get(number)
        .map(|kind| kind.programs(chain))
        .unwrap_or_default()
}

/// The names of the rules that there is a use for, where bridged packets go through them or do not;
/// but for what crosses between bridges.
fn used(wanted: Wanted, chain: Chain, bridged: bool) -> Vec<String> {
    let mesh = wanted.mesh && chain == FORWARD;
    let all = [(MESH, mesh), (BRIDGED, wanted.networks && bridged)];
    let used = all.into_iter().filter(|(_, is_used)| *is_used);
    used.map(|(name, _)| name.to_owned()).collect()
}

impl Plan {
    /// Whether there is a use for rules in a chain.
    fn uses(&self, place: &Place) -> bool {
        self.0.get(place).is_some_and(|names| !names.is_empty())
    }
}

/// Whether there are rules of the older kind, whose changes nobody tells.
pub(crate) fn is_legacy() -> bool {
    KINDS
        .iter()
        .any(|kind| CHAINS.into_iter().any(|chain| kind.is_legacy(chain)))
}

impl Kind {
    /// Whether bridged packets go through the rules.
    fn is_bridged(&self) -> bool {
        let switch = std::fs::read_to_string(self.bridged);
        switch.is_ok_and(|it| it.trim() == "1")
    }

    /// Whether there are rules of the older kind in the chain's table.
    fn is_legacy(&self, [table, _]: Chain) -> bool {
        // Asking the older program would make its tables where there are none.
        let names = std::fs::read_to_string(self.older);
        names.is_ok_and(|names| names.lines().any(|name| name == table))
    }

    /// Each program that shows a chain's rules, with the one that changes several at once.
    fn programs(&self, chain: Chain) -> Vec<[&'static str; 2]> {
        let found = |programs: &[&'static str; 2]| {
            let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
            let is_in = |place: &&str| programs.iter().all(|it| Path::new(place).join(it).exists());
            places.iter().any(is_in)
        };
        let [newer, older, any] = self.programs;
        let mut programs = vec![newer];
        programs.extend(self.is_legacy(chain).then_some(older));
        programs.retain(found);
        if programs.is_empty() {
            programs.extend([any].iter().filter(|it| found(it)));
        }
        programs
    }
}

fn apply((number, chain): Place, wanted: &[String]) -> io::Result<()> {
    let mut programs = programs(number, chain).into_iter();
    programs.try_for_each(|[show, change]| {
        let listed = list(show, chain)?;
        let script = script(chain, &steps(&listed, chain, wanted));
        match script.is_empty() {
            true => Ok(()),
            false => run(change, &["-w", WAIT, "--noflush"], &script).map(drop),
        }
    })
}

/// The steps, as they are told to a program; nothing, if there are none.
fn script([table, name]: Chain, steps: &[Step<'_>]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut script = format!("*{table}\n");
    for step in steps {
        let _ = match step {
            Step::Remove(line) => writeln!(script, "{}", line.replacen("-A ", "-D ", 1)),
            Step::Insert(at, rule) => {
                writeln!(script, "-I {name} {at} {}", text([table, name], rule))
            }
        };
    }
    script.push_str("COMMIT\n");
    script
}

/// A rule of this name, as it is listed.
fn text(chain: Chain, name: &str) -> String {
    let packets = match (chain, name) {
        (PREROUTING, name) => crossings::packets(name).unwrap_or_default(),
        (POSTROUTING, _) => "-o skep+ -m physdev --physdev-is-bridged".to_owned(),
        (_, BRIDGED) => "-i skep+ -o skep+ -m physdev --physdev-is-bridged".to_owned(),
        _ => format!("-m mark --mark {OURS:#x}/{OURS_MASK:#x}"),
    };
    format!("{packets} -m comment --comment {name} -j ACCEPT")
}

fn list(program: &str, [table, name]: Chain) -> io::Result<String> {
    run(program, &["-w", WAIT, "-t", table, "-S", name], "")
}

/// The name of a rule, if it is ours.
fn name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().map(|it| it.trim_matches('"'));
    words.find(|word| NAMES.contains(word) || word.starts_with(CROSSING))
}

/// What is to be done about a chain that is listed like this.
fn steps<'a>(listed: &'a str, [_, chain]: Chain, wanted: &'a [impl AsRef<str>]) -> Vec<Step<'a>> {
    let start = format!("-A {chain} ");
    let rules = listed.lines().filter(|it| it.starts_with(&start));
    let rules: Vec<&str> = rules.collect();
    let ours = (1..).zip(&rules);
    let ours = ours.filter_map(|(at, line)| Some((at, name(line)?)));
    let ours: Vec<(usize, &str)> = ours.collect();
    let (mine, others): (Vec<_>, Vec<_>) = rules.into_iter().partition(|it| name(it).is_some());
    let jumps = |rule: &str| {
        BEFORE
            .into_iter()
            .any(|it| rule.split_whitespace().last() == Some(it))
    };
    let accepts = format!("-P {chain} ACCEPT");
    let place = match others.iter().position(|rule| jumps(rule)) {
        Some(index) => Some(index + 2),
        // Nothing is in the way.
        None if others.is_empty() && listed.lines().any(|it| it == accepts) => None,
        None => Some(1),
    };
    let meant = place
        .into_iter()
        .flat_map(|at| (at..).zip(wanted.iter().map(AsRef::as_ref)));
    let meant: Vec<(usize, &str)> = meant.collect();
    if ours == meant {
        return Vec::new();
    }
    let mut steps: Vec<_> = mine.into_iter().map(Step::Remove).collect();
    steps.extend(meant.into_iter().map(|(at, name)| Step::Insert(at, name)));
    steps
}

#[cfg(test)]
mod tests;
