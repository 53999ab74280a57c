//! What the kernel must allow on the bridge that ports are published on.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Names and values. Packets of clients come from other hosts whose addresses the bridge does not
/// lead to; connections of this host to itself begin at 127.0.0.1 (what else could come in by that
/// is dropped by a rule); and no host is told of a shorter way.
const WANTED: [(&str, &str); 3] = [
    ("rp_filter", "2"),
    ("route_localnet", "1"),
    ("send_redirects", "0"),
];

fn path(bridge: &str, name: &str) -> PathBuf {
    ["/proc/sys/net/ipv4/conf", bridge, name].iter().collect()
}

/// Sets what is not set.
pub(super) fn set(bridge: &str) -> io::Result<()> {
    for (name, value) in WANTED {
        write(bridge, name, value)?;
    }
    Ok(())
}

/// Whether all is set.
pub(super) fn are_set(bridge: &str) -> bool {
    let is_set = |(name, value): &(&str, &str)| {
        fs::read_to_string(path(bridge, name)).is_ok_and(|it| it.trim() == *value)
    };
    WANTED.iter().all(is_set)
}

/// Sets everything to what new devices have, if the bridge is still there.
pub(super) fn reset(bridge: &str) -> io::Result<()> {
    for (name, _) in WANTED {
        let usual = fs::read_to_string(path("default", name))?;
        match write(bridge, name, usual.trim()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
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
