//! The two loops of encrypted networks: from a bridge to other hosts, and from other hosts to a
//! bridge. A packet that cannot be sent, opened or taken is dropped, as on any network.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UdpSocket;
use tracing::warn;

use super::batch::Batch;
use super::gather::Gather;
use super::inlet::Inlet;
use super::packet::{Head, Key, Opener, Sealer};
use super::{Network, SENDERS, Shared, cut, frame, lock, port, read, vnet};

/// The longest packet, and the longest frame: one of IP and what is in front of it.
const LONGEST: usize = 65_535;
const FRAME: usize = LONGEST + 64;

/// Sends what the bridge has for other hosts, for as long as there is the network.
pub(super) async fn outward(network: Weak<Network>) {
    let (mut bytes, mut packet) = (vec![0; FRAME], Vec::with_capacity(FRAME));
    let mut batch = Batch::default();
    let begin = network.upgrade().map(|it| (it.tap.clone(), it.socket()));
    let Some((tap, mut socket)) = begin else {
        return;
    };
    loop {
        // What is there already goes with what came before; nothing waits for more to come.
        let came = match tap.try_recv(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                batch.send(&socket).await;
                tap.recv(&mut bytes).await
            }
            came => came,
        };
        let length = match came {
            Ok(length) => length,
            Err(error) => {
                let device = network.upgrade().map(|it| it.device.clone());
                warn!(%error, device, "an encrypted network's device is gone");
                return;
            }
        };
        let Some(network) = network.upgrade() else {
            return;
        };
        socket = network.socket();
        let whole = bytes.get(..length).unwrap_or_default();
        let frame = whole.get(vnet::HEAD..).unwrap_or_default();
        let is_elsewhere = |it| network.host_of(it).is_some();
        let answer = frame::answer(frame, &read(&network.sides), is_elsewhere);
        if let Some(answer) = answer {
            let _ = tap.try_send(&[&[0; vnet::HEAD], &answer[..]].concat());
            continue;
        }
        let target = frame::target(frame, &read(&network.sides));
        let host = target.and_then(|address| network.host_of(address));
        let (Some(host), Some(mut parts)) = (host, cut::parts(whole)) else {
            continue;
        };
        let to = SocketAddr::new(host, port(network.port));
        while let Some(part) = parts.next() {
            if !network.seal(part, &mut packet) {
                break;
            }
            if !batch.takes(to, &packet) {
                batch.send(&socket).await;
            }
            batch.add(to, &packet);
        }
    }
}

/// Gives the bridges what comes from other hosts.
pub(super) async fn inward(shared: Weak<Shared>, inlet: Arc<Inlet>) {
    let (mut bytes, mut bridge) = (vec![0; LONGEST], Bridge::default());
    loop {
        // Errors are about packets that were sent before, and not reached.
        let Ok((came, each)) = inlet.receive(&mut bytes).await else {
            continue;
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        for packet in came.chunks_mut(each.max(1)) {
            shared.take(packet, &mut bridge);
        }
        // What came together goes on together; nothing waits for more to come.
        bridge.give();
    }
}

impl Network {
    /// The socket that it sends through now.
    fn socket(&self) -> Arc<UdpSocket> {
        read(&self.socket).clone()
    }

    fn host_of(&self, address: std::net::Ipv4Addr) -> Option<std::net::IpAddr> {
        read(&self.remotes).get(&address).copied()
    }

    /// The newest key that every host has: the one before the newest of all.
    fn seal(&self, frame: (&[u8], &[u8]), packet: &mut Vec<u8>) -> bool {
        let keys = read(&self.keys);
        let Some(key) = keys.get(1).or(keys.first()) else {
            return false;
        };
        let mut sealer = lock(&self.sealer);
        if sealer.as_ref().is_none_or(|(used, _)| used != key) {
            *sealer = begin(key, self.vni).map(|fresh| (key.clone(), fresh));
        }
        sealer
            .as_mut()
            .is_some_and(|(_, sealer)| sealer.seal(frame, packet))
    }
}

fn begin(key: &Key, vni: u32) -> Option<Sealer> {
    let mut epoch = [0; 16];
    SystemRandom::new().fill(&mut epoch).ok()?;
    Sealer::new(key, vni, epoch)
}

impl Shared {
    /// Opens a packet, whose frame is for the bridge of its network.
    fn take(&self, packet: &mut [u8], bridge: &mut Bridge) -> Option<()> {
        let head = Head::of(packet)?;
        let network = read(&self.networks).get(&head.vni).cloned()?;
        let sender = (head.vni, head.key, head.epoch);
        let mut openers = lock(&self.openers);
        let frame = match openers.get_mut(&sender) {
            Some(opener) => opener.open(&head, packet)?,
            None => {
                let keys = read(&network.keys);
                let key = keys.iter().find(|key| key.id == head.key)?;
                let mut opener = Opener::new(key, head.vni, &head.epoch)?;
                let frame = opener.open(&head, packet)?;
                if openers.len() < SENDERS {
                    openers.insert(sender, opener);
                } else {
                    // Better no packet than one that could come twice.
                    return None;
                }
                frame
            }
        };
        bridge.add(&network, frame);
        Some(())
    }
}

/// What is on its way to the bridge of a network.
#[derive(Default)]
struct Bridge {
    network: Option<Arc<Network>>,
    gather: Gather,
}

impl Bridge {
    fn add(&mut self, network: &Arc<Network>, frame: &[u8]) {
        let same = self
            .network
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, network));
        if same && self.gather.add(frame) {
            return;
        }
        self.give();
        self.network = Some(network.clone());
        self.gather.add(frame);
    }

    /// Gives it what there is. One that takes no more loses it.
    fn give(&mut self) {
        if let Some(network) = self.network.take() {
            let _ = network.tap.try_send(self.gather.take());
        }
        self.gather.clear();
    }
}
