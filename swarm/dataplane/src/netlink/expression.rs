//! What rules consist of, as the kernel takes it: expressions that a packet meets one after the other,
//! with one register between them. The numbers are those of `linux/netfilter/nf_tables.h`.

use super::Writer;

/// The register that everything is in.
pub(crate) const REGISTER: u32 = 1;
/// Headers of a packet.
pub(crate) const LINK: u32 = 0;
pub(crate) const NETWORK: u32 = 1;
pub(crate) const TRANSPORT: u32 = 2;

/// An expression of this name.
pub(crate) fn expression(it: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    it.nested(1, |it| {
        it.text(1, name);
        it.nested(2, fill);
    });
}

/// What the kernel knows of the packet.
pub(crate) fn meta(it: &mut Writer, what: u32, into: u32) {
    expression(it, "meta", |it| {
        it.number(2, what);
        it.number(1, into);
    });
}

/// The kernel is to know so of the packet.
pub(crate) fn set_meta(it: &mut Writer, what: u32) {
    expression(it, "meta", |it| {
        it.number(2, what);
        it.number(3, REGISTER);
    });
}

/// What is known of the packet's connection; of what each direction has its own, that of one (the
/// original one is 0).
pub(crate) fn ct(it: &mut Writer, what: u32, direction: Option<u8>) {
    known(it, what, direction, 1);
}

/// So much is to be known of the connection.
pub(crate) fn set_ct(it: &mut Writer, what: u32, direction: Option<u8>) {
    known(it, what, direction, 4);
}

/// With the register as the attribute that says whether it is read or written.
fn known(it: &mut Writer, what: u32, direction: Option<u8>, register: u16) {
    expression(it, "ct", |it| {
        it.number(2, what);
        it.number(register, REGISTER);
        if let Some(direction) = direction {
            it.attribute(3, &[direction]);
        }
    });
}

/// A part of the packet, by its place in one of the headers.
pub(crate) fn payload(it: &mut Writer, header: u32, at: u32, length: u32) {
    expression(it, "payload", |it| {
        for (kind, value) in [(1, REGISTER), (2, header), (3, at), (4, length)] {
            it.number(kind, value);
        }
    });
}

/// Writes a part of the packet.
pub(crate) fn set_payload(it: &mut Writer, header: u32, at: u32, length: u32) {
    expression(it, "payload", |it| {
        for (kind, value) in [(5, REGISTER), (2, header), (3, at), (4, length)] {
            it.number(kind, value);
        }
    });
}

/// Compares the register: is it the same (0), or is it not (1)?
pub(crate) fn compare(it: &mut Writer, how: u32, with: &[u8]) {
    expression(it, "cmp", |it| {
        it.number(1, REGISTER);
        it.number(2, how);
        it.nested(3, |it| it.attribute(1, with));
    });
}

/// Leaves only these bits in the register.
pub(crate) fn masked(it: &mut Writer, mask: &[u8]) {
    masked_with(it, mask, &vec![0; mask.len()]);
}

/// The same, and then turns over these bits.
pub(crate) fn masked_with(it: &mut Writer, mask: &[u8], turned: &[u8]) {
    let length = u32::try_from(mask.len()).unwrap_or(0);
    expression(it, "bitwise", |it| {
        for (kind, value) in [(1, REGISTER), (2, REGISTER), (3, length)] {
            it.number(kind, value);
        }
        it.nested(4, |it| it.attribute(1, mask));
        it.nested(5, |it| it.attribute(1, turned));
    });
}
