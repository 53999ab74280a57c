//! What the programs look up: which maps there are, how keys and values are written. Pure.

use std::net::IpAddr;

use super::book::Step;

/// What a service's address leads to: by address; its network, how many endpoints it has, and how
/// often it was asked for.
pub(super) const SERVICES: &str = "services";
/// Where in that is what.
pub(super) const NETWORK: i16 = 0;
pub(super) const COUNT: i16 = 4;
pub(super) const NEXT: i16 = 8;
/// Which namespaces are on which networks: all that is known of one is that it is there.
pub(super) const MEMBERS: &str = "members";
/// The endpoints of services: by their service's address and a slot, from 0 on.
pub(super) const ENDPOINTS: &str = "endpoints";
/// Whom sockets have asked for, and who that was. The kernel forgets the oldest of these, whose
/// sockets then see the endpoint's own address.
pub(super) const PEERS: &str = "peers";

/// Kinds of maps, by number; and a map whose room is not taken before it is used.
const HASH: u32 = 1;
const FORGETFUL: u32 = 9;
const LAZY: u32 = 1;

pub(super) type Address = [u8; 16];
pub(super) type Service = [u8; 12];
pub(super) type Member = [u8; 16];
pub(super) type Endpoint = [u8; 20];
pub(super) type Nothing = [u8; 4];

/// A map: its name, and what the kernel is to know of it.
pub(super) struct Map {
    pub(super) name: &'static str,
    kind: u32,
    key: usize,
    value: usize,
    most: u32,
    flags: u32,
}

/// How much each may hold. The kernel takes some 3 MB for all of them while they are empty.
pub(super) const MAPS: [Map; 4] = [
    Map {
        name: SERVICES,
        kind: HASH,
        key: size_of::<Address>(),
        value: size_of::<Service>(),
        most: 1 << 14,
        flags: LAZY,
    },
    Map {
        name: MEMBERS,
        kind: HASH,
        key: size_of::<Member>(),
        value: size_of::<Nothing>(),
        most: 1 << 14,
        flags: LAZY,
    },
    Map {
        name: ENDPOINTS,
        kind: HASH,
        key: size_of::<Endpoint>(),
        value: size_of::<Address>(),
        most: 1 << 17,
        flags: LAZY,
    },
    Map {
        name: PEERS,
        kind: FORGETFUL,
        key: size_of::<u64>(),
        value: 2 * size_of::<Address>(),
        most: 1 << 13,
        flags: 0,
    },
];

impl Map {
    /// As it is described beside a program: seven numbers, of which the last two say nothing.
    pub(super) fn described(&self) -> Vec<u8> {
        let [key, value] = [self.key, self.value].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
        let numbers = [self.kind, key, value, self.most, self.flags, 0, 0];
        numbers.iter().flat_map(|it| it.to_ne_bytes()).collect()
    }
}

/// What is to be done to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Service(Address, Option<Service>),
    Member(Member, bool),
    Endpoint(Endpoint, Option<Address>),
}

/// A step as the maps take it. `next` says which endpoint is the first, so that not all hosts begin
/// with the same one.
pub(super) fn entry(step: Step, next: u32) -> Entry {
    match step {
        Step::Service(vip, service) => {
            let value = |(network, count)| {
                let numbers = [network, count, next];
                joined(numbers.into_iter().flat_map(u32::to_ne_bytes))
            };
            Entry::Service(address(vip), service.map(value))
        }
        Step::Member((cookie, network), is_there) => {
            let key = cookie.to_ne_bytes().into_iter();
            Entry::Member(joined(key.chain(network.to_ne_bytes())), is_there)
        }
        Step::Endpoint(vip, slot, endpoint) => {
            let key = address(vip).into_iter().chain(slot.to_ne_bytes());
            Entry::Endpoint(joined(key), endpoint.map(address))
        }
    }
}

/// An address as maps have it.
fn address(it: IpAddr) -> Address {
    match it {
        IpAddr::V4(it) => it.to_ipv6_mapped().octets(),
        IpAddr::V6(it) => it.octets(),
    }
}

/// Bytes, and zeros for the rest.
fn joined<const BYTES: usize>(bytes: impl Iterator<Item = u8>) -> [u8; BYTES] {
    let mut all = [0; BYTES];
    all.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    all
}
