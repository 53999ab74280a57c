//! Work inside a container's network namespace: a thread of its own enters, does it, and ends.
//! Never moves a thread that anybody else works on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

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

/// What tells a namespace from all others, for as long as it is there.
pub(crate) fn identity(place: Place) -> Result<u64, Error> {
    let path = match place {
        Place::Host => "/proc/thread-self/ns/net".to_owned(),
        Place::Of(pid) => format!("/proc/{pid}/ns/net"),
    };
    Ok(std::fs::metadata(path).map_err(absence)?.ino())
}

/// Enters with the thread that calls, which must end soon after.
fn enter<T>(place: Place, work: impl FnOnce() -> io::Result<T>) -> Result<T, Error> {
    if let Place::Of(pid) = place {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(absence)?;
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
    async fn the_host_is_where_we_are() {
        let inode = || std::fs::read_link("/proc/thread-self/ns/net");
        let there = within(Place::Host, inode).await.unwrap();
        assert_eq!(there, inode().unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = |place| identity(place).unwrap();
        assert_eq!(identity(Place::Host), identity(Place::Of(own)));
    }
}
