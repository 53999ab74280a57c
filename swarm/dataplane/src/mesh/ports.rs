//! Published ports as this host's own: each is bound, so that no other program takes it and one that
//! has it is noticed, and whoever comes to it past the rules is served.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::plan::{Key, Manner, Published};
use super::{proxy, relay, rules};
use crate::model::{Protocol, Reports};

/// Connections and datagrams' clients at a time that are served past the rules, over all ports.
const CLIENTS: usize = 8192;
/// The first pause before a port that another program has is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// SCTP, as protocols are numbered.
const SCTP: i32 = 132;

/// Where clients who come past the rules are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// The tasks.
    pub(super) to: Vec<SocketAddrV4>,
    /// Whether to say who they are.
    pub(super) announced: bool,
}

/// All ports that should be ours.
#[derive(Debug)]
pub(super) struct Ports {
    held: BTreeMap<Key, Held>,
    taken: BTreeMap<Key, Taken>,
    clients: Arc<Semaphore>,
    reports: watch::Sender<Reports>,
}

/// A port that is ours. What is under way goes on when it is not ours any more.
#[derive(Debug)]
struct Held {
    way: watch::Sender<Way>,
    door: Door,
}

/// Who comes past the rules is let in when there are rules; before that it would be everybody.
#[derive(Debug)]
enum Door {
    /// Bound. `None` where this kernel knows nothing of the protocol, so that no program can have
    /// the port either.
    Closed(Option<Socket>),
    /// Served.
    Open(JoinHandle<()>),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Door::Open(serving) = &self.door {
            serving.abort();
        }
    }
}

/// A port that another program has.
#[derive(Debug)]
struct Taken {
    why: String,
    pause: Duration,
    again: Instant,
}

impl Ports {
    pub(super) fn new(reports: watch::Sender<Reports>) -> Self {
        Self {
            held: BTreeMap::new(),
            taken: BTreeMap::new(),
            clients: Arc::new(Semaphore::new(CLIENTS)),
            reports,
        }
    }

    /// Whether it is time to try a port again.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        self.taken.values().any(|taken| taken.again <= now)
    }

    /// Makes those ports ours that are published and not another program's. Returns the latter.
    pub(super) fn hold(&mut self, published: &BTreeMap<Key, Published>) -> BTreeSet<Key> {
        self.held.retain(|key, _| published.contains_key(key));
        self.taken.retain(|key, _| published.contains_key(key));
        for (key, published) in published {
            let way = way(published);
            if let Some(held) = self.held.get(key) {
                held.way.send_if_modified(|before| {
                    let differs = *before != way;
                    *before = way;
                    differs
                });
            } else if self
                .taken
                .get(key)
                .is_none_or(|it| it.again <= Instant::now())
            {
                self.bind(*key, way);
            }
        }
        self.report();
        self.taken.keys().copied().collect()
    }

    /// Gives all ports back.
    pub(super) fn release(&mut self) {
        self.held.clear();
        self.taken.clear();
        self.report();
    }

    /// Serves who comes past the rules, now that there are some.
    pub(super) fn open(&mut self) {
        let mut lost = Vec::new();
        for (key, held) in &mut self.held {
            if let Door::Closed(socket) = &mut held.door
                && let Some(socket) = socket.take()
            {
                match serve(key.0, socket, held.way.subscribe(), &self.clients) {
                    Ok(serving) => held.door = Door::Open(serving),
                    Err(error) => lost.push((*key, error)),
                }
            }
        }
        for (key, error) in lost {
            self.held.remove(&key);
            self.lose(key, &error);
        }
        self.report();
    }

    fn bind(&mut self, key: Key, way: Way) {
        match bound(key) {
            Ok(socket) => {
                self.taken.remove(&key);
                let (way, _) = watch::channel(way);
                let door = Door::Closed(socket);
                self.held.insert(key, Held { way, door });
            }
            Err(error) => self.lose(key, &error),
        }
    }

    fn lose(&mut self, key: Key, error: &io::Error) {
        let (protocol, port) = (rules::name(key.0), key.1);
        let before = self.taken.remove(&key);
        if before.is_none() {
            warn!(protocol, port, %error, "a published port cannot be had on this host");
        }
        let pause = before.map_or(PAUSES.0, |it| (it.pause * 2).min(PAUSES.1));
        let taken = Taken {
            why: reason(error),
            pause,
            again: Instant::now() + pause.mul_f64(jitter()),
        };
        self.taken.insert(key, taken);
    }

    fn report(&self) {
        let taken = self.taken.iter();
        let taken = taken.map(|(key, taken)| (*key, taken.why.clone()));
        let taken = taken.collect();
        self.reports.send_if_modified(|reports| {
            let differs = reports.taken != taken;
            reports.taken = taken;
            differs
        });
    }
}

fn way(published: &Published) -> Way {
    let to = published.backends.iter();
    Way {
        to: to
            .map(|it| SocketAddrV4::new(it.address, published.target))
            .collect(),
        announced: published.manner == Manner::Announced,
    }
}

/// Between one half and one and a half.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.5 + f64::from(u16::try_from(random & 0xffff).unwrap_or_default()) / 65536.0
}

/// The kernel's words without its number for them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Serves whoever comes to a port.
fn serve(
    protocol: Protocol,
    socket: Socket,
    way: watch::Receiver<Way>,
    clients: &Arc<Semaphore>,
) -> io::Result<JoinHandle<()>> {
    let clients = clients.clone();
    Ok(match protocol {
        Protocol::Tcp => {
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            tokio::spawn(proxy::serve(listener, way, clients))
        }
        Protocol::Udp => {
            let socket = UdpSocket::from_std(socket.into())?;
            tokio::spawn(relay::serve(socket, way, clients))
        }
        Protocol::Sctp => tokio::spawn(async move {
            // To have it is all.
            std::future::pending::<()>().await;
            drop(socket);
        }),
    })
}

/// A socket that has a port; none for a protocol that this kernel knows nothing of.
fn bound((protocol, port): Key) -> io::Result<Option<Socket>> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, SCTP.into()),
    };
    // For all addresses of both kinds, or of one where the kernel has only that.
    let (socket, any) = match Socket::new(Domain::IPV6, kind, Some(number)) {
        Ok(socket) if socket.set_only_v6(false).is_ok() => {
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        _ => match Socket::new(Domain::IPV4, kind, Some(number)) {
            Err(error) if protocol == Protocol::Sctp && is_unknown(&error) => return Ok(None),
            socket => (socket?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        },
    };
    if protocol == Protocol::Tcp {
        // Connections that are long closed would keep it; another listener still does.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&any.into())?;
    Ok(Some(socket))
}

fn is_unknown(error: &io::Error) -> bool {
    let unknown = [nix::libc::EPROTONOSUPPORT, nix::libc::ESOCKTNOSUPPORT];
    error.raw_os_error().is_some_and(|it| unknown.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words() {
        let error = io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
        assert_eq!(reason(&error), "Address already in use");
        assert!((0.5..1.5).contains(&jitter()));
    }
}
