//! A host's networks in its kernel. Here: a VXLAN device on a network's bridge, and static entries
//! for everything that is on other hosts, so that nothing is ever asked of them, learned or flooded.
//! In the modules: encryption, virtual addresses, names, and the routing mesh. Knows neither swarm
//! nor engine: the bridge must be there, and somebody else says what is where.

mod accept;
mod across;
mod aside;
mod balance;
mod blocks;
pub mod bridge;
mod chains;
mod copies;
pub mod crypt;
mod entries;
mod errands;
mod internal;
mod ipv6;
mod join;
mod link;
mod mesh;
pub mod model;
mod names;
mod netlink;
mod netns;
mod nft;
mod overlays;
mod owner;
mod passage;
mod paths;
mod plane;
mod program;
mod replies;
mod scout;
mod settings;
mod sockets;
pub mod state;
mod underlay;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::Handle;
use tokio::task::JoinHandle;

pub use ipv6::Ipv6;
pub use overlays::Overlays;
pub use plane::{Config, Follow, Plane, clean};
pub use underlay::{mtu_over, underlay};

/// What does not work, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such device.
    #[error("there is no network device {0}")]
    NoDevice(String),
    /// There is no such container any more.
    #[error("the container's process is gone")]
    NoProcess,
    /// The kernel is not to be spoken with.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refused.
    #[error("cannot {what}: {why}")]
    Refused {
        /// What was to be done.
        what: String,
        /// The kernel's reason.
        why: String,
    },
}

/// An overlay network on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The bridge that its containers here are on.
    pub bridge: String,
    /// What the VXLAN device is called, or to be called.
    pub device: String,
    /// The VXLAN id.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// This host's address among those that the others know.
    pub local: IpAddr,
    /// The bridge's own address within the network.
    pub gateway: Ipv4Addr,
    /// What its IPv4 subnets have of IPv6.
    pub sides: Vec<Ipv6>,
    /// Its bridges for further subnets: joined to the one that has the network's device, as if they
    /// were another node's.
    pub branches: Vec<String>,
}

impl Overlay {
    /// All its bridges.
    fn bridges(&self) -> impl Iterator<Item = &str> {
        let further = self.branches.iter().map(String::as_str);
        std::iter::once(self.bridge.as_str()).chain(further)
    }

    /// One of its further bridges, as if it were all that there is.
    fn branch(&self, bridge: &str) -> Self {
        Self {
            bridge: bridge.to_owned(),
            branches: Vec::new(),
            ..self.clone()
        }
    }
}

/// The hardware address of one of the further bridges of a host with this address, counted from 0.
/// Their own addresses are the same on every host, these are not.
fn branch_mac(gateway: Ipv4Addr, number: usize) -> [u8; 6] {
    let [first, second, rest @ ..] = mac(gateway);
    let further = u8::try_from(number).unwrap_or(u8::MAX).saturating_add(1);
    let [a, b, c, d] = rest;
    [first, second.wrapping_add(further), a, b, c, d]
}

/// The hardware address of whoever has this address within an overlay.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Makes a network what it should be on its first bridge. What is there already and right is not
/// touched, so that no packet is lost. Where another node of this namespace has its device, the
/// network goes through that one's bridge.
///
/// # Errors
/// When the bridge is not there, or the kernel refuses.
pub async fn ensure(overlay: &Overlay, remotes: &BTreeMap<Ipv4Addr, IpAddr>) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let bridge = link::index(&kernel.handle, &overlay.bridge).await?;
    let bridge = bridge.ok_or_else(|| Error::NoDevice(overlay.bridge.clone()))?;
    link::address(&kernel.handle, bridge, &mac(overlay.gateway)).await?;
    let sides = &overlay.sides;
    let devices = join::devices(&kernel.handle).await?;
    let device = match join::hub(overlay, &devices) {
        Some(hub) => {
            join::join(&kernel.handle, overlay, &devices, hub).await?;
            // What leads elsewhere is the same for both; either may know of it first.
            hub.device
        }
        None => {
            settings::set(overlay)?;
            let device = link::vxlan(&kernel.handle, overlay, bridge).await?;
            for address in entries::known(&kernel.handle, device).await? {
                if !remotes.contains_key(&address) {
                    entries::remove(&kernel.handle, device, address, sides).await?;
                }
            }
            device
        }
    };
    for (address, host) in remotes {
        entries::set(&kernel.handle, device, (*address, sides), *host).await?;
    }
    Ok(())
}

/// Addresses are on another host now or, without one, on none.
///
/// # Errors
/// When the device is not there, or the kernel refuses.
pub async fn change(
    device: &str,
    sides: &[Ipv6],
    moves: &BTreeMap<Ipv4Addr, Option<IpAddr>>,
) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let index = link::index(&kernel.handle, device).await?;
    let index = index.ok_or_else(|| Error::NoDevice(device.to_owned()))?;
    for (address, host) in moves {
        match host {
            Some(host) => entries::set(&kernel.handle, index, (*address, sides), *host).await?,
            None => entries::remove(&kernel.handle, index, *address, sides).await?,
        }
    }
    Ok(())
}

/// Removes the device, and with it all entries. One that is not there is a success.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove(device: &str) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    match link::index(&kernel.handle, device).await? {
        Some(index) => link::delete(&kernel.handle, index).await,
        None => Ok(()),
    }
}

/// A netlink socket, and the task that serves it.
struct Kernel {
    handle: Handle,
    serving: JoinHandle<()>,
}

impl Kernel {
    fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let serving = tokio::spawn(connection);
        Ok(Self { handle, serving })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let what = what.into();
    move |error| {
        let why = match &error {
            rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
            other => other.to_string(),
        };
        Error::Refused { what, why }
    }
}

/// Whether the kernel says that there is no such thing.
fn is_absence(error: &rtnetlink::Error) -> bool {
    const ENOENT: i32 = 2;
    const ENODEV: i32 = 19;
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            matches!(message.to_io().raw_os_error(), Some(ENOENT | ENODEV))
        }
        _ => false,
    }
}

/// Whether the kernel says that there is one already.
fn is_presence(error: &rtnetlink::Error) -> bool {
    const EEXIST: i32 = 17;
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error() == Some(EEXIST),
        _ => false,
    }
}

/// Whether there is no such route.
fn is_gone(error: &rtnetlink::Error) -> bool {
    const ESRCH: i32 = 3;
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.to_io().raw_os_error() == Some(ESRCH) || is_absence(error)
        }
        _ => false,
    }
}
