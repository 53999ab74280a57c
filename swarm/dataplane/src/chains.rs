//! Asks the kernel for one nftables chain without starting a program: cheap enough to ask often
//! whether somebody else was at our rules. Changes nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::nft::Table;

/// Numbers of the kernel's interface (`linux/netfilter/nf_tables.h`).
const NFTABLES: u16 = 10 << 8;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const TABLE: u16 = 1;
const NAME: u16 = 3;
const USE: u16 = 6;
/// Lengths of the heads of a message, of what follows it, and of an attribute.
const HEAD: usize = 16;
const FAMILY: usize = 4;
const ATTRIBUTE: usize = 4;

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
    pub(crate) fn open(table: Table, chain: &str) -> io::Result<Self> {
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

fn request(table: Table, chain: &str) -> Vec<u8> {
    let (family, table) = table.split_once(' ').unwrap_or(("ip", table));
    let family = match family {
        "inet" => 1,
        "ip6" => 10,
        _ => 2,
    };
    let mut body = vec![family, 0, 0, 0];
    for (kind, text) in [(TABLE, table), (NAME, chain)] {
        let length = u16::try_from(ATTRIBUTE + text.len() + 1).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(text.bytes());
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(HEAD + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(GET_CHAIN.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

fn read(message: &[u8]) -> io::Result<Option<u32>> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = message.get(4..6).and_then(|it| it.try_into().ok());
    let rest = message.get(HEAD..).ok_or_else(strange)?;
    match kind.map(u16::from_ne_bytes) {
        Some(ERROR) => {
            let code = rest.first_chunk().copied().map(i32::from_ne_bytes);
            match code.map(|it| -it) {
                Some(nix::libc::ENOENT) => Ok(None),
                Some(code) => Err(io::Error::from_raw_os_error(code)),
                None => Err(strange()),
            }
        }
        Some(NEW_CHAIN) => {
            let attributes = rest.get(FAMILY..).ok_or_else(strange)?;
            users(attributes).map(Some).ok_or_else(strange)
        }
        _ => Err(strange()),
    }
}

/// Who uses the chain: its rules, since nobody jumps to one that hangs on a hook.
fn users(mut attributes: &[u8]) -> Option<u32> {
    while attributes.len() >= ATTRIBUTE {
        let length = attributes.first_chunk().copied().map(u16::from_ne_bytes)?;
        let kind = attributes.get(2..4)?.try_into().ok();
        let value = attributes.get(ATTRIBUTE..usize::from(length))?;
        if kind.map(u16::from_ne_bytes) == Some(USE) {
            return value.first_chunk().copied().map(u32::from_be_bytes);
        }
        let next = usize::from(length).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_told_from_an_absence() {
        let absent = |code: i32| [[0; HEAD].as_slice(), &code.to_ne_bytes()].concat();
        let mut message = absent(-nix::libc::ENOENT);
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert_eq!(read(&message).unwrap(), None);
        let mut message = absent(-nix::libc::EPERM);
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert!(read(&message).is_err());
        message[4..6].copy_from_slice(&NEW_CHAIN.to_ne_bytes());
        for (length, kind, value) in [
            (12_u16, NAME, &[0, 0, 0, 0, 0, 0, 0, 7][..]),
            (8, USE, &[0, 0, 0, 2]),
        ] {
            message.extend(length.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(value);
        }
        assert_eq!(read(&message).unwrap(), Some(2));
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
