//! Puts segments of TCP that came one after the other together again, so that a bridge takes them
//! in one piece, and whoever they are for. Only what would come out the same if it were cut again
//! goes together, and only if its checksums are right. Pure.

use super::vnet::{HEAD, Head, Kind, Layout, TCP_SUM, fold, get, put, sum};

/// Where IP begins.
const ETHERNET: usize = 14;
/// No packet of IP is longer.
const LONGEST: usize = 65_535;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Of IPv4: it is one fragment of several.
const FRAGMENT: u16 = 0x3fff;

/// A packet for a TAP device in the making.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// With room for what is in front of the frame. Empty: there is none.
    bytes: Vec<u8>,
    layout: Option<Layout>,
    /// Of each segment but the last, and how many there are.
    each: usize,
    count: usize,
    /// What the next one's number is to be.
    next: u32,
    /// A shorter or a pushed one was the last.
    closed: bool,
}

impl Gather {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a frame to what is there. `false` if it does not go with it: that is to be
    /// [taken](Self::take) first, and then anything goes.
    pub(super) fn add(&mut self, frame: &[u8]) -> bool {
        let found = layout(frame);
        if self.is_empty() {
            self.begin(frame, found);
            return true;
        }
        match (found, self.layout) {
            (Some(found), Some(own)) if found == own && self.follows(frame, own) => {
                self.append(frame, own);
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, frame: &[u8], found: Option<Layout>) {
        self.bytes.extend_from_slice(&[0; HEAD]);
        self.bytes.extend_from_slice(frame);
        self.layout = found;
        self.count = 1;
        if let Some(layout) = found {
            self.each = frame.len() - layout.end;
            self.note(frame, layout);
        }
    }

    fn append(&mut self, frame: &[u8], layout: Layout) {
        self.bytes
            .extend_from_slice(frame.get(layout.end..).unwrap_or_default());
        self.count += 1;
        self.note(frame, layout);
    }

    /// What the last one says about the next.
    fn note(&mut self, frame: &[u8], layout: Layout) {
        let body = frame.len() - layout.end;
        let pushed = flags(frame, layout) & PSH != 0;
        self.closed = pushed || body < self.each;
        self.next = number(frame, layout).wrapping_add(u32::try_from(body).unwrap_or_default());
        if let Some(own) = self.bytes.get_mut(HEAD + layout.inner + 13)
            && pushed
        {
            *own |= PSH;
        }
    }

    /// Whether a segment is the one after the last, and the same but for that.
    fn follows(&self, frame: &[u8], layout: Layout) -> bool {
        let own = self.bytes.get(HEAD..).unwrap_or_default();
        let same = |from: usize, to: usize| own.get(from..to) == frame.get(from..to);
        let (ip, inner) = (layout.ip, layout.inner);
        let same_ip = match layout.ipv6 {
            true => same(ip, ip + 4) && same(ip + 6, inner),
            // Not its length, number and checksum.
            false => same(ip, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, inner),
        };
        // Not its number, flags and checksum.
        let same_tcp = same(inner, inner + 4)
            && same(inner + 8, inner + 13)
            && same(inner + 14, inner + 16)
            && same(inner + 18, layout.end);
        let body = frame.len() - layout.end;
        !self.closed
            && same(0, ip)
            && same_ip
            && same_tcp
            && number(frame, layout) == self.next
            && body <= self.each
            && own.len() - ip + body <= LONGEST
    }

    /// What there is, for the device; empty afterwards once it is [cleared](Self::clear).
    pub(super) fn take(&mut self) -> &[u8] {
        if let (true, Some(layout)) = (self.count > 1, self.layout) {
            self.close(layout);
        }
        &self.bytes
    }

    /// Makes the heads those of all segments.
    fn close(&mut self, layout: Layout) {
        let Some((front, frame)) = self.bytes.split_first_chunk_mut::<HEAD>() else {
            return;
        };
        let (heads, body) = frame.split_at_mut(layout.end.min(frame.len()));
        layout.measure(heads, body.len());
        // The rest of the sum is made where the segments end up, if anybody looks at it there.
        let length = layout.end - layout.inner + body.len();
        let begun = fold(layout.pseudo(heads, length));
        put(heads, layout.inner + TCP_SUM, begun);
        let short = |number: usize| u16::try_from(number).unwrap_or_default();
        let head = Head {
            unsummed: true,
            kind: if layout.ipv6 { Kind::Tcp6 } else { Kind::Tcp4 },
            heads: short(layout.end),
            each: short(self.each),
            start: short(layout.inner),
            place: short(TCP_SUM),
        };
        *front = head.bytes();
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.layout = None;
    }
}

/// Of a segment that others may follow: one with bytes, with nothing to say but that some have
/// arrived, and with sums that are right.
fn layout(frame: &[u8]) -> Option<Layout> {
    let layout = Layout::of(frame, None)?;
    let plain = !layout.udp && flags(frame, layout) & !PSH == ACK && frame.len() > layout.end;
    let length = frame.len() - layout.ip;
    let whole = match layout.ipv6 {
        true => usize::from(get(frame, layout.ip + 4)) + 40 == length,
        false => {
            let head = frame.get(layout.ip..layout.inner)?;
            usize::from(get(head, 2)) == length
                && get(head, 6) & FRAGMENT == 0
                && fold(sum(head, 0)) == u16::MAX
        }
    };
    let right = || {
        let inner = frame.get(layout.inner..).unwrap_or_default();
        fold(sum(inner, layout.pseudo(frame, inner.len()))) == u16::MAX
    };
    // A VLAN within the network is passed on as it is.
    (layout.ip == ETHERNET && plain && whole && right()).then_some(layout)
}

fn flags(frame: &[u8], layout: Layout) -> u8 {
    frame.get(layout.inner + 13).copied().unwrap_or_default()
}

fn number(frame: &[u8], layout: Layout) -> u32 {
    let number = frame
        .get(layout.inner + 4..)
        .and_then(<[u8]>::first_chunk::<4>);
    number.copied().map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
#[path = "offload_tests.rs"]
mod tests;
