//! The PROXY protocol's header, version 2: who a client is, for servers that ask for it. Pure.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection on behalf of somebody else.
const PROXIED: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// What a connection from `client` to `server` begins with.
pub(super) fn header(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (client, server) = (plain(client), plain(server));
    let mut addresses = Vec::new();
    let family = match (client.ip(), server.ip()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            addresses.extend(client.octets());
            addresses.extend(server.octets());
            TCP_OVER_IPV4
        }
        (client, server) => {
            addresses.extend(wide(client));
            addresses.extend(wide(server));
            TCP_OVER_IPV6
        }
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(server.port().to_be_bytes());
    let length = match family {
        TCP_OVER_IPV4 => 12_u16,
        _ => 36,
    };
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXIED, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header
}

/// An IPv4 address as what it is, also where a socket for both kinds says it in IPv6.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(client: &str, server: &str) -> Vec<u8> {
        header(client.parse().unwrap(), server.parse().unwrap())
    }

    #[test]
    fn addresses_have_the_places_that_the_protocol_gives_them() {
        let ipv4 = of("192.0.2.9:4660", "[::ffff:198.51.100.1]:80");
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc6\x33\x64\x01\x12\x34\0\x50";
        assert_eq!(ipv4, expected);
        let ipv6 = of("[2001:db8::9]:4660", "[2001:db8::1]:80");
        assert_eq!(ipv6.len(), 16 + 36);
        assert_eq!(ipv6[13..16], [0x21, 0, 36]);
        assert_eq!(ipv6[31], 9);
        assert_eq!(ipv6[48..], [0x12, 0x34, 0, 0x50]);
    }
}
