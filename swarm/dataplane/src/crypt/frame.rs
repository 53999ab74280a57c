//! Which address a frame is for, and the answer to one that asks for an address. Reads as much of it
//! as that takes, and changes nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Ipv6, mac};

const ETHERTYPE_ARP: [u8; 2] = [8, 6];
/// Where ARP over Ethernet has the address that is asked for.
const ARP_TARGET: std::ops::Range<usize> = 38..42;
const REQUEST: [u8; 2] = [0, 1];
/// And where it has who asks, with both of his addresses.
const ARP_SENDER: std::ops::Range<usize> = 22..32;
const REPLY: [u8; 2] = [0, 2];
/// Its length.
const ARP: usize = 42;
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Where IPv6 over Ethernet says what it carries, and what a question for a hardware address says:
/// its kind, and the address. Such a question has nothing in between.
const NEXT_HEADER: usize = 20;
const ICMPV6: u8 = 58;
const ICMP_TYPE: usize = 54;
const SOLICITATION: u8 = 135;
const SOLICITED: std::ops::Range<usize> = 62..78;

/// The address that a frame is to be taken to: that of its hardware address or, of a question, the
/// one that is asked for. `None` for what is for nobody, or for everybody.
pub(super) fn target(frame: &[u8], ipv6: Option<Ipv6>) -> Option<Ipv4Addr> {
    let (to, _) = frame.split_first_chunk::<6>()?;
    match *to {
        [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => asked(frame),
        // The group of those whose addresses end in the same way.
        [0x33, 0x33, 0xff, ..] => ipv6?.ipv4(solicited(frame)?),
        _ => None,
    }
}

/// The answer to a question of ARP for an address that is on another host: whoever has it has the
/// hardware address that is made of it. Asked there, any bridge of nodes that share that host would
/// answer, with its own.
pub(super) fn answer(
    frame: &[u8],
    is_elsewhere: impl FnOnce(Ipv4Addr) -> bool,
) -> Option<[u8; ARP]> {
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
    parts.concat().try_into().ok()
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

    const IPV6: Option<Ipv6> = Some(Ipv6 {
        of: Ipv4Addr::new(10, 0, 1, 0),
        first: Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0),
        bits: 64,
    });

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
        assert_eq!(target(&frame, None), None);
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
        let found = answer(&arp(1), |it| it == nine).unwrap();
        let mut expected = vec![0x02, 0x42, 10, 0, 1, 3, 0x02, 0x42, 10, 0, 1, 9, 8, 6];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 2]);
        expected.extend([0x02, 0x42, 10, 0, 1, 9, 10, 0, 1, 9]);
        expected.extend([0x02, 0x42, 10, 0, 1, 3, 10, 0, 1, 3]);
        assert_eq!(found.to_vec(), expected);
        assert_eq!(answer(&arp(1), |_| false), None);
        assert_eq!(answer(&arp(2), |_| true), None, "an answer");
        let mut to_one = arp(1);
        to_one[..6].copy_from_slice(&mac(nine));
        assert_eq!(answer(&to_one, |_| true), None, "it is for who is asked");
        assert_eq!(answer(&solicitation(), |_| true), None);
        for length in 0..ARP {
            assert_eq!(answer(&arp(1)[..length], |_| true), None, "{length}");
        }
    }

    #[test]
    fn frames_go_where_their_address_is() {
        let nine = Some(Ipv4Addr::new(10, 0, 1, 9));
        assert_eq!(target(&arp(1), None), nine);
        assert_eq!(target(&arp(2), None), None, "an answer is for one");
        assert_eq!(target(&[0x02, 0x42, 10, 0, 1, 9, 1, 2], None), nine);
        assert_eq!(target(&[0x33, 0x33, 0, 0, 0, 1, 1, 2], None), None);
        let short = arp(1);
        for length in 0..short.len() {
            let cut = target(&short[..length], None);
            assert!(cut.is_none(), "{length}");
        }
    }
}
