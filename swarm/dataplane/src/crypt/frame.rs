//! Which address a frame is for, and the answer to one that asks for an address. Reads as much of it
//! as that takes, and changes nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::vnet::{fold, sum};
use crate::ipv6::{Ipv6, ipv4};
use crate::mac;

const ETHERTYPE_ARP: [u8; 2] = [8, 6];
/// Where ARP over Ethernet has the address that is asked for.
const ARP_TARGET: std::ops::Range<usize> = 38..42;
const REQUEST: [u8; 2] = [0, 1];
/// And where it has who asks, with both of his addresses.
const ARP_SENDER: std::ops::Range<usize> = 22..32;
const REPLY: [u8; 2] = [0, 2];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Where IPv6 over Ethernet says what it carries, and what a question for a hardware address says:
/// its kind, and the address. Such a question has nothing in between.
const NEXT_HEADER: usize = 20;
const ICMPV6: u8 = 58;
const ICMP_TYPE: usize = 54;
const SOLICITATION: u8 = 135;
const SOLICITED: std::ops::Range<usize> = 62..78;
/// Where it has who asks.
const SOURCE6: std::ops::Range<usize> = 22..38;
/// The kind of an answer, that it is one to a question and counts more than what was known, and that
/// a hardware address follows, of eight bytes with this.
const ADVERTISEMENT: [u8; 2] = [136, 0];
const SOLICITED_OVERRIDE: [u8; 4] = [0x60, 0, 0, 0];
const HARDWARE: [u8; 2] = [2, 1];
/// The length of an answer, and its number of hops: it is from this very link.
const ADVERTISED: u8 = 32;
const HOPS: u8 = 255;

/// The address that a frame is to be taken to: that of its hardware address or, of a question, the
/// one that is asked for. `None` for what is for nobody, or for everybody.
pub(super) fn target(frame: &[u8], sides: &[Ipv6]) -> Option<Ipv4Addr> {
    let (to, _) = frame.split_first_chunk::<6>()?;
    match *to {
        [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => asked(frame),
        // The group of those whose addresses end in the same way.
        [0x33, 0x33, 0xff, ..] => ipv4(sides, solicited(frame)?),
        _ => None,
    }
}

/// The answer to a question of anybody for an address that is on another host: whoever has it has the
/// hardware address that is made of it. Asked there, any bridge of nodes that share that host would
/// answer, with its own.
pub(super) fn answer(
    frame: &[u8],
    sides: &[Ipv6],
    is_elsewhere: impl FnOnce(Ipv4Addr) -> bool,
) -> Option<Vec<u8>> {
    match frame.starts_with(&[0x33, 0x33, 0xff]) {
        true => advertised(frame, sides, is_elsewhere),
        false => replied(frame, is_elsewhere),
    }
}

/// That to a question of ARP.
fn replied(frame: &[u8], is_elsewhere: impl FnOnce(Ipv4Addr) -> bool) -> Option<Vec<u8>> {
    let is_for_all = frame.starts_with(&[0xff; 6]);
    let address = asked(frame).filter(|it| is_for_all && is_elsewhere(*it))?;
    let (asker, own) = (frame.get(ARP_SENDER)?, mac(address));
    let parts = [
        asker.get(..6)?,
        &own,
        frame.get(12..20)?,
        &REPLY,
        &own,
        &address.octets(),
        asker,
    ];
    Some(parts.concat())
}

/// That to a question of IPv6. Who asks without an address of his own asks about his own.
fn advertised(
    frame: &[u8],
    sides: &[Ipv6],
    is_elsewhere: impl FnOnce(Ipv4Addr) -> bool,
) -> Option<Vec<u8>> {
    let about = solicited(frame)?;
    let address = ipv4(sides, about).filter(|it| is_elsewhere(*it))?;
    let (asker, own) = (frame.get(SOURCE6)?, mac(address));
    if asker == Ipv6Addr::UNSPECIFIED.octets() {
        return None;
    }
    let about = about.octets();
    let said = |check: [u8; 2]| {
        let parts = [
            &ADVERTISEMENT[..],
            &check,
            &SOLICITED_OVERRIDE,
            &about,
            &HARDWARE,
            &own,
        ];
        parts.concat()
    };
    // Over the addresses, the length and what is carried, each of those in four bytes.
    let counted = [0, 0, 0, ADVERTISED, 0, 0, 0, ICMPV6];
    let over = [&about, asker, &counted, &said([0; 2])].concat();
    let check = !fold(sum(&over, 0));
    let head = [0x60, 0, 0, 0, 0, ADVERTISED, ICMPV6, HOPS];
    let parts = [
        frame.get(6..12)?,
        &own,
        &ETHERTYPE_IPV6,
        &head,
        &about,
        asker,
        &said(check.to_be_bytes()),
    ];
    Some(parts.concat())
}

fn asked(frame: &[u8]) -> Option<Ipv4Addr> {
    let is_question =
        frame.get(12..14)? == ETHERTYPE_ARP.as_slice() && frame.get(20..22)? == REQUEST.as_slice();
    let address: [u8; 4] = frame.get(ARP_TARGET)?.try_into().ok()?;
    is_question.then(|| address.into())
}

/// The IPv6 address that a question is about.
fn solicited(frame: &[u8]) -> Option<Ipv6Addr> {
    let is_question = frame.get(12..14)? == ETHERTYPE_IPV6.as_slice()
        && frame.get(NEXT_HEADER)? == &ICMPV6
        && frame.get(ICMP_TYPE)? == &SOLICITATION;
    let address: [u8; 16] = frame.get(SOLICITED)?.try_into().ok()?;
    is_question.then(|| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV6: &[Ipv6] = &[Ipv6 {
        of: (Ipv4Addr::new(10, 0, 1, 0), 24),
        first: Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0),
        bits: 64,
    }];

    fn solicitation() -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 9, 2, 0x42, 10, 0, 1, 3];
        frame.extend(ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
        let from: Ipv6Addr = "fd00:7::3".parse().unwrap();
        let to: Ipv6Addr = "ff02::1:ff00:9".parse().unwrap();
        frame.extend([from.octets(), to.octets()].concat());
        frame.extend([SOLICITATION, 0, 1, 2, 0, 0, 0, 0]);
        let about: Ipv6Addr = "fd00:7::9".parse().unwrap();
        frame.extend(about.octets());
        frame
    }

    #[test]
    fn questions_of_ipv6_go_where_the_address_is() {
        let nine = Some(Ipv4Addr::new(10, 0, 1, 9));
        let frame = solicitation();
        assert_eq!(target(&frame, IPV6), nine);
        assert_eq!(target(&frame, &[]), None);
        for (place, byte) in [(12, 8), (20, 17), (54, 136)] {
            let mut other = frame.clone();
            other[place] = byte;
            assert_eq!(target(&other, IPV6), None, "{place}");
        }
        for length in 0..frame.len() {
            assert_eq!(target(&frame[..length], IPV6), None, "{length}");
        }
    }

    fn arp(operation: u8) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([0x02, 0x42, 10, 0, 1, 3]);
        frame.extend(ETHERTYPE_ARP);
        frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend([0x02, 0x42, 10, 0, 1, 3, 10, 0, 1, 3]);
        frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 1, 9]);
        frame
    }

    #[test]
    fn questions_are_answered_for_who_is_elsewhere() {
        let nine = Ipv4Addr::new(10, 0, 1, 9);
        let found = answer(&arp(1), IPV6, |it| it == nine).unwrap();
        let mut expected = vec![0x02, 0x42, 10, 0, 1, 3, 0x02, 0x42, 10, 0, 1, 9, 8, 6];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 2]);
        expected.extend([0x02, 0x42, 10, 0, 1, 9, 10, 0, 1, 9]);
        expected.extend([0x02, 0x42, 10, 0, 1, 3, 10, 0, 1, 3]);
        assert_eq!(found.to_vec(), expected);
        assert_eq!(answer(&arp(1), IPV6, |_| false), None);
        assert_eq!(answer(&arp(2), IPV6, |_| true), None, "an answer");
        let mut to_one = arp(1);
        to_one[..6].copy_from_slice(&mac(nine));
        assert_eq!(
            answer(&to_one, IPV6, |_| true),
            None,
            "it is for who is asked"
        );
        for length in 0..arp(1).len() {
            assert_eq!(answer(&arp(1)[..length], IPV6, |_| true), None, "{length}");
        }
    }

    #[test]
    fn so_are_those_of_ipv6() {
        let nine = Ipv4Addr::new(10, 0, 1, 9);
        let found = answer(&solicitation(), IPV6, |it| it == nine).unwrap();
        let mut expected = vec![2, 0x42, 10, 0, 1, 3, 2, 0x42, 10, 0, 1, 9, 0x86, 0xdd];
        expected.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
        let (own, asker): (Ipv6Addr, Ipv6Addr) =
            ("fd00:7::9".parse().unwrap(), "fd00:7::3".parse().unwrap());
        expected.extend([own.octets(), asker.octets()].concat());
        expected.extend([136, 0, 0x11, 0x2c, 0x60, 0, 0, 0]);
        expected.extend(own.octets());
        expected.extend([2, 1, 2, 0x42, 10, 0, 1, 9]);
        assert_eq!(found, expected);
        assert_eq!(answer(&solicitation(), IPV6, |_| false), None);
        assert_eq!(answer(&solicitation(), &[], |_| true), None);
        let mut own = solicitation();
        own[SOURCE6].fill(0);
        assert_eq!(answer(&own, IPV6, |_| true), None, "about its own");
        let mut to_one = solicitation();
        to_one[..6].copy_from_slice(&mac(nine));
        assert_eq!(
            answer(&to_one, IPV6, |_| true),
            None,
            "it is for who is asked"
        );
        for length in 0..SOLICITED.end {
            let cut = solicitation()[..length].to_vec();
            assert_eq!(answer(&cut, IPV6, |_| true), None, "{length}");
        }
    }

    #[test]
    fn frames_go_where_their_address_is() {
        let nine = Some(Ipv4Addr::new(10, 0, 1, 9));
        assert_eq!(target(&arp(1), &[]), nine);
        assert_eq!(target(&arp(2), &[]), None, "an answer is for one");
        assert_eq!(target(&[0x02, 0x42, 10, 0, 1, 9, 1, 2], &[]), nine);
        assert_eq!(target(&[0x33, 0x33, 0, 0, 0, 1, 1, 2], &[]), None);
        let short = arp(1);
        for length in 0..short.len() {
            let cut = target(&short[..length], &[]);
            assert!(cut.is_none(), "{length}");
        }
    }
}
