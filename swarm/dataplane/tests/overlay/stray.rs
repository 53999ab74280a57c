//! Devices that somebody left behind: a node that leaves takes along all that no other node of its
//! host uses, whatever its engine and its daemon still know, and one that is in the way of a new
//! network goes if it is ours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use skep_dataplane::crypt::Key;
use skep_dataplane::{Overlay, Overlays, ensure};

use super::{alone, run};
use crate::joined::{a_key, ran};

const OWN: &str = "skep01234560103";
const OTHER: &str = "skep01234560104";
const DEVICE: &str = "skvx0123456789a";

/// A node's part in a network.
fn part(bridge: &str, last: u8) -> Overlay {
    Overlay {
        bridge: bridge.into(),
        device: DEVICE.into(),
        vni: 4097,
        port: 4789,
        mtu: 1450,
        local: "192.0.2.1".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 1, last),
        sides: Vec::new(),
        branches: Vec::new(),
    }
}

/// Makes it so, on a bridge that is made for that.
async fn begin(overlays: &Overlays, overlay: &Overlay, keys: &[Key]) {
    let bridge = &overlay.bridge;
    run(&format!(
        "ip link add {bridge} type bridge && ip link set {bridge} up"
    ));
    let nowhere = BTreeMap::new();
    let made = overlays.ensure(overlay, keys.to_vec(), &nowhere);
    made.await.unwrap();
}

/// Devices of ours.
fn ours() -> String {
    run("ip -br link show | grep ^sk || true")
}

/// The device that is on a bridge, and leads to other hosts.
fn leads_from(bridge: &str) -> bool {
    run(&format!("ip -br link show master {bridge}")).contains("skvx")
}

async fn leaves_nothing(keys: &[Key]) {
    // The engine has removed its part, and the daemon was stopped right then; or it is still at it.
    for removed in [true, false] {
        let overlays = Overlays::default();
        begin(&overlays, &part(OWN, 3), keys).await;
        if removed {
            run(&format!("ip link del {OWN}"));
        }
        overlays.clear().await.unwrap();
        assert_eq!(ours(), "", "{removed}");
        overlays.clear().await.unwrap();
    }
    // A daemon that knows nothing of it, nor does its engine.
    let before = Overlays::default();
    begin(&before, &part(OWN, 3), keys).await;
    drop(before);
    run(&format!("ip link del {OWN}"));
    Overlays::default().clear().await.unwrap();
    assert_eq!(ours(), "");
    // Asked for a network that the engine has not quite removed yet.
    let overlays = Overlays::default();
    begin(&overlays, &part(OWN, 3), keys).await;
    overlays.remove(DEVICE).await.unwrap();
    assert_eq!(ours().lines().count(), 1, "{}", ours());
    run(&format!("ip link del {OWN}"));
}

/// What another node of the host has stays, whoever of the two has the device.
async fn takes_nothing_of_others(keys: &[Key]) {
    for own_first in [true, false] {
        let (own, other) = (Overlays::default(), Overlays::default());
        let mut both = [(&own, part(OWN, 3)), (&other, part(OTHER, 4))];
        if !own_first {
            both.reverse();
        }
        for (overlays, part) in &both {
            begin(overlays, part, keys).await;
        }
        assert_eq!(leads_from(OWN), own_first);
        own.clear().await.unwrap();
        // It comes to who is left within a second.
        let mut looks = 0;
        while !leads_from(OTHER) {
            looks += 1;
            assert!(own_first && looks < 100, "{}", ours());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(ours().lines().count(), 2, "{}", ours());
        other.clear().await.unwrap();
        assert_eq!(ours(), "");
    }
}

#[test]
fn a_node_that_leaves_leaves_nothing() {
    ran(alone(leaves_nothing(&[])));
}

#[test]
fn so_it_does_if_it_is_encrypted() {
    let keys = [a_key()];
    ran(alone(leaves_nothing(&keys)));
}

#[test]
fn what_other_nodes_have_stays() {
    ran(alone(takes_nothing_of_others(&[])));
}

#[test]
fn so_it_does_if_that_is_encrypted() {
    let keys = [a_key()];
    ran(alone(takes_nothing_of_others(&keys)));
}

#[test]
fn what_is_in_the_way_goes_if_nobody_uses_it() {
    ran(alone(async {
        run(&format!(
            "ip link add {OWN} type bridge && ip link set {OWN} up
            ip link add skvxold type vxlan id 4097 dstport 4789 && ip link set skvxold up"
        ));
        let own = part(OWN, 3);
        ensure(&own, &BTreeMap::new()).await.unwrap();
        assert!(leads_from(OWN) && !ours().contains("skvxold"), "{}", ours());

        // Another network's, and somebody else's.
        run(&format!(
            "ip link del {DEVICE} && ip link add {OTHER} type bridge
            ip link add skvxold master {OTHER} type vxlan id 4097 dstport 4789"
        ));
        for (name, next) in [("skvxold", "wire"), ("wire", "none")] {
            let error = ensure(&own, &BTreeMap::new()).await.unwrap_err();
            let expected = format!(
                "cannot make a VXLAN device with id 4097 on port 4789, which device {name} has: \
                 File exists (os error 17)"
            );
            assert_eq!(error.to_string(), expected);
            run(&format!("ip link set {name} name {next} nomaster"));
        }
    }));
}
