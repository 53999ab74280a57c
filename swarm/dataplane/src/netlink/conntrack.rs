//! UDP flows that the kernel knows in a namespace, and forgetting some of them, so that their next
//! packet is looked at anew. Never touches those of other protocols, which have an end of their own.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;

use super::socket::{Socket, outcome};
use super::{Family, Writer, attribute, flags, head};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const GET_STATS: u16 = SUBSYSTEM << 8 | 5;
/// The length of the header of all of these.
const HEADER: usize = 4;
/// Attributes: both directions, the zone, the number.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// What a list is to hold, and that of the original direction it is the protocol that counts.
const FILTER: u16 = 25;
const BY_PROTOCOL: u32 = 1 << 3;
const UDP: u8 = 17;

/// One end of a flow in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Its port.
    pub(crate) port: u16,
}

/// A flow as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The protocol's number.
    protocol: u8,
    /// Where its client thinks that it sends.
    pub(crate) wanted: End,
    /// Who answers.
    pub(crate) answers: End,
}

impl Flow {
    fn read(family: Family, entry: &[u8]) -> Option<Self> {
        let original = attribute(entry, HEADER, ORIGINAL)?;
        let reply = attribute(entry, HEADER, REPLY)?;
        let end = |tuple, address: u16, port: u16| {
            let ip = attribute(attribute(tuple, 0, 1)?, 0, address)?;
            let port = attribute(attribute(tuple, 0, 2)?, 0, port);
            Some(End {
                address: super::address(family, ip)?,
                port: port.and_then(head).map_or(0, u16::from_be_bytes),
            })
        };
        // IPv6's addresses come after IPv4's.
        let (source, destination) = match family {
            Family::Ipv4 => (1, 2),
            Family::Ipv6 => (3, 4),
        };
        let [protocol] = head(attribute(attribute(original, 0, 2)?, 0, 1)?)?;
        Some(Self {
            protocol,
            wanted: end(original, destination, 3)?,
            answers: end(reply, source, 2)?,
        })
    }
}

/// The header of all of these.
fn header(family: Family) -> [u8; HEADER] {
    [family.number(), 0, 0, 0]
}

/// Forgets one family's UDP flows that `which` names in a socket's namespace; returns how many. The
/// socket is one to netfilter.
pub(crate) fn forget(
    socket: &mut Socket,
    family: Family,
    which: impl Fn(&Flow) -> bool,
) -> io::Result<usize> {
    // To list a namespace's flows, a kernel walks those of all namespaces.
    if count(socket)? == 0 {
        return Ok(0);
    }
    let mut orders = Writer::default();
    let mut how_many = 0;
    let take = |entry: &[u8]| {
        // Kernels before 5.8 list all protocols.
        let flow = Flow::read(family, entry).filter(|flow| flow.protocol == UDP);
        if flow.is_some_and(|flow| which(&flow)) {
            how_many += 1;
            orders.message(DELETE, flags::ACK, &header(family), |it| same(it, entry));
        }
    };
    socket.dump(GET, &header(family), only_udp, take)?;
    let refused = socket.acknowledged(&orders, how_many)?;
    // One that has ended meanwhile is forgotten as well.
    let ended = |error: &io::Error| error.raw_os_error() == Some(nix::libc::ENOENT);
    match refused.into_iter().find(|error| !ended(error)) {
        Some(error) => Err(error),
        None => Ok(how_many),
    }
}

/// Asks for UDP alone: after many short connections there are a great many flows of TCP.
fn only_udp(question: &mut Writer) {
    question.nested(ORIGINAL, |it| {
        it.nested(2, |it| it.attribute(1, &[UDP]));
    });
    question.nested(FILTER, |it| it.attribute(1, &BY_PROTOCOL.to_ne_bytes()));
}

/// How many flows there are; one, where a kernel does not say.
fn count(socket: &mut Socket) -> io::Result<u32> {
    let mut question = Writer::default();
    question.message(GET_STATS, 0, &header(Family::Ipv4), |_| {});
    socket.send(&question)?;
    let mut answer = Ok(1);
    socket.receive(|message| {
        answer = match outcome(message) {
            Some(Err(error)) => Err(error),
            _ => {
                let entries = attribute(message.payload, HEADER, 1).and_then(head);
                Ok(entries.map_or(1, u32::from_be_bytes))
            }
        };
        ControlFlow::Break(())
    })?;
    answer
}

/// What names a flow and no other.
fn same(order: &mut Writer, entry: &[u8]) {
    if let Some(tuple) = attribute(entry, HEADER, ORIGINAL) {
        order.nested(ORIGINAL, |it| it.raw(tuple));
    }
    for kind in [ID, ZONE] {
        if let Some(value) = attribute(entry, HEADER, kind) {
            order.attribute(kind, value);
        }
    }
}
