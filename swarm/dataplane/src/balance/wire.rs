//! A transaction as the kernel takes it, and what the kernel lists as steps name it. The numbers
//! are those of `linux/netfilter/nf_tables.h`.

use super::expression::expressions;
use super::rules::{Chain, Key, Map, Rule, Step, TABLE, Value};
use super::text::{chain_name, hook, map_name};
use crate::netlink::nftables::{
    APPEND, Batch, CREATE, DEL_CHAIN, DEL_ELEMENT, DEL_RULE, DEL_TABLE, HEADER, NEW_CHAIN,
    NEW_ELEMENT, NEW_RULE, NEW_SET, NEW_TABLE,
};
use crate::netlink::{self, Family, Writer, attribute, head, octets};

/// An attribute has at most 64 KiB; with the longest element, a message stays far below.
const ELEMENTS: usize = 400;
/// Types of keys and values, as `nft` calls them.
const PROTOCOL: u32 = 12;
const VERDICT: u32 = 0xffff_ff00;
/// `NFT_GOTO`.
const GOTO: u32 = -4_i32 as u32;
/// A queueing class, which is what a packet's priority is to `nft`. Types that are several have six
/// bits each.
const CLASS: u32 = 23;
/// Flags of sets: without a name, not to be changed, a map.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const MAP: u32 = 8;
/// The protocols that have ports: TCP, UDP, SCTP.
const PROTOCOLS: [u8; 3] = [6, 17, 132];
/// The number that a set has within a transaction. Nobody asks for it, but it has to have one.
const PRIVATE: u32 = 3;

/// What differs between the kinds of addresses.
pub(super) struct Kind {
    pub(super) family: Family,
    /// The type of an address, as `nft` calls it, and its length.
    pub(super) address: (u32, u32),
    /// Where a packet's header has its destination.
    pub(super) destination: u32,
    /// The four bytes behind an address in the register.
    pub(super) behind: u32,
    /// How a packet is refused whose port nobody has.
    pub(super) no_port: u8,
    /// What is known of a connection: whom its first packet was for.
    pub(super) original: u32,
}

const IPV4: Kind = Kind {
    family: Family::Ipv4,
    address: (7, 4),
    destination: 16,
    behind: 9,
    no_port: 3,
    original: 20,
};

const IPV6: Kind = Kind {
    family: Family::Ipv6,
    address: (8, 16),
    destination: 24,
    behind: 12,
    no_port: 4,
    original: 22,
};

/// The transaction of these steps on one kind's table, for a kernel in this generation.
pub(crate) fn batch(family: Family, generation: u32, steps: &[Step]) -> Batch {
    let kind = match family {
        Family::Ipv4 => &IPV4,
        Family::Ipv6 => &IPV6,
    };
    let mut batch = Batch::new(family, generation);
    // Neighbours in one map travel in one message.
    let mut number = 0;
    for run in steps.chunk_by(|a, b| list(a).is_some() && list(a) == list(b)) {
        for part in run.chunks(ELEMENTS) {
            match part {
                [Step::Rule(chain, rule)] => {
                    number += 1;
                    let name = format!("__skep{generation:x}.{number:x}");
                    new_rule(&mut batch, kind, (*chain, rule), &name);
                }
                [first, ..] if list(first).is_some() => elements(&mut batch, first, part),
                others => others.iter().for_each(|step| other(&mut batch, kind, step)),
            }
        }
    }
    batch
}

/// The map that a step changes, and whether it adds to it.
fn list(step: &Step) -> Option<(Map, bool)> {
    match *step {
        Step::Element(key, _) => Some((key.map(), true)),
        Step::NoElement(key) => Some((key.map(), false)),
        _ => None,
    }
}

fn elements(batch: &mut Batch, first: &Step, steps: &[Step]) {
    let Some((map, adds)) = list(first) else {
        return;
    };
    let (kind, flags) = if adds {
        (NEW_ELEMENT, CREATE)
    } else {
        (DEL_ELEMENT, 0)
    };
    batch.step(kind, flags, |it| {
        it.text(1, TABLE);
        it.text(2, map_name(map));
        it.nested(3, |it| {
            for (step, number) in steps.iter().zip(1..) {
                it.nested(number, |it| element(it, step));
            }
        });
    });
}

fn element(it: &mut Writer, step: &Step) {
    let (Step::Element(key, _) | Step::NoElement(key)) = *step else {
        return;
    };
    it.nested(1, |it| match key {
        Key::Service(vip) | Key::Gateway(vip) => it.attribute(1, &octets(vip)),
        Key::Backend(vip, number) => {
            let mut key = octets(vip);
            key.extend(number.to_ne_bytes());
            it.attribute(1, &key);
        }
    });
    match *step {
        Step::Element(_, Value::Address(address)) => {
            it.nested(2, |it| it.attribute(1, &octets(address)));
        }
        Step::Element(_, Value::Goto(chain)) => it.nested(2, |it| goto(it, chain)),
        _ => {}
    }
}

/// On to a chain, as a verdict.
pub(super) fn goto(it: &mut Writer, chain: Chain) {
    it.nested(2, |it| {
        it.number(1, GOTO);
        it.text(2, &chain_name(chain));
    });
}

fn other(batch: &mut Batch, kind: &Kind, step: &Step) {
    match *step {
        Step::Table => batch.step(NEW_TABLE, 0, |it| {
            it.text(1, TABLE);
            it.number(2, 0);
        }),
        Step::NoTable => batch.step(DEL_TABLE, 0, |it| it.text(1, TABLE)),
        Step::Map(map) => batch.step(NEW_SET, CREATE, |it| new_map(it, kind, map)),
        Step::Chain(chain) => batch.step(NEW_CHAIN, CREATE, |it| {
            it.text(1, TABLE);
            it.text(3, &chain_name(chain));
            if let Some((name, priority)) = hook(chain) {
                it.text(7, "nat");
                it.number(5, 1);
                it.nested(4, |it| {
                    it.number(1, hook_number(name));
                    it.attribute(2, &priority.to_be_bytes());
                });
            }
        }),
        Step::NoChain(chain) => batch.step(DEL_CHAIN, 0, |it| {
            it.text(1, TABLE);
            it.text(3, &chain_name(chain));
        }),
        Step::Flush(chain) => batch.step(DEL_RULE, 0, |it| {
            it.text(1, TABLE);
            it.text(2, &chain_name(chain));
        }),
        Step::Rule(..) | Step::Element(..) | Step::NoElement(..) => {}
    }
}

fn hook_number(name: &str) -> u32 {
    match name {
        "prerouting" => 0,
        "output" => 3,
        _ => 4,
    }
}

fn new_map(it: &mut Writer, kind: &Kind, map: Map) {
    let (address, length) = kind.address;
    let (key, value, number) = match map {
        Map::Services => ((address, length), (VERDICT, 0), 1),
        Map::Gateways => ((address, length), (address, length), 2),
        Map::Backends => {
            let numbered = address << 6 | CLASS;
            ((numbered, length + 4), (address, length), 4)
        }
    };
    it.text(1, TABLE);
    it.text(2, map_name(map));
    it.number(3, MAP);
    it.number(4, key.0);
    it.number(5, key.1);
    it.number(6, value.0);
    it.number(7, value.1);
    it.number(10, number);
    it.attribute(13, remarks(map));
}

/// What `nft` wants to read about a map in order to show it as it was written: the orders of bytes,
/// and what its key consists of. The kernel only keeps it.
fn remarks(map: Map) -> &'static [u8] {
    match map {
        Map::Services => &[0, 4, 2, 0, 0, 0, 1, 4, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0],
        Map::Gateways => &[0, 4, 2, 0, 0, 0, 1, 4, 2, 0, 0, 0, 6, 4, 0, 0, 0, 0],
        Map::Backends => &[
            0, 4, 0, 0, 0, 0, 1, 4, 2, 0, 0, 0, 3, 8, 0, 4, 13, 0, 0, 0, 1, 0, 6, 4, 0, 0, 0, 0,
        ],
    }
}

/// A rule, after the set that it alone reads, if any. Such sets get names of their own in every
/// transaction: letting the kernel find some takes it the longer the more there are.
fn new_rule(batch: &mut Batch, kind: &Kind, (chain, rule): (Chain, &Rule), name: &str) {
    if *rule == Rule::Lookup {
        protocols(batch, name);
    }
    batch.step(NEW_RULE, APPEND, |it| {
        it.text(1, TABLE);
        it.text(2, &chain_name(chain));
        it.nested(4, |it| expressions(it, kind, rule, name));
    });
}

/// The protocols that have ports.
fn protocols(batch: &mut Batch, name: &str) {
    batch.step(NEW_SET, CREATE, |it| {
        it.text(1, TABLE);
        it.text(2, name);
        it.number(3, ANONYMOUS | CONSTANT);
        it.number(4, PROTOCOL);
        it.number(5, 1);
        it.number(10, PRIVATE);
        it.nested(9, |it| it.number(1, 3));
        it.attribute(13, &[0, 4, 1, 0, 0, 0]);
    });
    batch.step(NEW_ELEMENT, CREATE, |it| {
        it.text(1, TABLE);
        it.text(2, name);
        it.nested(3, |it| {
            for (protocol, number) in PROTOCOLS.into_iter().zip(1..) {
                it.nested(number, |it| it.nested(1, |it| it.attribute(1, &[protocol])));
            }
        });
    });
}

/// An element of a map as the kernel lists it.
pub(crate) fn read(family: Family, map: Map, element: &[u8]) -> Option<(Key, Value)> {
    let key = attribute(attribute(element, 0, 1)?, 0, 1)?;
    let data = attribute(element, 0, 2)?;
    let vip = netlink::address(family, key)?;
    let behind = key.get(octets(vip).len()..)?;
    let key = match map {
        Map::Services => Key::Service(vip),
        Map::Gateways => Key::Gateway(vip),
        Map::Backends => Key::Backend(vip, u32::from_ne_bytes(head(behind)?)),
    };
    let value = match map {
        Map::Services => {
            let chain = attribute(attribute(data, 0, 2)?, 0, 2)?;
            let chain = [Chain::Nobody, Chain::Vip(vip)]
                .into_iter()
                .find(|it| chain.strip_suffix(b"\0") == Some(chain_name(*it).as_bytes()))?;
            Value::Goto(chain)
        }
        Map::Gateways | Map::Backends => {
            Value::Address(netlink::address(family, attribute(data, 0, 1)?)?)
        }
    };
    Some((key, value))
}

/// The elements in a message of a list.
pub(crate) fn listed(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let list = attribute(message, HEADER, 3).unwrap_or(&[]);
    crate::netlink::attributes(list, 0).map(|(_, element)| element)
}
