//! Many packets in one call: what goes to one host is handed to the kernel together, which cuts it
//! where the packets end, and what came together is taken together. Neither seals nor opens.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce, UdpGroSegment};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What fits in one call, of IPv4 and UDP with their heads.
const BYTES: usize = 65_000;
/// Packets that kernels take in one call.
const PACKETS: usize = 64;
/// Bytes that may wait in the kernel, in either direction.
const WAITING: usize = 4 << 20;

/// Packets of one length to one host; only the last may be shorter.
#[derive(Debug, Default)]
pub(super) struct Batch {
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
    /// The length of each, and how many there are.
    length: usize,
    count: usize,
}

impl Batch {
    /// Whether a packet may still go with the others.
    pub(super) fn takes(&self, to: SocketAddr, packet: &[u8]) -> bool {
        let full = self.count * self.length == self.bytes.len();
        self.to.is_none_or(|before| before == to)
            && (self.count == 0 || packet.len() <= self.length)
            && full
            && self.count < PACKETS
            && self.bytes.len() + packet.len() <= BYTES
    }

    /// Adds a packet that it [takes](Self::takes).
    pub(super) fn add(&mut self, to: SocketAddr, packet: &[u8]) {
        if self.count == 0 {
            (self.to, self.length) = (Some(to), packet.len());
        }
        self.bytes.extend_from_slice(packet);
        self.count += 1;
    }

    /// Sends what there is; empty afterwards. Who has no room for it, or no route, loses it.
    pub(super) async fn send(&mut self, socket: &UdpSocket) {
        if let Some(to) = self.to {
            let all = self.at_once(socket, to).await;
            // Devices that can neither cut nor count checksums refuse what is to be cut.
            if all.is_err() && self.count > 1 {
                for packet in self.bytes.chunks(self.length.max(1)) {
                    let _ = socket.send_to(packet, to).await;
                }
            }
        }
        self.bytes.clear();
        (self.to, self.count) = (None, 0);
    }

    async fn at_once(&self, socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
        let length = u16::try_from(self.length).map_err(io::Error::other)?;
        let to = SockaddrStorage::from(to);
        let cut = [ControlMessage::UdpGsoSegments(&length)];
        let cut = if self.count > 1 { &cut[..] } else { &[] };
        let bytes = [IoSlice::new(&self.bytes)];
        let send = || {
            let flags = MsgFlags::MSG_DONTWAIT;
            sendmsg(socket.as_raw_fd(), &bytes, cut, flags, Some(&to))?;
            Ok(())
        };
        socket.async_io(Interest::WRITABLE, send).await
    }
}

/// Lets the kernel give packets that came together in one. One that cannot gives each by itself.
pub(super) fn together(socket: &UdpSocket) {
    let _ = setsockopt(socket, UdpGroSegment, &true);
}

/// Lets the kernel keep what has come of some long frames until it is taken. One that does not loses
/// more.
pub(super) fn keep_received(socket: &UdpSocket) {
    let _ = setsockopt(socket, RcvBufForce, &WAITING);
}

/// The same of what is to go out.
pub(super) fn keep_sent(socket: &UdpSocket) {
    let _ = setsockopt(socket, SndBufForce, &WAITING);
}

/// Takes what has come: how many bytes, and how many of them each packet has, but for the last, if
/// the kernel says so.
pub(super) async fn receive(
    socket: &UdpSocket,
    bytes: &mut [u8],
) -> io::Result<(usize, Option<usize>)> {
    let take = || {
        let mut space = nix::cmsg_space!(i32);
        let mut into = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let came = recvmsg::<SockaddrStorage>(fd, &mut into, Some(&mut space), flags)?;
        let cut = came.cmsgs()?.find_map(|it| match it {
            ControlMessageOwned::UdpGroSegments(length) => usize::try_from(length).ok(),
            _ => None,
        });
        Ok((came.bytes, cut.filter(|length| *length > 0)))
    };
    socket.async_io(Interest::READABLE, take).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 4790))
    }

    #[test]
    fn packets_of_one_length_to_one_host_go_together() {
        let mut batch = Batch::default();
        assert!(batch.takes(host(1), &[1; 100]));
        batch.add(host(1), &[1; 100]);
        assert!(batch.takes(host(1), &[1; 100]));
        assert!(!batch.takes(host(2), &[1; 100]), "another host");
        assert!(!batch.takes(host(1), &[1; 101]), "a longer one");
        assert!(batch.takes(host(1), &[1; 99]));
        batch.add(host(1), &[1; 99]);
        assert!(
            !batch.takes(host(1), &[1; 99]),
            "a shorter one was the last"
        );
    }

    #[test]
    fn no_more_than_a_kernel_takes() {
        let fill = |length: usize| {
            let (mut batch, packet) = (Batch::default(), vec![1; length]);
            while batch.takes(host(1), &packet) {
                batch.add(host(1), &packet);
            }
            (batch.count, batch.bytes.len())
        };
        assert_eq!(fill(10), (PACKETS, 10 * PACKETS));
        assert_eq!(fill(1438), (45, 45 * 1438));
    }

    #[tokio::test]
    async fn what_is_sent_together_comes_in_order_and_apart() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        together(&other);
        let to = other.local_addr().unwrap();
        let mut batch = Batch::default();
        let sent: Vec<Vec<u8>> = (0..40u8)
            .map(|n| vec![n; if n < 39 { 1000 } else { 7 }])
            .collect();
        for packet in &sent {
            assert!(batch.takes(to, packet));
            batch.add(to, packet);
        }
        batch.send(&socket).await;
        assert!(batch.takes(host(1), &[1; 2000]), "nothing is left in it");

        let (mut came, mut bytes) = (Vec::new(), vec![0; 65_535]);
        while came.len() < sent.len() {
            let (all, each) = receive(&other, &mut bytes).await.unwrap();
            let each = each.unwrap_or(all);
            came.extend(bytes[..all].chunks(each).map(<[u8]>::to_vec));
        }
        assert_eq!(came, sent);
    }
}
