//! An encrypted network between hosts, with one container on each. Measures nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::mpsc;

use super::hosts::net::Namespace;
use super::hosts::{Host, outside};
use skep_dataplane::Overlay;
use skep_dataplane::crypt::{Crypt, Key};

/// The longest packet: what the seal takes is missing.
const MTU: u32 = 1390;

/// A container, and what holds its host's end of the network.
pub struct Sealed {
    pub inside: Namespace,
    _open: mpsc::Sender<()>,
}

/// The address of the container on a host.
pub fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, host)
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
    inside.sh(&format!("ip link set eth0 mtu {MTU}"));
    let overlay = Overlay {
        bridge: "skepsealed".into(),
        device: "skvxsealed".into(),
        vni: 4097,
        port: 4789,
        mtu: MTU,
        local: outside(host.number),
        gateway: address(own),
        ipv6: None,
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
