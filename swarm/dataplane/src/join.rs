//! Nodes that share a network namespace: of two VXLAN devices with one id the kernel takes only the
//! first, so one bridge of a network has it, and the others are joined to that bridge. Whose it is
//! shows in the kernel alone; who comes first has it, and when it is gone, who comes next.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVeth};

use super::{Error, Kernel, Overlay, aside, branch_mac, link, refused, settings};

/// How the devices are called that lead to other hosts.
const DEVICES: &str = "skvx";
/// Who makes a device has it on a bridge before this is over.
const MAKING: Duration = Duration::from_millis(200);
/// How the two ends of what joins bridges are called, before what tells the bridge from others: on
/// the bridge that is joined, and on the one that has the device.
const ENDS: [&str; 2] = ["skej", "skeh"];
/// So many characters of a bridge's name are the same for all.
const COMMON: usize = 4;
/// The longest name that a device can have.
const LONGEST: usize = 15;
/// And so many, at the end, tell bridges of one network from each other.
const OWN: usize = 4;

/// A device of this namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) index: u32,
    /// The bridge that it is on.
    bridge: Option<u32>,
    /// Somebody is at the other end.
    carries: bool,
}

/// The devices of this namespace, by name.
pub(super) type Devices = BTreeMap<String, Device>;

/// All devices of this namespace.
pub(super) async fn devices(handle: &Handle) -> Result<Devices, Error> {
    let mut all = handle.link().get().execute();
    let mut found = Devices::new();
    while let Some(link) = all.try_next().await.map_err(refused("list devices"))? {
        found.extend(device(&link));
    }
    Ok(found)
}

fn device(link: &LinkMessage) -> Option<(String, Device)> {
    let mut name = None;
    let mut bridge = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(it) => name = Some(it.clone()),
            LinkAttribute::Controller(it) => bridge = Some(*it),
            _ => {}
        }
    }
    let device = Device {
        index: link.header.index,
        bridge,
        carries: link.header.flags.contains(LinkFlags::LowerUp),
    };
    Some((name?, device))
}

/// Another node's part in a network: its bridge, and the device on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hub {
    bridge: u32,
    pub(super) device: u32,
}

/// What another node has of a network, if it has the device. One that nobody serves any more is free
/// to be taken.
pub(super) fn hub(overlay: &Overlay, devices: &Devices) -> Option<Hub> {
    let found = devices.get(&overlay.device).filter(|it| it.carries)?;
    let own = devices.get(&overlay.bridge).map(|it| it.index);
    let bridge = found.bridge.filter(|bridge| Some(*bridge) != own)?;
    let device = found.index;
    Some(Hub { bridge, device })
}

/// Whether all bridges of a network lead to other nodes and to each other.
pub(super) fn stands(overlay: &Overlay, devices: &Devices) -> bool {
    let mut branches = overlay.branches.iter();
    leads(overlay, devices) && branches.all(|it| leads(&overlay.branch(it), devices))
}

/// Whether a bridge leads to other nodes: over a device of its own, or over that of another bridge of
/// the network. One that is not there leads nowhere, and nobody expects it to.
fn leads(overlay: &Overlay, devices: &Devices) -> bool {
    let Some(bridge) = devices.get(&overlay.bridge) else {
        return true;
    };
    let on = |name: &str| devices.get(name).and_then(|it| it.bridge);
    match hub(overlay, devices) {
        Some(hub) => {
            let [own, far] = ends(&overlay.bridge);
            on(&own) == Some(bridge.index) && on(&far) == Some(hub.bridge)
        }
        None => on(&overlay.device) == Some(bridge.index),
    }
}

/// A network's own device and its bridge, if the one is on the other.
pub(super) fn own(overlay: &Overlay, devices: &Devices) -> Option<(u32, u32)> {
    let bridge = devices.get(&overlay.bridge)?.index;
    let device = devices.get(&overlay.device)?;
    (device.bridge == Some(bridge)).then_some((device.index, bridge))
}

/// Joins the further bridges of a network to the one that has its device.
pub(super) async fn branches(overlay: &Overlay) -> Result<(), Error> {
    if overlay.branches.is_empty() {
        return Ok(());
    }
    let kernel = Kernel::open()?;
    let devices = devices(&kernel.handle).await?;
    for (number, name) in overlay.branches.iter().enumerate() {
        let branch = overlay.branch(name);
        let bridge = devices.get(name);
        let bridge = bridge.ok_or_else(|| Error::NoDevice(name.clone()))?;
        let mac = branch_mac(overlay.gateway, number);
        link::address(&kernel.handle, bridge.index, &mac).await?;
        let hub = hub(&branch, &devices);
        let hub = hub.ok_or_else(|| Error::NoDevice(branch.device.clone()))?;
        join(&kernel.handle, &branch, &devices, hub).await?;
    }
    Ok(())
}

/// Joins a network's bridge to the one that has its device.
pub(super) async fn join(
    handle: &Handle,
    overlay: &Overlay,
    devices: &Devices,
    hub: Hub,
) -> Result<(), Error> {
    settings::set(overlay)?;
    let ends = ends(&overlay.bridge);
    let what = || format!("join {} to another node's bridge", overlay.bridge);
    if !devices.contains_key(&ends[0]) {
        let [own, far] = &ends;
        let pair = handle.link().add(LinkVeth::new(own, far).build());
        pair.execute().await.map_err(refused(what()))?;
    }
    let bridge = link::index(handle, &overlay.bridge).await?;
    for (name, on) in ends.iter().zip([bridge, Some(hub.bridge)]) {
        let there = link::index(handle, name).await?.zip(on);
        let (end, on) = there.ok_or_else(|| Error::NoDevice(name.clone()))?;
        let link = LinkUnspec::new_with_index(end).mtu(overlay.mtu);
        let set = handle.link().set(link.controller(on).up().build());
        set.execute().await.map_err(refused(what()))?;
        // A bridge does not pass on what it answers itself. All bridges of a host would answer, of a
        // further subnet even with an address of their own, and whoever heard one that is not his
        // would be at a loss when that goes.
        let port = LinkBridgePort::new(end).neigh_suppress(true);
        let set = handle.link().set_port(port.build()).execute();
        set.await.map_err(refused(what()))?;
    }
    Ok(())
}

/// Takes a bridge apart from that of another node. Before it has a device of its own, since two ways
/// would be one too many.
pub(super) async fn part(handle: &Handle, overlay: &Overlay) -> Result<(), Error> {
    let [own, _] = ends(&overlay.bridge);
    match link::index(handle, &own).await? {
        Some(end) => link::delete(handle, end).await,
        None => Ok(()),
    }
}

/// What is to go with a network whose bridge is gone: its device, unless another node's bridge has
/// it, and what joined its bridge to others. Found by what both names have in common with that of
/// the bridge, which may have gone before this daemon was there. Where the daemon knows the bridges
/// as its own, they count as gone: an engine that is asked to remove a network twice says that it has
/// none while it is still at it.
pub(super) fn left(device: &str, own: &[&str], devices: &Devices) -> Vec<u32> {
    let others = devices.iter();
    let others = others.filter(|(name, _)| !own.contains(&name.as_str()));
    let others: Vec<u32> = others.map(|(_, it)| it.index).collect();
    let exists = |index: u32| others.contains(&index);
    let network = network_of(device);
    let end = format!("{}{network}", ENDS[0]);
    let named = devices.iter();
    let ours = named.filter(|(name, _)| *name == device || name.starts_with(&end));
    let free = ours.filter(|(_, it)| !it.bridge.is_some_and(exists));
    free.map(|(_, it)| it.index).collect()
}

/// What no network of any daemon uses: devices that lead to other hosts from no bridge, and what
/// joined a bridge that is gone. Those that only step aside are in use.
fn stray(devices: &Devices) -> Vec<u32> {
    let exists = |index: u32| devices.values().any(|it| it.index == index);
    let is_on_one = |it: &Device| it.bridge.is_some_and(exists);
    let steps_aside = |network: &str| {
        let mut all = devices.iter();
        all.any(|(name, it)| aside::stands_in(name, network) && is_on_one(it))
    };
    let named = devices.iter().filter(|(name, _)| {
        let leads = name.starts_with(DEVICES) && !steps_aside(network_of(name));
        leads || name.starts_with(ENDS[0])
    });
    let free = named.filter(|(_, it)| !is_on_one(it));
    free.map(|(_, it)| it.index).collect()
}

/// The numbers of such devices, but for those that another daemon is just making.
pub(super) async fn strays(handle: &Handle) -> Result<Vec<u32>, Error> {
    let mut found = stray(&devices(handle).await?);
    if !found.is_empty() {
        tokio::time::sleep(MAKING).await;
        let again = stray(&devices(handle).await?);
        found.retain(|it| again.contains(it));
    }
    Ok(found)
}

/// Whether nothing is on a bridge but what joins those of others to it: who it was made for is gone.
pub(super) fn is_empty(bridge: u32, devices: &Devices) -> bool {
    let mut on_it = devices.iter().filter(|(_, it)| it.bridge == Some(bridge));
    on_it.all(|(name, _)| is_end(name))
}

/// What the names of all devices of a network have in common, behind what says what they are.
fn network_of(device: &str) -> &str {
    device.get(COMMON..LONGEST - OWN).unwrap_or(device)
}

/// How `nft` calls the bridges that are one network, of all nodes that share this namespace.
pub(crate) fn siblings(bridge: &str) -> String {
    match common(bridge) {
        Some(common) => format!("{common}*"),
        None => bridge.to_owned(),
    }
}

/// Whether two bridges are one network.
pub(crate) fn is_sibling(bridge: &str, other: &str) -> bool {
    bridge == other || common(bridge).is_some_and(|it| common(other) == Some(it))
}

/// What the names of bridges have in common that are one network; nothing, if the name is not one
/// that says what tells it from others.
pub(crate) fn common(bridge: &str) -> Option<&str> {
    let common = bridge.get(..LONGEST - OWN);
    common.filter(|_| bridge.len() == LONGEST)
}

/// Whether a device is an end of what joins two bridges.
pub(crate) fn is_end(device: &str) -> bool {
    ENDS.iter().any(|end| device.starts_with(end))
}

fn ends(bridge: &str) -> [String; 2] {
    named_after(bridge, ENDS)
}

/// The names of a pair of devices that a bridge has for itself.
pub(super) fn named_after(bridge: &str, prefixes: [&str; 2]) -> [String; 2] {
    let own = bridge.get(COMMON..).unwrap_or(bridge);
    prefixes.map(|end| format!("{end}{own}"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OWN_BRIDGE: &str = "skep01234560103";
    const OTHER: &str = "skep01234560104";
    const DEVICE: &str = "skvx0123456789a";

    fn overlay() -> Overlay {
        Overlay {
            bridge: OWN_BRIDGE.into(),
            device: DEVICE.into(),
            vni: 4097,
            port: 4789,
            mtu: 1450,
            local: [192, 0, 2, 1].into(),
            gateway: Ipv4Addr::new(10, 0, 1, 3),
            sides: Vec::new(),
            branches: Vec::new(),
        }
    }

    /// Names, and the numbers of the bridges that they are on; numbered from 1.
    fn devices(all: &[(&str, u32)]) -> Devices {
        let numbered = all.iter().zip(1..);
        let all = numbered.map(|((name, bridge), index)| {
            let device = Device {
                index,
                bridge: (*bridge != 0).then_some(*bridge),
                carries: true,
            };
            ((*name).to_owned(), device)
        });
        all.collect()
    }

    #[test]
    fn a_network_stands_on_its_own_device_or_on_anothers() {
        let own = (OWN_BRIDGE, 0);
        let other = (OTHER, 0);
        let [end, far] = ends(OWN_BRIDGE);
        let joined = [(end.as_str(), 1), (far.as_str(), 2)];
        let cases: [(&[(&str, u32)], bool); 6] = [
            (&[own, (DEVICE, 1)], true),
            (&[own], false),
            (&[own, (DEVICE, 0)], false),
            (&[own, other, (DEVICE, 2)], false),
            (&[own, other, (DEVICE, 2), joined[0], joined[1]], true),
            (&[own, other, (DEVICE, 2), joined[0], (&far, 1)], false),
        ];
        for (there, stands_so) in cases {
            assert_eq!(stands(&overlay(), &devices(there)), stands_so, "{there:?}");
        }
        // Without its bridge it is the engine's to make first.
        assert!(stands(&overlay(), &devices(&[other])));
    }

    #[test]
    fn further_bridges_lead_to_the_device_too() {
        let branch = "skep0123456g003";
        let mut two = overlay();
        two.branches.push(branch.into());
        let [end, far] = ends(branch);
        let base = [(OWN_BRIDGE, 0), (branch, 0), (DEVICE, 1)];
        let with = |more: &[(&str, u32)]| devices(&[&base[..], more].concat());
        assert!(!stands(&two, &with(&[])));
        assert!(stands(&two, &with(&[(&end, 2), (&far, 1)])));
        assert!(!stands(&two, &with(&[(&end, 2), (&far, 2)])));
        assert!(!stands(&two, &with(&[(&end, 2)])));
        // The engine has not made it yet.
        assert!(stands(&two, &devices(&[(OWN_BRIDGE, 0), (DEVICE, 1)])));
        assert!(is_sibling(OWN_BRIDGE, branch));
    }

    #[test]
    fn a_device_that_nobody_serves_is_free() {
        let mut there = devices(&[(OWN_BRIDGE, 0), (OTHER, 0), (DEVICE, 2)]);
        let found = hub(&overlay(), &there).map(|hub| (hub.bridge, hub.device));
        assert_eq!(found, Some((2, 3)));
        there.get_mut(DEVICE).unwrap().carries = false;
        assert_eq!(hub(&overlay(), &there), None);
        assert!(!stands(&overlay(), &there));
    }

    #[test]
    fn what_others_have_stays() {
        let [end, _] = ends(OWN_BRIDGE);
        let others = ends(OTHER)[0].clone();
        let there = devices(&[(OTHER, 0), (DEVICE, 1), (&end, 0), (&others, 1)]);
        assert_eq!(left(DEVICE, &[], &there), [3]);
        assert_eq!(left(DEVICE, &[OWN_BRIDGE], &there), [3]);
        // Its bridge is gone, and no other has it.
        assert_eq!(left(DEVICE, &[], &devices(&[(DEVICE, 7)])), [1]);
        // The engine is about to remove the bridge.
        let there = devices(&[(OWN_BRIDGE, 0), (DEVICE, 1), (&end, 1)]);
        assert_eq!(left(DEVICE, &[], &there), Vec::<u32>::new());
        let mut all = left(DEVICE, &[OWN_BRIDGE], &there);
        all.sort_unstable();
        assert_eq!(all, [2, 3]);
    }

    #[test]
    fn what_is_on_no_bridge_is_nobodys() {
        let [end, far] = ends(OWN_BRIDGE);
        let used = [(OTHER, 0), (DEVICE, 1), ("vxlan0", 0), ("eth0", 0)];
        assert_eq!(stray(&devices(&used)), Vec::<u32>::new());
        let mut found = stray(&devices(&[(OTHER, 0), (DEVICE, 0), (&end, 0), (&far, 1)]));
        found.sort_unstable();
        assert_eq!(found, [2, 3]);
        assert_eq!(stray(&devices(&[(DEVICE, 7)])), [1]);
        // It is back in a moment, unless whoever had it step aside has died and the bridge is gone.
        let beside = OTHER.replacen("skep", "skea", 1);
        let aside = devices(&[(OTHER, 0), (DEVICE, 0), (&beside, 1)]);
        assert_eq!(stray(&aside), Vec::<u32>::new());
        assert_eq!(stray(&devices(&[(DEVICE, 0), (&beside, 7)])), [1]);
    }

    #[test]
    fn bridges_of_one_network_are_known_by_their_names() {
        assert!(is_sibling(OWN_BRIDGE, OTHER));
        assert!(!is_sibling(OWN_BRIDGE, "skep01234570104"));
        assert!(!is_sibling("skepin", "skepout") && is_sibling("skepin", "skepin"));
        assert_eq!(siblings(OWN_BRIDGE), "skep0123456*");
        assert_eq!(siblings("skepin"), "skepin");
    }
}
