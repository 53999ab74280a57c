//! Which address a frame is for. Reads as much of it as that takes, and changes nothing.

use std::net::Ipv4Addr;

const ETHERTYPE_ARP: [u8; 2] = [8, 6];
/// Where ARP over Ethernet has the address that is asked for.
const ARP_TARGET: std::ops::Range<usize> = 38..42;
const REQUEST: [u8; 2] = [0, 1];

/// The address that a frame is to be taken to: that of its hardware address or, of a question, the
/// one that is asked for. `None` for what is for nobody, or for everybody.
pub(super) fn target(frame: &[u8]) -> Option<Ipv4Addr> {
    let (to, _) = frame.split_first_chunk::<6>()?;
    match *to {
        [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => asked(frame),
        _ => None,
    }
}

fn asked(frame: &[u8]) -> Option<Ipv4Addr> {
    let is_question =
        frame.get(12..14)? == ETHERTYPE_ARP.as_slice() && frame.get(20..22)? == REQUEST.as_slice();
    let address: [u8; 4] = frame.get(ARP_TARGET)?.try_into().ok()?;
    is_question.then(|| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn frames_go_where_their_address_is() {
        let nine = Some(Ipv4Addr::new(10, 0, 1, 9));
        assert_eq!(target(&arp(1)), nine);
        assert_eq!(target(&arp(2)), None, "an answer is for one");
        assert_eq!(target(&[0x02, 0x42, 10, 0, 1, 9, 1, 2]), nine);
        assert_eq!(target(&[0x33, 0x33, 0, 0, 0, 1, 1, 2]), None);
        let short = arp(1);
        for length in 0..short.len() {
            let cut = target(&short[..length]);
            assert!(cut.is_none(), "{length}");
        }
    }
}
