//! A network's device beside its bridge, and back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use skep_dataplane::Overlays;

use crate::{alone, overlay, run};

/// The devices on the bridge, and what it knows of those behind them.
fn on_bridge() -> (Vec<String>, Vec<String>) {
    let lines = |command: &str| run(command).lines().map(str::to_owned).collect::<Vec<_>>();
    let ports = lines("ip -o link show master skepnet | awk '{print $2}'");
    let mut known = lines("bridge fdb show dev skvxnet | grep 02:42:0a:00:01:05");
    known.sort();
    (ports, known)
}

#[test]
fn a_device_is_off_its_bridge_only_for_a_moment() {
    let tested = alone(async {
        run("ip link set lo up && ip addr add 192.0.2.1/32 dev lo");
        run("ip link add skepnet type bridge && ip link set skepnet up");
        let overlays = Overlays::default();
        let remotes = BTreeMap::from([(Ipv4Addr::new(10, 0, 1, 5), [192, 0, 2, 2].into())]);
        overlays
            .ensure(&overlay(), Vec::new(), &remotes)
            .await
            .unwrap();
        let before = on_bridge();
        assert_eq!(before.0, ["skvxnet:"]);
        assert_eq!(before.1.len(), 2, "{before:?}");
        let meanwhile = overlays.aside("skvxnet", async { on_bridge().0 }).await;
        // It never is without any.
        assert_eq!(meanwhile.unwrap(), ["skeanet@skebnet:"]);
        assert_eq!(on_bridge(), before);
        let other = overlays.aside("skvxother", async { on_bridge() }).await;
        assert_eq!(other.unwrap(), before);
        assert!(!run("ip -o link").contains("skeb"));
    });
    if tested.is_none() {
        eprintln!("not tested: this needs root");
    }
}
