//! What the kernel must allow on the bridge that ports are published on, and on those of other nodes
//! in the same namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::join::is_sibling;
use crate::settings::{self, IPV4, LOOSE};

/// Names and values. Packets of clients come from other hosts whose addresses the bridge does not
/// lead to; connections of this host to itself begin at 127.0.0.1 (what else could come in by that
/// is dropped by a rule); and no host is told of a shorter way.
const WANTED: [(&str, &str); 3] = [LOOSE, ("route_localnet", "1"), ("send_redirects", "0")];

fn path(bridge: &str, name: &str) -> PathBuf {
    [IPV4, bridge, name].iter().collect()
}

/// The bridge, and those of other nodes.
fn bridges(bridge: &str) -> io::Result<Vec<String>> {
    let mut all = settings::devices()?;
    all.retain(|it| is_sibling(bridge, it));
    Ok(all)
}

/// Sets what is not set.
pub(super) fn set(bridge: &str) -> io::Result<()> {
    let all = bridges(bridge)?;
    if !all.iter().any(|it| it == bridge) {
        let why = format!("there is no network device {bridge}");
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    for (bridge, (name, value)) in each(&all) {
        match write(bridge, name, value) {
            // Another node's may go at any time, and one's own is missed elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Whether all is set.
pub(super) fn are_set(bridge: &str) -> bool {
    let is_set = |(bridge, (name, value)): (&str, (&str, &str))| {
        fs::read_to_string(path(bridge, name)).is_ok_and(|it| it.trim() == value)
    };
    let all = bridges(bridge).unwrap_or_default();
    !all.is_empty() && each(&all).all(is_set)
}

fn each(bridges: &[String]) -> impl Iterator<Item = (&str, (&'static str, &'static str))> {
    let all = bridges.iter();
    all.flat_map(|bridge| WANTED.map(|wanted| (bridge.as_str(), wanted)))
}

/// Sets everything to what new devices have, if the bridge is still there, but for what every network
/// has.
pub(super) fn reset(bridge: &str) -> io::Result<()> {
    for (bridge, (name, _)) in each(&bridges(bridge)?).filter(|(_, it)| *it != LOOSE) {
        let usual = fs::read_to_string(path("default", name))?;
        match write(bridge, name, usual.trim()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

fn write(bridge: &str, name: &str, value: &str) -> io::Result<()> {
    let path = path(bridge, name);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    let failed = |error: io::Error| {
        let why = format!("cannot write {value} to {}: {error}", path.display());
        io::Error::new(error.kind(), why)
    };
    fs::write(&path, value).map_err(failed)
}
