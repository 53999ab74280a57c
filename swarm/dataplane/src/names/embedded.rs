//! Where the engine's own resolver listens in a container's namespace, found among the sockets
//! there: its rules have other forms in other engines, but the sockets are always the same.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::door::PORTS;
use crate::netns::Home;

/// The resolver's address in every namespace.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The most that is read of a table of sockets.
const TABLE: u64 = 4 << 20;
/// States of sockets that wait for anybody.
const UDP_UNCONNECTED: &str = "07";
const TCP_LISTEN: &str = "0A";

/// The engine's resolver in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Embedded {
    pub(crate) udp: SocketAddrV4,
    pub(crate) tcp: SocketAddrV4,
}

/// Looks for it in a namespace. `None` if there is none, as with podman, or while the engine is not
/// there.
pub(crate) fn find(home: Home) -> Option<Embedded> {
    let listener = |table: &str, state| {
        let text = sockets(home.pid, table).ok()?;
        Some(SocketAddrV4::new(ADDRESS, port(&text, state)?))
    };
    let found = Embedded {
        udp: listener("udp", UDP_UNCONNECTED)?,
        tcp: listener("tcp", TCP_LISTEN)?,
    };
    // What has just been read may have been somebody else's.
    home.is_there().then_some(found)
}

fn sockets(pid: i32, table: &str) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(format!("/proc/{pid}/net/{table}"))?;
    file.take(TABLE).read_to_string(&mut text)?;
    Ok(text)
}

/// The port of the first socket in the table that waits on the resolver's address and is not ours.
fn port(table: &str, state: &str) -> Option<u16> {
    let sockets = table.lines().skip(1);
    let mut ports = sockets.filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (address, port) = columns.next()?.split_once(':')?;
        let there = columns.nth(1)? == state;
        // The bytes stand there as they lie in memory.
        let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
        let port = u16::from_str_radix(port, 16).ok()?;
        (there && address == ADDRESS.octets() && !PORTS.contains(&port)).then_some(port)
    });
    ports.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  100: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0
  101: 0B00007F:EE7D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0
  102: 0B00007F:1234 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 1 2 0
  103: 0B00007F:CFF8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0
";

    #[test]
    fn the_resolver_is_neither_ours_nor_somebodys_elses() {
        assert_eq!(PORTS.start(), &0xEE7D);
        assert_eq!(port(UDP, UDP_UNCONNECTED), Some(0xCFF8));
        assert_eq!(port(UDP, TCP_LISTEN), None);
        for broken in [
            "",
            "x\n",
            "sl\n 1: zz:1 0:0 07",
            "sl\n 1: 0B00007F:FFFFF 0:0 07",
        ] {
            assert_eq!(port(broken, UDP_UNCONNECTED), None, "{broken:?}");
        }
    }
}
