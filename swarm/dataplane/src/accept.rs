//! Rules that let pass what a firewall forwards nothing of that it does not know: the mesh's
//! connections and, where bridged packets go through the host's rules too, those within a network,
//! which the engine's own rules let pass until somebody loads a firewall without them. A drop in one
//! of nftables' tables is final, whatever another table accepts, so they have to be in the very
//! chain, `FORWARD` of iptables: right after the chain that is the user's own (`DOCKER-USER`), so that
//! what the user forbids stays forbidden, and before the engine's. What stays within a network is not
//! masked either: an engine has a rule for everything that leaves a network's subnet by another
//! bridge than its own, and where nodes share a host there is another bridge of the same network.
//!
//! An engine whose firewall is nftables itself (Docker from 29 on, if told so) has a flag for what to
//! let pass, `--bridge-accept-fwmark=0x5be00000/0xfff00000`; nobody can add to its tables.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::mesh::{OURS, OURS_MASK};
use crate::program::run;

/// By these comments the rules are found again, in this order.
const NAMES: [&str; 2] = [MESH, BRIDGED];
/// That of the rule for the mesh's connections.
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

/// A kind of addresses, each of which has a firewall of its own.
struct Kind {
    /// What shows and changes the rules: through nftables, in the older way, and whichever it is.
    programs: [[&'static str; 2]; 3],
    /// Where the kernel names the tables of the older kind.
    older: &'static str,
    /// The kernel's switch: whether bridged packets go through the rules.
    bridged: &'static str,
    /// The mesh's connections are of this kind: ports are published on networks without IPv6.
    mesh: bool,
}

/// What there is to be let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The mesh's connections.
    pub(crate) mesh: bool,
    /// What stays within a network.
    pub(crate) networks: bool,
}

static KINDS: [Kind; 2] = [
    Kind {
        programs: [
            ["iptables-nft", "iptables-nft-restore"],
            ["iptables-legacy", "iptables-legacy-restore"],
            ["iptables", "iptables-restore"],
        ],
        older: "/proc/thread-self/net/ip_tables_names",
        bridged: "/proc/sys/net/bridge/bridge-nf-call-iptables",
        mesh: true,
    },
    Kind {
        programs: [
            ["ip6tables-nft", "ip6tables-nft-restore"],
            ["ip6tables-legacy", "ip6tables-legacy-restore"],
            ["ip6tables", "ip6tables-restore"],
        ],
        older: "/proc/thread-self/net/ip6_tables_names",
        bridged: "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
        mesh: false,
    },
];

/// Programs that show rules and change several at once, a chain, and the names of the rules there is
/// a use for in it.
type Firewall = ([&'static str; 2], Chain, Vec<&'static str>);

/// What is done with a rule.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Remove one that is listed like this.
    Remove(&'a str),
    /// Put that of this name at this place, counted from 1.
    Insert(usize, &'static str),
}

/// Puts the rules where they belong, in each of the firewalls that are in use; those that there is no
/// use for go.
pub(crate) fn set(wanted: Wanted) -> io::Result<()> {
    firewalls(wanted).try_for_each(|(programs, chain, names)| apply(programs, chain, &names))
}

/// Whether the rules are where they belong.
pub(crate) fn is_set(wanted: Wanted) -> bool {
    firewalls(wanted).all(|([show, _], chain, names)| {
        list(show, chain).is_ok_and(|listed| steps(&listed, chain, &names).is_empty())
    })
}

/// Takes the rules away.
pub(crate) fn clear() -> io::Result<()> {
    set(Wanted::default())
}

/// The firewalls here, with what is to be in each.
fn firewalls(wanted: Wanted) -> impl Iterator<Item = Firewall> {
    KINDS.iter().flat_map(move |kind| {
        let chains = [FORWARD, POSTROUTING].into_iter();
        chains.flat_map(move |chain| {
            let programs = kind.programs(chain).into_iter();
            programs.map(move |program| (program, chain, kind.names(wanted, chain)))
        })
    })
}

/// Whether there are rules of the older kind, whose changes nobody tells.
pub(crate) fn is_legacy() -> bool {
    KINDS
        .iter()
        .any(|kind| kind.is_legacy(FORWARD) || kind.is_legacy(POSTROUTING))
}

impl Kind {
    /// The names of the rules that there is a use for.
    fn names(&self, wanted: Wanted, chain: Chain) -> Vec<&'static str> {
        let switch = std::fs::read_to_string(self.bridged);
        let bridged = switch.is_ok_and(|it| it.trim() == "1");
        self.among(wanted, chain, bridged)
    }

    /// Those, where bridged packets go through the rules or do not.
    fn among(&self, wanted: Wanted, chain: Chain, bridged: bool) -> Vec<&'static str> {
        let mesh = wanted.mesh && self.mesh && chain == FORWARD;
        let all = [(MESH, mesh), (BRIDGED, wanted.networks && bridged)];
        let used = all.into_iter().filter(|(_, is_used)| *is_used);
        used.map(|(name, _)| name).collect()
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

fn apply([show, change]: [&str; 2], chain: Chain, wanted: &[&'static str]) -> io::Result<()> {
    let listed = list(show, chain)?;
    let steps = steps(&listed, chain, wanted);
    if steps.is_empty() {
        return Ok(());
    }
    let [table, name] = chain;
    let mut script = format!("*{table}\n");
    for step in steps {
        let _ = match step {
            Step::Remove(line) => writeln!(script, "{}", line.replacen("-A ", "-D ", 1)),
            Step::Insert(at, rule) => writeln!(script, "-I {name} {at} {}", text(chain, rule)),
        };
    }
    script.push_str("COMMIT\n");
    run(change, &["-w", WAIT, "--noflush"], &script).map(drop)
}

/// A rule of this name, as it is listed.
fn text(chain: Chain, name: &str) -> String {
    let packets = match (chain, name) {
        (POSTROUTING, _) => "-o skep+ -m physdev --physdev-is-bridged".to_owned(),
        (_, BRIDGED) => "-i skep+ -o skep+ -m physdev --physdev-is-bridged".to_owned(),
        _ => format!("-m connmark --mark {OURS:#x}/{OURS_MASK:#x}"),
    };
    format!("{packets} -m comment --comment {name} -j ACCEPT")
}

fn list(program: &str, [table, name]: Chain) -> io::Result<String> {
    run(program, &["-w", WAIT, "-t", table, "-S", name], "")
}

/// The name of a rule, if it is ours.
fn name(line: &str) -> Option<&'static str> {
    let mut words = line.split_whitespace().map(|it| it.trim_matches('"'));
    words.find_map(|word| NAMES.into_iter().find(|name| *name == word))
}

/// What is to be done about a chain that is listed like this.
fn steps<'a>(listed: &'a str, [_, chain]: Chain, wanted: &[&'static str]) -> Vec<Step<'a>> {
    let start = format!("-A {chain} ");
    let rules = listed.lines().filter(|it| it.starts_with(&start));
    let rules: Vec<&str> = rules.collect();
    let ours = (1..).zip(&rules);
    let ours = ours.filter_map(|(at, line)| Some((at, name(line)?)));
    let ours: Vec<(usize, &'static str)> = ours.collect();
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
        .flat_map(|at| (at..).zip(wanted.iter().copied()));
    let meant: Vec<(usize, &'static str)> = meant.collect();
    if ours == meant {
        return Vec::new();
    }
    let mut steps: Vec<_> = mine.into_iter().map(Step::Remove).collect();
    steps.extend(meant.into_iter().map(|(at, name)| Step::Insert(at, name)));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "-A FORWARD -m connmark --mark 0x5be00000/0xfff00000 -m comment --comment skep-mesh -j ACCEPT";
    const WITHIN: &str = "-A FORWARD -i skep+ -o skep+ -m physdev --physdev-is-bridged -m comment --comment skep-bridged -j ACCEPT";
    const UNMASKED: &str = "-A POSTROUTING -o skep+ -m physdev --physdev-is-bridged -m comment --comment skep-bridged -j ACCEPT";
    const DOCKER: [&str; 3] = [
        "-P FORWARD DROP",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    ];

    /// What is done about such rules, as lines of a script.
    fn of(rules: &[&str], wanted: &[&'static str]) -> Vec<String> {
        let listed = rules.join("\n") + "\n";
        let steps = steps(&listed, FORWARD, wanted).into_iter();
        let told = steps.map(|step| match step {
            Step::Remove(line) => format!("- {}", name(line).unwrap_or_default()),
            Step::Insert(at, name) => format!("{at} {name}"),
        });
        told.collect()
    }

    #[test]
    fn it_comes_after_what_the_user_forbids() {
        let one = |rules: &[&str]| of(rules, &["skep-mesh"]);
        assert_eq!(one(&DOCKER), ["2 skep-mesh"]);
        assert!(one(&[DOCKER[0], DOCKER[1], OURS, DOCKER[2]]).is_empty());
        let sunk = [DOCKER[0], DOCKER[1], DOCKER[2], OURS];
        assert_eq!(one(&sunk), ["- skep-mesh", "2 skep-mesh"]);
        let twice = [DOCKER[0], DOCKER[1], OURS, DOCKER[2], OURS];
        assert_eq!(one(&twice), ["- skep-mesh", "- skep-mesh", "2 skep-mesh"]);
    }

    #[test]
    fn what_stays_within_a_network_passes_too() {
        let both = |rules: &[&str]| of(rules, &NAMES);
        assert_eq!(both(&DOCKER), ["2 skep-mesh", "3 skep-bridged"]);
        assert!(both(&[DOCKER[0], DOCKER[1], OURS, WITHIN, DOCKER[2]]).is_empty());
        let turned = [DOCKER[0], DOCKER[1], WITHIN, OURS, DOCKER[2]];
        let again = [
            "- skep-bridged",
            "- skep-mesh",
            "2 skep-mesh",
            "3 skep-bridged",
        ];
        assert_eq!(both(&turned), again);
        // Bridged packets go past the rules now.
        let left = of(&[DOCKER[0], OURS, WITHIN], &["skep-mesh"]);
        assert_eq!(left, ["- skep-mesh", "- skep-bridged", "1 skep-mesh"]);
    }

    #[test]
    fn of_ipv6_only_what_stays_within_a_network_is_let_pass() {
        let only = |rules: &[&str]| of(rules, &[BRIDGED]);
        assert_eq!(only(&["-P FORWARD DROP"]), ["1 skep-bridged"]);
        assert_eq!(only(&DOCKER), ["2 skep-bridged"]);
        assert!(only(&["-P FORWARD DROP", WITHIN]).is_empty());
        assert!(only(&["-P FORWARD ACCEPT"]).is_empty());
        let all = Wanted {
            mesh: true,
            networks: true,
        };
        let [ipv4, ipv6] = &KINDS;
        assert_eq!(ipv4.among(all, FORWARD, true), NAMES);
        assert_eq!(ipv4.among(all, FORWARD, false), [MESH]);
        assert_eq!(ipv6.among(all, FORWARD, true), [BRIDGED]);
        assert_eq!(ipv4.among(all, POSTROUTING, true), [BRIDGED]);
        assert!(ipv4.among(all, POSTROUTING, false).is_empty());
        assert!(ipv4.among(Wanted::default(), FORWARD, true).is_empty());
    }

    #[test]
    fn without_an_engine_it_is_there_where_something_is_in_the_way() {
        let one = |rules: &[&str]| of(rules, &["skep-mesh"]);
        assert!(one(&["-P FORWARD ACCEPT"]).is_empty());
        assert_eq!(one(&["-P FORWARD ACCEPT", OURS]), ["- skep-mesh"]);
        assert_eq!(one(&["-P FORWARD DROP"]), ["1 skep-mesh"]);
        assert!(one(&["-P FORWARD DROP", OURS]).is_empty());
        let rejected = ["-P FORWARD ACCEPT", "-A FORWARD -j REJECT"];
        assert_eq!(one(&rejected), ["1 skep-mesh"]);
    }

    #[test]
    fn what_stays_within_a_network_is_not_masked() {
        const MASKED: &str = "-A POSTROUTING -s 10.0.1.0/24 ! -o skep0 -j MASQUERADE";
        let listed = ["-P POSTROUTING ACCEPT", MASKED].join("\n");
        let put = steps(&listed, POSTROUTING, &[BRIDGED]);
        assert_eq!(put, [Step::Insert(1, BRIDGED)]);
        let there = ["-P POSTROUTING ACCEPT", UNMASKED, MASKED].join("\n");
        assert!(steps(&there, POSTROUTING, &[BRIDGED]).is_empty());
        let alone = ["-P POSTROUTING ACCEPT", UNMASKED].join("\n");
        let gone = steps(&alone, POSTROUTING, &[BRIDGED]);
        assert_eq!(gone, [Step::Remove(UNMASKED)]);
    }

    #[test]
    fn rules_are_what_is_listed() {
        for line in [OURS, WITHIN] {
            let name = name(line).unwrap();
            assert_eq!(line, format!("-A FORWARD {}", text(FORWARD, name)));
        }
        let unmasked = text(POSTROUTING, BRIDGED);
        assert_eq!(UNMASKED, format!("-A POSTROUTING {unmasked}"));
    }
}
