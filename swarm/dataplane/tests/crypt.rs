//! Two hosts with an encrypted network, in network namespaces: what is on the wire between them,
//! and what arrives. Needs root and iproute2, and no engine.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use skep_dataplane::Overlay;
use skep_dataplane::crypt::{Crypt, Key};

const MARK: &[u8] = b"nobody on the wire may read this";

/// Namespaces that are gone when this is.
struct Lab(Vec<String>);

impl Lab {
    fn new(names: &[&str]) -> Option<Self> {
        let mut lab = Lab(Vec::new());
        for name in names {
            let name = format!("skep-crypt-{}-{name}", std::process::id());
            let made = Command::new("ip").args(["netns", "add", &name]).status();
            if !made.is_ok_and(|status| status.success()) {
                return None;
            }
            lab.0.push(name);
        }
        Some(lab)
    }

    fn ip(&self, at: usize, commands: &[&str]) {
        for command in commands {
            let command = command.replace("@b", &self.0[1]);
            let command = command
                .replace("@ca", &self.0[2])
                .replace("@cb", &self.0[3]);
            let words = command.split_whitespace();
            let output = Command::new("ip")
                .args(["-n", &self.0[at]])
                .args(words)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{command}: {said}");
        }
    }

    /// Runs on a thread that is in the namespace.
    fn within<T: Send + 'static>(
        &self,
        at: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.0[at]);
        spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn key(id: u32) -> Key {
    Key {
        id,
        secret: vec![u8::try_from(id).unwrap(); 32],
    }
}

fn host(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// What a host is told, one list of keys after the other, until there is no more.
fn run_host(local: u8, other: u8, keys: mpsc::Receiver<Vec<Key>>, done: mpsc::Sender<()>) {
    // Its threads are where the one is that makes them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let overlay = Overlay {
        bridge: "skepnet".into(),
        device: "skvxnet".into(),
        vni: 4097,
        port: 4789,
        mtu: 1390,
        local: host(local),
        gateway: Ipv4Addr::new(10, 0, 1, 250 + local),
        sides: Vec::new(),
        branches: Vec::new(),
    };
    let remotes = BTreeMap::from([
        (Ipv4Addr::new(10, 0, 1, other), host(other)),
        (Ipv4Addr::new(10, 0, 1, 250 + other), host(other)),
    ]);
    let crypt = Crypt::default();
    for keys in keys {
        let (crypt, overlay, remotes) = (crypt.clone(), overlay.clone(), remotes.clone());
        let made = runtime.spawn(async move { crypt.ensure(&overlay, &keys, &remotes).await });
        runtime.block_on(made).unwrap().unwrap();
        done.send(()).unwrap();
    }
    crypt.forget("skvxnet");
}

/// Sends until an answer comes; `None` if there is none for long.
fn answer(socket: &UdpSocket, to: (Ipv4Addr, u16)) -> Option<Vec<u8>> {
    let mut bytes = [0; 2000];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        socket.send_to(MARK, to).unwrap();
        if let Ok((length, _)) = socket.recv_from(&mut bytes) {
            return Some(bytes[..length].to_vec());
        }
    }
    None
}

#[test]
fn frames_arrive_and_nobody_reads_them() {
    let Some(lab) = Lab::new(&["a", "b", "ca", "cb"]) else {
        eprintln!("skipped: network namespaces need root");
        return;
    };
    lab.ip(0, &["link add eth0 type veth peer name eth0 netns @b"]);
    for (at, last, container) in [(0, 1, "@ca"), (1, 2, "@cb")] {
        let mac = format!("02:42:0a:00:01:{last:02x}");
        lab.ip(
            at,
            &[
                &format!("addr add 192.0.2.{last}/24 dev eth0"),
                "link set eth0 up",
                "link set lo up",
                "link add skepnet type bridge",
                "link set skepnet up",
                &format!("link add v0 type veth peer name eth0 address {mac} netns {container}"),
                "link set v0 master skepnet up",
            ],
        );
        let container = at + 2;
        let address = format!("addr add 10.0.1.{last}/24 dev eth0");
        lab.ip(container, &[&address, "link set eth0 up mtu 1390"]);
    }
    let (done, made) = mpsc::channel();
    let (to_a, keys_a) = mpsc::channel();
    let (to_b, keys_b) = mpsc::channel();
    let done_b = done.clone();
    let a = lab.within(0, move || run_host(1, 2, keys_a, done));
    let b = lab.within(1, move || run_host(2, 1, keys_b, done_b));
    let tell = |keys: &[u32]| {
        let keys: Vec<Key> = keys.iter().map(|id| key(*id)).collect();
        to_a.send(keys.clone()).unwrap();
        to_b.send(keys).unwrap();
        made.recv_timeout(Duration::from_secs(20)).unwrap();
        made.recv_timeout(Duration::from_secs(20)).unwrap();
    };
    tell(&[1]);

    // Whoever listens between them.
    let (seen, packets) = mpsc::channel::<Vec<u8>>();
    let (ready, listens) = mpsc::channel();
    lab.within(0, move || {
        let everything = SockProtocol::EthAll;
        let packet = AddressFamily::Packet;
        let socket = socket(packet, SockType::Raw, SockFlag::empty(), everything).unwrap();
        let mut file = File::from(socket);
        assert!(file.as_raw_fd() > 0);
        ready.send(()).unwrap();
        let mut bytes = [0; 4096];
        while let Ok(length) = file.read(&mut bytes) {
            if seen.send(bytes[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    listens.recv().unwrap();
    lab.within(3, || {
        let socket = UdpSocket::bind("10.0.1.2:7").unwrap();
        let mut bytes = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from);
            if length == 1 {
                break;
            }
        }
    });
    let client = lab.within(2, || {
        let socket = UdpSocket::bind("10.0.1.1:0").unwrap();
        let patience = Some(Duration::from_millis(200));
        socket.set_read_timeout(patience).unwrap();
        socket
    });
    let client = client.join().unwrap();
    let echo = (Ipv4Addr::new(10, 0, 1, 2), 7);
    assert_eq!(answer(&client, echo).as_deref(), Some(MARK));
    // Full frames fit between the hosts without being cut.
    client.send_to(&[7; 1362], echo).unwrap();
    let mut bytes = [0; 2000];
    let full = client.recv_from(&mut bytes).map(|(length, _)| length);
    assert_eq!(full.unwrap_or_default(), 1362);
    // A new key, then the second of two is used, then the first one is gone.
    for keys in [[2, 1].as_slice(), &[3, 2, 1], &[4, 3, 2]] {
        tell(keys);
        assert_eq!(answer(&client, echo).as_deref(), Some(MARK), "{keys:?}");
    }
    client.send_to(&[0], echo).unwrap();

    let mut keys = std::collections::BTreeSet::new();
    // Who listens may be behind.
    while keys.len() < 3 {
        let packet = packets.recv_timeout(Duration::from_secs(5)).unwrap();
        // The bridge's own side of it may be read: this is what goes over eth0.
        let is_ours = packet.get(23) == Some(&17) && packet.get(36..38) == Some(&[0x12, 0xb6]);
        let from_host = packet.get(26..29) == Some(&[192, 0, 2]);
        if !from_host {
            continue;
        }
        assert!(is_ours, "{packet:?}");
        assert!(!packet.windows(MARK.len()).any(|it| it == MARK));
        keys.insert(u32::from_be_bytes(packet[46..50].try_into().unwrap()));
    }
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    drop((to_a, to_b));
    a.join().unwrap();
    b.join().unwrap();
}
