//! What virtual addresses and the routing mesh cost whoever uses them: throughput and new
//! connections a second, beside a container that is reached directly over the same VXLAN, and
//! beside one host that speaks with another; and how soon a task is reached that has begun to
//! serve. All ways take turns in one run, so that whatever else the machine does meets all of them.
//! `cargo bench -p skep-dataplane --bench traffic`, and `-- mesh` for the ways that are called so;
//! needs root, iproute2, nftables and iptables.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing
)]

#[path = "../tests/hosts/mod.rs"]
mod hosts;
#[path = "traffic/load.rs"]
mod load;
#[path = "traffic/sealed.rs"]
mod sealed;
#[path = "shared/work.rs"]
mod work;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hosts::net::{Namespace, until};
use hosts::{Host, Lab, NETWORK, Task, WEB, gone, outside};
use load::{BYTES, CONNECTIONS, Rate, Taken};
use rand::seq::SliceRandom;
use sealed::Sealed;
use skep_dataplane::model::{Change, Container, Endpoint, Network, Protocol, Service};

/// How often each way has its turn.
const ROUNDS: usize = 31;
/// How often a task begins to serve.
const BEGINNINGS: usize = 20;
/// Until then whoever asks for it gives up, and how soon they ask again.
const PATIENCE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(1);
/// Containers that the data plane knows: a client on the first host, a task on the second.
const CLIENT: Task = (1, 11);
const TASK: Task = (2, 12);
/// Two that it does not know, with the rules that an engine gives its containers; and two that have
/// no rules at all, whose kernel keeps track of no connection.
const DIRECT: [Task; 2] = [(1, 13), (2, 14)];
const BARE: [Task; 2] = [(1, 15), (2, 16)];
/// Those rules: an engine's resolver is reached at an address that is translated.
const ENGINE: &str = "nft 'add table ip nat
    add chain ip nat output { type nat hook output priority -100; }
    add rule ip nat output ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:5300
    add rule ip nat output ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:5300
    add chain ip nat postrouting { type nat hook postrouting priority 100; }
    add rule ip nat postrouting ip saddr 127.0.0.11 udp sport 5300 snat to :53
    add rule ip nat postrouting ip saddr 127.0.0.11 tcp sport 5300 snat to :53'";
/// Ports are published on the one network, virtual addresses are used on the other. Both are the
/// same VXLAN here, so that all ways lead through it.
const INNER: &str = "inner";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
/// Published for the servers' two ports.
const PUBLISHED: [(Protocol, u16, u16); 2] = [
    (Protocol::Tcp, 8000, BYTES),
    (Protocol::Tcp, 8001, CONNECTIONS),
];

/// The least that a kernel needs to answer for another host's task, without any of the mesh's rules:
/// one that turns to the task whoever asks at a port, and one that masks them, so that the task
/// answers by the way they came. It does not see who asked.
const BY_HAND: [(u16, u16); 2] = [(8100, BYTES), (8101, CONNECTIONS)];

/// From somewhere to a server.
struct Way<'a> {
    name: &'static str,
    from: &'a Namespace,
    /// Where bytes go, and where connections.
    to: [(Ipv4Addr, u16); 2],
    taken: &'a Taken,
    /// What it must have of a direct way's throughput and connections.
    targets: Option<[f64; 2]>,
    /// Round by round: bits, and connections.
    figures: [Vec<Rate>; 2],
}

impl<'a> Way<'a> {
    fn new(name: &'static str, from: &'a Namespace, to: Ipv4Addr, taken: &'a Taken) -> Self {
        Self {
            name,
            from,
            to: [(to, BYTES), (to, CONNECTIONS)],
            taken,
            targets: None,
            figures: Default::default(),
        }
    }

    /// By way of published ports.
    fn published(self) -> Self {
        self.at(PUBLISHED.map(|(_, port, _)| port))
    }

    /// By way of such ports.
    fn at(self, ports: [u16; 2]) -> Self {
        let to = [0, 1].map(|at| (self.to[at].0, ports[at]));
        Self { to, ..self }
    }

    fn at_least(self, throughput: f64, connections: f64) -> Self {
        let targets = Some([throughput, connections]);
        Self { targets, ..self }
    }

    /// Waits until somebody answers there.
    fn ready(&self) {
        for (address, port) in self.to {
            until(self.name, || reaches(self.from, (address, port)));
        }
    }

    fn turn(&mut self) {
        let bits = load::throughput(self.from, self.to[0], self.taken);
        let connections = load::connections(self.from, self.to[1]);
        self.figures[0].push(bits);
        self.figures[1].push(connections);
    }

    /// The median of what it has of another way's figures, round by round.
    fn share(&self, which: usize, of: &Self, figure: fn(&Rate) -> f64) -> f64 {
        let pairs = self.figures[which].iter().zip(&of.figures[which]);
        median(pairs.map(|(own, others)| figure(own) / figure(others)))
    }

    fn columns(&self, which: usize, direct: &Self, hosts: &Self) -> String {
        let figure = median(self.figures[which].iter().map(|it| it.time));
        let figure = match which {
            0 => format!("{:.1} Gbit/s", figure / 1e9),
            _ => format!("{figure:.0}/s"),
        };
        let target = self.targets.map(|it| format!(">= {:.2}", it[which]));
        format!(
            "  {figure:>11} {:>7.2} {:>7.2} {:>7} {:>7.2}",
            self.share(which, hosts, |it| it.time),
            self.share(which, direct, |it| it.time),
            target.unwrap_or_default(),
            self.share(which, direct, |it| it.work),
        )
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn reaches(from: &Namespace, to: (Ipv4Addr, u16)) -> Result<(), String> {
    let made = from.within(move || TcpStream::connect(to).map(drop));
    made.map_err(|error| format!("{to:?}: {error}"))
}

/// What a host is to know: the published service, and one with a virtual address. Its task comes
/// later.
fn told(host: &Host) -> Vec<Change> {
    let ingress = host.network(&[1, 2]);
    let Change::Network(network) = ingress.clone() else {
        panic!("a network is told as one");
    };
    let inner = Network {
        id: INNER.to_owned(),
        name: INNER.to_owned(),
        ingress: false,
        hosts: BTreeMap::new(),
        ..network
    };
    let service = Service {
        id: WEB.to_owned(),
        name: WEB.to_owned(),
        vips: vec![IpAddr::V4(VIP)],
        ..Service::default()
    };
    let mut told = vec![
        ingress,
        hosts::published(&hosts::service(&PUBLISHED)),
        Change::Network(inner),
        Change::Service(INNER.to_owned(), service),
    ];
    let (_, last) = [CLIENT, TASK][usize::from(host.number) - 1];
    let addresses = vec![IpAddr::V4(hosts::inside(last))];
    let on = [NETWORK, INNER].map(|it| (it.to_owned(), addresses.clone()));
    told.push(Change::Container(Container {
        id: format!("{WEB}-{last}"),
        pid: host.containers[0].pid,
        addresses: BTreeMap::from(on),
        ..Container::default()
    }));
    told
}

/// The task begins to serve.
fn serves(host: &Host) -> Vec<Change> {
    let published = host.endpoint(WEB, TASK);
    let Change::Endpoint(_, endpoint) = published.clone() else {
        panic!("an endpoint is told as one");
    };
    let inner = Endpoint {
        host: None,
        ..endpoint
    };
    vec![published, Change::Endpoint(INNER.to_owned(), inner)]
}

/// And ends.
fn ends(_: &Host) -> Vec<Change> {
    let published = gone(WEB, TASK);
    let Change::EndpointGone(_, id) = published.clone() else {
        panic!("an endpoint's end is told as one");
    };
    vec![published, Change::EndpointGone(INNER.to_owned(), id)]
}

/// How long it takes from what hosts are told until the task is reached, way by way.
fn beginnings(lab: &Lab, ways: &[Way<'_>]) -> Vec<Vec<f64>> {
    let mut took = vec![Vec::new(); ways.len()];
    for _ in 0..BEGINNINGS {
        lab.tell(ends);
        for way in ways {
            until("it is still reached", || {
                match reaches(way.from, way.to[1]) {
                    Ok(()) => Err(way.name.to_owned()),
                    Err(_) => Ok(()),
                }
            });
        }
        let start = Instant::now();
        let asking: Vec<_> = ways.iter().map(|way| reached(way, start)).collect();
        lab.tell(serves);
        for (took, asking) in took.iter_mut().zip(asking) {
            took.push(asking.join().unwrap());
        }
    }
    took
}

/// Asks again and again; when somebody answered, in milliseconds since the start.
fn reached(way: &Way<'_>, start: Instant) -> JoinHandle<f64> {
    let (name, to) = (way.name, SocketAddr::from(way.to[1]));
    way.from.begin(move || {
        while TcpStream::connect_timeout(&to, PATIENCE).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "{name}");
            std::thread::sleep(PAUSE);
        }
        start.elapsed().as_secs_f64() * 1e3
    })
}

fn show(ways: &[Way<'_>]) {
    let (hosts, direct) = (&ways[0], &ways[1]);
    let head = format!(
        "  {:>11} {:>7} {:>7} {:>7} {:>7}",
        "", "/hosts", "/direct", "target", "by work"
    );
    println!("{:34}{head}{head}", "");
    for way in ways {
        let columns = [0, 1].map(|which| way.columns(which, direct, hosts));
        println!("{:34}{}", way.name, columns.concat());
    }
}

fn show_beginnings(names: Vec<&str>, took: Vec<Vec<f64>>) {
    println!("\nfrom what hosts are told of a task until it is reached (target: < 100 ms)");
    for (name, took) in names.into_iter().zip(took) {
        let longest = took.iter().copied().fold(0.0, f64::max);
        let usual = median(took.into_iter());
        println!("{name:34}  {usual:>8.1} ms, at most {longest:.1} ms");
    }
}

/// A client outside, at the end of a cable to a host, as a container is. By way of another host its
/// packets pass as many cables as on the direct way, four; at the task's own host only two, so what
/// that way has beyond the direct one is not the mesh's merit. Each host has a client of its own:
/// one that uses a port again towards another host, sooner than a task forgets connections that
/// have ended, may have to wait for a second (seen, but seldom).
fn neighbour(host: &Host) -> Namespace {
    let outer = Namespace::new().unwrap();
    let first = 4 * host.number;
    let [near, far] = [1, 2].map(|at| format!("203.0.113.{}", first + at));
    host.net.link("outer", &outer, "eth0");
    host.net.sh(&format!("ip addr add {near}/30 dev outer"));
    outer.sh(&format!(
        "ip addr add {far}/30 dev eth0 && ip route add default via {near}"
    ));
    outer
}

/// Lets a host answer for a task in the least way there is.
fn by_hand(host: &Host) {
    let to = hosts::inside(DIRECT[1].1);
    let turned = BY_HAND.map(|(port, target)| {
        format!("add rule ip hand prerouting tcp dport {port} dnat to {to}:{target}\n")
    });
    host.net.sh(&format!(
        "nft 'add table ip hand
        add chain ip hand prerouting {{ type nat hook prerouting priority -100; }}
        {}
        add chain ip hand postrouting {{ type nat hook postrouting priority 100; }}
        add rule ip hand postrouting ct status dnat ip daddr {to} masquerade'",
        turned.concat()
    ));
}

/// Lets a kernel forget connections at once that have ended. It is both hosts, all containers and all
/// clients here and keeps what any of them knows in one table, which would soon be larger than any
/// host's, and all the more in the way of whoever looks into it often.
const FORGETFUL: &str = "sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=1
    sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_close=1";

/// What the servers have taken, each in its namespace.
struct Servers {
    host: Taken,
    task: Taken,
    direct: Taken,
    bare: Taken,
    sealed: Taken,
}

impl Servers {
    /// Starts them, and gives containers the rules and clients the ports that they need.
    fn start(lab: &Lab, outer: &[Namespace], sealed: &[Sealed]) -> Self {
        let (first, second) = (&lab.hosts[0], &lab.hosts[1]);
        let others = outer.iter().chain(&first.containers);
        for from in others.chain([&first.net]) {
            from.sh("sysctl -qw net.ipv4.ip_local_port_range='1024 65535'");
        }
        let hosts = [&first.net, &second.net].into_iter();
        let containers = first.containers.iter().chain(&second.containers);
        let sealed_in = sealed.iter().map(|it| &it.inside);
        for namespace in hosts.chain(containers).chain(outer).chain(sealed_in) {
            namespace.sh(FORGETFUL);
        }
        for containers in [&first.containers, &second.containers] {
            containers[..2].iter().for_each(|it| drop(it.sh(ENGINE)));
        }
        let [task, direct, bare] = [0, 1, 2].map(|at| load::serve(&second.containers[at]));
        Self {
            host: load::serve(&second.net),
            task,
            direct,
            bare,
            sealed: load::serve(&sealed[1].inside),
        }
    }
}

/// All ways: the hosts' own first, then the direct one.
fn ways<'a>(
    lab: &'a Lab,
    outer: &'a [Namespace],
    sealed: &'a [Sealed],
    servers: &'a Servers,
) -> Vec<Way<'a>> {
    let host = &lab.hosts[0];
    let [client, direct, bare] = [0, 1, 2].map(|at| &host.containers[at]);
    let (task, to) = (&servers.task, hosts::inside);
    let mesh = |name, host: u8| {
        let IpAddr::V4(to) = outside(host) else {
            panic!("hosts have IPv4 addresses");
        };
        Way::new(name, &outer[usize::from(host) - 1], to, task)
            .published()
            .at_least(0.9, 0.9)
    };
    let IpAddr::V4(second) = outside(2) else {
        panic!("hosts have IPv4 addresses");
    };
    let IpAddr::V4(first) = outside(1) else {
        panic!("hosts have IPv4 addresses");
    };
    let sealed = (&sealed[0].inside, sealed::address(2));
    vec![
        Way::new("host to host", &host.net, second, &servers.host),
        Way::new(
            "container to container, directly",
            direct,
            to(DIRECT[1].1),
            &servers.direct,
        ),
        Way::new(
            "the same, without any rules",
            bare,
            to(BARE[1].1),
            &servers.bare,
        ),
        Way::new("virtual address", client, VIP, task).at_least(0.95, 0.9),
        mesh("mesh, by way of another host", 1),
        mesh("mesh, at the task's own host", 2),
        Way::new(
            "another host by hand, masked",
            &outer[0],
            first,
            &servers.direct,
        )
        .at(BY_HAND.map(|(port, _)| port)),
        Way::new("encrypted, directly", sealed.0, sealed.1, &servers.sealed),
    ]
}

fn main() {
    let tasks = [CLIENT, TASK, DIRECT[0], DIRECT[1], BARE[0], BARE[1]];
    let Some(mut lab) = Lab::new(2, &tasks) else {
        eprintln!("skipped: network namespaces need root");
        return;
    };
    lab.hosts.iter_mut().for_each(Host::start);
    let outer: Vec<_> = lab.hosts.iter().map(neighbour).collect();
    let sealed = sealed::network(&lab.hosts);
    by_hand(&lab.hosts[0]);
    lab.tell(told);
    let known = lab.hosts.iter().map(|it| &it.containers[0]);
    known.for_each(hosts::prepared);
    lab.tell(serves);
    let servers = Servers::start(&lab, &outer, &sealed);
    let mut ways = ways(&lab, &outer, &sealed, &servers);
    ways.iter().for_each(Way::ready);
    // Before the hosts know of a great many connections that have ended.
    let took = beginnings(&lab, &ways[3..6]);
    let names = ways[3..6].iter().map(|it| it.name).collect();
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    let is_asked = |way: &Way<'_>| asked.iter().any(|it| way.name.contains(it.as_str()));
    let mut at = 0;
    ways.retain(|way| {
        at += 1;
        // What the others are compared with is always there.
        at <= 2 || asked.is_empty() || is_asked(way)
    });
    for _ in 0..ROUNDS {
        // What one leaves behind for a moment is not always in the same one's way.
        let mut turns: Vec<_> = ways.iter_mut().collect();
        turns.shuffle(&mut rand::rng());
        turns.into_iter().for_each(Way::turn);
    }
    show(&ways);
    show_beginnings(names, took);
}
