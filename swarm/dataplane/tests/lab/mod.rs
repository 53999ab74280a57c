//! A host in a network namespace of its own, with a bridge and containers that are namespaces as
//! well: processes that do nothing. All of it ends with the test. Needs root, iproute2 and
//! util-linux, and no engine.

#![allow(dead_code, clippy::indexing_slicing, clippy::print_stderr)]

pub mod web;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use skep_dataplane::model::{Change, Container, Endpoint, Network, Service};
use skep_dataplane::{Config, Plane};
use tokio::runtime::{Builder, Runtime};

/// What every test speaks with.
pub const PORT: u16 = 80;
/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// See the head of the file.
pub struct Lab {
    pub runtime: Runtime,
    config: Config,
    plane: Option<Plane>,
    containers: BTreeMap<u8, Child>,
}

/// Runs a test twice, each time on a host of its own: where connections are led packet by packet, and
/// where they begin with a task. Says so where that is not to be had.
pub fn labs(work: impl Fn(&mut Lab) + Sync) {
    for by_packet in [true, false] {
        if by_packet
            || std::fs::read_to_string("/proc/mounts").is_ok_and(|it| it.contains(" cgroup2 "))
        {
            let config = Config {
                by_packet,
                ..Config::default()
            };
            lab_with(config, &work);
        } else {
            eprintln!("skipped: programs at sockets need a group of all processes");
        }
    }
}

/// Runs something on a host of its own.
pub fn lab(work: impl FnOnce(&mut Lab) + Send) {
    lab_with(Config::default(), work);
}

fn lab_with(config: Config, work: impl FnOnce(&mut Lab) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("skipped: a network namespace of its own needs root");
                return;
            }
            run("ip link set lo up; ip link add br0 type bridge; ip addr add 10.0.1.1/24 dev br0");
            run("ip link set br0 up; echo 1 > /proc/sys/net/ipv4/ip_forward");
            // Its threads are born here, and so in this namespace.
            let mut builder = Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            let told = config.clone();
            let plane = runtime.block_on(async { Plane::start(told) });
            work(&mut Lab {
                runtime,
                config,
                plane: Some(plane),
                containers: BTreeMap::new(),
            });
        });
        thread.join().unwrap();
    });
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.plane = None;
        for child in self.containers.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Lab {
    /// Starts a container without a network.
    pub fn bare(&mut self, last: u8) -> i32 {
        let mut command = Command::new("unshare");
        let child = command.args(["--net", "sleep", "600"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.containers.insert(last, child);
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
        eventually("a namespace of its own", || {
            let its = namespace(&pid.to_string());
            its.is_some() && its != namespace("thread-self")
        });
        pid
    }

    /// Starts a container with an address on the network, whose servers say who they are.
    pub fn container(&mut self, last: u8) -> i32 {
        let pid = self.bare(last);
        run(&format!(
            "ip link add v{last} type veth peer name eth0 netns {pid} &&
             ip link set v{last} master br0 up &&
             nsenter -t {pid} -n sh -c 'ip link set lo up && ip link set eth0 up &&
             ip addr add 10.0.1.{last}/24 dev eth0 && ip route add default via 10.0.1.1'"
        ));
        inside(pid, || serve(last, Ipv4Addr::UNSPECIFIED.into()));
        pid
    }

    pub fn pid(&self, last: u8) -> i32 {
        i32::try_from(self.containers[&last].id()).unwrap()
    }

    /// Its process ends.
    pub fn kill(&mut self, last: u8) {
        let mut child = self.containers.remove(&last).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn tell(&self, changes: Vec<Change>) {
        let plane = self.plane.as_ref().unwrap();
        self.runtime.block_on(plane.apply(changes));
    }

    /// Waits until the kernel knows what was told; whether it does.
    pub fn settled(&self) -> bool {
        let plane = self.plane.as_ref().unwrap();
        self.runtime.block_on(plane.follow().settled())
    }

    /// The daemon restarts: it comes back with what it is told then.
    pub fn restart(&mut self, changes: Vec<Change>) {
        self.plane = None;
        let config = self.config.clone();
        let plane = self.runtime.block_on(async { Plane::start(config) });
        self.plane = Some(plane);
        self.tell(changes);
    }

    /// The daemon is away.
    pub fn end(&mut self) {
        self.plane = None;
    }

    /// Waits until connections from a container to a service begin as they are to.
    pub fn led(&self, last: u8, vip: IpAddr) {
        eventually("connections begin as they are to", || {
            asks(self.pid(last), vip) == self.config.by_packet
        });
    }

    /// The daemon ends for good.
    pub fn leave(&mut self) {
        self.plane = None;
        self.runtime.block_on(skep_dataplane::clean()).unwrap();
    }
}

/// TCP and UDP: who serves, and whom it sees; then whatever it is told, back.
pub fn serve(last: u8, at: IpAddr) {
    let listener = TcpListener::bind((at, PORT)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut answer = stream.try_clone().unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
                let mut said = Some(format!("{last} {peer}"));
                while let Some(line) = said {
                    if writeln!(answer, "{line}").is_err() {
                        return;
                    }
                    said = lines.next();
                }
            });
        }
    });
    let socket = UdpSocket::bind((at, PORT)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{last} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// Whether the kernel of a container that connects to a service knows the other end by the service's
/// address, which its packets have then.
pub fn asks(pid: i32, vip: IpAddr) -> bool {
    inside(pid, || {
        let _connection = Connection::open(vip).unwrap();
        let bytes: Vec<u8> = match vip {
            IpAddr::V4(it) => it.octets().into(),
            IpAddr::V6(it) => it.octets().into(),
        };
        let words = bytes
            .chunks(4)
            .map(|it| u32::from_ne_bytes(it.try_into().unwrap()));
        let address: String = words.map(|it| format!("{it:08X}")).collect();
        let sockets = ["tcp", "tcp6"].map(|it| format!("/proc/thread-self/net/{it}"));
        let sockets = sockets.map(|it| std::fs::read_to_string(it).unwrap());
        // The other end comes third, and is connected.
        let there = format!(" {address}:{PORT:04X} 01 ");
        sockets.concat().contains(&there)
    })
}

/// Does something in a container's namespace; what it opens stays there.
pub fn inside<T: Send>(pid: i32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP connection and the line that it begins with: who serves, whom it sees.
pub struct Connection {
    pub first: String,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// From the namespace of the thread that calls.
    pub fn open(to: impl Into<IpAddr>) -> io::Result<Self> {
        let to: IpAddr = to.into();
        let stream = TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let first = first.trim_end().to_owned();
        Ok(Self { first, reader })
    }

    /// With whom it is, as the kernel says.
    pub fn peer(&self) -> SocketAddr {
        self.reader.get_ref().peer_addr().unwrap()
    }

    /// Whether what is said comes back.
    pub fn echoes(&mut self, word: &str) -> bool {
        let mut line = String::new();
        let said = writeln!(self.reader.get_mut(), "{word}");
        let heard = said.and_then(|()| self.reader.read_line(&mut line));
        heard.is_ok() && line.trim_end() == word
    }
}

/// A UDP socket in this thread's namespace that speaks with one address.
pub fn datagrams(to: impl Into<IpAddr>, patience: Duration) -> UdpSocket {
    let to: IpAddr = to.into();
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.connect((to, PORT)).unwrap();
    socket
}

/// Who answers on a UDP socket, and whom it sees.
pub fn ask(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 64];
    socket.send(b"?")?;
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

pub fn network() -> Change {
    Change::Network(Network {
        id: "n".to_owned(),
        name: "net".to_owned(),
        bridge: "br0".to_owned(),
        subnet: (address(0), 24),
        gateway: address(1),
        ipv6: None,
        internal: false,
        ingress: false,
        hosts: Default::default(),
        branches: Vec::new(),
    })
}

pub fn service(id: &str, vip: u8) -> Change {
    let service = Service {
        id: id.to_owned(),
        name: id.to_owned(),
        vips: vec![IpAddr::V4(address(vip))],
        ..Service::default()
    };
    Change::Service("n".to_owned(), service)
}

pub fn endpoint(service: &str, last: u8) -> Change {
    let endpoint = Endpoint {
        id: format!("task{last}"),
        service: Some(service.to_owned()),
        addresses: vec![IpAddr::V4(address(last))],
        ..Endpoint::default()
    };
    Change::Endpoint("n".to_owned(), endpoint)
}

pub fn endpoint_gone(last: u8) -> Change {
    Change::EndpointGone("n".to_owned(), format!("task{last}"))
}

pub fn here(last: u8, pid: i32) -> Change {
    let addresses = vec![IpAddr::V4(address(last))];
    Change::Container(Container {
        id: format!("task{last}"),
        pid,
        addresses: BTreeMap::from([("n".to_owned(), addresses)]),
        ..Container::default()
    })
}
