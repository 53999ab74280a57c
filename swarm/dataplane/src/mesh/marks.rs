//! Marks of connections and packets, and how hosts are numbered: the same on every host and after
//! every restart, so that nothing of it has to be kept anywhere. Pure.

use std::net::Ipv4Addr;

/// The bits that say whether a mark is ours.
pub(crate) const OURS_MASK: u32 = 0xfff0_0000;
/// All of our marks under [`OURS_MASK`].
pub(crate) const OURS: u32 = 0x5be0_0000;
/// The bits that say which kind of connection it is; those below are the host's number.
pub(super) const KIND_MASK: u32 = 0xffff_0000;

/// The task sees the client's address, and is here.
pub(super) const KEPT: u32 = OURS | 0x1_0000;
/// The task sees this host's address.
pub(super) const TRANSLATED: u32 = OURS | 0x2_0000;
/// The client came to the host with this number, the task is here: answers go through that host.
pub(super) const BACK: u32 = OURS | 0x4_0000;

/// Bits of a mark by which a packet's way is chosen: whose it is, and the host.
pub(super) const WAY_MASK: u32 = OURS_MASK | 0xffff;

/// The mark under [`WAY_MASK`] of packets that go through a host.
pub(super) fn way(number: u16) -> u32 {
    OURS | u32::from(number)
}

/// The routing table for packets that go through a host. Nobody counts that far by hand.
pub(super) fn table(number: u16) -> u32 {
    way(number)
}

/// Whether a routing table is one of ours.
pub(super) fn is_table(table: u32) -> bool {
    table & !0xffff == OURS
}

/// The number of a host on a network: its address counted from the first one. A network may be so
/// large that a host's address is too far behind for that.
pub(super) fn number(subnet: (Ipv4Addr, u8), host: Ipv4Addr) -> Option<u16> {
    let (first, length) = subnet;
    let inside = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    let same = u32::from(first) | inside == u32::from(host) | inside;
    let offset = u32::from(host) & inside;
    u16::try_from(offset).ok().filter(|it| same && *it > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_numbers_of_their_own() {
        let at = |text: &str| text.parse().unwrap();
        let of = |subnet: &str, length, host: &str| number((at(subnet), length), at(host));
        assert_eq!(of("10.0.0.0", 24, "10.0.0.7"), Some(7));
        assert_eq!(of("10.0.0.128", 25, "10.0.0.130"), Some(2));
        assert_eq!(of("10.1.0.0", 16, "10.1.255.255"), Some(65535));
        assert_eq!(of("10.0.0.0", 8, "10.1.0.0"), None);
        assert_eq!(of("10.0.0.0", 24, "10.0.1.7"), None);
        assert_eq!(of("10.0.0.0", 24, "10.0.0.0"), None);
    }

    #[test]
    fn kinds_are_told_apart_and_all_ours() {
        for kind in [KEPT, TRANSLATED, BACK] {
            assert_eq!(kind & OURS_MASK, OURS);
            assert_eq!(kind & KIND_MASK, kind);
            assert_eq!((kind | 9) & WAY_MASK, way(9));
        }
        assert!(is_table(table(65535)) && !is_table(254));
    }
}
