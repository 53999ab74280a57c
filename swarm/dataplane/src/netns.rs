//! Work inside a container's network namespace: a thread of its own enters, does it, and ends.
//! Never moves a thread that anybody else works on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

/// The namespace of the thread that asks.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why something was not done in a namespace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such process any more, and so nobody who misses anything.
    #[error("the container's process is gone")]
    Gone,
    /// It did not work.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Our own: the host's.
    Host,
    /// That of a process.
    Of(i32),
    /// One that was seen before.
    Same(Home),
}

/// The namespace of a process as it was seen: whoever gets the process's number next has another.
/// Means something only while somebody keeps that namespace alive, say with a socket in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Home {
    pub(crate) pid: i32,
    identity: u64,
}

impl Home {
    /// That of a process as it is now.
    pub(crate) fn of(pid: i32) -> Result<Self, Error> {
        let identity = identity(Place::Of(pid))?;
        Ok(Self { pid, identity })
    }

    /// Whether it is the host's.
    pub(crate) fn is_host(self) -> Result<bool, Error> {
        Ok(self.identity == identity(Place::Host)?)
    }

    /// Whether the process is still there, and in it.
    pub(crate) fn is_there(self) -> bool {
        identity(Place::Same(self)).is_ok()
    }
}

/// Does something in a namespace and waits for it. What it opens or starts belongs there for good.
pub(crate) async fn within<T: Send + 'static>(
    place: Place,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let (done, result) = oneshot::channel();
    let name = "skep-netns".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        // Nobody listens any more if the data plane was stopped meanwhile.
        let _ = done.send(enter(place, work));
    })?;
    result
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace failed").into()))
}

/// The same for a thread that may wait.
pub(crate) fn inside<T: Send + 'static>(
    place: Place,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    if place == Place::Host {
        return Ok(work()?);
    }
    let thread = std::thread::Builder::new().name("skep-netns".to_owned());
    let result = thread.spawn(move || enter(place, work))?.join();
    result.unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace failed").into()))
}

/// Work on the host that waits for the kernel or for a program.
pub(crate) async fn on_host<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = within(Place::Host, work).await;
    done.map_err(|error| error.to_string())
}

/// What tells a namespace from all others, for as long as it is there.
pub(crate) fn identity(place: Place) -> Result<u64, Error> {
    let inode = match place {
        Place::Host => std::fs::metadata(OWN)?.ino(),
        Place::Of(pid) | Place::Same(Home { pid, .. }) => {
            std::fs::metadata(path(pid)).map_err(absence)?.ino()
        }
    };
    match place {
        Place::Same(home) if home.identity != inode => Err(Error::Gone),
        _ => Ok(inode),
    }
}

/// The way to the namespace of a process.
fn path(pid: i32) -> String {
    format!("/proc/{pid}/ns/net")
}

/// Enters with the thread that calls, which must end soon after.
fn enter<T>(place: Place, work: impl FnOnce() -> io::Result<T>) -> Result<T, Error> {
    if let Place::Of(pid) | Place::Same(Home { pid, .. }) = place {
        let namespace = File::open(path(pid)).map_err(absence)?;
        if let Place::Same(home) = place
            && namespace.metadata()?.ino() != home.identity
        {
            return Err(Error::Gone);
        }
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
    }
    Ok(work()?)
}

/// `/proc` has no such process, or one that is only waited for.
fn absence(error: io::Error) -> Error {
    let gone = [nix::libc::ENOENT, nix::libc::ESRCH];
    match error.raw_os_error() {
        Some(code) if gone.contains(&code) => Error::Gone,
        _ => Error::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_is_gone_is_no_failure() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let result = within(Place::Of(pid), || Ok(())).await;
        assert!(matches!(result, Err(Error::Gone)), "{result:?}");
    }

    #[tokio::test]
    async fn a_number_that_is_used_again_is_somebody_else() {
        let own = i32::try_from(std::process::id()).unwrap();
        let here = Home::of(own).unwrap();
        assert!(here.is_there());
        assert!(within(Place::Same(here), || Ok(())).await.is_ok());
        let other = Home {
            identity: here.identity + 1,
            ..here
        };
        assert!(!other.is_there());
        let entered = within(Place::Same(other), || Ok(())).await;
        assert!(matches!(entered, Err(Error::Gone)), "{entered:?}");
    }

    #[tokio::test]
    async fn the_host_is_where_we_are() {
        let inode = || std::fs::read_link("/proc/thread-self/ns/net");
        let there = within(Place::Host, inode).await.unwrap();
        assert_eq!(there, inode().unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = |place| identity(place).unwrap();
        assert_eq!(identity(Place::Host), identity(Place::Of(own)));
    }
}
