//! Cuts what a TAP device gives into the frames that it stands for, each with its own heads and
//! checksums, as a network card would. Sends nothing. Pure.

use super::vnet::{Head, Kind, Layout, TCP_SUM, UDP_SUM, fold, get, put, sum};

/// The heads of a frame, at most: Ethernet, a VLAN, IP and TCP with all options, and what may be
/// between IPv6 and TCP.
const LONGEST: usize = 512;
/// Flags of TCP that only the last part has, and the one that only the first has.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The frames that one stands for.
pub(super) struct Parts<'a> {
    frame: &'a [u8],
    layout: Option<Layout>,
    each: usize,
    /// Where the next one's bytes begin, and how many there have been.
    at: usize,
    count: u16,
    /// Its heads.
    heads: Vec<u8>,
}

/// What is behind a head and the frame itself.
pub(super) fn parts(packet: &[u8]) -> Option<Parts<'_>> {
    let (head, frame) = Head::of(packet)?;
    let mut parts = Parts {
        frame,
        layout: None,
        each: 0,
        at: 0,
        count: 0,
        heads: Vec::new(),
    };
    if head.kind == Kind::One {
        if head.unsummed {
            parts.finish(usize::from(head.start), usize::from(head.place))?;
        }
        return Some(parts);
    }
    let known = (usize::from(head.start), head.kind == Kind::Udp);
    let layout = Layout::of(frame, Some(known))?;
    let is_so = match head.kind {
        Kind::Tcp4 => !layout.ipv6,
        Kind::Tcp6 => layout.ipv6,
        Kind::Udp => true,
        Kind::One | Kind::Other => false,
    };
    (is_so && head.each > 0 && layout.end <= LONGEST).then(|| Parts {
        layout: Some(layout),
        each: usize::from(head.each),
        at: layout.end,
        ..parts
    })
}

impl<'a> Parts<'a> {
    /// Makes the checksum of a frame that is not to be cut: all up to its end is its heads.
    fn finish(&mut self, start: usize, place: usize) -> Option<()> {
        let end = start.checked_add(place)?.checked_add(2)?;
        let summed = self.frame.get(start..)?;
        // What is at the place already is the sum of what is not in the frame's own bytes.
        let made = match !fold(sum(summed, 0)) {
            0 if place == UDP_SUM => u16::MAX,
            made => made,
        };
        self.heads.extend_from_slice(self.frame.get(..end)?);
        put(&mut self.heads, end - 2, made);
        self.at = end;
        Some(())
    }

    /// The next frame, in two pieces.
    pub(super) fn next(&mut self) -> Option<(&[u8], &'a [u8])> {
        let Some(layout) = self.layout else {
            let first = self.count == 0;
            self.count = 1;
            return first.then(|| {
                (
                    self.heads.as_slice(),
                    self.frame.get(self.at..).unwrap_or_default(),
                )
            });
        };
        let rest = self.frame.get(self.at..).filter(|it| !it.is_empty())?;
        let body = rest.get(..self.each).unwrap_or(rest);
        let last = body.len() == rest.len();
        self.heads.clear();
        self.heads.extend_from_slice(self.frame.get(..layout.end)?);
        if !layout.ipv6 {
            let id = get(&self.heads, layout.ip + 4).wrapping_add(self.count);
            put(&mut self.heads, layout.ip + 4, id);
        }
        layout.measure(&mut self.heads, body.len());
        let place = match layout.udp {
            true => self.datagram(layout, body.len()),
            false => self.segment(layout, last),
        };
        put(&mut self.heads, place, 0);
        let length = layout.end - layout.inner + body.len();
        let pseudo = layout.pseudo(&self.heads, length);
        let inner = self.heads.get(layout.inner..).unwrap_or_default();
        let made = match !fold(sum(body, sum(inner, pseudo))) {
            0 if layout.udp => u16::MAX,
            made => made,
        };
        put(&mut self.heads, place, made);
        self.at += body.len();
        self.count = self.count.wrapping_add(1);
        Some((&self.heads, body))
    }

    /// Makes the head of UDP this part's; where its checksum is.
    fn datagram(&mut self, layout: Layout, body: usize) -> usize {
        let length = u16::try_from(body + 8).unwrap_or_default();
        put(&mut self.heads, layout.inner + 4, length);
        layout.inner + UDP_SUM
    }

    /// Makes the head of TCP this part's; where its checksum is.
    fn segment(&mut self, layout: Layout, last: bool) -> usize {
        let passed = u32::try_from(self.at - layout.end).unwrap_or_default();
        let number = self.heads.get_mut(layout.inner + 4..layout.inner + 8);
        if let Some(number) = number.and_then(<[u8]>::first_chunk_mut::<4>) {
            *number = u32::from_be_bytes(*number)
                .wrapping_add(passed)
                .to_be_bytes();
        }
        if let Some(flags) = self.heads.get_mut(layout.inner + 13) {
            *flags &= !(if last { 0 } else { FIN_PSH });
            *flags &= !(if self.count == 0 { 0 } else { CWR });
        }
        layout.inner + TCP_SUM
    }
}
