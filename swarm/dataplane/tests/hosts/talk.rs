//! Servers that say who they are and whom they see, and clients that ask them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::net::Namespace;

const PATIENCE: Duration = Duration::from_secs(2);

/// On port 80, TCP and UDP. Over TCP the first line is an answer already, and every line that comes
/// is answered.
pub fn serve(inside: &Namespace, name: String) {
    let named = name.clone();
    inside.within(move || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let name = named.clone();
                std::thread::spawn(move || converse(stream, &name));
            }
        });
    });
    inside.within(move || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                let answer = format!("{name} sees {}", client.ip().to_canonical());
                let _ = socket.send_to(answer.as_bytes(), client);
            }
        });
    });
}

fn converse(stream: TcpStream, name: &str) -> io::Result<()> {
    let client = stream.peer_addr()?;
    let mut answers = stream.try_clone()?;
    writeln!(answers, "{name} sees {}", client.ip().to_canonical())?;
    for line in BufReader::new(stream).split(b'\n') {
        answers.write_all(&[&line?[..], b"\n"].concat())?;
    }
    Ok(())
}

/// A conversation over TCP.
pub struct Talk {
    pub first: String,
    stream: BufReader<TcpStream>,
}

impl Talk {
    /// Begins one; in its first line the server says whom it sees.
    pub fn begin(from: &Namespace, to: &str) -> io::Result<Self> {
        let to: SocketAddr = to.parse().unwrap();
        let stream = from.within(move || TcpStream::connect_timeout(&to, PATIENCE))?;
        Self::over(stream)
    }

    /// Over a connection that is there.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut talk = Self {
            first: String::new(),
            stream: BufReader::new(stream),
        };
        talk.first = talk.line()?;
        Ok(talk)
    }

    /// Says a line, and returns what is answered.
    pub fn say(&mut self, line: &str) -> io::Result<String> {
        self.send(line)?;
        self.line()
    }

    /// Says a line.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stream.get_mut(), "{line}")
    }

    /// The next bytes that are said.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// Whom a server sees, over TCP.
pub fn tcp(from: &Namespace, to: &str) -> Result<String, String> {
    let talk = Talk::begin(from, to);
    talk.map(|it| it.first)
        .map_err(|error| format!("{to}: {error}"))
}

/// Whom a server sees, over UDP.
pub fn udp(from: &Namespace, to: &str) -> Result<String, String> {
    let socket = socket(from, to);
    ask(&socket).map_err(|error| format!("{to}: {error}"))
}

/// A UDP socket that is connected.
pub fn socket(from: &Namespace, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    from.within(move || {
        let any = match to {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

/// Sends a datagram and waits for the answer.
pub fn ask(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"who is there")?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// All that a server says to one who says nothing.
pub fn listen(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}
