//! Hosts without engines: network namespaces on a LAN, each with a bridge of an overlay, containers
//! on it that answer with whom they see, and a running data plane. All of it ends with the test.
//! Needs root, iproute2, nftables and iptables.

#![allow(dead_code)]

pub mod net;
pub mod talk;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_dataplane::model::{
    Change, Container, Endpoint, Ipv6Subnet, Network, Port, Protocol, Reports, Service,
};
use skep_dataplane::{Config, Ipv6, Overlay, Plane, ensure};
use tokio::sync::{mpsc, watch};

use net::{Namespace, until};

/// The network's id, and the service's.
pub const NETWORK: &str = "ingress";
pub const WEB: &str = "web";
/// Who asks from outside.
pub const CLIENT: &str = "198.51.100.9";

/// The network's IPv6 side, where it has one.
const IPV6: Ipv6 = Ipv6 {
    of: (Ipv4Addr::new(10, 0, 0, 0), 24),
    first: Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0),
    bits: 64,
};
/// The longest packet on the overlay.
const MTU: u32 = 1450;

/// Hosts on one LAN, with a router to a client in another network.
pub struct Lab {
    pub router: Namespace,
    pub client: Namespace,
    pub hosts: Vec<Host>,
}

/// A host. Its containers are in the order in which they were made.
pub struct Host {
    pub number: u8,
    pub net: Namespace,
    pub containers: Vec<Namespace>,
    /// The network's IPv6 side.
    ipv6: Option<Ipv6>,
    /// The last parts of their addresses.
    lasts: Vec<u8>,
    /// Tasks answer clients of other hosts by themselves.
    direct: bool,
    plane: Option<Daemon>,
}

/// A data plane that runs on a host.
struct Daemon {
    changes: mpsc::UnboundedSender<Vec<Change>>,
    reports: watch::Receiver<Reports>,
    thread: std::thread::JoinHandle<()>,
}

/// A task's place: its host and the last part of its address.
pub type Task = (u8, u8);

impl Lab {
    /// `None` where that is not allowed.
    pub fn new(hosts: u8, tasks: &[Task]) -> Option<Self> {
        Self::with(None, hosts, tasks)
    }

    /// With IPv6 on the network, too.
    pub fn with_ipv6(hosts: u8, tasks: &[Task]) -> Option<Self> {
        Self::with(Some(IPV6), hosts, tasks)
    }

    fn with(ipv6: Option<Ipv6>, hosts: u8, tasks: &[Task]) -> Option<Self> {
        let router = Namespace::new()?;
        let client = Namespace::new()?;
        router.sh("ip link add lan type bridge && ip link set lan up
            ip addr add 192.0.2.254/24 dev lan && ip addr add fd00::fe/64 dev lan nodad
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        router.link("out", &client, "eth0");
        router.sh("ip addr add 198.51.100.1/24 dev out && ip addr add fd01::fe/64 dev out nodad");
        client.sh(
            "ip addr add 198.51.100.9/24 dev eth0 && ip addr add fd01::9/64 dev eth0 nodad
            ip route add default via 198.51.100.1 && ip -6 route add default via fd01::fe",
        );
        let numbers = 1..=hosts;
        let mut hosts: Vec<_> = numbers
            .map(|number| Host::new(&router, number, ipv6))
            .collect();
        for (host, task) in tasks {
            hosts[usize::from(*host) - 1].container(*task);
        }
        let all: Vec<u8> = hosts.iter().map(|host| host.number).collect();
        hosts.iter().for_each(|host| host.overlay(&all, tasks));
        Some(Self {
            router,
            client,
            hosts,
        })
    }

    /// Tells every host the same, as each of them sees it.
    pub fn tell(&self, what: impl Fn(&Host) -> Vec<Change>) {
        self.hosts.iter().for_each(|host| host.tell(what(host)));
    }

    /// Tells every host of the network, the service and its tasks. As on hosts with engines, tasks
    /// serve once they, or their hosts for them, have what lets them answer.
    pub fn serve(&self, service: &Service, tasks: &[Task]) {
        self.tell(|host| {
            let all: Vec<u8> = self.hosts.iter().map(|host| host.number).collect();
            let mut changes = vec![host.network(&all), published(service)];
            changes.extend(host.known());
            changes
        });
        let run = self.hosts.iter().filter(|it| it.plane.is_some());
        let (direct, others): (Vec<_>, Vec<_>) = run.partition(|it| it.direct);
        let direct = direct.into_iter();
        direct.flat_map(|it| &it.containers).for_each(prepared);
        if self.hosts.len() > 1 {
            others.into_iter().for_each(Host::knows_others);
        }
        self.tell(|host| {
            let tasks = tasks.iter();
            tasks.map(|it| host.endpoint(&service.id, *it)).collect()
        });
    }
}

/// A service with these ports: protocol, published, target.
pub fn service(ports: &[(Protocol, u16, u16)]) -> Service {
    let port = |(protocol, published, target): &(_, _, _)| Port {
        protocol: *protocol,
        published: *published,
        target: *target,
    };
    Service {
        id: WEB.to_owned(),
        name: WEB.to_owned(),
        ports: ports.iter().map(port).collect(),
        ..Service::default()
    }
}

pub fn published(service: &Service) -> Change {
    Change::Service(NETWORK.to_owned(), service.clone())
}

pub fn gone(service: &str, (_, task): Task) -> Change {
    Change::EndpointGone(NETWORK.to_owned(), format!("{service}-{task}"))
}

/// Waits until a task has the rules for its answers.
pub fn prepared(task: &Namespace) {
    until("a task has no rules", || {
        let (done, said) = task.attempt("nft list table netdev skep-replies");
        done.then_some(()).ok_or(said)
    });
}

pub fn inside(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

pub fn outside(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

impl Host {
    fn new(router: &Namespace, number: u8, ipv6: Option<Ipv6>) -> Self {
        let net = Namespace::new().unwrap();
        router.link(&format!("host{number}"), &net, "eth0");
        router.sh(&format!("ip link set host{number} master lan"));
        // As strict as a distribution may be, and with an engine's own network.
        net.sh(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1
            sysctl -qw net.ipv4.conf.default.rp_filter=1
            ip addr add 192.0.2.{number}/24 dev eth0 && ip addr add fd00::{number}/64 dev eth0 nodad
            ip route add default via 192.0.2.254 && ip -6 route add default via fd00::fe
            ip link add skepin type bridge && ip addr add 10.0.0.{number}/24 dev skepin
            ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0
            ip link set skepin up && ip link set docker0 up"
        ));
        if let Some(ipv6) = ipv6 {
            let own = ipv6.address(inside(number));
            net.sh(&format!(
                "sysctl -qw net.ipv6.conf.all.forwarding=1
                ip addr add {own}/{} dev skepin nodad",
                ipv6.bits
            ));
        }
        Self {
            number,
            net,
            ipv6,
            containers: Vec::new(),
            lasts: Vec::new(),
            direct: false,
            plane: None,
        }
    }

    /// A container on the overlay, with servers on port 80.
    fn container(&mut self, last: u8) {
        let address = Ipv4Addr::new(10, 0, 0, last);
        let inside = self.plug("skepin", (address, 24), self.number);
        inside.sh(&format!("ip link set eth0 mtu {MTU}"));
        if let Some(ipv6) = self.ipv6 {
            let own = ipv6.address(address);
            let gateway = ipv6.address(self::inside(self.number));
            inside.sh(&format!(
                "ip addr add {own}/{} dev eth0 nodad && ip -6 route add default via {gateway}",
                ipv6.bits
            ));
        }
        talk::serve(&inside, format!("task{last}"));
        self.containers.push(inside);
        self.lasts.push(last);
    }

    /// A container on the engine's own network.
    pub fn plain(&self) -> Namespace {
        self.plug("docker0", (Ipv4Addr::new(172, 17, 0, 2), 16), 1)
    }

    /// A namespace on a bridge; the last part of the gateway's address differs from its own.
    pub fn plug(&self, bridge: &str, own: (Ipv4Addr, u8), gateway: u8) -> Namespace {
        let inside = Namespace::new().unwrap();
        let (address, length) = own;
        let [a, b, c, _] = address.octets();
        let outer = format!("v{:08x}", address.to_bits());
        self.net.link(&outer, &inside, "eth0");
        self.net.sh(&format!("ip link set {outer} master {bridge}"));
        let mac = skep_dataplane::mac(address).map(|it| format!("{it:02x}"));
        inside.sh(&format!(
            "ip link set eth0 address {} && ip addr add {address}/{length} dev eth0
            ip route add default via {a}.{b}.{c}.{gateway}",
            mac.join(":")
        ));
        inside
    }

    /// Joins the bridges of all hosts.
    fn overlay(&self, hosts: &[u8], tasks: &[Task]) {
        let overlay = Overlay {
            bridge: "skepin".into(),
            device: "skvxin".into(),
            vni: 4096,
            port: 4789,
            mtu: MTU,
            local: outside(self.number),
            gateway: inside(self.number),
            sides: self.ipv6.into_iter().collect(),
            branches: Vec::new(),
        };
        let gateways = hosts.iter().map(|host| (*host, *host));
        let all = gateways.chain(tasks.iter().copied());
        let others = all.filter(|(host, _)| *host != self.number);
        let remotes: BTreeMap<_, _> = others
            .map(|(host, last)| (inside(last), outside(host)))
            .collect();
        let made = self
            .net
            .within(move || net::block_on(async move { ensure(&overlay, &remotes).await }));
        made.unwrap();
    }

    pub fn network(&self, hosts: &[u8]) -> Change {
        let others = hosts.iter().filter(|host| **host != self.number);
        Change::Network(Network {
            id: NETWORK.to_owned(),
            name: NETWORK.to_owned(),
            bridge: "skepin".to_owned(),
            subnet: (inside(0), 24),
            gateway: inside(self.number),
            ipv6: self.ipv6.map(|it| Ipv6Subnet {
                subnet: (it.first, it.bits),
                gateway: it.address(inside(self.number)),
            }),
            internal: false,
            ingress: true,
            hosts: others.map(|host| (inside(*host), outside(*host))).collect(),
            branches: Vec::new(),
        })
    }

    /// Waits until it sends answers of its tasks back to the hosts that clients came to.
    fn knows_others(&self) {
        until("a host does not know the others", || {
            let (done, said) = self.net.attempt("nft list map ip skep-mesh back");
            let known = done && said.contains("elements");
            known.then_some(()).ok_or(said)
        });
    }

    /// Those of a task.
    fn addresses(&self, last: u8) -> Vec<IpAddr> {
        let ipv6 = self.ipv6.map(|it| it.address(inside(last)).into());
        [Some(inside(last).into()), ipv6]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Its containers, as it knows them.
    pub fn known(&self) -> Vec<Change> {
        let all = self.containers.iter().zip(&self.lasts);
        let known = all.map(|(container, last)| {
            Change::Container(Container {
                id: format!("{WEB}-{last}"),
                pid: container.pid,
                addresses: BTreeMap::from([(NETWORK.to_owned(), self.addresses(*last))]),
                ..Container::default()
            })
        });
        known.collect()
    }

    pub fn endpoint(&self, service: &str, (host, last): Task) -> Change {
        let endpoint = Endpoint {
            id: format!("{service}-{last}"),
            service: Some(service.to_owned()),
            addresses: self.addresses(last),
            host: (host != self.number).then(|| inside(host)),
            ..Endpoint::default()
        };
        Change::Endpoint(NETWORK.to_owned(), endpoint)
    }

    /// Starts the data plane.
    pub fn start(&mut self) {
        self.start_with(Config::default());
    }

    /// Starts one that is told so of the host.
    pub fn start_with(&mut self, config: Config) {
        self.direct = !config.routes_replies;
        let (changes, mut inbox) = mpsc::unbounded_channel();
        let (told, reports) = std::sync::mpsc::channel();
        let thread = self.net.begin(move || {
            net::block_on(async move {
                let plane = Plane::start(config);
                told.send(plane.reports()).unwrap();
                while let Some(changes) = inbox.recv().await {
                    plane.apply(changes).await;
                }
            });
        });
        self.plane = Some(Daemon {
            changes,
            reports: reports.recv().unwrap(),
            thread,
        });
    }

    /// Ends the data plane, as a daemon that stops does.
    pub fn stop(&mut self) {
        let daemon = self.plane.take().unwrap();
        drop(daemon.changes);
        daemon.thread.join().unwrap();
    }

    pub fn tell(&self, changes: Vec<Change>) {
        self.plane.as_ref().unwrap().changes.send(changes).unwrap();
    }

    pub fn reports(&self) -> Reports {
        self.plane.as_ref().unwrap().reports.borrow().clone()
    }
}
