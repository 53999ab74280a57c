//! Datagrams that come past the rules, over IPv6: each client's go to one task from a socket of
//! their own, and what comes back there goes to the client, as long as either says something.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::ports::Way;

/// A client that is silent for so long is forgotten: as long as the kernel remembers one.
const IDLE: Duration = Duration::from_secs(120);
/// No datagram is larger.
const LARGEST: usize = 65536;
/// The pause after a failure that is no client's.
const PAUSE: Duration = Duration::from_millis(100);

/// A client with its task.
struct Session {
    task: SocketAddrV4,
    socket: Arc<UdpSocket>,
    /// The client said something since somebody last looked.
    heard: Arc<AtomicBool>,
    answers: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Serves who comes. Sessions end with it.
pub(super) async fn serve(front: UdpSocket, way: watch::Receiver<Way>, clients: Arc<Semaphore>) {
    let front = Arc::new(front);
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    let mut turn = 0_usize;
    loop {
        let (length, client) = match front.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Most likely the news that an answer did not arrive.
                debug!(%error, "cannot receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        let way = way.borrow().clone();
        let serves = |it: &Session| !it.answers.is_finished() && way.to.contains(&it.task);
        if !sessions.get(&client).is_some_and(serves) {
            sessions.retain(|_, session| serves(session));
            turn = turn.wrapping_add(1);
            let next = way.to.get(turn.checked_rem(way.to.len()).unwrap_or(0));
            let place = clients.clone().try_acquire_owned();
            let (Some(task), Ok(place)) = (next, place) else {
                continue;
            };
            match open(&front, client, *task, place).await {
                Ok(session) => drop(sessions.insert(client, session)),
                Err(error) => debug!(%error, "cannot pass datagrams on"),
            }
        }
        if let Some(session) = sessions.get(&client) {
            session.heard.store(true, Ordering::Relaxed);
            let datagram = buffer.get(..length).unwrap_or_default();
            // What is lost is lost: these are datagrams.
            let _ = session.socket.send(datagram).await;
        }
    }
}

async fn open(
    front: &Arc<UdpSocket>,
    client: SocketAddr,
    task: SocketAddrV4,
    place: OwnedSemaphorePermit,
) -> io::Result<Session> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(task).await?;
    let socket = Arc::new(socket);
    let heard = Arc::new(AtomicBool::new(true));
    let answers = answer(front.clone(), client, socket.clone(), heard.clone(), place);
    Ok(Session {
        task,
        socket,
        heard,
        answers: tokio::spawn(answers),
    })
}

/// Passes on what the task says, until both have been silent for long.
async fn answer(
    front: Arc<UdpSocket>,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    heard: Arc<AtomicBool>,
    _place: OwnedSemaphorePermit,
) {
    let mut buffer = vec![0; LARGEST];
    loop {
        match timeout(IDLE, socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                let _ = front.send_to(datagram, client).await;
            }
            // Nobody listens there: the client's next datagram may find another task.
            Ok(Err(_)) => return,
            Err(_) if heard.swap(false, Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_keeps_its_task_while_that_serves() {
        let local = (Ipv4Addr::LOCALHOST, 0);
        let tasks = [
            UdpSocket::bind(local).await.unwrap(),
            UdpSocket::bind(local).await.unwrap(),
        ];
        let at = |task: &UdpSocket| match task.local_addr().unwrap() {
            SocketAddr::V4(at) => at,
            SocketAddr::V6(_) => panic!("it is bound to IPv4"),
        };
        let front = UdpSocket::bind(local).await.unwrap();
        let client = UdpSocket::bind(local).await.unwrap();
        client.connect(front.local_addr().unwrap()).await.unwrap();
        let both = Way {
            to: tasks.iter().map(at).collect(),
            announced: false,
        };
        let (way, receive) = watch::channel(both);
        let serving = tokio::spawn(serve(front, receive, Arc::new(Semaphore::new(2))));

        let mut buffer = [0; 16];
        let mut first = None;
        for _ in 0..3 {
            client.send(b"ping").await.unwrap();
            let (a, b) = (&mut [0; 16], &mut [0; 16]);
            let (index, from) = tokio::select! {
                got = tasks[0].recv_from(a) => (0, got.unwrap().1),
                got = tasks[1].recv_from(b) => (1, got.unwrap().1),
            };
            assert_eq!(*first.get_or_insert(index), index);
            tasks[index].send_to(b"pong", from).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 4);
        }
        let other = 1 - first.unwrap();
        way.send_modify(|way| way.to = vec![at(&tasks[other])]);
        client.send(b"ping").await.unwrap();
        assert_eq!(tasks[other].recv_from(&mut buffer).await.unwrap().0, 4);
        serving.abort();
    }
}
