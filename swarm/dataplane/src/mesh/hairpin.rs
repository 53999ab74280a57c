//! Lets a task come to itself through a published port. Where bridged packets go through the host's
//! rules (`br_netfilter`), one whose destination is changed by them is bridged on at once, and a
//! bridge sends nothing back to where it came from unless it is told to.

use std::collections::BTreeSet;
use std::fs;

use futures_util::TryStreamExt;
use rtnetlink::LinkBridgePort;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkInfo, LinkMessage,
};

use crate::{Error, Kernel, is_absence, join, link, refused};

const BRIDGED_PACKETS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Tells bridges' ports to containers to, where that matters.
pub(super) async fn set(bridges: &[String]) -> Result<(), Error> {
    if fs::read_to_string(BRIDGED_PACKETS).is_ok_and(|it| it.trim() != "1") {
        return Ok(());
    }
    let kernel = Kernel::open()?;
    let mut on = BTreeSet::new();
    for bridge in bridges {
        on.extend(link::index(&kernel.handle, bridge).await?);
    }
    let mut all = kernel.handle.link().get().execute();
    let mut ports = Vec::new();
    while let Some(link) = all.try_next().await.map_err(refused("list devices"))? {
        if is_straight(&link, &on) {
            ports.push(link.header.index);
        }
    }
    for port in ports {
        let message = LinkBridgePort::new(port).hairpin(true).build();
        match kernel.handle.link().set_port(message).execute().await {
            // Its container is gone.
            Err(error) if is_absence(&error) => {}
            result => result.map_err(refused("let a container come to itself"))?,
        }
    }
    Ok(())
}

/// Whether a device is a container's on one of these bridges and does not do it yet. What joins two
/// bridges must never do it: from both ends, a packet would go back and forth for ever.
fn is_straight(link: &LinkMessage, bridges: &BTreeSet<u32>) -> bool {
    let mut on_bridge = false;
    let mut veth = false;
    let mut does = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) if join::is_end(name) => return false,
            LinkAttribute::Controller(index) => on_bridge = bridges.contains(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Veth) => veth = true,
                        LinkInfo::PortData(InfoPortData::BridgePort(all)) => {
                            does = all.contains(&InfoBridgePort::HairpinMode(true));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    on_bridge && veth && !does
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_are_sent_back_what_they_sent() {
        let port = |name: &str, bridge: u32| {
            let mut link = LinkMessage::default();
            link.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Controller(bridge),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
            ];
            link
        };
        let bridges = BTreeSet::from([7, 9]);
        assert!(is_straight(&port("veth2fa174c", 7), &bridges));
        assert!(!is_straight(&port("veth2fa174c", 8), &bridges));
        for end in ["skej01234560103", "skeh01234560103"] {
            assert!(!is_straight(&port(end, 7), &bridges), "{end}");
        }
    }
}
