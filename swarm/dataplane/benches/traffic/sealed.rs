//! An encrypted network between hosts, with one container on each. Measures nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc;

use super::hosts::net::Namespace;
use super::hosts::{Host, outside};
use skep_dataplane::crypt::{Crypt, Key};
use skep_dataplane::{Ipv6, Overlay};

/// The longest packet: what the seal takes is missing.
const MTU: u32 = 1390;
const IPV6: Ipv6 = Ipv6 {
    of: (Ipv4Addr::new(10, 0, 2, 0), 24),
    first: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0),
    bits: 64,
};

/// A container, and what holds its host's end of the network.
pub struct Sealed {
    pub inside: Namespace,
    _open: mpsc::Sender<()>,
}

/// The address of the container on a host.
pub fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, host)
}

/// The same of IPv6.
pub fn address6(host: u8) -> Ipv6Addr {
    IPV6.address(address(host))
}

fn gateway(host: u8) -> u8 {
    250 + host
}

/// Makes it on all of these hosts.
pub fn network(hosts: &[Host]) -> Vec<Sealed> {
    hosts.iter().map(|host| join(host, hosts)).collect()
}

fn join(host: &Host, all: &[Host]) -> Sealed {
    let own = gateway(host.number);
    host.net.sh(&format!(
        "ip link add skepsealed type bridge && ip addr add 10.0.2.{own}/24 dev skepsealed
        ip link set skepsealed up"
    ));
    let inside = host.plug("skepsealed", (address(host.number), 24), own);
    let own6 = address6(host.number);
    inside.sh(&format!(
        "ip link set eth0 mtu {MTU} && ip addr add {own6}/64 dev eth0 nodad"
    ));
    let overlay = Overlay {
        bridge: "skepsealed".into(),
        device: "skvxsealed".into(),
        vni: 4097,
        port: 4789,
        mtu: MTU,
        local: outside(host.number),
        gateway: address(own),
        sides: vec![IPV6],
        branches: Vec::new(),
    };
    let others = all.iter().filter(|it| it.number != host.number);
    let remotes: BTreeMap<_, _> = others
        .map(|it| (address(it.number), outside(it.number)))
        .collect();
    let keys = [Key {
        id: 1,
        secret: vec![7; 32],
    }];
    let (open, closed) = mpsc::channel::<()>();
    let (done, made) = mpsc::channel();
    host.net.begin(move || {
        // Its threads are where the one is that makes them.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let crypt = Crypt::default();
        let ensured = runtime.block_on(crypt.ensure(&overlay, &keys, &remotes));
        done.send(ensured.map_err(|error| error.to_string()))
            .unwrap();
        // For as long as somebody holds the other end.
        let _ = closed.recv();
    });
    made.recv().unwrap().unwrap();
    Sealed {
        inside,
        _open: open,
    }
}
