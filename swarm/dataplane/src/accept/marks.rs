//! By what to see, without a program, that nobody has changed a chain of iptables: the numbers that
//! the kernel gives tables, chains and rules, and what the rules say, but for what they count. Of the
//! older kind of rules nothing shows. Changes nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use super::{CHAINS, Chain};
use crate::netlink::nftables::{GET_CHAIN, GET_RULE, GET_TABLE, HEADER, Nftables};
use crate::netlink::{Family, attribute, attributes, head};

/// Which attribute of a rule has what it does.
const EXPRESSIONS: u16 = 4;

/// What each of the chains was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks(Vec<Option<Mark>>);

/// A chain that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    /// The numbers of the table and the chain.
    table: u64,
    chain: u64,
    /// A sum over the rules, in their order.
    rules: u64,
    /// What becomes of what no rule is about.
    policy: Option<Vec<u8>>,
}

/// What the chains are like now.
pub(crate) fn marks(nftables: &mut Nftables) -> io::Result<Marks> {
    let mut all = Vec::new();
    for family in Family::ALL {
        for chain in CHAINS {
            all.push(mark(nftables, family, chain)?);
        }
    }
    Ok(Marks(all))
}

fn mark(nftables: &mut Nftables, family: Family, chain: Chain) -> io::Result<Option<Mark>> {
    let [table, name] = chain;
    let number = |message: &[u8], kind| {
        let number = attribute(message, HEADER, kind).and_then(head);
        number.map_or(0, u64::from_be_bytes)
    };
    let mut found = None;
    let is_there = nftables.get(
        family,
        GET_TABLE,
        |it| it.text(1, table),
        |message| found = Some(number(message, 4)),
    )?;
    let Some(of) = found.filter(|_| is_there) else {
        return Ok(None);
    };
    let mut mark = Mark {
        table: of,
        chain: 0,
        rules: 0,
        policy: None,
    };
    let is_there = nftables.get(
        family,
        GET_CHAIN,
        |it| {
            it.text(1, table);
            it.text(3, name);
        },
        |message| {
            mark.chain = number(message, 2);
            mark.policy = attribute(message, HEADER, 5).map(<[u8]>::to_vec);
        },
    )?;
    if !is_there {
        return Ok(None);
    }
    let mut rules = DefaultHasher::new();
    nftables.list(
        family,
        GET_RULE,
        |it| {
            it.text(1, table);
            it.text(2, name);
        },
        // Older kernels list those of all chains: then somebody looks more often.
        |message| sum(message, &mut rules),
    )?;
    mark.rules = rules.finish();
    Ok(Some(mark))
}

/// Adds a rule to the sum: its number, which it keeps when it is replaced, and what it says.
fn sum(message: &[u8], sum: &mut impl Hasher) {
    for (kind, said) in attributes(message, HEADER) {
        match kind {
            EXPRESSIONS => {
                for (_, expression) in attributes(said, 0) {
                    let name = attribute(expression, 0, 1);
                    let is_counter = name.is_some_and(|it| it.starts_with(b"counter\0"));
                    (name, attribute(expression, 0, 2).filter(|_| !is_counter)).hash(sum);
                }
            }
            kind => (kind, said).hash(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::program::run;

    #[test]
    fn only_what_is_done_to_the_chains_shows() {
        let thread = std::thread::spawn(|| {
            // Where that is not allowed, there is nothing to see.
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let sh = |script: &str| run("sh", &["-ec", script], "").unwrap();
            let mut nftables = Nftables::open().unwrap();
            let none = marks(&mut nftables).unwrap();
            assert_eq!(none, Marks(vec![None; 6]));
            sh("nft add table ip other && nft add chain ip other FORWARD");
            assert_eq!(marks(&mut nftables).unwrap(), none);
            let mut before = none;
            let fill = "iptables-nft -A FORWARD -s 192.0.2.1 -j DROP
                iptables-nft -A FORWARD -s 192.0.2.2 -j DROP";
            for change in [
                fill,
                "iptables-nft -P FORWARD DROP",
                "iptables-nft -t nat -A POSTROUTING -s 192.0.2.1 -j MASQUERADE",
                "ip6tables-nft -t raw -A PREROUTING -s fd00::1 -j DROP",
                "iptables-nft -R FORWARD 1 -s 192.0.2.3 -j DROP",
                "iptables-nft -D FORWARD 2",
                "iptables-nft -I FORWARD -m comment --comment skep-mesh -j ACCEPT",
                "iptables-nft -R FORWARD 1 -m comment --comment skep-mash -j ACCEPT",
                // The same numbers within another table.
                &format!("nft delete table ip filter; {fill}; iptables-nft -P FORWARD DROP"),
                "nft delete table ip6 raw",
            ] {
                sh(change);
                let now = marks(&mut nftables).unwrap();
                assert_ne!(now, before, "{change}");
                sh("nft add rule ip other FORWARD counter
                    iptables-nft -A INPUT -s 192.0.2.1 -j DROP
                    iptables-nft -L > /dev/null");
                assert_eq!(marks(&mut nftables).unwrap(), now, "{change}");
                before = now;
            }
        });
        thread.join().unwrap();
    }
}
