//! A network's VXLAN device beside its bridge for a moment, for engines that look at the devices on
//! a bridge and cannot read one of this kind. Never leaves the bridge without any device: some take
//! that for a reason to remove it.

use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::{Error, Overlay, join, link, refused};

/// How the two ends of what is on the bridge meanwhile are called, before what tells the bridge from
/// others.
const ENDS: [&str; 2] = ["skea", "skeb"];

/// Whether a device is on the bridge of this network, by what the names of its devices have in common,
/// instead of the one that leads to other hosts.
pub(super) fn stands_in(device: &str, network: &str) -> bool {
    let own = device.strip_prefix(ENDS[0]);
    own.is_some_and(|it| it.starts_with(network))
}

/// The device of a network that steps aside, and its bridge.
pub(super) struct Aside<'a> {
    overlay: &'a Overlay,
    bridge: u32,
    /// What is on the bridge meanwhile.
    ends: [String; 2],
}

impl<'a> Aside<'a> {
    /// Takes a network's device off its bridge. `None` if it is not there, as where another node of
    /// this host has it.
    pub(super) async fn step(handle: &Handle, overlay: &'a Overlay) -> Result<Option<Self>, Error> {
        let devices = join::devices(handle).await?;
        let Some((device, bridge)) = join::own(overlay, &devices) else {
            return Ok(None);
        };
        let aside = Self {
            overlay,
            bridge,
            ends: join::named_after(&overlay.bridge, ENDS),
        };
        aside.fill(handle).await?;
        let off = LinkUnspec::new_with_index(device).nocontroller().build();
        aside.set(handle, off).await?;
        Ok(Some(aside))
    }

    /// Takes away what was on the bridge, now that the device is there again.
    pub(super) async fn end(self, handle: &Handle) -> Result<(), Error> {
        let [end, _] = &self.ends;
        match link::index(handle, end).await? {
            Some(end) => link::delete(handle, end).await,
            None => Ok(()),
        }
    }

    /// Puts something else on the bridge.
    async fn fill(&self, handle: &Handle) -> Result<(), Error> {
        let [end, other] = &self.ends;
        // One is there if the daemon died at just this.
        if link::index(handle, end).await?.is_none() {
            let pair = handle.link().add(LinkVeth::new(end, other).build());
            let made = pair.execute().await;
            made.map_err(refused(format!("make device {end}")))?;
        }
        let index = link::index(handle, end).await?;
        let index = index.ok_or_else(|| Error::NoDevice(end.clone()))?;
        let on = LinkUnspec::new_with_index(index)
            .mtu(self.overlay.mtu)
            .controller(self.bridge);
        self.set(handle, on.build()).await
    }

    async fn set(&self, handle: &Handle, message: LinkMessage) -> Result<(), Error> {
        let set = handle.link().set(message).execute().await;
        let device = &self.overlay.device;
        set.map_err(refused(format!("have {device} step aside")))
    }
}
