//! Netlink messages as bytes: writing them, and reading what a kernel answers. Opens no socket.
//! For what is spoken in many namespaces or in great numbers; for the rest there is rtnetlink.

pub(crate) mod conntrack;
pub(crate) mod expression;
pub(crate) mod link;
pub(crate) mod nftables;
pub(crate) mod route;
pub(crate) mod socket;

use std::net::IpAddr;

/// The length of a message's header.
const HEADER: usize = 16;
/// An attribute that consists of attributes.
const NESTED: u16 = 0x8000;

/// Flags of requests.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

/// A kind of addresses, each of which netfilter has tables and flows of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The kernel's number for it: `AF_INET`, `AF_INET6`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

/// The bytes of an address, as they are in packets.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that bytes begin with.
pub(crate) fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => head::<4>(bytes).map(IpAddr::from),
        Family::Ipv6 => head::<16>(bytes).map(IpAddr::from),
    }
}

/// Messages, one behind the other. Each is numbered, from 1.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    written: u32,
}

impl Writer {
    /// One more message: its kind's own header, and attributes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.written += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        let flags = flags | flags::REQUEST;
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.written.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.pad();
        fill(self);
        // Longer than any socket takes is refused when it is sent.
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// One attribute.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start);
    }

    /// An attribute that is a text, with the zero at its end.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute that is a number, in the order of the network.
    pub(crate) fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    /// An attribute that consists of attributes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.open(kind | NESTED);
        fill(self);
        self.close(start);
    }

    /// Attributes that are there already.
    pub(crate) fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
        self.pad();
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // One that is too long says so by a length that no kernel accepts; lists are cut before.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(0);
        if let Some(place) = self.bytes.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// What it is.
    pub(crate) kind: u16,
    /// Everything behind its header.
    pub(crate) payload: &'a [u8],
}

/// The messages of what was received; what is cut off ends it.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(head(bytes)?)).ok()?;
        let kind = u16::from_ne_bytes(head(bytes.get(4..)?)?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { kind, payload })
    })
}

/// The attributes behind a header of this length.
pub(crate) fn attributes(bytes: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut bytes = bytes.get(header..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(head(bytes)?));
        let kind = u16::from_ne_bytes(head(bytes.get(2..)?)?);
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & 0x3fff, payload))
    })
}

/// The attribute of this kind, if there is one.
pub(crate) fn attribute(bytes: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    attributes(bytes, header)
        .find(|(it, _)| *it == kind)
        .map(|(_, payload)| payload)
}

/// The first bytes, as many as are asked for.
pub(crate) fn head<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::default();
        writer.message(7, flags::ACK, &[1, 2, 3, 4], |it| {
            it.text(1, "abc");
            it.nested(2, |it| it.number(3, 9));
        });
        writer.message(8, 0, &[], |_| {});
        assert_eq!(writer.bytes().len() % 4, 0);
        let read: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!(read.iter().map(|it| it.kind).collect::<Vec<_>>(), [7, 8]);
        let inside = read[0].payload;
        assert_eq!(attribute(inside, 4, 1), Some(&b"abc\0"[..]));
        let nested = attribute(inside, 4, 2).unwrap();
        assert_eq!(attribute(nested, 0, 3), Some(&[0, 0, 0, 9][..]));
        assert_eq!(attribute(inside, 4, 5), None);
    }

    #[test]
    fn what_is_cut_off_is_the_end() {
        let mut writer = Writer::default();
        writer.message(7, 0, &[0; 4], |it| it.number(1, 1));
        for length in 0..writer.bytes().len() {
            assert_eq!(messages(&writer.bytes()[..length]).count(), 0);
        }
        for wrong in [0_u16, 3, 200] {
            let mut bytes = wrong.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 0, 0]);
            assert_eq!(attributes(&bytes, 0).count(), 0);
        }
    }
}
