//! What encrypted frames look like between hosts: sealed with ChaCha20-Poly1305 under a key that
//! only one sender has, derived from the network's. Opens no socket.
//!
//! A packet is: version (1 byte), VXLAN id (3), key id (4), epoch (16), counter (8), then the frame
//! and its tag (16). The head is authenticated too. Big-endian.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// The format of what is sent.
const VERSION: u8 = 1;
/// Bytes in front of the frame.
pub(super) const HEAD: usize = 32;
/// Bytes after it.
pub(super) const TAG: usize = 16;
/// Packets that may overtake each other without being taken for a repetition.
const WINDOW: u64 = 2048;
const WORDS: usize = (WINDOW / 64) as usize;
/// So much of the head is the same in all packets of one sender under one key.
const SENDER: usize = 24;

/// A key of a network. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Names it in packets.
    pub id: u32,
    /// What the senders' keys are derived from.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Drawn by a sender for each key that it begins to use, so that no two ever seal with the same.
pub(super) type Epoch = [u8; 16];

/// What a packet says of itself before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub vni: u32,
    pub key: u32,
    pub epoch: Epoch,
    pub counter: u64,
}

impl Head {
    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let (version, rest) = bytes.split_at_mut(1);
        version.fill(VERSION);
        let (vni, rest) = rest.split_at_mut(3);
        let [_, id @ ..] = self.vni.to_be_bytes();
        vni.copy_from_slice(&id);
        let (key, rest) = rest.split_at_mut(4);
        key.copy_from_slice(&self.key.to_be_bytes());
        let (epoch, counter) = rest.split_at_mut(16);
        epoch.copy_from_slice(&self.epoch);
        counter.copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    /// The head of a packet, if it is one of ours.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (head, _) = packet.split_first_chunk::<HEAD>()?;
        let (version, rest) = head.split_first()?;
        let (vni, rest) = rest.split_first_chunk::<3>()?;
        let (key, rest) = rest.split_first_chunk::<4>()?;
        let (epoch, counter) = rest.split_first_chunk::<16>()?;
        let [a, b, c] = *vni;
        (*version == VERSION && packet.len() >= HEAD + TAG).then_some(Self {
            vni: u32::from_be_bytes([0, a, b, c]),
            key: u32::from_be_bytes(*key),
            epoch: *epoch,
            counter: u64::from_be_bytes(counter.try_into().ok()?),
        })
    }
}

/// The first four bytes of a network's packets, as a number.
pub(super) fn opening(vni: u32) -> u32 {
    u32::from(VERSION) << 24 | vni & 0x00ff_ffff
}

/// How many bytes each of a sender's packets has that came together without being told apart, but
/// for the last. No packet has another's head within: what is sealed looks like nothing at all.
pub(super) fn each(together: &[u8]) -> usize {
    let whole = together.len();
    let Some((first, rest)) = together.split_at_checked(HEAD + TAG) else {
        return whole;
    };
    let sender = first.get(..SENDER).unwrap_or_default();
    memchr::memmem::find(rest, sender).map_or(whole, |at| first.len() + at)
}

/// A sender's key.
fn derive(key: &Key, vni: u32, epoch: &Epoch) -> Option<LessSafeKey> {
    let info = [b"skep overlay".as_slice(), &vni.to_be_bytes()];
    let secret = Salt::new(HKDF_SHA256, epoch).extract(&key.secret);
    let derived = secret.expand(&info, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (_, low) = bytes.split_at_mut(NONCE_LEN - 8);
    low.copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seals what this host sends on one network under one key.
pub(super) struct Sealer {
    head: Head,
    key: LessSafeKey,
}

impl Sealer {
    /// `epoch` must be drawn anew for each sealer. `None` if no key can be made of it.
    pub(super) fn new(key: &Key, vni: u32, epoch: Epoch) -> Option<Self> {
        let head = Head {
            vni,
            key: key.id,
            epoch,
            counter: 0,
        };
        let key = derive(key, vni, &epoch)?;
        Some(Self { head, key })
    }

    /// The packet for a frame that is in two pieces, in `packet`; `false` if it cannot be sealed.
    pub(super) fn seal(&mut self, frame: (&[u8], &[u8]), packet: &mut Vec<u8>) -> bool {
        // It takes centuries to get there, and then nothing more is sent.
        let Some(next) = self.head.counter.checked_add(1) else {
            return false;
        };
        self.head.counter = next;
        let head = self.head.bytes();
        packet.clear();
        packet.extend_from_slice(&head);
        packet.extend_from_slice(frame.0);
        packet.extend_from_slice(frame.1);
        let Some(body) = packet.get_mut(HEAD..) else {
            return false;
        };
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce(next), Aad::from(head), body);
        let Ok(tag) = sealed else { return false };
        packet.extend_from_slice(tag.as_ref());
        true
    }
}

/// Opens what one sender sends under one key, each packet once.
pub(super) struct Opener {
    key: LessSafeKey,
    /// The highest counter that was seen.
    newest: u64,
    /// Which of the last counters were seen, by their number modulo [`WINDOW`].
    seen: [u64; WORDS],
}

impl Opener {
    pub(super) fn new(key: &Key, vni: u32, epoch: &Epoch) -> Option<Self> {
        Some(Self {
            key: derive(key, vni, epoch)?,
            newest: 0,
            seen: [0; WORDS],
        })
    }

    /// The frame within a packet; `None` if it was tampered with, or comes again.
    pub(super) fn open<'a>(&mut self, head: &Head, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        if !self.is_new(head.counter) {
            return None;
        }
        let (head_bytes, body) = packet.split_at_mut_checked(HEAD)?;
        let aad = Aad::from(&*head_bytes);
        let opened = self.key.open_in_place(nonce(head.counter), aad, body);
        let frame = opened.ok()?;
        self.note(head.counter);
        Some(frame)
    }

    fn is_new(&self, counter: u64) -> bool {
        let recent = counter > 0 && counter.saturating_add(WINDOW) > self.newest;
        recent && (counter > self.newest || !self.is_seen(counter))
    }

    fn is_seen(&self, counter: u64) -> bool {
        let (word, bit) = place(counter);
        self.seen.get(word).is_some_and(|it| it & bit != 0)
    }

    fn note(&mut self, counter: u64) {
        if counter > self.newest {
            // What lies between was not seen yet.
            let first = counter.saturating_sub(WINDOW - 1).max(self.newest + 1);
            for between in first..counter {
                let (word, bit) = place(between);
                self.seen
                    .get_mut(word)
                    .into_iter()
                    .for_each(|it| *it &= !bit);
            }
            self.newest = counter;
        }
        let (word, bit) = place(counter);
        self.seen
            .get_mut(word)
            .into_iter()
            .for_each(|it| *it |= bit);
    }
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % WINDOW;
    let word = usize::try_from(at / 64).unwrap_or_default();
    (word, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key {
            id: 7,
            secret: vec![9; 32],
        }
    }

    fn pair() -> (Sealer, Opener) {
        let epoch = [3; 16];
        let sealer = Sealer::new(&key(), 4097, epoch).unwrap();
        (sealer, Opener::new(&key(), 4097, &epoch).unwrap())
    }

    fn sealed(sealer: &mut Sealer, frame: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let (head, body) = frame.split_at(frame.len() / 2);
        assert!(sealer.seal((head, body), &mut packet));
        packet
    }

    fn open(opener: &mut Opener, packet: &[u8]) -> Option<Vec<u8>> {
        let head = Head::of(packet)?;
        let mut packet = packet.to_vec();
        opener.open(&head, &mut packet).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_frame_arrives_once() {
        let (mut sealer, mut opener) = pair();
        let first = sealed(&mut sealer, b"a frame of plain text");
        assert!(!first.windows(5).any(|it| it == b"plain"));
        let head = Head::of(&first).unwrap();
        assert_eq!((head.vni, head.key, head.counter), (4097, 7, 1));
        assert_eq!(first.len(), HEAD + 21 + TAG);
        let second = sealed(&mut sealer, b"second");
        assert_eq!(open(&mut opener, &second).unwrap(), b"second");
        assert_eq!(open(&mut opener, &first).unwrap(), b"a frame of plain text");
        assert_eq!(open(&mut opener, &first), None);
        assert_eq!(open(&mut opener, &second), None);
    }

    #[test]
    fn packets_that_came_together_are_told_apart() {
        let (mut sealer, _) = pair();
        let frame = |length: usize| vec![0; length];
        for (lengths, expected) in [
            (&[100, 100, 100, 7][..], 100),
            (&[100, 100], 100),
            (&[100, 7], 100),
            (&[60_000], 60_000),
            (&[14], 14),
            (&[0, 0, 0], 0),
        ] {
            let packets = lengths.iter().map(|it| sealed(&mut sealer, &frame(*it)));
            let together = packets.collect::<Vec<_>>().concat();
            assert_eq!(each(&together), HEAD + expected + TAG, "{lengths:?}");
        }
        // What is none of ours is one.
        for length in [0, 1, 24, 47, 48, 100] {
            let _ = each(&vec![1; length]);
        }
        let packet = sealed(&mut sealer, b"x");
        assert_eq!(packet[..4], opening(4097).to_be_bytes());
    }

    #[test]
    fn what_is_too_old_is_not_told_from_a_repetition() {
        let (mut sealer, mut opener) = pair();
        let packets: Vec<_> = (0..=WINDOW).map(|_| sealed(&mut sealer, b"x")).collect();
        assert!(open(&mut opener, packets.last().unwrap()).is_some());
        assert!(open(&mut opener, &packets[0]).is_none());
        assert!(open(&mut opener, &packets[1]).is_some());
        assert!(open(&mut opener, &packets[1]).is_none());
    }

    #[test]
    fn another_key_another_network_another_sender_open_nothing() {
        let (mut sealer, _) = pair();
        let packet = sealed(&mut sealer, b"x");
        let other = Key {
            secret: vec![8; 32],
            ..key()
        };
        for mut wrong in [
            Opener::new(&other, 4097, &[3; 16]).unwrap(),
            Opener::new(&key(), 4098, &[3; 16]).unwrap(),
            Opener::new(&key(), 4097, &[4; 16]).unwrap(),
        ] {
            assert_eq!(open(&mut wrong, &packet), None);
        }
    }

    #[test]
    fn keys_show_nothing() {
        assert_eq!(format!("{:?}", key()), "Key(7)");
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition(order in prop::collection::vec(0usize..5000, 1..300)) {
            let (mut sealer, mut opener) = pair();
            let packets: Vec<_> = (0..5000).map(|_| sealed(&mut sealer, b"x")).collect();
            let mut came = std::collections::BTreeSet::new();
            let mut newest = 0;
            for at in order {
                let opened = open(&mut opener, &packets[at]).is_some();
                let counter = at as u64 + 1;
                let wanted = counter + WINDOW > newest && !came.contains(&at);
                prop_assert_eq!(opened, wanted, "{}", at);
                came.insert(at);
                newest = newest.max(counter);
            }
        }

        #[test]
        fn any_bit_matters(bit in 0usize..(HEAD + 4 + TAG) * 8) {
            let (mut sealer, mut opener) = pair();
            let mut packet = sealed(&mut sealer, b"four");
            packet[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open(&mut opener, &packet), None);
        }

        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_, mut opener) = pair();
            prop_assert_eq!(open(&mut opener, &bytes), None);
        }
    }
}
