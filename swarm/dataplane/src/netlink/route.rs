//! Addresses that a host answers for without having them. Everything else about devices and routes
//! is rtnetlink's.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use nix::sys::socket::SockProtocol;

use super::socket::Socket;
use super::{Writer, attribute, flags, head};

const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const ROUTE_HEADER: usize = 12;
/// Attributes of routes.
const DESTINATION: u16 = 1;
const DEVICE: u16 = 4;
const SOURCE: u16 = 7;
/// Whose routes these are, among all that a host has (`ip route show table local proto 83`).
const OURS: u8 = 83;
/// The table of what is the host itself, the scope of such routes, and their type.
const LOCAL: (u8, u8, u8) = (255, 254, 2);
const IPV4: u8 = 2;

/// An address that the host answers for: on this device, as this address of its own.
pub(crate) type Answer = (u32, Ipv4Addr);

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
    pub(crate) fn answers(&mut self) -> io::Result<BTreeMap<Ipv4Addr, Answer>> {
        let mut found = BTreeMap::new();
        let header = route(0);
        self.socket.dump(
            GET_ROUTE,
            &header,
            |_| {},
            |route| {
                let fixed: Option<[u8; ROUTE_HEADER]> = head(route);
                let Some([IPV4, 32, _, _, table, OURS, _, _, ..]) = fixed else {
                    return;
                };
                let address = |kind| attribute(route, ROUTE_HEADER, kind).and_then(head::<4>);
                let device = address(DEVICE).map_or(0, u32::from_ne_bytes);
                if let (true, Some(vip)) = (table == LOCAL.0, address(DESTINATION)) {
                    let source = address(SOURCE).unwrap_or_default();
                    found.insert(vip.into(), (device, source.into()));
                }
            },
        )?;
        Ok(found)
    }

    /// Makes the host answer, or not any more. What is so already is a success.
    pub(crate) fn answer(&mut self, changes: &[(Ipv4Addr, Option<Answer>)]) -> io::Result<()> {
        let mut orders = Writer::default();
        for (vip, answer) in changes {
            let (kind, flags) = match answer {
                Some(_) => (NEW_ROUTE, flags::CREATE | flags::REPLACE),
                None => (DEL_ROUTE, 0),
            };
            orders.message(kind, flags | flags::ACK, &route(32), |it| {
                it.attribute(DESTINATION, &vip.octets());
                if let Some((device, source)) = answer {
                    it.attribute(DEVICE, &device.to_ne_bytes());
                    it.attribute(SOURCE, &source.octets());
                }
            });
        }
        let refused = self.socket.acknowledged(&orders, changes.len())?;
        let absent = |error: &io::Error| error.raw_os_error() == Some(nix::libc::ESRCH);
        match refused.into_iter().find(|error| !absent(error)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn route(length: u8) -> [u8; ROUTE_HEADER] {
    let (table, scope, kind) = LOCAL;
    [IPV4, length, 0, 0, table, OURS, scope, kind, 0, 0, 0, 0]
}
