//! Rules as the kernel takes them: each as the expressions that a packet meets one after the other.
//! The numbers are those of `linux/netfilter/nf_tables.h`.

use super::rules::{Chain, Map, Rule};
use super::text::map_name;
use super::wire::{Kind, goto};
use crate::netlink::Writer;
use crate::netlink::expression::{
    NETWORK, REGISTER, TRANSPORT, compare, ct, expression, masked, meta, payload, set_meta,
};

/// `NFT_META_PRIORITY` and `NFT_META_L4PROTO`.
const PRIORITY: u32 = 2;
const L4_PROTOCOL: u32 = 16;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Where TCP's header has its flags, and one of them.
const FLAGS: u32 = 13;
const RST: u8 = 4;
/// What is known of connections: whether they are new, and whether their destination was
/// translated.
const STATE: u32 = 0;
const NEW: u32 = 1 << 3;
const STATUS: u32 = 2;
const TRANSLATED: u32 = 1 << 5;

/// What a rule consists of. `name` is that of the set that it alone reads, if any.
pub(super) fn expressions(it: &mut Writer, kind: &Kind, rule: &Rule, name: &str) {
    match rule {
        Rule::Lookup => {
            protocol(it);
            lookup(it, name, None);
            destination(it, kind);
            lookup(it, map_name(Map::Services), Some(0));
        }
        Rule::Reset => {
            protocol(it);
            compare(it, 0, &[6]);
            reject(it, 1, 0);
        }
        Rule::Told => {
            protocol(it);
            compare(it, 0, &[6]);
            payload(it, TRANSPORT, FLAGS, 1);
            bits(it, &[RST]);
            immediate(it, |it| it.nested(2, |it| it.number(1, ACCEPT)));
        }
        Rule::Refuse => {
            has(it, STATE, NEW);
            reject(it, 0, kind.no_port);
        }
        Rule::Turn(of) => {
            expression(it, "numgen", |it| {
                for (kind, value) in [(1, REGISTER), (2, *of), (3, 0), (4, 0)] {
                    it.number(kind, value);
                }
            });
            set_priority(it);
            immediate(it, |it| goto(it, Chain::Spread));
        }
        Rule::Pick => {
            destination(it, kind);
            meta(it, PRIORITY, kind.behind);
            lookup(it, map_name(Map::Backends), Some(REGISTER));
            translate(it, kind, 1);
        }
        Rule::First => {
            expression(it, "immediate", |it| {
                it.number(1, REGISTER);
                it.nested(2, |it| it.attribute(1, &[0; 4]));
            });
            set_priority(it);
        }
        Rule::Source => {
            has(it, STATUS, TRANSLATED);
            ct(it, kind.original, Some(0));
            lookup(it, map_name(Map::Gateways), Some(REGISTER));
            translate(it, kind, 0);
        }
    }
}

/// Whether what is known of the connection has this bit.
fn has(it: &mut Writer, what: u32, bit: u32) {
    ct(it, what, None);
    bits(it, &bit.to_ne_bytes());
}

/// Whether the register has one of these bits.
fn bits(it: &mut Writer, mask: &[u8]) {
    masked(it, mask);
    compare(it, 1, &vec![0; mask.len()]);
}

/// What happens next.
fn immediate(it: &mut Writer, verdict: impl FnOnce(&mut Writer)) {
    expression(it, "immediate", |it| {
        it.number(1, 0);
        it.nested(2, verdict);
    });
}

fn protocol(it: &mut Writer) {
    meta(it, L4_PROTOCOL, REGISTER);
}

fn set_priority(it: &mut Writer) {
    set_meta(it, PRIORITY);
}

fn destination(it: &mut Writer, kind: &Kind) {
    payload(it, NETWORK, kind.destination, kind.address.1);
}

fn reject(it: &mut Writer, how: u32, code: u8) {
    expression(it, "reject", |it| {
        it.number(1, how);
        it.attribute(2, &[code]);
    });
}

/// Looks the register up; of a map, puts what it says into one, 0 being what happens next.
fn lookup(it: &mut Writer, name: &str, into: Option<u32>) {
    expression(it, "lookup", |it| {
        it.number(2, REGISTER);
        if let Some(register) = into {
            it.number(3, register);
        }
        it.text(1, name);
    });
}

/// The destination (1) or the source (0).
fn translate(it: &mut Writer, kind: &Kind, which: u32) {
    expression(it, "nat", |it| {
        let family = u32::from(kind.family.number());
        for (kind, value) in [(1, which), (2, family), (3, REGISTER)] {
            it.number(kind, value);
        }
    });
}
