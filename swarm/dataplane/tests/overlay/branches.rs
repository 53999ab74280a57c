//! A network of two subnets of each kind on two hosts, each of which has its own addresses in others:
//! everybody reaches everybody by either, the hosts too, whatever of it comes late or is taken away
//! meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_dataplane::crypt::Key;
use skep_dataplane::model::{Branch, Change, Container, Ipv6Subnet, Network};
use skep_dataplane::{Ipv6, Overlay, Overlays, Plane, mac};
use tokio::sync::mpsc;

use crate::joined::{DEVICE, a_key, count, echo, hosts, outside, ran, reaches};
use crate::net::{Namespace, block_on};

const MTU: u32 = 1390;

/// In a subnet of this number.
pub fn at(subnet: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, subnet, last)
}

/// What an address stands for: the subnets have parts of one.
pub fn six(address: Ipv4Addr) -> Ipv6Addr {
    let [_, _, subnet, last] = address.octets();
    side(subnet).address(Ipv4Addr::new(10, 0, subnet, last))
}

fn side(subnet: u8) -> Ipv6 {
    Ipv6 {
        of: (at(subnet, 0), 24),
        first: Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, u16::from(subnet) << 8),
        bits: 120,
    }
}

/// By either kind of addresses.
#[track_caller]
pub fn reach(from: &Namespace, to: Ipv4Addr) {
    reaches(from, to);
    reaches(from, six(to));
}

enum Order {
    Tell(Vec<Change>),
    Leave(std::sync::mpsc::Sender<()>),
}

/// A node, which may share its namespace with others.
pub struct Host<'a> {
    net: &'a Namespace,
    /// The subnet in which it has an address of its own, and that.
    own: (u8, u8),
    orders: mpsc::UnboundedSender<Order>,
    thread: std::thread::JoinHandle<()>,
}

/// That of a subnet on the host with an address of its own in another.
pub fn bridge((own, last): (u8, u8), subnet: u8) -> String {
    format!("skep0123456g{own}{subnet}{last}")
}

impl<'a> Host<'a> {
    pub fn new(
        net: &'a Namespace,
        number: u8,
        own: (u8, u8),
        keys: &[Key],
        there: &[(Ipv4Addr, u8)],
    ) -> Self {
        let other = 3 - own.0;
        let bridges = [bridge(own, own.0), bridge(own, other)];
        for (bridge, address) in bridges.iter().zip([at(own.0, own.1), at(other, 1)]) {
            net.sh(&format!(
                "ip link add {bridge} mtu {MTU} type bridge && ip link set {bridge} up
                ip addr add {address}/24 dev {bridge}
                ip addr add {}/120 dev {bridge} nodad",
                six(address)
            ));
        }
        let [bridge, branch] = bridges;
        let overlay = Overlay {
            bridge: bridge.clone(),
            device: DEVICE.into(),
            vni: 4097,
            port: 4789,
            mtu: MTU,
            local: outside(number),
            gateway: at(own.0, own.1),
            sides: [1, 2].map(side).into(),
            branches: vec![branch.clone()],
        };
        let network = Change::Network(Network {
            id: "n".into(),
            name: "n".into(),
            bridge,
            subnet: (at(own.0, 0), 24),
            gateway: at(own.0, own.1),
            ipv6: Some(Ipv6Subnet {
                subnet: (side(own.0).first, 120),
                gateway: six(at(own.0, own.1)),
            }),
            internal: false,
            ingress: false,
            hosts: BTreeMap::new(),
            branches: vec![Branch {
                bridge: branch,
                subnet: (at(other, 0), 24),
                ipv6: Some((side(other).first, 120)),
            }],
        });
        let remotes: BTreeMap<Ipv4Addr, IpAddr> = there
            .iter()
            .map(|(address, host)| (*address, outside(*host)))
            .collect();
        let keys = keys.to_vec();
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let thread = net.begin(move || {
            block_on(async move {
                let overlays = Overlays::default();
                overlays.ensure(&overlay, keys, &remotes).await.unwrap();
                let plane = Plane::start(Default::default());
                plane.apply(vec![network]).await;
                while let Some(order) = inbox.recv().await {
                    match order {
                        Order::Tell(changes) => plane.apply(changes).await,
                        Order::Leave(done) => {
                            overlays.remove(DEVICE).await.unwrap();
                            done.send(()).unwrap();
                        }
                    }
                }
            });
        });
        Self {
            net,
            own,
            orders,
            thread,
        }
    }

    /// A container, of which the data plane hears before it has a device.
    pub fn container(&self, subnet: u8, last: u8) -> Namespace {
        let inside = Namespace::new().unwrap();
        let address = at(subnet, last);
        let change = Change::Container(Container {
            id: format!("task{last}"),
            pid: inside.pid,
            addresses: BTreeMap::from([(
                "n".to_owned(),
                vec![address.into(), six(address).into()],
            )]),
            ..Container::default()
        });
        assert!(self.orders.send(Order::Tell(vec![change])).is_ok());
        let outer = format!("v{last}");
        self.net.link(&outer, &inside, "eth0");
        self.net.sh(&format!(
            "ip link set {outer} mtu {MTU} master {}",
            bridge(self.own, subnet)
        ));
        let mac = mac(address).map(|it| format!("{it:02x}")).join(":");
        inside.sh(&format!(
            "ip link set eth0 mtu {MTU} address {mac} && ip addr add {address}/24 dev eth0
            ip addr add {}/120 dev eth0 nodad && ip route add default via {}",
            six(address),
            self.gateway(subnet)
        ));
        echo(&inside);
        inside
    }

    /// The way out of a subnet.
    fn gateway(&self, subnet: u8) -> Ipv4Addr {
        let last = if subnet == self.own.0 { self.own.1 } else { 1 };
        at(subnet, last)
    }

    /// What a container of a subnet takes for its way out is this node's own bridge.
    #[track_caller]
    pub fn is_way_out(&self, subnet: u8, inside: &Namespace) {
        let known = inside.sh(&format!("ip neigh show {}", self.gateway(subnet)));
        let bridge = bridge(self.own, subnet);
        let bridge = self.net.sh(&format!("ip -o link show {bridge}"));
        let mac = bridge
            .split_whitespace()
            .skip_while(|it| *it != "link/ether");
        let mac = mac.skip(1).map(str::to_owned).next().unwrap();
        assert!(known.contains(&mac), "{known}{bridge}");
    }

    /// Its data plane hears that the network is gone, before it is.
    pub fn network_gone(&self) {
        let gone = Change::NetworkGone("n".to_owned());
        assert!(self.orders.send(Order::Tell(vec![gone])).is_ok());
    }

    /// Has no part in it any more; what is left belongs to others.
    pub fn leave(self) {
        for subnet in [1, 2] {
            self.net
                .sh(&format!("ip link del {}", bridge(self.own, subnet)));
        }
        let (done, wait) = std::sync::mpsc::channel();
        assert!(self.orders.send(Order::Leave(done)).is_ok());
        wait.recv().unwrap();
        drop(self.orders);
        self.thread.join().unwrap();
    }
}

fn works(keys: &[Key]) -> Option<()> {
    let [here, there] = hosts()?;
    let (on_here, on_there) = ([at(1, 11), at(2, 12)], [at(2, 13), at(1, 14)]);
    let places = |own: Ipv4Addr, all: [Ipv4Addr; 2], host| {
        [own, all[0], all[1]].map(|address| (address, host))
    };
    let a = Host::new(&here, 1, (1, 3), keys, &places(at(2, 4), on_there, 2));
    let b = Host::new(&there, 2, (2, 4), keys, &places(at(1, 3), on_here, 1));
    let containers = [
        a.container(1, 11),
        a.container(2, 12),
        b.container(2, 13),
        b.container(1, 14),
    ];
    let all = [on_here, on_there].concat();
    for (container, own) in containers.iter().zip(&all) {
        let others = all.iter().filter(|it| *it != own);
        others.for_each(|it| reach(container, *it));
        [at(1, 3), at(2, 4)]
            .into_iter()
            .for_each(|it| reach(container, it));
    }
    for host in [&here, &there] {
        all.iter().for_each(|it| reach(host, *it));
    }
    // A route that is gone comes back, and so does the way between the bridges.
    containers[0].sh("ip route del 10.0.2.0/24 && ip -6 route del fd00:7::200/120");
    here.sh("ip link del $(ip -o link show | grep -o 'skej[^@:]*' | head -n 1)");
    reach(&containers[1], at(1, 14));
    reach(&containers[0], at(2, 13));
    assert_eq!(count(&here, "skej"), 1);
    a.leave();
    b.leave();
    [&here, &there].into_iter().for_each(nothing_left);
    Some(())
}

/// Nothing of a network is there.
pub fn nothing_left(net: &Namespace) {
    assert_eq!(count(net, "sk"), 0, "{}", net.sh("ip -o link show"));
}

#[test]
fn all_subnets_of_a_network_are_one() {
    ran(works(&[]));
}

#[test]
fn so_they_are_if_it_is_encrypted() {
    ran(works(&[a_key()]));
}
