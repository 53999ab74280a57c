//! What a TAP device and its reader tell each other in front of a frame: whether its checksum is
//! still to be made, and whether it stands for many that are yet to be cut. Also finds its way
//! through a frame's heads, and sums. Pure.

/// Bytes in front of a frame.
pub(super) const HEAD: usize = 10;
/// With [`Head::flags`]: the checksum is to be made from [`Head::start`] on.
const NEEDS_CHECKSUM: u8 = 1;
/// Where TCP and UDP have their checksums.
pub(super) const TCP_SUM: usize = 16;
pub(super) const UDP_SUM: usize = 6;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Of a device and of a VLAN: hardware addresses and what follows.
const ETHERNET: usize = 14;
const VLAN: usize = 4;

/// What one frame stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Itself.
    #[default]
    One,
    /// Segments of TCP, over IPv4 or IPv6.
    Tcp4,
    Tcp6,
    /// Datagrams of UDP, over either.
    Udp,
    /// Something that nobody has been asked for.
    Other,
}

/// What is said in front of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The checksum is still to be made.
    pub unsummed: bool,
    pub kind: Kind,
    /// The heads that every part has.
    pub heads: u16,
    /// Bytes behind the heads of each part, but for the last.
    pub each: u16,
    /// Where summing begins, and where from there the sum belongs.
    pub start: u16,
    pub place: u16,
}

impl Head {
    /// What is in front of a frame, and the frame.
    pub(super) fn of(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (head, frame) = packet.split_first_chunk::<HEAD>()?;
        let [flags, kind, a, b, c, d, e, f, g, h] = *head;
        let number = |first, second| u16::from_ne_bytes([first, second]);
        let head = Self {
            unsummed: flags & NEEDS_CHECKSUM != 0,
            kind: match kind & 0x7f {
                0 => Kind::One,
                1 => Kind::Tcp4,
                4 => Kind::Tcp6,
                5 => Kind::Udp,
                _ => Kind::Other,
            },
            heads: number(a, b),
            each: number(c, d),
            start: number(e, f),
            place: number(g, h),
        };
        Some((head, frame))
    }

    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let kind = match self.kind {
            Kind::One | Kind::Other => 0,
            Kind::Tcp4 => 1,
            Kind::Tcp6 => 4,
            Kind::Udp => 5,
        };
        let flags = if self.unsummed { NEEDS_CHECKSUM } else { 0 };
        let [[a, b], [c, d], [e, f], [g, h]] =
            [self.heads, self.each, self.start, self.place].map(u16::to_ne_bytes);
        [flags, kind, a, b, c, d, e, f, g, h]
    }
}

/// Where a frame's heads begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub ipv6: bool,
    pub udp: bool,
    /// Where IP begins.
    pub ip: usize,
    /// Where what it carries begins, and where that one's own head ends.
    pub inner: usize,
    pub end: usize,
}

impl Layout {
    /// Of a frame whose TCP or UDP begins right after the head of IP; or at a place that is known,
    /// together with whether it is UDP, since there may be something in between.
    pub(super) fn of(frame: &[u8], known: Option<(usize, bool)>) -> Option<Self> {
        let vlan = frame.get(12..14)? == [0x81, 0];
        let ip = ETHERNET + if vlan { VLAN } else { 0 };
        let (ipv6, length, carried) = match *frame.get(ip - 2..ip)? {
            [8, 0] => (
                false,
                usize::from(frame.get(ip)? & 15) * 4,
                frame.get(ip + 9)?,
            ),
            [0x86, 0xdd] => (true, 40, frame.get(ip + 6)?),
            _ => return None,
        };
        let shortest = if ipv6 { 40 } else { 20 };
        let after = ip + length;
        let (inner, udp) = match (known, *carried) {
            (Some(known), _) => known,
            (None, TCP) => (after, false),
            (None, UDP) => (after, true),
            _ => return None,
        };
        if length < shortest || inner < after {
            return None;
        }
        let end = inner
            + match udp {
                true => 8,
                false => usize::from(frame.get(inner + 12)? >> 4) * 4,
            };
        let whole = end >= inner + if udp { 8 } else { 20 } && frame.len() >= end;
        whole.then_some(Self {
            ipv6,
            udp,
            ip,
            inner,
            end,
        })
    }

    /// The sum over what TCP and UDP count in of IP, with so many bytes from `inner` on.
    pub(super) fn pseudo(&self, frame: &[u8], length: usize) -> u64 {
        let addresses = match self.ipv6 {
            true => frame.get(self.ip + 8..self.ip + 40),
            false => frame.get(self.ip + 12..self.ip + 20),
        };
        let protocol = if self.udp { UDP } else { TCP };
        let length = u32::try_from(length).unwrap_or_default().to_be_bytes();
        let rest = sum(&[0, 0, 0, protocol], sum(&length, 0));
        sum(addresses.unwrap_or_default(), rest)
    }

    /// Says how long IP is now, and sums its head.
    pub(super) fn measure(&self, heads: &mut [u8], body: usize) {
        let whole = heads.len() - self.ip + body;
        if self.ipv6 {
            put(heads, self.ip + 4, short(whole - 40));
            return;
        }
        put(heads, self.ip + 2, short(whole));
        put(heads, self.ip + 10, 0);
        let length = usize::from(heads.get(self.ip).copied().unwrap_or_default() & 15) * 4;
        let head = heads.get(self.ip..self.ip + length);
        let summed = !fold(sum(head.unwrap_or_default(), 0));
        put(heads, self.ip + 10, summed);
    }
}

fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The number at a place. None is 0.
pub(super) fn get(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>);
    found.copied().map_or(0, u16::from_be_bytes)
}

/// Writes a number, if there is the place for it.
pub(super) fn put(bytes: &mut [u8], at: usize, number: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

/// The sum of bytes, by twos, from the first one on; the order of bytes in a word does not matter
/// until it is [folded](fold).
pub(super) fn sum(bytes: &[u8], mut sum: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum + u64::from(u32::from_ne_bytes(last))
}

/// What a sum is in two bytes.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(u16::try_from(sum).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Head {
            unsummed: true,
            kind: Kind::Tcp6,
            heads: 74,
            each: 1316,
            start: 54,
            place: 16,
        };
        let mut packet = head.bytes().to_vec();
        assert_eq!(Head::of(&packet[..9]), None);
        packet.extend([1, 2, 3]);
        assert_eq!(Head::of(&packet), Some((head, [1, 2, 3].as_slice())));
    }

    #[test]
    fn sums_are_those_of_the_protocols() {
        // The example of RFC 1071.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes, 0)), 0xddf2);
        assert_eq!(fold(sum(&bytes[..7], 0)), 0xddf2 - 0xf7);
        assert_eq!(fold(sum(&bytes[4..], sum(&bytes[..4], 0))), 0xddf2);
    }
}
