//! The clock, the dice and the host's own looks: the impure inputs of everything that is pure.
//! Never interprets them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use skep_core::id::{IdSource, RANDOM_BYTES};
use skep_core::{Id, Timestamp};

use crate::addr::Interface;

/// The time now.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Waits until a point in time; for ever without one.
pub async fn until(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let nanos = u64::try_from(at.since(now())).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
        }
    }
}

/// Between half and all of a pause, so that a thousand nodes do not come back at once.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Ids out of the operating system's randomness.
#[derive(Debug, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn random_bytes(&mut self) -> [u8; RANDOM_BYTES] {
        rand::rng().random()
    }
}

/// A fresh id.
pub fn random_id() -> Id {
    RandomIds.next_id()
}

/// A fresh number that is not zero, for a raft id or a session.
pub fn random_number() -> u64 {
    rand::rng().random_range(1..=u64::MAX)
}

/// This host's interfaces with their addresses, in the kernel's order.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn interfaces() -> std::io::Result<Vec<Interface>> {
    use nix::net::if_::InterfaceFlags;
    let mut found: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let usable = entry.flags.contains(InterfaceFlags::IFF_UP)
            && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let index = found
            .iter()
            .position(|known| known.name == entry.interface_name);
        let index = index.unwrap_or_else(|| {
            let name = entry.interface_name.clone();
            found.push(Interface {
                name,
                usable,
                addrs: Vec::new(),
            });
            found.len() - 1
        });
        let ip = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        if let (Some(ip), Some(interface)) = (ip, found.get_mut(index)) {
            interface.addrs.push(ip);
        }
    }
    Ok(found)
}
