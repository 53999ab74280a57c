//! Nodes that share one network namespace: a network reaches all of them and other hosts, whichever
//! of them has its device, and goes on when that one has gone.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use skep_dataplane::crypt::Key;
use skep_dataplane::{Overlay, Overlays, mac};
use tokio::sync::mpsc;

use crate::net::{Namespace, block_on, until};

pub const DEVICE: &str = "skvx0123456789a";

fn inside(last: u8) -> Ipv4Addr {
    at(0, last)
}

/// On the network of this number.
pub fn at(network: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1 + network, last)
}

pub fn outside(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

enum Order {
    Ensure(Box<Overlay>, Vec<Key>, BTreeMap<Ipv4Addr, IpAddr>),
    Change(BTreeMap<Ipv4Addr, Option<IpAddr>>),
    Remove(String),
}

/// A node in a namespace that it may share, on one network.
pub struct Node<'a> {
    net: &'a Namespace,
    network: u8,
    bridge: String,
    gateway: u8,
    address: u8,
    orders: mpsc::Sender<(Order, std::sync::mpsc::Sender<()>)>,
    thread: std::thread::JoinHandle<()>,
}

impl<'a> Node<'a> {
    /// With a bridge of its own, whose address within the network ends in `gateway`.
    fn new(net: &'a Namespace, address: u8, gateway: u8) -> Self {
        Self::on(0, net, address, gateway)
    }

    /// The same on the network of this number.
    pub fn on(network: u8, net: &'a Namespace, address: u8, gateway: u8) -> Self {
        let bridge = format!("skep{network}12345601{gateway:02x}");
        let (orders, mut inbox) = mpsc::channel::<(Order, std::sync::mpsc::Sender<()>)>(1);
        let thread = net.begin(move || {
            block_on(async move {
                let overlays = Overlays::default();
                while let Some((order, done)) = inbox.recv().await {
                    match order {
                        Order::Ensure(overlay, keys, remotes) => {
                            overlays.ensure(&overlay, keys, &remotes).await.unwrap();
                        }
                        Order::Change(moves) => {
                            overlays.change(DEVICE, &[], &moves).await.unwrap();
                        }
                        Order::Remove(device) => overlays.remove(&device).await.unwrap(),
                    }
                    done.send(()).unwrap();
                }
            });
        });
        Self {
            net,
            network,
            bridge,
            gateway,
            address,
            orders,
            thread,
        }
    }

    fn device(&self) -> String {
        format!("skvx{}123456789a", self.network)
    }

    fn at(&self, last: u8) -> Ipv4Addr {
        at(self.network, last)
    }

    fn order(&self, order: Order) {
        let (done, wait) = std::sync::mpsc::channel();
        self.orders.blocking_send((order, done)).unwrap();
        wait.recv().unwrap();
    }

    /// Has a part in the network, with these addresses on another host.
    pub fn ensure(&self, keys: &[Key], remotes: &[(u8, u8)]) {
        let (bridge, gateway) = (&self.bridge, self.gateway);
        self.net.sh(&format!(
            "[ -e /proc/sys/net/ipv4/conf/{bridge} ] || ip link add {bridge} type bridge
            ip link set {bridge} up && ip addr replace {}/24 dev {bridge}",
            self.at(gateway)
        ));
        let overlay = Overlay {
            bridge: bridge.clone(),
            device: self.device(),
            vni: 4097 + u32::from(self.network),
            port: 4789,
            mtu: 1390,
            local: outside(self.address),
            gateway: self.at(gateway),
            sides: Vec::new(),
            branches: Vec::new(),
        };
        let remotes = remotes
            .iter()
            .map(|(last, host)| (self.at(*last), outside(*host)));
        let order = Order::Ensure(Box::new(overlay), keys.to_vec(), remotes.collect());
        self.order(order);
    }

    /// An address is on another host now, or on none.
    fn change(&self, last: u8, host: Option<u8>) {
        let moves = BTreeMap::from([(inside(last), host.map(outside))]);
        self.order(Order::Change(moves));
        let fdb = self.net.sh("bridge fdb show");
        let mac = format!("02:42:0a:00:01:{last:02x} dev {DEVICE}");
        assert_eq!(fdb.contains(&mac), host.is_some(), "{fdb}");
    }

    /// Has no part in it any more.
    fn leave(&self) {
        self.net.sh(&format!("ip link del {}", self.bridge));
        self.order(Order::Remove(self.device()));
    }

    /// Its daemon ends, and leaves everything as it is.
    pub fn end(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }

    pub fn container(&self, last: u8) -> Namespace {
        let inside_it = Namespace::new().unwrap();
        let (outer, address) = (format!("v{last}"), self.at(last));
        self.net.link(&outer, &inside_it, "eth0");
        self.net.sh(&format!(
            "ip link set {outer} mtu 1390 master {}",
            self.bridge
        ));
        let mac = mac(address).map(|it| format!("{it:02x}")).join(":");
        inside_it.sh(&format!(
            "ip link set eth0 mtu 1390 address {mac} && ip addr add {address}/24 dev eth0"
        ));
        echo(&inside_it);
        inside_it
    }
}

/// Two hosts on one cable.
pub fn hosts() -> Option<[Namespace; 2]> {
    let hosts = [Namespace::new()?, Namespace::new()?];
    hosts[0].link("eth0", &hosts[1], "eth0");
    for (host, number) in hosts.iter().zip(1..) {
        host.sh(&format!(
            "ip addr add 192.0.2.{number}/24 dev eth0
            sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1"
        ));
        echo(host);
    }
    Some(hosts)
}

/// Answers with what it is sent, for as long as the test.
pub fn echo(net: &Namespace) {
    net.within(|| {
        // By either kind of addresses.
        let listener = TcpListener::bind(("::", 7)).unwrap();
        std::thread::spawn(move || {
            for came in listener.incoming() {
                let came = came.unwrap();
                // One that gave up is no matter.
                let _ = std::io::copy(&mut &came, &mut &came);
            }
        });
    });
}

#[track_caller]
fn reach(from: &Namespace, to: u8) {
    reaches(from, inside(to));
}

#[track_caller]
pub fn reaches(from: &Namespace, to: impl Into<IpAddr>) {
    let to = to.into();
    until(&format!("{to} is not reached"), || {
        from.within(move || talk(to).map_err(|error| error.to_string()))
    });
}

/// What is said.
pub const WORD: u8 = 7;

/// Sends some full frames, and reads them again.
pub fn talk(to: IpAddr) -> std::io::Result<()> {
    let wait = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&(to, 7).into(), wait)?;
    stream.set_read_timeout(Some(wait))?;
    let (words, mut answer) = ([WORD; 4000], [0; 4000]);
    stream.write_all(&words)?;
    stream.read_exact(&mut answer)?;
    assert_eq!(words, answer);
    Ok(())
}

/// How many devices are there whose names begin so.
pub fn count(net: &Namespace, prefix: &str) -> usize {
    let all = net.sh("ip -o link show");
    let names = all.lines().filter_map(|it| it.split(": ").nth(1));
    names.filter(|it| it.starts_with(prefix)).count()
}

/// That of an encrypted network.
pub fn a_key() -> Key {
    Key {
        id: 1,
        secret: b"a secret of the network that nobody else knows".to_vec(),
    }
}

/// Says so where a test could not run.
pub fn ran(done: Option<()>) {
    if done.is_none() {
        eprintln!("skipped: network namespaces need root");
    }
}

fn works(keys: &[Key]) -> Option<()> {
    let [host, far] = hosts()?;
    let (a, b, c) = (
        Node::new(&host, 1, 3),
        Node::new(&host, 1, 4),
        Node::new(&far, 2, 5),
    );
    let here = [(5, 2), (13, 2)];
    let there = [(3, 1), (4, 1), (11, 1), (12, 1)];
    a.ensure(keys, &here);
    b.ensure(keys, &here);
    c.ensure(keys, &there);
    let [on_a, on_b, on_c] = [a.container(11), b.container(12), c.container(13)];
    let all = [(&on_a, [12, 13]), (&on_b, [11, 13]), (&on_c, [11, 12])];
    for (from, to) in all {
        to.into_iter().for_each(|to| reach(from, to));
    }
    // The nodes themselves, whichever of their bridges the way leads over.
    [11, 12].into_iter().for_each(|to| reach(&host, to));
    [3, 4, 5].into_iter().for_each(|to| reach(&on_b, to));
    [3, 4].into_iter().for_each(|to| reach(&on_c, to));
    // Addresses come and go, those that were never there too.
    let late = b.container(15);
    c.change(15, Some(1));
    reach(&late, 13);
    c.change(15, None);
    c.change(15, None);
    // What is sealed is led by the one that has the device.
    let leading = if keys.is_empty() {
        &[&a, &b][..]
    } else {
        &[&a]
    };
    for node in leading {
        node.change(16, Some(2));
        node.change(16, None);
    }
    // The one that has the device is told nothing new by being told again, nor is the other.
    let before = host.sh("ip -o link show");
    b.ensure(keys, &here);
    a.ensure(keys, &here);
    assert_eq!(count(&host, "skvx"), 1, "{before}");
    assert_eq!(count(&host, "skej"), 1, "{before}");
    reach(&on_b, 13);
    // When the one that has the device goes, the other one has it.
    a.leave();
    reach(&on_b, 13);
    reach(&on_c, 12);
    assert_eq!(count(&host, "ske"), 1, "{}", host.sh("ip -o link show"));
    // Somebody takes it away.
    host.sh(&format!("ip link del {DEVICE}"));
    reach(&on_b, 13);
    a.ensure(keys, &here);
    a.container(14);
    reach(&on_c, 12);
    assert_eq!(count(&host, "skej"), 1);
    b.leave();
    until("it is not taken over", || match count(&host, "skej") {
        0 => Ok(()),
        _ => Err(host.sh("ip -o link show")),
    });
    a.leave();
    assert_eq!(count(&host, "sk"), 0, "{}", host.sh("ip -o link show"));
    [a, b, c].into_iter().for_each(Node::end);
    Some(())
}

#[test]
fn nodes_that_share_a_namespace_are_on_one_network() {
    ran(works(&[]));
}

#[test]
fn so_they_are_if_it_is_encrypted() {
    ran(works(&[a_key()]));
}
