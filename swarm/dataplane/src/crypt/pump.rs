//! The two loops of encrypted networks: from a bridge to other hosts, and from other hosts to a
//! bridge. A packet that cannot be sent, opened or taken is dropped, as on any network.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UdpSocket;
use tracing::warn;

use super::batch::{self, Batch};
use super::packet::{Head, Key, Opener, Sealer};
use super::{Network, SENDERS, Shared, frame, lock, port, read};
use crate::Ipv6;

/// The longest frame, or packet.
const LONGEST: usize = 65_535;

/// Sends what the bridge has for other hosts, for as long as there is the network.
pub(super) async fn outward(network: Weak<Network>) {
    let (mut bytes, mut packet) = (vec![0; LONGEST], Vec::with_capacity(LONGEST));
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
                warn!(%error, device = tap.name(), "an encrypted network's device is gone");
                return;
            }
        };
        let Some(network) = network.upgrade() else {
            return;
        };
        socket = network.socket();
        let frame = bytes.get(..length).unwrap_or_default();
        let host =
            frame::target(frame, network.ipv6()).and_then(|address| network.host_of(address));
        if let Some(host) = host
            && network.seal(frame, &mut packet)
        {
            let to = SocketAddr::new(host, port(network.port));
            if !batch.takes(to, &packet) {
                batch.send(&socket).await;
            }
            batch.add(to, &packet);
        }
    }
}

/// Gives the bridges what comes from other hosts.
pub(super) async fn inward(shared: Weak<Shared>, socket: Arc<UdpSocket>) {
    let mut bytes = vec![0; LONGEST];
    loop {
        // Errors are about packets that were sent before, and not reached.
        let Ok((length, each)) = batch::receive(&socket, &mut bytes).await else {
            continue;
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let came = bytes.get_mut(..length).unwrap_or_default();
        for packet in came.chunks_mut(each.max(1)) {
            shared.take(packet);
        }
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

    fn ipv6(&self) -> Option<Ipv6> {
        *read(&self.ipv6)
    }

    /// The newest key that every host has: the one before the newest of all.
    fn seal(&self, frame: &[u8], packet: &mut Vec<u8>) -> bool {
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
    /// Opens a packet and gives its frame to the bridge of its network.
    fn take(&self, packet: &mut [u8]) -> Option<()> {
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
        // A bridge that takes no more loses it.
        let _ = network.tap.try_send(frame);
        Some(())
    }
}
