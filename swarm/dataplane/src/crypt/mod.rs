//! Encrypted networks: instead of a VXLAN device, a TAP device on the bridge, whose frames this
//! daemon seals and sends to the host that their address is on. Works on every kernel. Nothing
//! leaves in the clear: without the daemon, nothing leaves at all.

mod batch;
mod cut;
mod device;
mod frame;
mod gather;
mod packet;
mod pump;
mod vnet;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

pub use packet::Key;
use packet::{Opener, Sealer};

use crate::{Error, Ipv6, Overlay, underlay};

/// Senders whose packets are opened, over all networks. Nobody becomes one without a key.
const SENDERS: usize = 16_384;

/// The UDP port of encrypted traffic, beside that of VXLAN.
pub fn port(data_path: u16) -> u16 {
    data_path.checked_add(1).unwrap_or(data_path - 1)
}

/// The encrypted networks of this host. Cheap to clone; the last one to go ends it.
#[derive(Clone, Default)]
pub struct Crypt {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    networks: RwLock<BTreeMap<u32, Arc<Network>>>,
    /// By what packets say of themselves: network, key and epoch.
    openers: Mutex<BTreeMap<(u32, u32, packet::Epoch), Opener>>,
    listening: tokio::sync::Mutex<Option<Listening>>,
}

struct Listening {
    at: SocketAddr,
    socket: Arc<UdpSocket>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One network.
struct Network {
    device: String,
    vni: u32,
    port: u16,
    tap: Arc<AsyncDevice>,
    socket: RwLock<Arc<UdpSocket>>,
    remotes: RwLock<BTreeMap<Ipv4Addr, IpAddr>>,
    ipv6: RwLock<Option<Ipv6>>,
    keys: RwLock<Vec<Key>>,
    sealer: Mutex<Option<(Key, Sealer)>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

impl Crypt {
    /// Makes a network what it should be; what is right already goes on undisturbed. The keys are
    /// the newest first: packets are sealed with the second, which every host has by now, and
    /// opened with any.
    ///
    /// # Errors
    /// When the bridge is not there, the port is taken, or the kernel refuses.
    pub async fn ensure(
        &self,
        overlay: &Overlay,
        keys: &[Key],
        remotes: &BTreeMap<Ipv4Addr, IpAddr>,
    ) -> Result<(), Error> {
        let socket = self.listen(overlay).await?;
        let known = self.network(overlay.vni).filter(|it| it.is_same(overlay));
        let network = match known {
            Some(network) => {
                // The host may have another address now.
                *write(&network.socket) = socket;
                network
            }
            None => self.open(overlay, socket)?,
        };
        *write(&network.remotes) = remotes.clone();
        *write(&network.ipv6) = overlay.ipv6;
        *write(&network.keys) = keys.to_vec();
        self.shared.retire(overlay.vni, keys);
        device::enslave(overlay, remotes).await
    }

    /// Addresses are on another host now or, without one, on none. `false` if the device is not
    /// that of an encrypted network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change(
        &self,
        device: &str,
        moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>,
    ) -> Result<bool, Error> {
        let Some(network) = self.shared.of_device(device) else {
            return Ok(false);
        };
        network.moved(moves);
        device::moved(device, moves).await?;
        Ok(true)
    }

    /// Forgets a network. Its device is removed as any other.
    pub fn forget(&self, device: &str) {
        if let Some(network) = self.shared.of_device(device) {
            write(&self.shared.networks).remove(&network.vni);
            self.shared.retire(network.vni, &[]);
        }
        // Another node of this host may have a use for the port. Whoever is about to listen keeps it.
        if read(&self.shared.networks).is_empty()
            && let Ok(mut listening) = self.shared.listening.try_lock()
        {
            *listening = None;
        }
    }

    fn network(&self, vni: u32) -> Option<Arc<Network>> {
        read(&self.shared.networks).get(&vni).cloned()
    }

    /// The socket that everything goes through, at the address that others send to, if the host
    /// has it.
    async fn listen(&self, overlay: &Overlay) -> Result<Arc<UdpSocket>, Error> {
        let any = match overlay.local {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let is_own = underlay::underlay(overlay.local).await?.is_some();
        let local = if is_own { overlay.local } else { any };
        let at = SocketAddr::new(local, port(overlay.port));
        let mut listening = self.shared.listening.lock().await;
        if let Some(open) = listening.as_ref().filter(|open| open.at == at) {
            return Ok(Arc::clone(&open.socket));
        }
        *listening = None;
        let socket = UdpSocket::bind(at).await.map_err(|error| Error::Refused {
            what: format!("listen for encrypted networks on UDP port {}", at.port()),
            why: error.to_string(),
        })?;
        batch::together(&socket);
        let socket = Arc::new(socket);
        let task = tokio::spawn(pump::inward(Arc::downgrade(&self.shared), socket.clone()));
        *listening = Some(Listening {
            at,
            socket: socket.clone(),
            task,
        });
        Ok(socket)
    }

    fn open(&self, overlay: &Overlay, socket: Arc<UdpSocket>) -> Result<Arc<Network>, Error> {
        let made = DeviceBuilder::new()
            .name(&overlay.device)
            .layer(Layer::L2)
            // What is for one host comes in one piece, as long as IP can be.
            .offload(true)
            .inherit_enable_state()
            .build_async()
            // The device stays when the daemon goes, so that the bridge keeps its port.
            .and_then(|tap| tap.persist().map(|()| tap));
        let tap = made.map_err(|error| Error::Refused {
            what: format!("open the TAP device {}", overlay.device),
            why: error.to_string(),
        })?;
        let tap = Arc::new(tap);
        let network = Arc::new(Network {
            device: overlay.device.clone(),
            vni: overlay.vni,
            port: overlay.port,
            tap,
            socket: RwLock::new(socket),
            remotes: RwLock::default(),
            ipv6: RwLock::default(),
            keys: RwLock::default(),
            sealer: Mutex::default(),
            task: Mutex::default(),
        });
        let task = tokio::spawn(pump::outward(Arc::downgrade(&network)));
        *lock(&network.task) = Some(task);
        write(&self.shared.networks).insert(overlay.vni, network.clone());
        Ok(network)
    }
}

impl Shared {
    fn of_device(&self, device: &str) -> Option<Arc<Network>> {
        let networks = read(&self.networks);
        networks.values().find(|it| it.device == device).cloned()
    }

    /// Opens no more with keys that a network has no longer.
    fn retire(&self, vni: u32, keys: &[Key]) {
        let known = |id: u32| keys.iter().any(|key| key.id == id);
        lock(&self.openers).retain(|(of, key, _), _| *of != vni || known(*key));
    }
}

impl Network {
    fn moved(&self, moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>) {
        let mut remotes = write(&self.remotes);
        for (address, host) in moves {
            match host {
                Some(host) => remotes.insert(*address, *host),
                None => remotes.remove(address),
            };
        }
    }

    fn is_same(&self, overlay: &Overlay) -> bool {
        self.device == overlay.device && self.port == overlay.port
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
