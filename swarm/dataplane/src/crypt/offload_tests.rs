//! Tests of cutting and of putting together, each by the other.

use proptest::prelude::*;

use super::super::cut;
use super::*;

/// A frame of TCP or UDP as a device gives it, with so many bytes, to be cut.
fn whole(ipv6: bool, udp: bool, body: usize, each: u16) -> Vec<u8> {
    let mut frame = vec![2, 0x42, 10, 0, 1, 9, 2, 0x42, 10, 0, 1, 3];
    let inner = if udp { 8 } else { 32 };
    match ipv6 {
        true => {
            frame.extend([
                0x86,
                0xdd,
                0x60,
                0,
                0,
                0,
                0,
                0,
                if udp { 17 } else { 6 },
                64,
            ]);
            frame.extend([7; 32]);
        }
        false => {
            frame.extend([
                8,
                0,
                0x45,
                0,
                0,
                0,
                0xff,
                0xfe,
                0x40,
                0,
                64,
                if udp { 17 } else { 6 },
            ]);
            frame.extend([0, 0, 10, 0, 1, 3, 10, 0, 1, 9]);
        }
    }
    let start = frame.len();
    frame.extend([0x9c, 0x40, 0, 80]);
    match udp {
        true => frame.extend([0; 4]),
        false => {
            frame.extend([
                0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 5, 0x80, 0x18, 1, 0, 0, 0, 0, 0,
            ]);
            frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
    }
    assert_eq!(frame.len(), start + inner);
    frame.extend((0..body).map(|at| u8::try_from(at % 251).unwrap()));
    let known = (start, udp);
    let layout = Layout::of(&frame, Some(known)).unwrap();
    let (heads, rest) = frame.split_at_mut(layout.end);
    layout.measure(heads, rest.len());
    let place = if udp { 6 } else { TCP_SUM };
    let begun = fold(layout.pseudo(heads, inner + body));
    put(heads, start + place, begun);
    let short = |number: usize| u16::try_from(number).unwrap();
    let head = Head {
        unsummed: true,
        kind: match (udp, ipv6) {
            (true, _) => Kind::Udp,
            (false, true) => Kind::Tcp6,
            (false, false) => Kind::Tcp4,
        },
        heads: short(layout.end),
        each,
        start: short(start),
        place: short(place),
    };
    [head.bytes().as_slice(), &frame].concat()
}

fn cut(packet: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = cut::parts(packet).unwrap();
    let mut all = Vec::new();
    while let Some((head, body)) = parts.next() {
        all.push([head, body].concat());
    }
    all
}

/// Whether the sums of a frame are right, and its lengths.
fn is_right(frame: &[u8]) -> bool {
    let layout = Layout::of(frame, None).unwrap();
    let inner = &frame[layout.inner..];
    let sums = fold(sum(inner, layout.pseudo(frame, inner.len()))) == u16::MAX;
    let head = layout.ipv6 || fold(sum(&frame[layout.ip..layout.inner], 0)) == u16::MAX;
    let at = layout.ip + if layout.ipv6 { 4 } else { 2 };
    let length = usize::from(get(frame, at)) + if layout.ipv6 { 40 } else { 0 };
    sums && head && length == frame.len() - layout.ip
}

proptest! {
    #[test]
    fn what_was_cut_is_put_together_again(ipv6: bool, body in 1usize..60_000, each in 100u16..1400) {
        let packet = whole(ipv6, false, body, each);
        let parts = cut(&packet);
        prop_assert_eq!(parts.len(), body.div_ceil(usize::from(each)));
        let mut gather = Gather::default();
        for part in &parts {
            prop_assert!(is_right(part));
            prop_assert!(gather.add(part));
        }
        match parts.as_slice() {
            [only] => prop_assert_eq!(&gather.take()[HEAD..], only.as_slice()),
            _ => prop_assert_eq!(gather.take(), packet.as_slice()),
        }
        gather.clear();
        prop_assert!(gather.is_empty());
    }

    #[test]
    fn datagrams_are_cut_and_stay_apart(ipv6: bool, body in 1usize..60_000, each in 100u16..1400) {
        let parts = cut(&whole(ipv6, true, body, each));
        prop_assert_eq!(parts.len(), body.div_ceil(usize::from(each)));
        let mut bytes = Vec::new();
        for part in &parts {
            prop_assert!(is_right(part));
            let layout = Layout::of(part, None).unwrap();
            prop_assert_eq!(usize::from(get(part, layout.inner + 4)), part.len() - layout.inner);
            bytes.extend_from_slice(&part[layout.end..]);
            let mut gather = Gather::default();
            prop_assert!(gather.add(part) && !gather.add(part));
        }
        let wanted: Vec<_> = (0..body).map(|at| u8::try_from(at % 251).unwrap()).collect();
        prop_assert_eq!(bytes, wanted);
    }

    #[test]
    fn any_bytes_are_borne(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..6, ip: bool) {
        if let (true, Some(place)) = (ip, bytes.get_mut(HEAD + 12..HEAD + 14)) {
            place.copy_from_slice(if kind % 2 == 0 { &[8, 0] } else { &[0x86, 0xdd] });
        }
        if let Some(place) = bytes.get_mut(1) {
            *place = kind;
        }
        if let Some(mut parts) = cut::parts(&bytes) {
            for _ in 0..400 {
                if parts.next().is_none() {
                    break;
                }
            }
        }
        let mut gather = Gather::default();
        prop_assert!(gather.add(&bytes));
        gather.add(&bytes);
        gather.take();
    }

    #[test]
    fn a_changed_bit_keeps_a_segment_apart(ipv6: bool, bit in 0usize..66 * 8) {
        let parts = cut(&whole(ipv6, false, 300, 100));
        let mut gather = Gather::default();
        prop_assert!(gather.add(&parts[0]));
        let mut second = parts[1].clone();
        second[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!gather.add(&second));
    }
}

#[test]
fn only_the_next_one_follows() {
    let parts = cut(&whole(false, false, 350, 100));
    let mut gather = Gather::default();
    assert!(gather.add(&parts[0]));
    assert!(!gather.add(&parts[0]) && !gather.add(&parts[2]));
    assert!(gather.add(&parts[1]) && gather.add(&parts[2]));
    assert!(gather.add(&parts[3]), "a shorter one is the last");
    assert!(!gather.add(&parts[3]));
}

#[test]
fn a_sum_that_was_left_to_us_is_made() {
    let mut packet = whole(false, true, 20, 0);
    packet[1] = 0;
    let parts = cut(&packet);
    assert_eq!(parts.len(), 1);
    assert!(is_right(&parts[0]));
    packet[0] = 0;
    assert_eq!(cut(&packet), [packet[HEAD..].to_vec()]);
}
