//! Asks the kernel for one nftables chain without starting a program: cheap enough to ask often
//! whether somebody else was at our rules. Changes nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::netlink::socket::outcome;
use crate::netlink::{Writer, attribute, head, messages};

/// Numbers of the kernel's interface (`linux/netfilter/nf_tables.h`).
const NFTABLES: u16 = 10 << 8;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const TABLE: u16 = 1;
const NAME: u16 = 3;
const USE: u16 = 6;
/// The length of what comes before the attributes.
const FAMILY: usize = 4;

/// One chain, seen from the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Chain {
    socket: OwnedFd,
    request: Vec<u8>,
}

impl Chain {
    /// A chain of a table in the namespace of the thread that calls.
    ///
    /// # Errors
    /// When the kernel has no such sockets.
    pub(crate) fn open(table: &str, chain: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        let request = request(table, chain);
        Ok(Self { socket, request })
    }

    /// How many rules the chain has, or `None` if there is no such chain.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn rules(&self) -> io::Result<Option<u32>> {
        let socket = self.socket.as_raw_fd();
        send(socket, &self.request, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        // The kernel has answered before `send` returns.
        let length = recv(socket, &mut answer, MsgFlags::empty())?;
        read(answer.get(..length).unwrap_or_default())
    }
}

fn request(table: &str, chain: &str) -> Vec<u8> {
    let (family, table) = table.split_once(' ').unwrap_or(("ip", table));
    let family = match family {
        "inet" => 1,
        "ip6" => 10,
        _ => 2,
    };
    let mut question = Writer::default();
    question.message(GET_CHAIN, 0, &[family, 0, 0, 0], |it| {
        it.text(TABLE, table);
        it.text(NAME, chain);
    });
    question.bytes().to_vec()
}

fn read(answer: &[u8]) -> io::Result<Option<u32>> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let message = messages(answer).next().ok_or_else(strange)?;
    match outcome(message) {
        Some(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(None),
        Some(Err(error)) => Err(error),
        None if message.kind == NEW_CHAIN => {
            // Who uses the chain: its rules, since nobody jumps to one that hangs on a hook.
            let users = attribute(message.payload, FAMILY, USE).and_then(head);
            users.map(u32::from_be_bytes).map(Some).ok_or_else(strange)
        }
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ERROR: u16 = 2;

    fn message(kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message(kind, 0, fixed, fill);
        writer.bytes().to_vec()
    }

    #[test]
    fn an_answer_is_told_from_an_absence() {
        let refusal = |code: i32| message(ERROR, &code.to_ne_bytes(), |_| {});
        assert_eq!(read(&refusal(-nix::libc::ENOENT)).unwrap(), None);
        assert!(read(&refusal(-nix::libc::EPERM)).is_err());
        let found = message(NEW_CHAIN, &[0; FAMILY], |it| {
            it.attribute(NAME, &[0, 0, 0, 0, 0, 0, 0, 7]);
            it.number(USE, 2);
        });
        assert_eq!(read(&found).unwrap(), Some(2));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in any::<bool>()) {
            let mut message = bytes;
            if let Some(place) = message.get_mut(4..6) {
                place.copy_from_slice(&if kind { NEW_CHAIN } else { ERROR }.to_ne_bytes());
            }
            let _ = read(&message);
        }
    }
}
