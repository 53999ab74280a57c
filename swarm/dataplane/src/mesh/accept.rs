//! A rule that lets the mesh's connections pass where the engine's firewall forwards nothing that it
//! does not know. A drop in one of nftables' tables is final, whatever another table accepts, so it
//! has to be in the very chain, `FORWARD` of iptables: right after the chain that is the user's own
//! (`DOCKER-USER`), so that what the user forbids stays forbidden, and before the engine's.
//!
//! An engine whose firewall is nftables itself (Docker from 29 on, if told so) has a flag for what to
//! let pass, `--bridge-accept-fwmark=0x5be00000/0xfff00000`; nobody can add to its tables.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::marks::{OURS, OURS_MASK};
use crate::program::run;

/// By this comment the rule is found again.
const NAME: &str = "skep-mesh";
/// Chains after which the rule has its place: what the user forbids, or what leads there.
const BEFORE: [&str; 3] = ["DOCKER-USER", "CNI-FORWARD", "NETAVARK_FORWARD"];
/// How long to wait for others that are at the rules, in seconds.
const WAIT: &str = "5";

/// What is done with the rule.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Remove one that is there.
    Remove,
    /// Put it at this place, counted from 1.
    Insert(usize),
}

/// Puts the rule where it belongs, in each of the firewalls that are in use.
pub(super) fn set() -> io::Result<()> {
    programs()
        .into_iter()
        .try_for_each(|program| apply(program, steps))
}

/// Whether the rule is where it belongs.
pub(super) fn is_set() -> bool {
    let mut all = programs().into_iter();
    all.all(|[show, _]| list(show).is_ok_and(|listed| steps(&listed).is_empty()))
}

/// Takes the rule away.
pub(super) fn clear() -> io::Result<()> {
    let removals = |listed: &str| {
        listed
            .lines()
            .filter(|it| is_ours(it))
            .map(|_| Step::Remove)
            .collect()
    };
    programs()
        .into_iter()
        .try_for_each(|program| apply(program, removals))
}

/// Whether there are rules of the older kind, whose changes nobody tells.
pub(super) fn is_legacy() -> bool {
    // Asking the older program would make its tables where there are none.
    let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    names.is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Each program that shows rules, with the one that changes several at once.
fn programs() -> Vec<[&'static str; 2]> {
    let found = |programs: &[&'static str; 2]| {
        let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
        let is_in = |place: &&str| programs.iter().all(|it| Path::new(place).join(it).exists());
        places.iter().any(is_in)
    };
    let newer = ["iptables-nft", "iptables-nft-restore"];
    let older = ["iptables-legacy", "iptables-legacy-restore"];
    let mut programs = vec![newer];
    programs.extend(is_legacy().then_some(older));
    programs.retain(found);
    if programs.is_empty() {
        programs.extend(
            [["iptables", "iptables-restore"]]
                .iter()
                .filter(|it| found(it)),
        );
    }
    programs
}

fn apply([show, change]: [&str; 2], steps: impl Fn(&str) -> Vec<Step>) -> io::Result<()> {
    let steps = steps(&list(show)?);
    if steps.is_empty() {
        return Ok(());
    }
    let mark = format!("{OURS:#x}/{OURS_MASK:#x}");
    let rule = format!("-m connmark --mark {mark} -m comment --comment {NAME} -j ACCEPT");
    let mut script = "*filter\n".to_owned();
    for step in steps {
        let _ = match step {
            Step::Remove => writeln!(script, "-D FORWARD {rule}"),
            Step::Insert(at) => writeln!(script, "-I FORWARD {at} {rule}"),
        };
    }
    script.push_str("COMMIT\n");
    run(change, &["-w", WAIT, "--noflush"], &script).map(drop)
}

fn list(program: &str) -> io::Result<String> {
    run(program, &["-w", WAIT, "-S", "FORWARD"], "")
}

fn is_ours(line: &str) -> bool {
    line.starts_with("-A FORWARD ")
        && line
            .split_whitespace()
            .any(|it| it.trim_matches('"') == NAME)
}

/// What is to be done about a chain that is listed like this.
fn steps(listed: &str) -> Vec<Step> {
    let rules: Vec<_> = listed
        .lines()
        .filter(|it| it.starts_with("-A FORWARD "))
        .collect();
    let ours: Vec<_> = (1..)
        .zip(&rules)
        .filter(|(_, it)| is_ours(it))
        .map(|(at, _)| at)
        .collect();
    let others: Vec<_> = rules.iter().filter(|it| !is_ours(it)).collect();
    let jumps = |rule: &str| {
        BEFORE
            .into_iter()
            .any(|it| rule.split_whitespace().last() == Some(it))
    };
    let place = match others.iter().position(|rule| jumps(rule)) {
        Some(index) => Some(index + 2),
        // Nothing is in the way.
        None if others.is_empty() && listed.lines().any(|it| it == "-P FORWARD ACCEPT") => None,
        None => Some(1),
    };
    if ours.as_slice() == place.as_slice() {
        return Vec::new();
    }
    let mut steps: Vec<_> = ours.iter().map(|_| Step::Remove).collect();
    steps.extend(place.map(Step::Insert));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "-A FORWARD -m connmark --mark 0x5be00000/0xfff00000 -m comment --comment skep-mesh -j ACCEPT";

    fn of(rules: &[&str]) -> Vec<Step> {
        steps(&(rules.join("\n") + "\n"))
    }

    #[test]
    fn it_comes_after_what_the_user_forbids() {
        let docker = [
            "-P FORWARD DROP",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
        ];
        assert_eq!(of(&docker), [Step::Insert(2)]);
        assert_eq!(of(&[docker[0], docker[1], OURS, docker[2]]), []);
        let sunk = [docker[0], docker[1], docker[2], OURS];
        assert_eq!(of(&sunk), [Step::Remove, Step::Insert(2)]);
        let twice = [docker[0], docker[1], OURS, docker[2], OURS];
        assert_eq!(of(&twice), [Step::Remove, Step::Remove, Step::Insert(2)]);
    }

    #[test]
    fn without_an_engine_it_is_there_where_something_is_in_the_way() {
        assert_eq!(of(&["-P FORWARD ACCEPT"]), []);
        assert_eq!(of(&["-P FORWARD ACCEPT", OURS]), [Step::Remove]);
        assert_eq!(of(&["-P FORWARD DROP"]), [Step::Insert(1)]);
        assert_eq!(of(&["-P FORWARD DROP", OURS]), []);
        let rejected = ["-P FORWARD ACCEPT", "-A FORWARD -j REJECT"];
        assert_eq!(of(&rejected), [Step::Insert(1)]);
    }
}
