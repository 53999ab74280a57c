//! Encrypted networks: instead of a VXLAN device, a TAP device on the bridge, whose frames this
//! daemon seals and sends to the host that their address is on. Works on every kernel. Nothing
//! leaves in the clear: without the daemon, nothing leaves at all.

mod batch;
mod cut;
mod device;
mod filter;
mod frame;
mod gather;
mod inlet;
mod listening;
mod packet;
mod pump;
mod vnet;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use listening::Listening;
pub use packet::Key;
use packet::{Opener, Sealer};

use crate::{Error, Ipv6, Kernel, Overlay, link, underlay};

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

/// One network.
struct Network {
    device: String,
    /// The device's number: one of this name may be another by now.
    index: u32,
    vni: u32,
    port: u16,
    tap: Arc<AsyncDevice>,
    /// What it sends through, from a port of its own: what comes from one port together is of one
    /// network.
    socket: RwLock<Arc<UdpSocket>>,
    remotes: RwLock<BTreeMap<Ipv4Addr, IpAddr>>,
    sides: RwLock<Vec<Ipv6>>,
    keys: RwLock<Vec<Key>>,
    sealer: Mutex<Option<(Key, Sealer)>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.end();
    }
}

/// The device of a network that is no more.
pub struct Held {
    _tap: Arc<AsyncDevice>,
}

impl Crypt {
    /// Makes a network what it should be; what is right already goes on undisturbed. The keys are
    /// the newest first: packets are sealed with the second, which every host has by now, and
    /// opened with any.
    ///
    /// # Errors
    /// When the bridge is not there, or the kernel refuses.
    pub async fn ensure(
        &self,
        overlay: &Overlay,
        keys: &[Key],
        remotes: &BTreeMap<Ipv4Addr, IpAddr>,
    ) -> Result<(), Error> {
        let local = self.listen(overlay).await?;
        let there = link::index(&Kernel::open()?.handle, &overlay.device).await?;
        let known = self.network(overlay.vni);
        let known = known.filter(|it| it.is_same(overlay) && there == Some(it.index));
        let network = match known {
            Some(network) => {
                // The host may have another address now.
                if !network.sends_from(local) {
                    *write(&network.socket) = outlet(local).await?;
                }
                network
            }
            None => self.open(overlay, outlet(local).await?)?,
        };
        *write(&network.remotes) = remotes.clone();
        *write(&network.sides) = overlay.sides.clone();
        *write(&network.keys) = keys.to_vec();
        self.shared.retire(overlay.vni, keys);
        if let Some(listening) = self.shared.listening.lock().await.as_ref() {
            listening.admit(&self.shared.vnis());
        }
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

    /// Forgets a network. Its device is removed as any other; until what is returned is dropped no
    /// other daemon can take it for its own.
    pub fn forget(&self, device: &str) -> Option<Held> {
        let network = self.shared.of_device(device);
        let held = network.map(|network| {
            write(&self.shared.networks).remove(&network.vni);
            self.shared.retire(network.vni, &[]);
            network.end();
            let _tap = network.tap.clone();
            Held { _tap }
        });
        // Whoever is about to listen says the same then.
        if let Ok(mut listening) = self.shared.listening.try_lock() {
            match self.shared.vnis().as_slice() {
                // Another node of this host may have a use for the port.
                [] => *listening = None,
                left => listening.iter().for_each(|it| it.admit(left)),
            }
        }
        held
    }

    /// Where daemons share a host, takes the port over from one that is gone. To be asked now and
    /// then; without it everything works too, if less well.
    pub(crate) async fn take_over(&self) {
        if let Some(listening) = self.shared.listening.lock().await.as_mut() {
            listening.take_over(&Arc::downgrade(&self.shared), &self.shared.vnis());
        }
    }

    fn network(&self, vni: u32) -> Option<Arc<Network>> {
        read(&self.shared.networks).get(&vni).cloned()
    }

    /// Listens for what others send to this host, at the address that they send to, if the host
    /// has it. From the same it is to send.
    async fn listen(&self, overlay: &Overlay) -> Result<IpAddr, Error> {
        let any = match overlay.local {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let is_own = underlay::underlay(overlay.local).await?.is_some();
        let local = if is_own { overlay.local } else { any };
        let at = SocketAddr::new(local, port(overlay.port));
        let mut listening = self.shared.listening.lock().await;
        if listening.as_ref().is_none_or(|open| open.at() != at) {
            *listening = None;
            let what = || format!("listen for encrypted networks on UDP port {}", at.port());
            let begun = Listening::begin(&Arc::downgrade(&self.shared), at);
            let begun = begun.map_err(failed(what()))?;
            begun.admit(&self.shared.vnis());
            *listening = Some(begun);
        }
        Ok(local)
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
        let tap = made.map_err(failed(format!("open the TAP device {}", overlay.device)))?;
        let index = tap.if_index().map_err(failed("number a TAP device"))?;
        let tap = Arc::new(tap);
        let network = Arc::new(Network {
            device: overlay.device.clone(),
            index,
            vni: overlay.vni,
            port: overlay.port,
            tap,
            socket: RwLock::new(socket),
            remotes: RwLock::default(),
            sides: RwLock::default(),
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

/// A socket to send through, from this address and a port of its own. Nothing comes in by it.
async fn outlet(local: IpAddr) -> Result<Arc<UdpSocket>, Error> {
    let opened = UdpSocket::bind((local, 0)).await;
    let opened = opened.map_err(failed("open a socket for an encrypted network"))?;
    filter::deafen(&SockRef::from(&opened));
    batch::keep_sent(&opened);
    Ok(Arc::new(opened))
}

fn failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |error| Error::Refused {
        what,
        why: error.to_string(),
    }
}

impl Shared {
    /// The networks that there are.
    fn vnis(&self) -> Vec<u32> {
        read(&self.networks).keys().copied().collect()
    }

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
    /// Sends nothing any more.
    fn end(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }

    fn moved(&self, moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>) {
        let mut remotes = write(&self.remotes);
        for (address, host) in moves {
            match host {
                Some(host) => remotes.insert(*address, *host),
                None => remotes.remove(address),
            };
        }
    }

    fn sends_from(&self, local: IpAddr) -> bool {
        let own = read(&self.socket).local_addr();
        own.is_ok_and(|own| own.ip() == local)
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
