//! The overlay networks of one host, each with its way to other hosts: a VXLAN device, encryption,
//! or the device of another node that shares this host. Remembers what is to be, and makes it so
//! again when something is gone. Never makes a network's bridge.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::aside::Aside;
use crate::crypt::{Crypt, Key};
use crate::{Error, Ipv6, Kernel, Overlay, change, ensure, join, link, mac};

/// How often to see whether something is gone.
const LOOK: Duration = Duration::from_millis(500);

/// See the head of the file. Cheap to clone; the last one to go ends it and leaves the kernel as it
/// is.
#[derive(Clone, Default)]
pub struct Overlays {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    crypt: Crypt,
    /// By device. Whoever changes something in the kernel holds it.
    known: Mutex<BTreeMap<String, Wanted>>,
    watcher: OnceLock<Watcher>,
}

struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a network is to be.
#[derive(Clone)]
struct Wanted {
    overlay: Overlay,
    /// Those of an encrypted network, the newest first.
    keys: Vec<Key>,
    remotes: BTreeMap<Ipv4Addr, IpAddr>,
    /// Why it could not be made again the last time: that is said once.
    failure: Option<String>,
}

impl Overlays {
    /// Makes a network what it should be, encrypted if there are keys. What is right already is not
    /// touched, so that no packet is lost.
    ///
    /// # Errors
    /// When the bridge is not there, or the kernel refuses.
    pub async fn ensure(
        &self,
        overlay: &Overlay,
        keys: Vec<Key>,
        remotes: &BTreeMap<Ipv4Addr, IpAddr>,
    ) -> Result<(), Error> {
        let wanted = Wanted {
            overlay: overlay.clone(),
            keys,
            remotes: remotes.clone(),
            failure: None,
        };
        let mut known = self.shared.known.lock().await;
        let made = wanted.make(&self.shared.crypt).await;
        known.insert(overlay.device.clone(), wanted);
        drop(known);
        self.shared.watcher.get_or_init(|| {
            let watching = watch(Arc::downgrade(&self.shared));
            Watcher(tokio::spawn(watching))
        });
        made
    }

    /// Addresses are on another host now or, without one, on none.
    ///
    /// # Errors
    /// When the device is not there, or the kernel refuses.
    pub async fn change(
        &self,
        device: &str,
        sides: &[Ipv6],
        moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>,
    ) -> Result<(), Error> {
        let mut known = self.shared.known.lock().await;
        if let Some(wanted) = known.get_mut(device) {
            for (address, host) in moves {
                match host {
                    Some(host) => wanted.remotes.insert(*address, *host),
                    None => wanted.remotes.remove(address),
                };
            }
        }
        let sealed = known.get(device).is_some_and(|it| !it.keys.is_empty());
        // That of an encrypted network may be another node's, who is told the same.
        match self.shared.crypt.change(device, moves).await? || sealed {
            true => Ok(()),
            false => change(device, sides, moves).await,
        }
    }

    /// Carries out `work` while a network's VXLAN device is not on its bridge. That is for engines
    /// which cannot read such a device; packets to and from other hosts are lost meanwhile, so the
    /// work has to be short. That of an encrypted network stays: everybody can read it.
    ///
    /// # Errors
    /// When the kernel refuses: the work was not begun.
    pub async fn aside<T>(&self, device: &str, work: impl Future<Output = T>) -> Result<T, Error> {
        let known = self.shared.known.lock().await;
        let wanted = known.get(device).filter(|it| it.keys.is_empty());
        let Some(wanted) = wanted else {
            return Ok(work.await);
        };
        let kernel = Kernel::open()?;
        let aside = Aside::step(&kernel.handle, &wanted.overlay).await?;
        let done = work.await;
        if let Some(aside) = aside {
            // The bridge has forgotten who is behind the device.
            let back = wanted.make(&self.shared.crypt).await;
            if let Err(error) = back.and(aside.end(&kernel.handle).await) {
                // Who looks after networks sees it.
                warn!(%error, device, "a device has not come back to its bridge");
            }
        }
        Ok(done)
    }

    /// Removes what led from a network to other hosts; its bridge is gone. That of another node
    /// stays. Nothing being there is a success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self, device: &str) -> Result<(), Error> {
        let mut known = self.shared.known.lock().await;
        let own = known.get(device).map(|it| it.overlay.clone());
        let removed = self.take_away(device, own.as_ref()).await;
        // Not before: whoever gives up in the middle of this leaves it to who comes next.
        known.remove(device);
        removed
    }

    /// Removes what leads to other hosts from any network: this node has a part in none any more.
    /// That of other nodes of this host stays. What earlier daemons have left goes too, and bridges
    /// that an engine has left and nobody is on.
    ///
    /// # Errors
    /// When the kernel refuses; what it does not refuse is gone all the same.
    pub async fn clear(&self) -> Result<(), Error> {
        let mut known = self.shared.known.lock().await;
        let mut outcome = Ok(());
        for (device, wanted) in std::mem::take(&mut *known) {
            let overlay = &wanted.overlay;
            let removed = self.take_away(&device, Some(overlay)).await;
            outcome = outcome.and(removed).and(remove_empty(overlay).await);
        }
        let kernel = Kernel::open()?;
        for index in join::strays(&kernel.handle).await? {
            outcome = outcome.and(link::delete(&kernel.handle, index).await);
        }
        outcome
    }

    async fn take_away(&self, device: &str, own: Option<&Overlay>) -> Result<(), Error> {
        // Of an encrypted network no other node takes the device before it is gone.
        let _held = self.shared.crypt.forget(device);
        let kernel = Kernel::open()?;
        let devices = join::devices(&kernel.handle).await?;
        let own: Vec<_> = own.into_iter().flat_map(Overlay::bridges).collect();
        for index in join::left(device, &own, &devices) {
            link::delete(&kernel.handle, index).await?;
        }
        Ok(())
    }
}

impl Wanted {
    async fn make(&self, crypt: &Crypt) -> Result<(), Error> {
        self.make_first(crypt).await?;
        join::branches(&self.overlay).await
    }

    /// On the first bridge.
    async fn make_first(&self, crypt: &Crypt) -> Result<(), Error> {
        let overlay = &self.overlay;
        if self.keys.is_empty() {
            return ensure(overlay, &self.remotes).await;
        }
        let kernel = Kernel::open()?;
        let devices = join::devices(&kernel.handle).await?;
        match join::hub(overlay, &devices) {
            Some(hub) => {
                // It answers with its own, and what is sealed goes where that is.
                let bridge = devices.get(&overlay.bridge);
                let bridge = bridge.ok_or_else(|| Error::NoDevice(overlay.bridge.clone()))?;
                link::address(&kernel.handle, bridge.index, &mac(overlay.gateway)).await?;
                join::join(&kernel.handle, overlay, &devices, hub).await
            }
            None => crypt.ensure(overlay, &self.keys, &self.remotes).await,
        }
    }
}

/// Removes those of a network's bridges that nobody is on.
async fn remove_empty(overlay: &Overlay) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let devices = join::devices(&kernel.handle).await?;
    let there = overlay.bridges().filter_map(|it| devices.get(it));
    for bridge in there.filter(|it| join::is_empty(it.index, &devices)) {
        link::delete(&kernel.handle, bridge.index).await?;
    }
    Ok(())
}

/// Makes again what is gone, for as long as somebody wants it.
async fn watch(shared: Weak<Shared>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if let Err(error) = shared.repair().await {
            warn!(%error, "cannot see whether networks lead to other hosts");
        }
    }
}

impl Shared {
    async fn repair(&self) -> Result<(), Error> {
        let mut known = self.known.lock().await;
        if known.is_empty() {
            return Ok(());
        }
        self.crypt.take_over().await;
        let kernel = Kernel::open()?;
        let devices = join::devices(&kernel.handle).await?;
        for (device, wanted) in known.iter_mut() {
            let failure = match join::stands(&wanted.overlay, &devices) {
                true => None,
                false => wanted.make(&self.crypt).await.err(),
            };
            let failure = failure.map(|error| error.to_string());
            if failure != wanted.failure {
                if let Some(error) = &failure {
                    warn!(error, device, "a network leads to no other host");
                }
                wanted.failure = failure;
            }
        }
        Ok(())
    }
}
