//! The way from a container to us: sockets in its namespace, and the rules there that lead to them
//! whatever it sends to its resolver. They come before the engine's, which stay as they are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

use super::embedded::{self, ADDRESS};
use super::resolv;
use crate::chains::Chain;
use crate::netlink::link;
use crate::netns::{self, Error, Home, Place};
use crate::nft::{self, Table};

/// The table in each container's namespace.
const TABLE: Table = "ip skep-dns";
/// Its chain that leads to us.
const CHAIN: &str = "resolver";
/// How many rules that has.
const RULES: u32 = 2;
/// Ports of ours, the first that is free: always the same, so that whoever asks again after a
/// restart reaches us, and beyond those that the kernel gives out.
pub(crate) const PORTS: RangeInclusive<u16> = 61053..=61068;

/// Sockets and rules in a container's namespace.
#[derive(Debug)]
pub(crate) struct Door {
    home: Home,
    port: u16,
    /// What counts as the container's resolver.
    caught: Vec<Ipv4Addr>,
    chain: Chain,
    /// It was opened before the container's first process began: who answers there without us was
    /// not to be seen yet.
    is_early: bool,
}

/// What has been opened.
pub(crate) struct Opened {
    pub(crate) door: Door,
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    /// The resolvers that the container would ask without us, unless the engine has its own there.
    pub(crate) resolvers: Vec<IpAddr>,
}

impl Door {
    /// Opens it. From then on, the container's questions come to us. `is_early`: its first process
    /// has not begun yet, and neither its network nor its files need be there.
    ///
    /// # Errors
    /// When the process is gone, or it does not work.
    pub(crate) async fn open(pid: i32, is_early: bool) -> Result<Opened, Error> {
        let home = Home::of(pid)?;
        if home.is_host()? {
            return Err(io::Error::other("the container has no network of its own").into());
        }
        let opened = netns::within(Place::Same(home), move || {
            if is_early {
                // Without it nobody has the address that we listen on.
                link::loopback_up()?;
            }
            let (udp, tcp, port) = listen()?;
            let resolvers = match embedded::find(home) {
                None if !is_early => resolv::of_container(pid).unwrap_or_default(),
                _ => Vec::new(),
            };
            let door = Self {
                home,
                port,
                caught: caught(&resolvers),
                chain: Chain::open(TABLE, CHAIN)?,
                is_early,
            };
            Ok(Opened {
                door,
                udp,
                tcp,
                resolvers,
            })
        });
        let opened = opened.await?;
        opened.door.shut_out_others().await?;
        Ok(opened)
    }

    /// Puts the rules there, in the place of whatever is in our table.
    ///
    /// # Errors
    /// When the process is gone, or the kernel refuses.
    pub(crate) async fn shut_out_others(&self) -> Result<(), Error> {
        let script = nft::anew(TABLE, &rules(self.port, &self.caught));
        nft::load(Place::Same(self.home), script).await
    }

    /// Whether the rules are there. Costs little.
    pub(crate) fn is_intact(&self) -> bool {
        // What cannot be looked at is left alone.
        let rules = self.chain.rules();
        rules.map_or(true, |it| it == Some(RULES))
    }

    /// Where it is.
    pub(crate) fn home(&self) -> Home {
        self.home
    }

    /// Whether it was opened too early to know who answers there without us, and that is not the
    /// engine's resolver either: then it is to be opened again.
    pub(crate) fn is_too_early(&self) -> bool {
        self.is_early && embedded::find(self.home).is_none()
    }

    /// Takes the rules away, so that the container asks whom it would have asked without us.
    ///
    /// # Errors
    /// When the process is gone, or the kernel refuses.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        nft::load(Place::Same(self.home), nft::gone(TABLE)).await
    }
}

fn listen() -> io::Result<(UdpSocket, TcpListener, u16)> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in PORTS {
        let udp = UdpSocket::bind((ADDRESS, port));
        match udp.and_then(|udp| Ok((udp, TcpListener::bind((ADDRESS, port))?))) {
            Ok((udp, tcp)) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp, port));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Addresses that stand for us: the engines' usual one, and where an engine writes others into
/// containers, those. Resolvers in the container itself are its own business.
fn caught(resolvers: &[IpAddr]) -> Vec<Ipv4Addr> {
    let others = resolvers.iter().filter_map(|it| match it {
        IpAddr::V4(it) if !it.is_loopback() && !it.is_unspecified() => Some(*it),
        _ => None,
    });
    let mut caught: Vec<Ipv4Addr> = [ADDRESS].into_iter().chain(others).collect();
    caught.sort_unstable();
    caught.dedup();
    caught
}

/// The rules. While nobody listens, which is during a restart, a question is to be lost rather than
/// refused: who gets no answer asks again, who is refused gives up.
fn rules(port: u16, caught: &[Ipv4Addr]) -> String {
    let caught: Vec<String> = caught.iter().map(Ipv4Addr::to_string).collect();
    let to = format!("dnat to {ADDRESS}:{port}");
    let from = format!("ip daddr {{ {} }}", caught.join(", "));
    let ours = "ct status dnat ct original proto-dst 53 drop";
    format!(
        "\tchain {CHAIN} {{\n\
         \t\ttype nat hook output priority -110; policy accept;\n\
         \t\t{from} udp dport 53 {to}\n\
         \t\t{from} tcp dport 53 {to}\n\
         \t}}\n\
         \tchain patience {{\n\
         \t\ttype filter hook output priority 0; policy accept;\n\
         \t\ticmp type destination-unreachable {ours}\n\
         \t\ttcp flags & (rst | ack) == rst | ack tcp sequence 0 {ours}\n\
         \t}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_catch_what_stands_for_the_resolver() {
        let named = ["192.0.2.1", "127.0.0.53", "2001:db8::1", "10.0.1.4"];
        let caught = caught(&named.map(|it| it.parse().unwrap()));
        let text = rules(61053, &caught);
        let rule = "ip daddr { 10.0.1.4, 127.0.0.11, 192.0.2.1 } udp dport 53 \
                    dnat to 127.0.0.11:61053\n";
        assert!(text.contains(rule), "{text}");
        assert!(text.contains(&rule.replace("udp", "tcp")), "{text}");
        assert!(text.contains("hook output priority -110"), "{text}");
    }
}
