//! The loopback device of a container's namespace, which has to be there before the container's
//! first process. Everything else about devices is rtnetlink's.

use std::io;

use nix::sys::socket::SockProtocol;

use super::socket::Socket;
use super::{Writer, flags};

const NEW_LINK: u16 = 16;
/// Its number in every namespace.
const LOOPBACK: u32 = 1;
/// That it is to be up.
const UP: u32 = 1;

/// Makes loopback work in this thread's namespace. If it does already, nothing happens.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn loopback_up() -> io::Result<()> {
    let mut order = Writer::default();
    // Any family and kind of device; the state that it is to have, and what of it is meant.
    let numbers = [0, LOOPBACK, UP, UP].map(u32::to_ne_bytes);
    order.message(NEW_LINK, flags::ACK, numbers.as_flattened(), |_| {});
    let refused = Socket::open(SockProtocol::NetlinkRoute)?.acknowledged(&order, 1)?;
    refused.into_iter().next().map_or(Ok(()), Err)
}
