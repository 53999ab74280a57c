//! A netlink socket: requests, and their answers. It belongs to the namespace of the thread that
//! opens it, whoever uses it later.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockopt, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Message, Writer, flags, head, messages};

/// What a kernel says in every family: something is wrong or, with zero, right; and that was all.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The largest batch; the kernel keeps twice that.
const SEND: usize = 16 << 20;
/// What of answers may wait.
const RECEIVE: usize = 4 << 20;
/// A kernel answers at once; one that does not must not hold anybody up for ever.
const PATIENCE_S: i64 = 5;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// To a part of the kernel, in this thread's namespace.
    pub(crate) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let close = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, close, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::SndBufForce, &SEND)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE)?;
        let patience = TimeVal::seconds(PATIENCE_S);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        let buffer = vec![0; 64 << 10];
        Ok(Self { socket, buffer })
    }

    /// What tells its namespace from all others, ever (since Linux 5.14).
    pub(crate) fn namespace(&self) -> io::Result<u64> {
        Ok(getsockopt(&self.socket, option::Namespace)?)
    }

    /// Sends messages, all of them at once.
    pub(crate) fn send(&self, messages: &Writer) -> io::Result<()> {
        let bytes = messages.bytes();
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Hands out what is answered, until `take` has what it wants.
    pub(crate) fn receive(
        &mut self,
        mut take: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                if take(message).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Sends messages of which each asks to be acknowledged, and returns what was refused.
    pub(crate) fn acknowledged(
        &mut self,
        messages: &Writer,
        how_many: usize,
    ) -> io::Result<Vec<io::Error>> {
        let mut refused = Vec::new();
        if how_many == 0 {
            return Ok(refused);
        }
        self.send(messages)?;
        let mut left = how_many;
        self.receive(|message| {
            if let Some(answer) = outcome(message) {
                refused.extend(answer.err());
                left -= 1;
            }
            if left == 0 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(refused)
    }

    /// Asks for a list.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Writer),
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut question = Writer::default();
        question.message(kind, flags::DUMP, header, fill);
        self.send(&question)?;
        let mut refused = None;
        self.receive(|message| {
            if message.kind == DONE {
                return ControlFlow::Break(());
            }
            match outcome(message) {
                Some(Err(error)) => {
                    refused = Some(error);
                    ControlFlow::Break(())
                }
                Some(Ok(())) => ControlFlow::Continue(()),
                None => {
                    take(message.payload);
                    ControlFlow::Continue(())
                }
            }
        })?;
        refused.map_or(Ok(()), Err)
    }
}

/// Whether a message says that something went right or wrong.
pub(crate) fn outcome(message: Message<'_>) -> Option<io::Result<()>> {
    if message.kind != ERROR {
        return None;
    }
    let code = head(message.payload).map_or(-nix::libc::EIO, i32::from_ne_bytes);
    Some(match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    })
}

/// An option that no library names.
mod option {
    use nix::libc;
    use nix::{getsockopt_impl, sockopt_impl};

    const NAMESPACE: libc::c_int = 71;

    sockopt_impl!(Namespace, GetOnly, libc::SOL_SOCKET, NAMESPACE, u64);
}
