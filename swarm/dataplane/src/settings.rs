//! What the kernel must be told of a network's bridge that is no address, no port and no entry.
//! Never asks whether it still holds.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::{Error, Overlay};

/// The kernel's settings of devices, by kind of addresses.
pub(crate) const IPV4: &str = "/proc/sys/net/ipv4/conf";
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// Where nodes share a host, what one of their bridges sends may be answered over another: a way is
/// right if there is any such way.
pub(crate) const LOOSE: (&str, &str) = ("rp_filter", "2");
/// What makes an address of the bridge its own at once: nobody else can have it, so nobody is asked,
/// and there is no waiting by chance before that either.
const AT_ONCE: [(&str, &str); 2] = [("accept_dad", "0"), ("router_solicitation_delay", "0")];

/// Sets it all, where the kernel has it. To be called before anything is on the bridge: until then
/// it is not up, and its IPv6 addresses wait.
pub(crate) fn set(overlay: &Overlay) -> Result<(), Error> {
    let ipv6 = AT_ONCE.iter().filter(|_| !overlay.sides.is_empty());
    let all = ipv6.map(|it| (IPV6, it)).chain([(IPV4, &LOOSE)]);
    for (kind, (name, value)) in all {
        write(
            &[kind, &overlay.bridge, name].iter().collect::<PathBuf>(),
            value,
        )?;
    }
    Ok(())
}

/// The names of all devices.
pub(crate) fn devices() -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(IPV4)? {
        // No other device has a name that is no text.
        all.extend(entry?.file_name().into_string().ok());
    }
    Ok(all)
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    match fs::write(path, value) {
        // A kernel without IPv6, or a bridge that goes.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| Error::Refused {
            what: format!("write {value} to {}", path.display()),
            why: error.to_string(),
        }),
    }
}
