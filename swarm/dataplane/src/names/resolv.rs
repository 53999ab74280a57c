//! Which resolvers a `resolv.conf` names: the host's, read again when it is another one, and those
//! of containers whose engine has no resolver of its own. Never trusts a container's files.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Where resolvers are named.
const FILE: &str = "/etc/resolv.conf";
/// As many are asked, as everywhere.
pub(crate) const MOST: usize = 3;
/// The most that is read.
const SIZE: u64 = 64 << 10;

/// The resolvers in the text of such a file.
pub(crate) fn parse(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        address.parse().ok()
    });
    named.take(MOST).collect()
}

/// The resolvers of the host.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Instead of those that the file names.
    given: Vec<IpAddr>,
    file: PathBuf,
    read: Mutex<Option<(Stamp, Vec<IpAddr>)>>,
}

/// What differs when a file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

impl Hosts {
    /// Those given or, if there are none, those of the host's file.
    pub(crate) fn new(given: &[IpAddr]) -> Self {
        Self {
            given: given.to_vec(),
            file: FILE.into(),
            read: Mutex::new(None),
        }
    }

    /// Those to ask now.
    pub(crate) fn list(&self) -> Vec<IpAddr> {
        if !self.given.is_empty() {
            return self.given.clone();
        }
        let Ok(stamp) = std::fs::metadata(&self.file).map(|it| Stamp::of(&it)) else {
            return Vec::new();
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, resolvers)) = &*read
            && *before == stamp
        {
            return resolvers.clone();
        }
        let resolvers = File::open(&self.file).and_then(parsed).unwrap_or_default();
        *read = Some((stamp, resolvers.clone()));
        resolvers
    }
}

/// Those that a container's own file names.
///
/// # Errors
/// When there is no such file that can be read.
pub(crate) fn of_container(pid: i32) -> io::Result<Vec<IpAddr>> {
    let root = File::open(format!("/proc/{pid}/root"))?;
    // Links lead nowhere outside of the container, and a pipe does not keep us waiting.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    parsed(openat2(&root, Path::new(FILE), how)?.into())
}

fn parsed(file: File) -> io::Result<Vec<IpAddr>> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(SIZE).read_to_end(&mut text)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_name_a_resolver_count() {
        let text = "# nameserver 192.0.2.9\nsearch a b\n nameserver\t192.0.2.1\nnameserver\n\
            nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameservers 192.0.2.8\n\
            nameserver 192.0.2.2 x\nnameserver 192.0.2.3\n";
        let expected = ["192.0.2.1", "2001:db8::1", "192.0.2.2"];
        assert_eq!(
            parse(text),
            expected.map(|it| it.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn a_host_whose_file_changes_asks_others() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = Hosts {
            file: dir.path().join("resolv.conf"),
            ..Hosts::new(&[])
        };
        assert!(hosts.list().is_empty());
        for address in ["192.0.2.1", "192.0.2.22"] {
            std::fs::write(&hosts.file, format!("nameserver {address}\n")).unwrap();
            assert_eq!(hosts.list(), [address.parse::<IpAddr>().unwrap()]);
        }
        let given = Hosts::new(&hosts.list());
        assert_eq!(given.list(), hosts.list());
    }

    #[test]
    fn ones_own_file_can_be_read_as_a_containers() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = std::fs::read_to_string(FILE).map(|text| parse(&text));
        assert_eq!(of_container(pid).ok(), own.ok());
        assert!(of_container(i32::MAX).is_err());
    }
}
