//! Addresses that a host answers for without anybody having given them to it: of IPv4 as local
//! routes, of IPv6 as addresses of a device, since there a host says only whose own an address is.
//! Everything else about devices and routes is rtnetlink's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::socket::Socket;
use super::{Family, Writer, attribute, flags, head, octets};

const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const ROUTE_HEADER: usize = 12;
const ADDRESS_HEADER: usize = 8;
/// Attributes of routes.
const DESTINATION: u16 = 1;
const DEVICE: u16 = 4;
const SOURCE: u16 = 7;
/// Attributes of addresses.
const ADDRESS: u16 = 1;
const LIFETIME: u16 = 6;
const FLAGS: u16 = 8;
const METRIC: u16 = 9;
/// Whose routes these are, among all that a host has (`ip route show table local proto 83`).
const OURS: u8 = 83;
/// Whose addresses these are (`ip -6 address show`): no other has a metric of its own.
const OUR_METRIC: u32 = 0x5be0_0083;
/// That of copies of what another device has.
const COPY_METRIC: u32 = 0x5be0_0084;
/// The table of what is the host itself, the scope of such routes, and their type.
const LOCAL: (u8, u8, u8) = (255, 254, 2);
/// Every host has the address, so nobody is asked who else does; and it makes no route.
const AT_ONCE: u32 = 0x02 | 0x200;
/// Nothing is ever sent from it unasked, and it does not end.
const NOT_PREFERRED: [u32; 4] = [0, u32::MAX, 0, 0];

/// An address of IPv6 that a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) address: Ipv6Addr,
    /// The number of the device.
    pub(crate) device: u32,
    /// It is a copy of what another device has.
    pub(crate) copy: bool,
}

/// An address that the host answers for: on this device, as this address of its own.
pub(crate) type Answer = (u32, IpAddr);

/// An address, what the host answered for it before, and what it is to answer.
pub(crate) type News = (IpAddr, Option<Answer>, Option<Answer>);

/// Routes of one namespace.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: Socket,
}

impl Routes {
    /// In this thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// What the host answers for because of us.
    pub(crate) fn answers(&mut self) -> io::Result<BTreeMap<IpAddr, Answer>> {
        let mut found = self.addresses()?;
        let ipv4 = Family::Ipv4.number();
        let header = route(0);
        self.socket.dump(
            GET_ROUTE,
            &header,
            |_| {},
            |route| {
                let fixed: Option<[u8; ROUTE_HEADER]> = head(route);
                let Some([family, 32, _, _, table, OURS, _, _, ..]) = fixed else {
                    return;
                };
                let address = |kind| attribute(route, ROUTE_HEADER, kind).and_then(head::<4>);
                let device = address(DEVICE).map_or(0, u32::from_ne_bytes);
                let vip = address(DESTINATION).filter(|_| family == ipv4 && table == LOCAL.0);
                if let Some(vip) = vip {
                    let source = Ipv4Addr::from(address(SOURCE).unwrap_or_default());
                    found.insert(vip.into(), (device, source.into()));
                }
            },
        )?;
        Ok(found)
    }

    /// Those of IPv6 among them.
    pub(crate) fn addresses(&mut self) -> io::Result<BTreeMap<IpAddr, Answer>> {
        let mut found = BTreeMap::new();
        self.on_devices(|vip, bits, device, metric| {
            if bits == 128 && metric == Some(OUR_METRIC) {
                found.insert(vip.into(), (device, Ipv6Addr::UNSPECIFIED.into()));
            }
        })?;
        Ok(found)
    }

    /// The addresses of IPv6 that devices have.
    pub(crate) fn held(&mut self) -> io::Result<Vec<Held>> {
        let mut found = Vec::new();
        self.on_devices(|address, _, device, metric| {
            let copy = metric == Some(COPY_METRIC);
            found.push(Held {
                address,
                device,
                copy,
            });
        })?;
        Ok(found)
    }

    /// Hands out the addresses of IPv6: the bits of the prefix, the device's number, and the metric if
    /// there is one.
    fn on_devices(
        &mut self,
        mut take: impl FnMut(Ipv6Addr, u8, u32, Option<u32>),
    ) -> io::Result<()> {
        let header = address(0, 0);
        self.socket.dump(
            GET_ADDRESS,
            &header,
            |_| {},
            |entry| {
                let fixed: Option<[u8; ADDRESS_HEADER]> = head(entry);
                let Some([family, bits, _, _, a, b, c, d]) = fixed else {
                    return;
                };
                let metric = attribute(entry, ADDRESS_HEADER, METRIC).and_then(head);
                let metric = metric.map(u32::from_ne_bytes);
                let address = attribute(entry, ADDRESS_HEADER, ADDRESS).and_then(head::<16>);
                let address = address.filter(|_| family == Family::Ipv6.number());
                if let Some(address) = address {
                    take(
                        address.into(),
                        bits,
                        u32::from_ne_bytes([a, b, c, d]),
                        metric,
                    );
                }
            },
        )
    }

    /// Removes copies of addresses from devices, and makes others.
    pub(crate) fn copy(
        &mut self,
        gone: &BTreeSet<(Ipv6Addr, u32)>,
        new: &BTreeSet<(Ipv6Addr, u32)>,
    ) -> io::Result<()> {
        let mut orders = Writer::default();
        for (address, device) in gone {
            take(&mut orders, (*address).into(), *device);
        }
        for (address, device) in new {
            give(&mut orders, (*address).into(), *device, COPY_METRIC);
        }
        self.carry_out(&orders, gone.len() + new.len())
    }

    /// Makes the host answer, or not any more. What is so already is a success.
    pub(crate) fn answer(&mut self, news: &[News]) -> io::Result<()> {
        let mut orders = Writer::default();
        let mut count = 0;
        for (vip, before, now) in news {
            count += match vip {
                IpAddr::V4(_) => by_route(&mut orders, *vip, *now),
                IpAddr::V6(_) => by_address(&mut orders, *vip, (*before, *now)),
            };
        }
        self.carry_out(&orders, count)
    }

    /// That something is gone already is no failure.
    fn carry_out(&mut self, orders: &Writer, count: usize) -> io::Result<()> {
        let refused = self.socket.acknowledged(orders, count)?;
        let absent = |error: &io::Error| {
            let said = error.raw_os_error();
            matches!(
                said,
                Some(nix::libc::ESRCH | nix::libc::EADDRNOTAVAIL | nix::libc::ENODEV)
            )
        };
        match refused.into_iter().find(|error| !absent(error)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Returns how many orders that takes.
fn by_route(orders: &mut Writer, vip: IpAddr, answer: Option<Answer>) -> usize {
    let (kind, flags) = match answer {
        Some(_) => (NEW_ROUTE, flags::CREATE | flags::REPLACE),
        None => (DEL_ROUTE, 0),
    };
    orders.message(kind, flags | flags::ACK, &route(32), |it| {
        it.attribute(DESTINATION, &octets(vip));
        if let Some((device, source)) = answer {
            it.attribute(DEVICE, &device.to_ne_bytes());
            it.attribute(SOURCE, &octets(source));
        }
    });
    1
}

fn by_address(
    orders: &mut Writer,
    vip: IpAddr,
    (before, now): (Option<Answer>, Option<Answer>),
) -> usize {
    let mut count = 0;
    let gone = before.filter(|before| Some(*before) != now);
    if let Some((device, _)) = gone {
        take(orders, vip, device);
        count += 1;
    }
    if let Some((device, _)) = now {
        give(orders, vip, device, OUR_METRIC);
        count += 1;
    }
    count
}

/// Takes an address from a device.
fn take(orders: &mut Writer, of: IpAddr, device: u32) {
    orders.message(DEL_ADDRESS, flags::ACK, &address(128, device), |it| {
        it.attribute(ADDRESS, &octets(of));
    });
}

/// Gives an address to a device, with what tells whose it is.
fn give(orders: &mut Writer, to_have: IpAddr, device: u32, metric: u32) {
    let flags = flags::CREATE | flags::REPLACE | flags::ACK;
    orders.message(NEW_ADDRESS, flags, &address(128, device), |it| {
        it.attribute(ADDRESS, &octets(to_have));
        it.attribute(FLAGS, &AT_ONCE.to_ne_bytes());
        it.attribute(METRIC, &metric.to_ne_bytes());
        let lifetime = NOT_PREFERRED.map(u32::to_ne_bytes);
        it.attribute(LIFETIME, lifetime.as_flattened());
    });
}

fn route(length: u8) -> [u8; ROUTE_HEADER] {
    let (table, scope, kind) = LOCAL;
    let family = Family::Ipv4.number();
    [family, length, 0, 0, table, OURS, scope, kind, 0, 0, 0, 0]
}

fn address(length: u8, device: u32) -> [u8; ADDRESS_HEADER] {
    let [a, b, c, d] = device.to_ne_bytes();
    [Family::Ipv6.number(), length, 0, 0, a, b, c, d]
}
