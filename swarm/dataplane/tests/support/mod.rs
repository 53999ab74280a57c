//! Containers that are only namespaces, and a resolver that stands in for the engine's or for one
//! outside.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// What a shell command says, or `None` if it fails.
pub fn run(command: &str) -> Option<String> {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// Runs where the network is nobody else's; `None` where that is not allowed.
pub fn alone<T: Send, F: Future<Output = T>>(work: impl FnOnce() -> F + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let flags = nix::sched::CloneFlags::CLONE_NEWNET;
            nix::sched::unshare(flags).ok()?;
            run("ip link set lo up").unwrap();
            // Its threads come from this one, and are where it is.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            Some(runtime.unwrap().block_on(work()))
        });
        thread.join().unwrap()
    })
}

/// What is inside a container: a process in namespaces of its own, and a directory for the test.
pub struct Inside {
    process: Child,
    dir: tempfile::TempDir,
    /// Its control group, if it has one of its own.
    group: Option<PathBuf>,
}

impl Inside {
    /// A container that has this resolver.
    pub fn new(resolver: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, format!("nameserver {resolver}\noptions ndots:0\n")).unwrap();
        let script = format!(
            "mount --bind {} /etc/resolv.conf && ip link set lo up \
             && ip link add eth0 type bridge && ip addr add 10.0.1.200/24 dev eth0 \
             && ip link set eth0 up && echo ready && exec sleep 600",
            file.display()
        );
        let mut process = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let out = process.stdout.as_mut().unwrap();
        out.read_exact(&mut ready).unwrap();
        Self {
            process,
            dir,
            group: None,
        }
    }

    /// A container of this id whose first process waits for its turn, as an engine's runtime leaves
    /// it: in its control group, in namespaces of its own, and without a network.
    pub fn waiting(id: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pids = Path::new("/sys/fs/cgroup/pids");
        let all = pids.parent().filter(|_| !pids.exists()).unwrap_or(pids);
        let group = all.join(format!("skep-test-{id}"));
        std::fs::create_dir(&group).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec unshare --net --mount --pid --fork --kill-child \
             sh -c 'read turn; exec sleep 600'",
            group.display()
        );
        let process = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            process,
            dir,
            group: Some(group),
        }
    }

    /// Its network is made, and its first process begins.
    pub fn begin(&mut self) {
        self.run("ip link set lo up").unwrap();
        drop(self.process.stdin.take());
    }

    /// Its first process, if it is one that waited.
    pub fn first(&self) -> i32 {
        let pid = self.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children).unwrap();
        children.trim().parse().unwrap()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a shell command says in there, or `None` if it fails.
    pub fn run(&self, command: &str) -> Option<String> {
        let pid = self.pid();
        let output = Command::new("nsenter")
            .args(["--net", "--mount", "--target", &pid.to_string()])
            .args(["sh", "-c", command])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(said)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(group) = &self.group {
            // Until the last process has left it.
            let left = (0..500).find(|_| {
                // Between two looks.
                std::thread::sleep(Duration::from_millis(2));
                std::fs::remove_dir(group).is_ok()
            });
            assert!(left.is_some() || std::thread::panicking(), "{group:?}");
        }
    }
}

/// Does something in a container's network.
pub fn within<T: Send>(inside: &Inside, work: impl FnOnce() -> T + Send) -> T {
    let pid = inside.pid();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
            let flags = nix::sched::CloneFlags::CLONE_NEWNET;
            nix::sched::setns(namespace.as_fd(), flags).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// An answer as a test looks at it.
#[derive(Debug)]
pub struct Answer {
    pub code: ResponseCode,
    pub truncated: bool,
    pub answers: Vec<String>,
}

impl Answer {
    fn read(packet: &[u8], id: u16) -> Self {
        let message = Message::from_vec(packet).unwrap();
        assert_eq!(message.id, id);
        let answers = message.answers.iter().map(|it| it.data.to_string());
        let mut answers: Vec<String> = answers.collect();
        answers.sort();
        Self {
            code: message.response_code,
            truncated: message.truncation,
            answers,
        }
    }

    /// The addresses, or what is wrong.
    pub fn text(&self) -> String {
        match self.code {
            ResponseCode::NoError => self.answers.join(" "),
            code => format!("{code:?}"),
        }
    }
}

fn question(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, RecordType::A));
    message
}

/// Asks on a socket and waits for one answer.
pub fn exchange(socket: &UdpSocket, name: &str, time: Duration) -> io::Result<Answer> {
    let question = question(name);
    socket.set_read_timeout(Some(time))?;
    socket.send(&question.to_vec().unwrap())?;
    let mut buffer = [0; 65535];
    let length = socket.recv(&mut buffer)?;
    Ok(Answer::read(&buffer[..length], question.id))
}

/// Asks a resolver from within a container.
///
/// # Errors
/// When it does not answer, or nobody is there.
pub fn try_udp(
    inside: &Inside,
    resolver: Ipv4Addr,
    name: &str,
    time: Duration,
) -> io::Result<Answer> {
    within(inside, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((resolver, 53)).unwrap();
        exchange(&socket, name, time)
    })
}

/// The same, for those who are answered.
pub fn ask_udp(inside: &Inside, resolver: Ipv4Addr, name: &str) -> Answer {
    try_udp(inside, resolver, name, Duration::from_secs(20)).unwrap()
}

/// The same over a stream.
pub fn ask_tcp(inside: &Inside, resolver: Ipv4Addr, name: &str) -> Answer {
    within(inside, || {
        let mut stream = TcpStream::connect((resolver, 53)).unwrap();
        let question = question(name);
        write_framed(&mut stream, &question.to_vec().unwrap()).unwrap();
        Answer::read(&read_framed(&mut stream).unwrap(), question.id)
    })
}

fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), packet].concat())
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet)?;
    Ok(packet)
}

/// A resolver that is not ours. It ends when it is dropped.
pub struct Stub {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    tcp: SocketAddr,
    udp: SocketAddr,
}

impl Stub {
    /// In the place of the engine's in a container, with rules like the engine's.
    pub fn engine(inside: &Inside) -> Self {
        let stub = within(inside, || Self::start("127.0.0.11:0"));
        let (udp, tcp) = (stub.udp.port(), stub.tcp.port());
        let rules = format!(
            "add table ip nat; delete table ip nat; table ip nat {{ chain OUTPUT {{ \
             type nat hook output priority -100; \
             ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{udp}; \
             ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:{tcp}; }}; }};"
        );
        inside.run(&format!("nft '{rules}'")).unwrap();
        stub
    }

    /// A resolver of the host.
    pub fn host() -> Self {
        Self::start("127.0.0.1:53")
    }

    fn start(address: &str) -> Self {
        let udp = UdpSocket::bind(address).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let addresses = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        udp.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (first, second) = (ended.clone(), ended.clone());
        let threads = vec![
            std::thread::spawn(move || datagrams(&udp, &first)),
            std::thread::spawn(move || streams(&tcp, &second)),
        ];
        Self {
            ended,
            threads,
            udp: addresses.0,
            tcp: addresses.1,
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn datagrams(socket: &UdpSocket, ended: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        for answer in say(&buffer[..length], [192, 0, 2, 80]) {
            socket.send_to(&answer, from).unwrap();
        }
    }
}

fn streams(listener: &TcpListener, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        while let Ok(packet) = read_framed(&mut stream) {
            for answer in say(&packet, [192, 0, 2, 81]) {
                write_framed(&mut stream, &answer).unwrap();
            }
        }
    }
}

/// What the stand-in says: by the first part of the name.
fn say(packet: &[u8], outside: [u8; 4]) -> Vec<Vec<u8>> {
    let query = Message::from_vec(packet).unwrap();
    let asked = query.queries[0].clone();
    let name = asked.name.to_string();
    let answer = |id: u16, asked: &Query, address: Option<[u8; 4]>| {
        let mut message = Message::response(id, OpCode::Query);
        message.queries.push(asked.clone());
        message.metadata.response_code = ResponseCode::NXDomain;
        if let Some(address) = address {
            message.metadata.response_code = ResponseCode::NoError;
            let data = RData::A(A(address.into()));
            let known = asked.query_type == RecordType::A;
            let record = Record::from_rdata(asked.name.clone(), 600, data);
            message.answers.extend(known.then_some(record));
        }
        message
    };
    let mut other = asked.clone();
    other.set_name(Name::from_ascii("other.example.").unwrap());
    let good = answer(query.id, &asked, Some(outside));
    let answers = match name.split('.').next().unwrap() {
        "ext" => vec![good],
        "leak" => vec![answer(query.id, &asked, Some([10, 0, 1, 66]))],
        "spoof" => vec![
            answer(query.id ^ 1, &asked, Some([192, 0, 2, 66])),
            answer(query.id, &other, Some([192, 0, 2, 66])),
            good,
        ],
        "silent" => Vec::new(),
        "fails" => {
            let mut failed = answer(query.id, &asked, None);
            failed.metadata.response_code = ResponseCode::ServFail;
            vec![failed]
        }
        echo if name.contains(".echo.") => {
            let (thread, turn) = echo[1..].split_once('x').unwrap();
            let address = [192, 0, thread.parse().unwrap(), turn.parse().unwrap()];
            vec![answer(query.id, &asked, Some(address))]
        }
        _ => vec![answer(query.id, &asked, None)],
    };
    answers.iter().map(|it| it.to_vec().unwrap()).collect()
}
