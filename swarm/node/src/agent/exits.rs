//! The processes of containers that the data plane knows: the kernel says when one ends, also while
//! the engine is away. Decides nothing, and asks nobody how it ended.

use std::collections::HashMap;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use skep_core::Id;
use skep_core::plane::Change;
use skep_core::worker::Input;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::debug;

/// Ends that wait for the agent.
const QUEUE: usize = 64;

/// Who is watched.
#[derive(Debug)]
pub(super) struct Exits {
    watched: HashMap<Id, Watched>,
    told: mpsc::Sender<Input>,
    ended: mpsc::Receiver<Input>,
}

#[derive(Debug)]
struct Watched {
    pid: i64,
    watching: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Default for Exits {
    fn default() -> Self {
        let (told, ended) = mpsc::channel(QUEUE);
        Self {
            watched: HashMap::new(),
            told,
            ended,
        }
    }
}

impl Exits {
    /// Watches the containers that the plane is told of, and no longer those that are gone.
    pub(super) fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Container(container) if container.pid > 0 => {
                    self.watch(&container.id, container.pid);
                }
                Change::Container(container) => drop(self.watched.remove(&container.id)),
                Change::ContainerGone(id) => drop(self.watched.remove(id)),
                _ => {}
            }
        }
    }

    /// Waits for the next that ends.
    pub(super) async fn next(&mut self) -> Option<Input> {
        self.ended.recv().await
    }

    fn watch(&mut self, task: &Id, pid: i64) {
        if self.watched.get(task).is_some_and(|it| it.pid == pid) {
            return;
        }
        let (told, of) = (self.told.clone(), task.clone());
        let watching = tokio::spawn(async move {
            match end(pid).await {
                Ok(()) => drop(told.send(Input::Exited { task: of, pid }).await),
                // The engine tells as well, as long as it is there.
                Err(error) => debug!(%error, pid, "cannot see when a container ends"),
            }
        });
        let watching = watching.abort_handle();
        self.watched.insert(task.clone(), Watched { pid, watching });
    }
}

/// Waits until a process has ended. One that is not there has.
async fn end(pid: i64) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Err(Errno::SRCH) => return Ok(()),
        process => process?,
    };
    #[expect(
        deprecated,
        reason = "an owned descriptor stays the same one while it is watched"
    )]
    let process = AsyncFd::with_interest(process, Interest::READABLE)?;
    process.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::{Child, Command};

    use skep_core::plane::Container;

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn container(task: &str, pid: i64) -> Change {
        Change::Container(Container {
            id: task.into(),
            container: String::new(),
            pid,
            starting: pid == 0,
            addresses: BTreeMap::new(),
            resolvers: Vec::new(),
        })
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_once() {
        let (mut one, mut other) = (sleeper(), sleeper());
        let pid = i64::from(one.id());
        let mut exits = Exits::default();
        exits.follow(&[container("a", pid), container("b", i64::from(other.id()))]);
        exits.follow(&[container("a", pid), container("starts", 0)]);
        exits.follow(&[Change::ContainerGone("b".into())]);
        for child in [&mut other, &mut one] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let task = Id::from("a");
        assert_eq!(exits.next().await, Some(Input::Exited { task, pid }));
        assert!(exits.ended.try_recv().is_err());
        // One that has ended before.
        exits.follow(&[container("c", pid)]);
        let task = Id::from("c");
        assert_eq!(exits.next().await, Some(Input::Exited { task, pid }));
    }
}
