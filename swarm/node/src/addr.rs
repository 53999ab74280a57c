//! Which addresses a node listens at and advertises: what `--listen-addr`, `--advertise-addr` and
//! `--data-path-addr` mean, and the choice when they are absent. Pure; texts are dockerd's
//! (`daemon/cluster/listen_addr.go` is the source of the behaviour).

use std::net::IpAddr;

use skep_api::Error;

/// The port managers are reached at unless one is named.
pub const DEFAULT_PORT: u16 = 2377;

/// A network interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Whether it is up and not a loopback.
    pub usable: bool,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
}

/// What this host looks like.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// Subnets of the engine's own networks: never advertised by choice.
    pub engine_subnets: Vec<(IpAddr, u8)>,
}

/// An address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// Reads `--listen-addr`: an address or interface, with or without a port.
///
/// # Errors
/// dockerd's texts, kind 400.
pub fn listen(host: &Host, text: &str) -> Result<HostPort, Error> {
    if text.is_empty() {
        return Err(Error::invalid(
            "invalid ListenAddr \"\": invalid empty address",
        ));
    }
    let (name, port) = split(text, DEFAULT_PORT)
        .ok_or_else(|| Error::invalid(format!("could not parse listen address {text}")))?;
    if let Ok(ip) = name.parse() {
        return Ok(HostPort { ip, port });
    }
    match host.interface(&name) {
        Some(interface) => Ok(HostPort {
            ip: only_address(interface)?,
            port,
        }),
        None => Err(Error::invalid(
            "listen address must be an IP address or network interface (with optional port number)",
        )),
    }
}

/// Finds the address that other nodes use: the one asked for, else the daemon's default, else the
/// listening address, else the only address that this host has.
///
/// # Errors
/// dockerd's texts, kind 400.
pub fn advertise(
    host: &Host,
    asked: &str,
    default: Option<&str>,
    listen: &HostPort,
) -> Result<HostPort, Error> {
    if !asked.is_empty() {
        let refusal = "advertise address must be a non-zero IP address or network interface \
                       (with optional port number)";
        let (name, port) = split(asked, listen.port)
            .ok_or_else(|| Error::invalid(format!("could not parse advertise address {asked}")))?;
        return Ok(HostPort {
            ip: named(host, &name, refusal)?,
            port,
        });
    }
    if let Some(default) = default {
        let refusal = "default advertise address must be a non-zero IP address or network \
                       interface (without a port number)";
        return Ok(HostPort {
            ip: named(host, default, refusal)?,
            port: listen.port,
        });
    }
    if !listen.ip.is_unspecified() {
        return Ok(listen.clone());
    }
    Ok(HostPort {
        ip: only_system_address(host)?,
        port: listen.port,
    })
}

/// Reads `--data-path-addr`: an address or interface without a port; `None` if it is absent.
///
/// # Errors
/// dockerd's text, kind 400.
pub fn data_path(host: &Host, text: &str) -> Result<Option<IpAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let refusal = "data path address must be a non-zero IP address or network interface \
                   (without a port number)";
    named(host, text, refusal).map(Some)
}

/// Where packets of networks are to be sent to, as `init` or `join` said.
#[derive(Clone, Debug, Default)]
pub struct DataPath {
    /// The address for that; empty if none was named.
    pub named: String,
    /// The address that the node advertises, without a port.
    pub advertised: String,
}

impl DataPath {
    /// What the node says: the address that it was told for this, or else the one that it
    /// advertises, while it has that one. Where it is reached at an address that somebody else
    /// translates, or the host has got another one, those who are reached know better.
    pub fn said(&self, own: &[Interface]) -> Option<IpAddr> {
        let advertised = || self.advertised.parse().ok().filter(|ip| has(own, ip));
        self.named.parse().ok().or_else(advertised)
    }
}

/// Whether an address is this host's.
pub fn has(own: &[Interface], ip: &IpAddr) -> bool {
    own.iter().any(|interface| interface.addrs.contains(ip))
}

/// An address or interface by name; anything else gets `refusal`.
fn named(host: &Host, name: &str, refusal: &str) -> Result<IpAddr, Error> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        let zero = ip.is_unspecified();
        return if zero {
            Err(Error::invalid(refusal))
        } else {
            Ok(ip)
        };
    }
    match host.interface(name) {
        Some(interface) => only_address(interface),
        None => Err(Error::invalid(refusal)),
    }
}

impl Host {
    fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.name == name)
    }

    fn belongs_to_engine(&self, ip: &IpAddr) -> bool {
        self.engine_subnets
            .iter()
            .any(|(net, bits)| contains(net, *bits, ip))
    }
}

/// The one usable address of an interface, IPv4 first.
fn only_address(interface: &Interface) -> Result<IpAddr, Error> {
    let name = &interface.name;
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        let found: Vec<&IpAddr> = interface
            .addrs
            .iter()
            .filter(|ip| ip.is_ipv4() == v4 && global(ip))
            .collect();
        match found.as_slice() {
            [] => {}
            [ip] => return Ok(**ip),
            [first, second, ..] => {
                return Err(Error::invalid(format!(
                    "interface {name} has more than one {family} address ({first} and {second})"
                )));
            }
        }
    }
    Err(Error::invalid(format!(
        "interface {name} has no usable IPv4 or IPv6 address"
    )))
}

/// The address of a host that has exactly one outside the engine's own networks.
fn only_system_address(host: &Host) -> Result<IpAddr, Error> {
    for v4 in [true, false] {
        let mut candidates = host
            .interfaces
            .iter()
            .filter(|interface| interface.usable)
            .flat_map(|interface| {
                let fits =
                    |ip: &&IpAddr| ip.is_ipv4() == v4 && global(ip) && !host.belongs_to_engine(ip);
                interface
                    .addrs
                    .iter()
                    .filter(fits)
                    .map(|ip| (*ip, interface.name.as_str()))
            });
        match (candidates.next(), candidates.next()) {
            (None, _) => {}
            (Some((ip, _)), None) => return Ok(ip),
            (Some(first), Some(second)) => return Err(ambiguous(first, second)),
        }
    }
    Err(Error::invalid(
        "could not find the system's IP address - specify one with --advertise-addr",
    ))
}

fn ambiguous((ip1, name1): (IpAddr, &str), (ip2, name2): (IpAddr, &str)) -> Error {
    let place = if name1 == name2 {
        format!("addresses on interface {name1} ({ip1} and {ip2})")
    } else {
        format!("addresses on different interfaces ({ip1} on {name1} and {ip2} on {name2})")
    };
    Error::invalid(format!(
        "could not choose an IP address to advertise since this system has multiple {place}"
    ))
}

/// Whether other hosts could reach the address: neither loopback, link-local, multicast nor zero.
fn global(ip: &IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

fn contains(net: &IpAddr, bits: u8, ip: &IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            let shift = 32u32.saturating_sub(u32::from(bits));
            net.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            let shift = 128u32.saturating_sub(u32::from(bits));
            net.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address is a host.
fn split(text: &str, default: u16) -> Option<(String, u16)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text.to_owned(), default));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if rest.is_empty() => default,
            None => return None,
        };
        return Some((host.to_owned(), port));
    }
    match text.split_once(':') {
        None => Some((text.to_owned(), default)),
        Some((host, port)) if !host.is_empty() => Some((host.to_owned(), port.parse().ok()?)),
        Some(_) => None,
    }
}

/// Reads `host:port` of a manager to join; the port may be left out.
///
/// # Errors
/// dockerd's text, kind 400.
pub fn remote(text: &str) -> Result<String, Error> {
    let refusal = |why: &str| Error::invalid(format!("invalid remoteAddr {text:?}: {why}"));
    if text.is_empty() {
        return Err(refusal("invalid empty address"));
    }
    let (host, port) = split(text, DEFAULT_PORT).ok_or_else(|| refusal("invalid address"))?;
    Ok(if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(list: &[(&str, &[&str])]) -> Host {
        let interfaces = list.iter().map(|(name, addrs)| Interface {
            name: (*name).to_owned(),
            usable: *name != "lo",
            addrs: addrs.iter().map(|ip| ip.parse().unwrap()).collect(),
        });
        Host {
            interfaces: interfaces.collect(),
            engine_subnets: vec![("172.17.0.0".parse().unwrap(), 16)],
        }
    }

    fn any() -> HostPort {
        HostPort {
            ip: "0.0.0.0".parse().unwrap(),
            port: 2377,
        }
    }

    #[test]
    fn the_only_address_is_advertised() {
        let host = host(&[
            ("lo", &["127.0.0.1", "::1"]),
            ("eth0", &["10.0.0.5", "fe80::1"]),
            ("docker0", &["172.17.0.1"]),
        ]);
        let found = advertise(&host, "", None, &any()).unwrap();
        assert_eq!(found.to_string(), "10.0.0.5:2377");
    }

    #[test]
    fn several_addresses_are_not_guessed_between() {
        let two = host(&[("eth0", &["10.0.0.5"]), ("eth1", &["10.1.0.5"])]);
        assert_eq!(
            advertise(&two, "", None, &any()).unwrap_err().message,
            "could not choose an IP address to advertise since this system has multiple addresses \
             on different interfaces (10.0.0.5 on eth0 and 10.1.0.5 on eth1)"
        );
        let one = host(&[("eth0", &["10.0.0.5", "10.0.0.6"])]);
        assert_eq!(
            advertise(&one, "", None, &any()).unwrap_err().message,
            "could not choose an IP address to advertise since this system has multiple addresses \
             on interface eth0 (10.0.0.5 and 10.0.0.6)"
        );
        assert_eq!(
            advertise(&one, "eth0", None, &any()).unwrap_err().message,
            "interface eth0 has more than one IPv4 address (10.0.0.5 and 10.0.0.6)"
        );
        let none = host(&[("lo", &["127.0.0.1"])]);
        let error = advertise(&none, "", None, &any()).unwrap_err().message;
        assert!(
            error.starts_with("could not find the system's IP address"),
            "{error}"
        );
    }

    #[test]
    fn a_node_says_where_packets_of_networks_go() {
        let own = host(&[("eth0", &["10.0.0.5"]), ("six", &["fd00::5"])]).interfaces;
        for (named, advertised, said) in [
            ("10.1.0.5", "10.0.0.5", "10.1.0.5"),
            ("", "10.0.0.5", "10.0.0.5"),
            ("", "fd00::5", "fd00::5"),
            ("", "198.51.100.1", ""),
            ("", "", ""),
        ] {
            let (named, advertised) = (named.to_owned(), advertised.to_owned());
            let path = DataPath { named, advertised };
            let found = path.said(&own).map(|ip| ip.to_string()).unwrap_or_default();
            assert_eq!(found, said, "{path:?}");
        }
    }

    #[test]
    fn addresses_and_interfaces_may_be_named() {
        let host = host(&[("eth0", &["10.0.0.5"]), ("six", &["fd00::5"])]);
        for (asked, expected) in [
            ("10.9.9.9", "10.9.9.9:2377"),
            ("10.9.9.9:4000", "10.9.9.9:4000"),
            ("eth0", "10.0.0.5:2377"),
            ("eth0:1", "10.0.0.5:1"),
            ("six", "[fd00::5]:2377"),
            ("[fd00::9]:7", "[fd00::9]:7"),
            ("fd00::9", "[fd00::9]:2377"),
        ] {
            let found = advertise(&host, asked, None, &any()).unwrap();
            assert_eq!(found.to_string(), expected, "{asked}");
        }
        for asked in ["0.0.0.0", "nope0", "[::]"] {
            let error = advertise(&host, asked, None, &any()).unwrap_err().message;
            assert!(
                error.starts_with("advertise address must be a non-zero IP"),
                "{error}"
            );
        }
        assert_eq!(listen(&host, "eth0:99").unwrap().to_string(), "10.0.0.5:99");
        assert_eq!(listen(&host, "0.0.0.0:2377").unwrap(), any());
        assert!(listen(&host, "").is_err());
        assert!(listen(&host, "nope0:2377").is_err());
        assert!(listen(&host, "10.0.0.1:x").is_err());
        assert_eq!(
            data_path(&host, "eth0").unwrap(),
            Some("10.0.0.5".parse().unwrap())
        );
        assert!(data_path(&host, "eth0:1").is_err());
        assert_eq!(remote("10.0.0.1").unwrap(), "10.0.0.1:2377");
        assert_eq!(remote("fd00::1").unwrap(), "[fd00::1]:2377");
        assert!(remote("").is_err());
    }
}
