//! The rules as the kernel takes them. Pure. As `nft` would show them, were a host's address 10.0.0.2
//! on a network 10.0.0.0/24, and the container's device there `eth0`:
//!
//! ```text
//! table ip skep-replies {
//!     chain zone     { type filter hook prerouting priority raw
//!                      BY-HOST ct original zone set (the last two bytes of ether saddr) }
//!     chain arrival  { type filter hook prerouting priority mangle
//!                      ct state new BY-HOST ct mark set (the last four bytes of ether saddr) }
//!     chain source   { type nat hook input priority srcnat }
//!     chain reply    { type filter hook output priority mangle
//!                      ct mark & 255.255.255.0 == 10.0.0.0 ct direction reply meta mark set ct mark }
//! }
//! table netdev skep-replies {
//!     chain departure { type filter hook egress device eth0 priority filter
//!                       meta mark & 255.255.255.0 == 10.0.0.0
//!                       (the last four bytes of ether daddr) set meta mark }
//! }
//! BY-HOST: ip saddr & 255.255.255.0 != 10.0.0.0
//!              ether saddr & ff:ff:ff:ff:ff:00 == 02:42:0a:00:00:00
//!              ether saddr != 02:42:0a:00:00:02
//! ```
//!
//! A host's hardware address on the network is its address there, so that is all that has to be
//! known, however many hosts there are. A client may have one port towards several hosts: these are
//! different connections by their zones, and the empty chain makes the kernel give the second one
//! another port. Where the network has IPv6 as well, there is such a table about that too; the mark is
//! the host's IPv4 address all the same.
//!
//! Of several subnets, each has such rules for the hosts with addresses there, and `ip saddr` is in
//! none of them. A host's zone is then the number of its address (see `blocks.rs`).

use std::net::Ipv4Addr;

use crate::blocks::Block;
use crate::mac;
use crate::model::{Subnet, Subnet6, mask, mask6};
use crate::netlink::expression::{
    LINK, NETWORK, REGISTER, compare, ct, masked, masked_with, meta, payload, set_ct, set_meta,
    set_payload,
};
use crate::netlink::nftables::{
    APPEND, Batch, CREATE, DEL_TABLE, NEW_CHAIN, NEW_RULE, NEW_TABLE, Tables,
};
use crate::netlink::{Family, Writer};

/// The name of all tables.
pub(super) const TABLE: &str = "skep-replies";
/// The name of a table that never is.
const TRIAL: &str = "skep-trial";

/// What the kernel knows of packets and connections, by number.
const META_MARK: u32 = 3;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_MARK: u32 = 3;
const CT_ZONE: u32 = 17;
/// A bit of the state, and the two directions.
const NEW: u32 = 1 << 3;
const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;
/// Where Ethernet's header has its addresses.
const TO: u32 = 0;
const FROM: u32 = 6;
/// Where the headers of IPv4 and IPv6 have the source.
const SOURCE: u32 = 12;
const SOURCE6: u32 = 8;
/// Of a hardware address, what comes before the address within the network.
const BEFORE: u32 = 2;

/// A chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    Zone,
    Arrival,
    Source,
    Reply,
    Departure,
}

/// The chains of a table.
pub(super) fn chains(of: Tables) -> &'static [Chain] {
    match of {
        Tables::Devices => &[Chain::Departure],
        Tables::Of(_) => &[Chain::Zone, Chain::Arrival, Chain::Source, Chain::Reply],
    }
}

impl Chain {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Arrival => "arrival",
            Self::Source => "source",
            Self::Reply => "reply",
            Self::Departure => "departure",
        }
    }

    /// Its type, the number of its hook, and its priority there.
    fn hook(self) -> (&'static str, u32, i32) {
        match self {
            Self::Zone => ("filter", 0, -300),
            Self::Arrival => ("filter", 0, -150),
            Self::Source => ("nat", 1, 100),
            Self::Reply => ("filter", 3, -150),
            Self::Departure => ("filter", 1, 0),
        }
    }
}

/// What the rules depend on.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The network's subnets. Every chain has a rule for each.
    pub(super) blocks: Vec<Block>,
    /// The network's IPv6 subnets, if it has any.
    pub(super) subnets6: Vec<Subnet6>,
    /// The address of the container's own host on the network: what comes from there goes back there
    /// by itself.
    pub(super) gateway: Ipv4Addr,
    /// The container's device on the network.
    pub(super) device: String,
}

impl Rules {
    /// The kinds of tables that there are to be.
    pub(super) fn tables(&self) -> impl Iterator<Item = Tables> {
        let ipv6 = (!self.subnets6.is_empty()).then_some(Tables::Of(Family::Ipv6));
        let always = [Tables::Of(Family::Ipv4), Tables::Devices];
        always.into_iter().chain(ipv6)
    }

    /// How many rules a chain has.
    pub(super) fn count(&self, chain: Chain) -> u32 {
        let count = self.of(chain).len();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The subnets that a chain has rules for.
    fn of(&self, chain: Chain) -> &[Block] {
        match chain {
            Chain::Source => &[],
            _ => &self.blocks,
        }
    }

    /// Makes the tables, whatever was there.
    pub(super) fn write(&self, batch: &mut Batch) {
        for tables in self.tables() {
            batch.turn(tables);
            table(batch, NEW_TABLE, TABLE);
            table(batch, DEL_TABLE, TABLE);
            table(batch, NEW_TABLE, TABLE);
            for chain in chains(tables) {
                new_chain(batch, (TABLE, *chain), &self.device);
                for block in self.of(*chain) {
                    batch.step(NEW_RULE, APPEND, |it| {
                        it.text(1, TABLE);
                        it.text(2, chain.name());
                        it.nested(4, |it| self.expressions(it, (tables, *chain), *block));
                    });
                }
            }
        }
    }

    fn expressions(&self, it: &mut Writer, (tables, chain): (Tables, Chain), block: Block) {
        let subnet = block.subnet;
        match chain {
            Chain::Zone => {
                self.is_by_host(it, tables, subnet);
                payload(it, LINK, FROM + BEFORE + 2, 2);
                if self.blocks.len() > 1 {
                    // Addresses in two subnets may end alike.
                    let (place, first) = (low(!mask(subnet.1)), low(block.first));
                    masked_with(it, &place, &first);
                }
                set_ct(it, CT_ZONE, Some(ORIGINAL));
            }
            Chain::Arrival => {
                ct(it, CT_STATE, None);
                masked(it, &NEW.to_ne_bytes());
                compare(it, 1, &[0; 4]);
                self.is_by_host(it, tables, subnet);
                payload(it, LINK, FROM + BEFORE, 4);
                set_ct(it, CT_MARK, None);
            }
            Chain::Source => {}
            Chain::Reply => {
                ct(it, CT_MARK, None);
                is_inside(it, subnet);
                ct(it, CT_DIRECTION, None);
                compare(it, 0, &[REPLY]);
                ct(it, CT_MARK, None);
                set_meta(it, META_MARK);
            }
            Chain::Departure => {
                meta(it, META_MARK, REGISTER);
                is_inside(it, subnet);
                if self.blocks.len() > 1 {
                    // The way out of a further subnet has another beginning.
                    let [first, second, ..] = mac(self.gateway);
                    meta(it, META_MARK, REGISTER);
                    masked_with(it, &[0; 4], &[first, second, 0, 0]);
                    set_payload(it, LINK, TO, BEFORE);
                }
                meta(it, META_MARK, REGISTER);
                set_payload(it, LINK, TO + BEFORE, 4);
            }
        }
    }

    /// Whether somebody outside has sent it, by way of another host with an address of this subnet.
    fn is_by_host(&self, it: &mut Writer, tables: Tables, host: Subnet) {
        if tables == Tables::Of(Family::Ipv6) {
            for (first, length) in &self.subnets6 {
                let mask = mask6(*length);
                payload(it, NETWORK, SOURCE6, 16);
                masked(it, &mask.to_be_bytes());
                compare(it, 1, &(first.to_bits() & mask).to_be_bytes());
            }
        } else {
            for block in &self.blocks {
                let (mask, subnet) = prefix(block.subnet);
                payload(it, NETWORK, SOURCE, 4);
                masked(it, &mask);
                compare(it, 1, &subnet);
            }
        }
        let (mask, subnet) = prefix(host);
        payload(it, LINK, FROM, 6);
        let [a, b, c, d] = mask;
        masked(it, &[0xff, 0xff, a, b, c, d]);
        compare(it, 0, &mac(Ipv4Addr::from(subnet)));
        payload(it, LINK, FROM, 6);
        compare(it, 1, &mac(self.gateway));
    }
}

/// Whether the register has an address of a subnet.
fn is_inside(it: &mut Writer, subnet: Subnet) {
    let (mask, subnet) = prefix(subnet);
    masked(it, &mask);
    compare(it, 0, &subnet);
}

/// Which bits of an address say that it is the subnet's, and what they are.
fn prefix((first, length): Subnet) -> ([u8; 4], [u8; 4]) {
    let mask = mask(length);
    (mask.to_be_bytes(), (first.to_bits() & mask).to_be_bytes())
}

/// The last two bytes of a number.
fn low(number: u32) -> [u8; 2] {
    let [_, _, high, low] = number.to_be_bytes();
    [high, low]
}

/// Makes a chain for what leaves by a device, and takes it away again.
pub(super) fn trial(batch: &mut Batch) {
    batch.turn(Tables::Devices);
    table(batch, NEW_TABLE, TRIAL);
    new_chain(batch, (TRIAL, Chain::Departure), "lo");
    table(batch, DEL_TABLE, TRIAL);
}

fn table(batch: &mut Batch, step: u16, name: &str) {
    batch.step(step, 0, |it| {
        it.text(1, name);
        if step == NEW_TABLE {
            it.number(2, 0);
        }
    });
}

fn new_chain(batch: &mut Batch, (table, chain): (&str, Chain), device: &str) {
    let (kind, hook, priority) = chain.hook();
    batch.step(NEW_CHAIN, CREATE, |it| {
        it.text(1, table);
        it.text(3, chain.name());
        it.text(7, kind);
        it.number(5, 1);
        it.nested(4, |it| {
            it.number(1, hook);
            it.attribute(2, &priority.to_be_bytes());
            if chain == Chain::Departure {
                it.text(3, device);
            }
        });
    });
}
