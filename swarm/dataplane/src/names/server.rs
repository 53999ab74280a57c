//! Answers one container, on the sockets in its namespace. Says nothing that the book does not say,
//! and keeps nothing.

use std::io;
use std::net::{IpAddr, TcpListener as Streams, UdpSocket as Datagrams};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Reply, reply};
use super::book::Book;
use super::door::{Door, Opened};
use super::forward::{Answer, Forwarder, Outside, receive, send};
use super::wire::{self, Question, Way};
use crate::model::Container;
use crate::netns::{Error, Home};

/// Questions of one container that wait for others.
const WAITING: usize = 256;
/// Streams of one container.
const STREAMS: usize = 64;
/// The longest question.
const LONGEST: u16 = 4096;
/// How long a stream may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// The pause after a socket failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The book, which is written to while it is read.
pub(crate) type Shared = Arc<RwLock<Book>>;

/// A container that is answered. Dropping it ends that and leaves the rules.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) door: Door,
    container: (i32, Vec<IpAddr>),
    _running: JoinSet<()>,
}

impl Server {
    /// Begins to answer a container.
    ///
    /// # Errors
    /// When its process is gone, or it does not work.
    pub(crate) async fn start(
        container: &Container,
        book: Shared,
        outside: Arc<Outside>,
    ) -> Result<Self, Error> {
        let opened = Door::open(container.pid, container.starting).await?;
        let Opened {
            door,
            udp,
            tcp,
            resolvers,
        } = opened;
        let own = match &container.resolvers {
            given if given.is_empty() => resolvers,
            given => given.clone(),
        };
        // A resolver within the container cannot be asked from here, and may be ourselves.
        let own = own.into_iter().filter(|it| !it.is_loopback()).collect();
        let desk = Arc::new(Desk {
            container: container.id.clone(),
            book,
            forwarder: Forwarder::new(door.home(), outside, own),
        });
        let mut running = JoinSet::new();
        running.spawn(answer_datagrams(desk.clone(), into_udp(udp)?));
        running.spawn(answer_streams(desk, into_tcp(tcp)?));
        Ok(Self {
            door,
            container: (container.pid, container.resolvers.clone()),
            _running: running,
        })
    }

    /// Whether it answers this container as it is now.
    pub(crate) fn is_for(&self, container: &Container) -> bool {
        self.container.0 == container.pid
            && self.container.1 == container.resolvers
            && self.is_at_home()
            && (container.starting || !self.door.is_too_early())
    }

    /// Whether the container's process is where we answer it, or gone.
    pub(crate) fn is_at_home(&self) -> bool {
        let home = self.door.home();
        Home::of(home.pid).map_or(true, |it| it == home)
    }
}

fn into_udp(socket: Datagrams) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket)
}

fn into_tcp(socket: Streams) -> io::Result<TcpListener> {
    TcpListener::from_std(socket)
}

/// What is needed to answer a container.
#[derive(Debug)]
struct Desk {
    container: String,
    book: Shared,
    forwarder: Forwarder,
}

impl Desk {
    fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, packet: &[u8], way: Way) -> Reply {
        let turn = usize::from(rand::random::<u16>());
        reply(&self.book(), &self.container, packet, way, turn)
    }

    /// What others say to it.
    async fn forward(&self, question: &Question, way: Way) -> Option<Vec<u8>> {
        let shut_in = self.book().is_shut_in(&self.container);
        let skip = |resolver| self.book().is_gateway(&self.container, resolver);
        let answer = self.forwarder.ask(question, way, shut_in, skip).await;
        match answer {
            Some(Answer::Engine(answer)) if self.is_ours(&answer) => question.nobody(),
            Some(Answer::Engine(answer) | Answer::Other(answer)) => question.hand_on(answer),
            None => question.failed(),
        }
    }

    /// Whether the engine gives addresses on our networks: it knows the containers here by names
    /// that are ours to give, and also those that do not serve.
    fn is_ours(&self, answer: &[u8]) -> bool {
        let addresses = wire::addresses(answer);
        let book = self.book();
        let ours = |it: &IpAddr| book.is_ours(&self.container, *it);
        !addresses.is_empty() && addresses.iter().all(ours)
    }
}

async fn answer_datagrams(desk: Arc<Desk>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; usize::from(LONGEST)];
    loop {
        let got = tokio::select! {
            got = socket.recv_from(&mut buffer) => got,
            Some(_) = waiting.join_next() => continue,
        };
        let Ok((length, from)) = got else {
            sleep(PAUSE).await;
            continue;
        };
        let packet = buffer.get(..length).unwrap_or_default();
        let answer = match desk.reply(packet, Way::Udp) {
            Reply::Say(answer) => Some(answer),
            Reply::Forward(question) if waiting.len() < WAITING => {
                let (desk, socket) = (desk.clone(), socket.clone());
                waiting.spawn(async move {
                    if let Some(answer) = desk.forward(&question, Way::Udp).await {
                        // Who does not take the answer asks again.
                        let _ = socket.send_to(&answer, from).await;
                    }
                });
                None
            }
            Reply::Forward(question) => question.failed(),
            Reply::Silence => None,
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn answer_streams(desk: Arc<Desk>, listener: TcpListener) {
    let mut open = JoinSet::new();
    loop {
        let got = tokio::select! {
            got = listener.accept(), if open.len() < STREAMS => got,
            Some(_) = open.join_next() => continue,
        };
        match got {
            Ok((stream, _)) => {
                let desk = desk.clone();
                open.spawn(async move {
                    // Who breaks off is not interested any more.
                    let _ = answer_stream(&desk, stream).await;
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn answer_stream(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let packet = timeout(SILENCE, receive(&mut stream, LONGEST)).await??;
        let answer = match desk.reply(&packet, Way::Tcp) {
            Reply::Say(answer) => Some(answer),
            Reply::Forward(question) => desk.forward(&question, Way::Tcp).await,
            Reply::Silence => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(SILENCE, send(&mut stream, &answer)).await??;
    }
}
