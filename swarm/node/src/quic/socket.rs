//! The UDP socket below the endpoint. Never sets address reuse: a port that is taken must show.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Room for bursts (snapshots, thousands of nodes at once); the kernel caps it at rmem_max.
const BUFFER: usize = 4 << 20;

/// Binds a socket; `None` means any port and, where the system has both, both families.
pub(super) fn bind(listen: Option<SocketAddr>) -> io::Result<UdpSocket> {
    match listen {
        Some(addr) => bind_to(addr).map_err(|error| {
            let what = format!("could not listen at udp {addr}: {}", plain(&error));
            io::Error::new(error.kind(), what)
        }),
        // Hosts with IPv6 switched off have no such socket.
        None => bind_to((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| bind_to((Ipv4Addr::UNSPECIFIED, 0).into())),
    }
}

/// The texts that users know from dockerd, in lower case and without the number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "bind: address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".into(),
        _ => error.to_string(),
    }
}

fn bind_to(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Smaller buffers cost throughput, not correctness.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Waits until the port can be bound again: quinn lets go of its socket in a task of its own.
pub(super) async fn wait_free(addr: SocketAddr, at_most: Duration) {
    let free = async {
        while bind_to(addr).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // If somebody else has taken it meanwhile, that is what the next bind will say.
    let _ = tokio::time::timeout(at_most, free).await;
}
