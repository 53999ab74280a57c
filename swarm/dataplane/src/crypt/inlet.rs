//! How packets of encrypted networks come in. A UDP port can have one daemon only, so where several
//! share a host one has it, and each other one has a raw socket that is given a copy of whatever
//! comes to that port and is of its networks: nobody depends on the one with the port, whether that
//! is slow, stops, or has never heard of a network. Neither opens a packet nor sends one.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::filter::{self, Front};
use super::{batch, packet};

/// Of UDP.
const HEAD: usize = 8;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Inlet {
    /// Beside the one that has the port, a raw one.
    socket: UdpSocket,
    at: SocketAddr,
    /// The port is this daemon's.
    own: bool,
}

impl Inlet {
    /// By the port if nobody has it, beside whoever has it otherwise.
    pub(super) fn open(at: SocketAddr) -> io::Result<Self> {
        match Self::own(at) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Self::beside(at),
            opened => opened,
        }
    }

    /// By the port.
    pub(super) fn own(at: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        filter::deafen(&socket);
        socket.bind(&at.into())?;
        let inlet = Self::begin(socket, at, true)?;
        batch::together(&inlet.socket);
        Ok(inlet)
    }

    /// Beside the one that has it.
    fn beside(at: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(at), Type::RAW, Some(Protocol::UDP))?;
        filter::deafen(&socket);
        socket.bind(&SocketAddr::new(at.ip(), 0).into())?;
        Self::begin(socket, at, false)
    }

    fn begin(socket: Socket, at: SocketAddr, own: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Nothing is asked of a raw one that is for UDP alone.
        let socket = UdpSocket::from_std(socket.into())?;
        batch::keep_received(&socket);
        Ok(Self { socket, at, own })
    }

    /// Where others send to.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Whether the port is this daemon's.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// What is between the beginning of what it is given and a packet.
    fn front(&self) -> Front {
        match (self.own, self.at.ip()) {
            (false, IpAddr::V4(_)) => Front::Ipv4,
            _ => Front::Udp,
        }
    }

    /// Takes packets of these networks, and no others.
    pub(super) fn admit(&self, networks: &[u32]) {
        let socket = SockRef::from(&self.socket);
        filter::admit(&socket, self.front(), self.at.port(), networks);
    }

    /// What has come together, and how many bytes each packet has, but for the last.
    pub(super) async fn receive<'a>(
        &self,
        bytes: &'a mut [u8],
    ) -> io::Result<(&'a mut [u8], usize)> {
        let (length, each) = batch::receive(&self.socket, bytes).await?;
        let came = bytes.get_mut(..length).unwrap_or_default();
        if self.own {
            return Ok((came, each.unwrap_or(length)));
        }
        let came = body(came, self.front()).unwrap_or_default();
        // Nobody says how much of it is one packet.
        let each = packet::each(came);
        Ok((came, each))
    }
}

/// What UDP carries in what a raw socket is given.
fn body(whole: &mut [u8], front: Front) -> Option<&mut [u8]> {
    let ip = match front {
        Front::Udp => 0,
        Front::Ipv4 => usize::from(whole.first()? & 15) * 4,
    };
    whole.get_mut(ip + HEAD..)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::packet::{Key, Sealer};
    use super::*;

    #[test]
    fn what_is_in_front_is_left_out() {
        let mut whole = [0x46; 34];
        whole[32..].fill(7);
        assert_eq!(body(&mut whole, Front::Ipv4), Some(&mut [7, 7][..]));
        assert_eq!(body(&mut whole[..9], Front::Udp), Some(&mut [0x46][..]));
        for length in 0..HEAD {
            assert_eq!(body(&mut whole[..length], Front::Udp), None);
        }
        for length in 0..24 + HEAD {
            assert_eq!(body(&mut whole[..length], Front::Ipv4), None, "{length}");
        }
    }

    fn sealed(vni: u32, frame: &[u8]) -> Vec<u8> {
        let key = Key {
            id: 1,
            secret: vec![1; 32],
        };
        let mut packet = Vec::new();
        let mut sealer = Sealer::new(&key, vni, [2; 16]).unwrap();
        assert!(sealer.seal((frame, &[]), &mut packet));
        packet
    }

    /// The next packet that comes in.
    async fn next(inlet: &Inlet) -> Vec<u8> {
        let mut bytes = vec![0; 65_535];
        let wait = Duration::from_secs(10);
        let came = tokio::time::timeout(wait, inlet.receive(&mut bytes));
        let (came, each) = came.await.unwrap().unwrap();
        assert_eq!(came.len(), each);
        came.to_vec()
    }

    #[tokio::test]
    async fn each_is_given_what_is_of_its_networks() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            let sender = std::net::UdpSocket::bind((host, 0)).unwrap();
            let free = std::net::UdpSocket::bind((host, 0)).unwrap();
            let at = free.local_addr().unwrap();
            drop(free);
            let inlets = [(); 3].map(|()| Inlet::open(at).unwrap());
            let owns = inlets.each_ref().map(Inlet::is_own);
            assert_eq!(owns, [true, false, false]);
            for (inlet, vni) in inlets.iter().zip(1..) {
                inlet.admit(&[vni, 9]);
            }
            for vni in [1, 2, 3, 8, 9] {
                sender.send_to(&sealed(vni, b"a frame"), at).unwrap();
            }
            for (inlet, vni) in inlets.iter().zip(1..) {
                assert_eq!(next(inlet).await, sealed(vni, b"a frame"), "{host}");
                assert_eq!(next(inlet).await, sealed(9, b"a frame"), "{host}");
            }
            // The one with the port goes: the others have what comes all the same, and one takes it.
            let [first, second, third] = inlets;
            drop(first);
            sender.send_to(&sealed(2, b"later"), at).unwrap();
            assert_eq!(next(&second).await, sealed(2, b"later"));
            let own = Inlet::own(at).unwrap();
            own.admit(&[2]);
            for vni in [2, 3] {
                sender.send_to(&sealed(vni, b"at last"), at).unwrap();
            }
            assert_eq!(next(&own).await, sealed(2, b"at last"));
            assert_eq!(next(&third).await, sealed(3, b"at last"));
        }
    }
}
