//! Connections that come past the rules: over IPv6, or to services whose tasks are to be told who
//! the client is. A process of this host stands in between, and adds no time limit to what TCP has.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::header::header;
use super::ports::Way;

/// So many tasks are tried for a client.
const TRIES: usize = 3;
/// How long a task may take to accept.
const ACCEPT: Duration = Duration::from_secs(5);
/// The pause after a failure that is no client's: most likely too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves who comes, each client by the next task. Connections outlive it.
pub(super) async fn serve(
    listener: TcpListener,
    way: watch::Receiver<Way>,
    clients: Arc<Semaphore>,
) {
    let mut turn = 0_usize;
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                debug!(%error, "cannot accept");
                sleep(PAUSE).await;
                continue;
            }
        };
        let way = way.borrow().clone();
        turn = turn.wrapping_add(1);
        let Ok(place) = clients.clone().try_acquire_owned() else {
            refuse(&client);
            continue;
        };
        tokio::spawn(async move {
            if let Err(error) = pass(client, way, turn).await {
                debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}

/// As if nobody listened.
fn refuse(client: &TcpStream) {
    let _ = SockRef::from(client).set_linger(Some(Duration::ZERO));
}

async fn pass(mut client: TcpStream, way: Way, turn: usize) -> io::Result<()> {
    let mut task = match connect(&way.to, turn).await {
        Ok(task) => task,
        Err(error) => {
            refuse(&client);
            return Err(error);
        }
    };
    for end in [&client, &task] {
        end.set_nodelay(true)?;
        // So that an end that vanished does not stay for ever.
        SockRef::from(end).set_keepalive(true)?;
    }
    if way.announced {
        let header = header(client.peer_addr()?, client.local_addr()?);
        task.write_all(&header).await?;
    }
    copy_bidirectional(&mut client, &mut task).await.map(drop)
}

async fn connect(to: &[SocketAddrV4], turn: usize) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::ConnectionRefused.into();
    let begin = turn.checked_rem(to.len()).unwrap_or(0);
    for task in to.iter().cycle().skip(begin).take(TRIES.min(to.len())) {
        match timeout(ACCEPT, TcpStream::connect(task)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use tokio::io::AsyncReadExt;

    async fn listener() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
            panic!("it is bound to IPv4");
        };
        (listener, at)
    }

    #[tokio::test]
    async fn a_task_is_told_who_comes_and_one_that_is_gone_is_passed_over() {
        let (task, at) = listener().await;
        let (gone, nobody) = listener().await;
        drop(gone);
        let Ok(front) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
            return;
        };
        let door = front.local_addr().unwrap();
        let way = Way {
            to: vec![nobody, at],
            announced: true,
        };
        let (_way, receive) = watch::channel(way);
        let serving = tokio::spawn(serve(front, receive, Arc::new(Semaphore::new(2))));
        for _ in 0..2 {
            let mut client = TcpStream::connect(door).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let (mut inside, _) = task.accept().await.unwrap();
            let mut seen = Vec::new();
            inside.read_to_end(&mut seen).await.unwrap();
            let mut expected = header(client.local_addr().unwrap(), door);
            expected.extend(b"hello");
            assert_eq!(seen, expected);
            inside.write_all(b"bye").await.unwrap();
            drop(inside);
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"bye");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn without_a_task_a_client_is_refused() {
        let (front, door) = listener().await;
        let (_way, receive) = watch::channel(Way::default());
        let serving = tokio::spawn(serve(front, receive, Arc::new(Semaphore::new(2))));
        let mut client = TcpStream::connect(door).await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        serving.abort();
    }
}
