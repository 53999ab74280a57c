//! Questions about names that are not ours: first for the engine's own resolver in the container's
//! namespace, which knows its plain networks and asks outside as the container would; without one,
//! for the resolvers that the container or the host has, from the host's namespace. Nothing is kept.

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream as Stream, UdpSocket as Socket,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::embedded::{self, Embedded};
use super::resolv::{Hosts, MOST};
use super::wire::{self, Question, Way};
use crate::netns::{self, Home, Place};

/// Questions that wait for others, on the whole host.
const WAITING: usize = 4096;
/// How long one resolver has.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the engine's has: it asks as many as there can be, one after the other.
const LONG_PATIENCE: Duration = Duration::from_secs(13);
/// Sockets in a container's namespace that are kept for the next question.
const IDLE: usize = 4;
/// Where resolvers listen.
const PORT: u16 = 53;

/// What all containers share.
#[derive(Debug)]
pub(crate) struct Outside {
    hosts: Hosts,
    waiting: Semaphore,
}

impl Outside {
    pub(crate) fn new(resolvers: &[IpAddr]) -> Self {
        Self {
            hosts: Hosts::new(resolvers),
            waiting: Semaphore::new(WAITING),
        }
    }
}

/// Asks on behalf of one container.
#[derive(Debug)]
pub(crate) struct Forwarder {
    home: Home,
    outside: Arc<Outside>,
    /// The container's own resolvers, if it has any.
    resolvers: Vec<IpAddr>,
    engine: Mutex<Engine>,
}

#[derive(Debug, Default)]
struct Engine {
    resolver: Option<Embedded>,
    /// Sockets that are connected with it, and whose last question has been answered.
    idle: Vec<UdpSocket>,
}

/// An answer, and whose.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The engine's own resolver said so.
    Engine(Vec<u8>),
    /// Another one.
    Other(Vec<u8>),
}

impl Forwarder {
    pub(crate) fn new(home: Home, outside: Arc<Outside>, resolvers: Vec<IpAddr>) -> Self {
        Self {
            home,
            outside,
            resolvers,
            engine: Mutex::default(),
        }
    }

    /// Asks whoever may know. `skip` says whom not to ask, `shut_in` that nobody outside is to be
    /// asked. `None` if nobody says anything in time, or too many wait already.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        way: Way,
        shut_in: bool,
        skip: impl Fn(IpAddr) -> bool + Send,
    ) -> Option<Answer> {
        let _place = self.outside.waiting.try_acquire().ok()?;
        match self.ask_engine(question, way).await {
            Ok(Some(answer)) => return Some(Answer::Engine(answer)),
            // It is there, so it is the one to know; nobody else is asked what it keeps silent on.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return None,
            _ if shut_in => return None,
            _ => {}
        }
        let mut resolvers = self.resolvers.clone();
        resolvers.retain(|it| !skip(*it));
        if resolvers.is_empty() {
            resolvers = self.outside.hosts.list();
        }
        let mut last = None;
        for resolver in resolvers.into_iter().take(MOST) {
            let Ok(answer) = ask_outside(question, way, resolver).await else {
                continue;
            };
            let failed = wire::is_failure(&answer);
            last = Some(Answer::Other(answer));
            if !failed {
                break;
            }
        }
        last
    }

    /// Asks the engine's resolver; `None` if there is none. One that does not answer any more may
    /// be somewhere else now: the engine was restarted.
    async fn ask_engine(&self, question: &Question, way: Way) -> io::Result<Option<Vec<u8>>> {
        for last in [false, true] {
            let Some(resolver) = self.embedded() else {
                return Ok(None);
            };
            let asked = match way {
                Way::Udp => self.by_datagram(resolver, question).await,
                Way::Tcp => self.by_stream(resolver, question).await,
            };
            match asked {
                Err(error) if error.kind() != io::ErrorKind::TimedOut && !last => self.forget(),
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn embedded(&self) -> Option<Embedded> {
        let mut engine = self.engine();
        if engine.resolver.is_none() {
            engine.resolver = embedded::find(self.home);
        }
        engine.resolver
    }

    fn forget(&self) {
        *self.engine() = Engine::default();
    }

    async fn by_datagram(&self, resolver: Embedded, question: &Question) -> io::Result<Vec<u8>> {
        let idle = self.engine().idle.pop();
        let socket = match idle {
            Some(socket) => socket,
            None => UdpSocket::from_std(self.within(move || datagrams_to(resolver.udp)).await?)?,
        };
        let answer = exchange(&socket, question, LONG_PATIENCE).await?;
        let mut engine = self.engine();
        if engine.resolver == Some(resolver) && engine.idle.len() < IDLE {
            engine.idle.push(socket);
        }
        Ok(answer)
    }

    async fn by_stream(&self, resolver: Embedded, question: &Question) -> io::Result<Vec<u8>> {
        let socket = self.within(stream_socket).await?;
        let connect = async {
            let socket = TcpSocket::from_std_stream(socket);
            converse(socket.connect(resolver.tcp.into()).await?, question).await
        };
        patiently(LONG_PATIENCE, connect).await
    }

    async fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let done = netns::within(Place::Same(self.home), work).await;
        done.map_err(|error| match error {
            netns::Error::Failed(error) => error,
            gone @ netns::Error::Gone => io::Error::other(gone),
        })
    }
}

fn datagrams_to(resolver: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(resolver)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn stream_socket() -> io::Result<Stream> {
    let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
    let socket = socket2::Socket::new(kind.0, kind.1, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Asks a resolver from the host's namespace, each time from another port.
async fn ask_outside(question: &Question, way: Way, resolver: IpAddr) -> io::Result<Vec<u8>> {
    let resolver = SocketAddr::new(resolver, PORT);
    match way {
        Way::Udp => {
            let any: IpAddr = match resolver {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(resolver).await?;
            exchange(&socket, question, PATIENCE).await
        }
        Way::Tcp => {
            let connect = async { converse(TcpStream::connect(resolver).await?, question).await };
            patiently(PATIENCE, connect).await
        }
    }
}

/// Sends a question and waits for the answer to it; what else arrives is none of ours.
async fn exchange(socket: &UdpSocket, question: &Question, time: Duration) -> io::Result<Vec<u8>> {
    let id = rand::random();
    let exchange = async {
        socket.send(&question.packet(id)).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let packet = buffer.get(..length).unwrap_or_default();
            if question.is_answer(packet, id) {
                return Ok(packet.to_vec());
            }
        }
    };
    patiently(time, exchange).await
}

async fn converse(mut stream: TcpStream, question: &Question) -> io::Result<Vec<u8>> {
    let id = rand::random();
    send(&mut stream, &question.packet(id)).await?;
    let answer = receive(&mut stream, u16::MAX).await?;
    if !question.is_answer(&answer, id) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

async fn patiently<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(time, work).await.unwrap_or_else(late)
}

/// Sends a message with its length, as it is in a stream.
pub(crate) async fn send(stream: &mut TcpStream, packet: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let length = u16::try_from(packet.len()).map_err(too_long)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(packet);
    stream.write_all(&framed).await
}

/// Receives one that is not longer than that.
pub(crate) async fn receive(stream: &mut TcpStream, most: u16) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}
