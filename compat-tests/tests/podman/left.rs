//! A host with podman leaves its swarm. Containers of one's own that run go on without its networks and
//! start again; others do not start before they are disconnected, as in the original.

use anyhow::{Result, ensure};
use compat_tests::swarm::*;
use fleet::{Fleet, Host};

use super::plain::{make, run, shown};

const NAMES: [&str; 3] = ["running", "stopped", "made"];

pub fn containers_stay(fleet: &Fleet) -> Result<()> {
    let n2 = fleet.host("n2")?;
    for name in ["running", "stopped"] {
        run(&n2, name, &["--network", "back"])?;
    }
    n2.docker(&["stop", "stopped"])?;
    make(&n2, "made", "back", &["sleep", "100000"])?;
    n2.docker(&["swarm", "leave"])?;
    on_nothing(&n2, "running")?;
    n2.docker(&["stop", "running"])?;
    n2.docker(&["start", "running"])?;
    on_nothing(&n2, "running")?;
    for name in ["stopped", "made"] {
        let refused = refusal(&n2, &["start", name])?;
        ensure!(
            refused.contains("network back not found"),
            "{name}: {refused}"
        );
        n2.docker(&["network", "disconnect", "back", name])?;
        n2.docker(&["start", name])?;
        on_nothing(&n2, name)?;
    }
    n2.docker(&[&["rm", "--force"], &NAMES[..]].concat())
        .map(drop)
}

fn on_nothing(host: &Host, container: &str) -> Result<()> {
    let (networks, mode) = shown(host, container)?;
    ensure!(networks == serde_json::json!({}), "{container}: {networks}");
    ensure!(mode == "back", "{container}: {mode}");
    let devices = host.docker(&["exec", container, "ip", "-o", "link"])?;
    ensure!(!devices.contains("eth"), "{container}: {devices}");
    Ok(())
}
