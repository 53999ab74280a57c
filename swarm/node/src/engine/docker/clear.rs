//! Whether a network may have its subnets on this host. Containers of the original's overlays are in
//! a namespace of their own, where nobody else is: ours are behind a bridge of the host's, which must
//! not lead to where the host itself or another node is. Only looks.

use std::net::IpAddr;

use skep_core::assignment::{Branch, Overlay};
use skep_core::network::DEVICE_PREFIX;
use skep_core::worker::OpError;

use crate::addr::Interface;
use crate::system;

/// Refuses a network that would cut the host off.
pub(super) fn check(overlay: &Overlay) -> Result<(), OpError> {
    // Without interfaces there is nothing to be cut off from.
    let own = system::interfaces().unwrap_or_default();
    match in_the_way(overlay, &own) {
        Some(why) => Err(OpError::Failed(why)),
        None => Ok(()),
    }
}

/// What is in one of the network's subnets and must not be, in words.
fn in_the_way(overlay: &Overlay, own: &[Interface]) -> Option<String> {
    let within = |it: &Branch, address: IpAddr| match address {
        IpAddr::V4(address) => it.subnet.contains(address),
        IpAddr::V6(address) => it.ipv6.is_some_and(|side| side.subnet.contains(address)),
    };
    let is_inside = |address: &IpAddr| overlay.subnets().any(|it| within(&it, *address));
    let others = own.iter().filter(|it| !it.name.starts_with(DEVICE_PREFIX));
    let mut hosts =
        others.flat_map(|it| it.addrs.iter().map(|address| (it.name.as_str(), *address)));
    if let Some((device, address)) = hosts.find(|(_, address)| is_inside(address)) {
        return Some(format!("this host has {address} itself, on {device}"));
    }
    let mut nodes = std::iter::once(overlay.local).chain(overlay.remotes.values().copied());
    let node = nodes.find(is_inside)?;
    Some(format!("a node is reached at {node}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overlay() -> Overlay {
        serde_json::from_value(json!({
            "id": "n", "name": "front", "vni": 4097, "port": 4789, "mtu": 1450,
            "subnet": "10.0.1.0/24", "gateway": "10.0.1.3", "internal": false,
            "local": "192.0.2.1", "remotes": {"10.0.1.9": "192.0.2.2"},
        }))
        .unwrap()
    }

    fn interface(name: &str, address: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            usable: true,
            addrs: vec![address.parse().unwrap()],
        }
    }

    #[test]
    fn a_host_is_not_cut_off() {
        let clear = overlay();
        let beside = [
            interface("eth0", "10.0.2.7"),
            interface("skep0", "10.0.1.2"),
        ];
        assert_eq!(in_the_way(&clear, &beside), None);
        let own = [interface("eth0", "10.0.1.7")];
        let why = "this host has 10.0.1.7 itself, on eth0";
        assert_eq!(in_the_way(&clear, &own).unwrap(), why);

        let mut far = overlay();
        let there = "10.0.1.9".parse().unwrap();
        far.remotes.insert("10.0.1.3".parse().unwrap(), there);
        let why = "a node is reached at 10.0.1.9";
        assert_eq!(in_the_way(&far, &beside).unwrap(), why);
    }
}
