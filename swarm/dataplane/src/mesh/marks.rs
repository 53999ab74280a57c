//! Marks of connections and packets. Pure.

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

#[cfg(test)]
mod tests {
    use super::*;

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
