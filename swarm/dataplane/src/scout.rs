//! Finds the first process of containers that are about to start, while it still waits for its
//! turn: the engine says which one it is only when it runs. What is known beforehand is the
//! container's id, and that is in the name of its control group, whatever the engine. Looks at
//! processes; never at what they do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::error;

use crate::model::{Change, Container};

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// The pause once nothing was found for [`LONG`].
const LONG_PAUSE: Duration = Duration::from_millis(50);
/// Longer than engines take to start a container, as a rule.
const LONG: Duration = Duration::from_secs(15);
/// A look is followed by a pause of this many times its length, so that a host with very many
/// processes does not spend a processor on them.
const SHARE: u32 = 10;
/// Looks at a process that was there when the first of them was taken, and at one that came later:
/// it gets its control group and its namespaces only after it was born.
const LOOKS: (u32, u32) = (2, 1000);
/// The most that is read of a file.
const SIZE: u64 = 16 << 10;
/// Processes that were found and not yet told of.
const QUEUE: usize = 256;

/// Containers to find: by task, what the engine calls them.
type Wanted = BTreeMap<String, String>;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Scout {
    /// Told of as about to start, and not found yet.
    awaited: BTreeMap<String, Container>,
    orders: Sender<Wanted>,
    found: mpsc::Receiver<(String, i32)>,
}

impl Scout {
    /// Starts it, with nothing to look for. Its thread ends with it.
    pub(crate) fn start() -> Self {
        let (orders, inbox) = channel();
        let (finds, found) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("skep-scout".to_owned());
        if let Err(error) =
            thread.spawn(move || scout(Eye::new(Path::new("/proc")), &inbox, &finds))
        {
            error!(%error, "containers are only found once they run");
        }
        Self {
            awaited: BTreeMap::new(),
            orders,
            found,
        }
    }

    /// Takes in which containers are about to start.
    pub(crate) fn follow(&mut self, changes: &[Change]) {
        let mut is_new = false;
        for change in changes {
            match change {
                Change::Container(it) if it.starting && it.pid == 0 => {
                    self.awaited.insert(it.id.clone(), it.clone());
                    is_new = true;
                }
                Change::Container(Container { id, .. }) | Change::ContainerGone(id) => {
                    is_new |= self.awaited.remove(id).is_some();
                }
                _ => {}
            }
        }
        if is_new {
            let wanted = self.awaited.iter();
            let wanted = wanted.map(|(id, it)| (id.clone(), it.container.clone()));
            // If there is no thread, nothing is ever found.
            let _ = self.orders.send(wanted.collect());
        }
    }

    /// The next container that was found, as it is known now.
    pub(crate) async fn next(&mut self) -> Change {
        loop {
            let Some((id, pid)) = self.found.recv().await else {
                return std::future::pending().await;
            };
            // Meanwhile it may have been found otherwise, or been given up.
            if let Some(container) = self.awaited.remove(&id) {
                return Change::Container(Container { pid, ..container });
            }
        }
    }
}

/// Looks until nobody wants anything any more.
fn scout(mut eye: Eye, inbox: &Receiver<Wanted>, finds: &mpsc::Sender<(String, i32)>) {
    let mut wanted = Wanted::new();
    let mut since = Instant::now();
    let mut pause = Duration::ZERO;
    loop {
        let order = if wanted.is_empty() {
            eye.forget();
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(pause)
        };
        match order {
            Ok(order) => {
                wanted = inbox.try_iter().last().unwrap_or(order);
                since = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let begin = Instant::now();
        for (id, pid) in eye.look(&wanted) {
            wanted.remove(&id);
            if finds.blocking_send((id, pid)).is_err() {
                return;
            }
        }
        let least = if since.elapsed() > LONG {
            LONG_PAUSE
        } else {
            PAUSE
        };
        pause = least.max(begin.elapsed() * SHARE);
    }
}

/// Looks at processes, at each only for as long as it can become a container's first.
struct Eye {
    proc: PathBuf,
    /// The host's namespace.
    host: Option<u64>,
    /// Processes that were seen, and how often each is still to be looked at.
    seen: BTreeMap<i32, u32>,
    is_first: bool,
}

impl Eye {
    fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            host: namespace(&proc.join("thread-self")),
            seen: BTreeMap::new(),
            is_first: true,
        }
    }

    /// Nothing is to be found for now.
    fn forget(&mut self) {
        self.seen.clear();
        self.is_first = true;
    }

    /// Which of the wanted are there, with their first processes.
    fn look(&mut self, wanted: &Wanted) -> Vec<(String, i32)> {
        let mut found = Vec::new();
        if wanted.is_empty() {
            return found;
        }
        let looks = if self.is_first { LOOKS.0 } else { LOOKS.1 };
        self.is_first = false;
        let before = std::mem::take(&mut self.seen);
        for pid in self.processes() {
            let left = before.get(&pid).copied().unwrap_or(looks);
            self.seen.insert(pid, left.saturating_sub(1));
            if left > 0
                && let Some(id) = self.whose(pid, wanted)
            {
                found.push((id, pid));
            }
        }
        found
    }

    fn processes(&self) -> Vec<i32> {
        let all = std::fs::read_dir(&self.proc).into_iter().flatten();
        all.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// The task whose container's first process this is: in its control group, the first one of
    /// its processes, and not in the host's network any more.
    fn whose(&self, pid: i32, wanted: &Wanted) -> Option<String> {
        let process = self.proc.join(pid.to_string());
        let groups = read(&process.join("cgroup"))?;
        let mut all = wanted.iter();
        let (id, _) = all.find(|(_, it)| !it.is_empty() && groups.contains(it.as_str()))?;
        let is_first = is_first(&read(&process.join("status"))?);
        let has_left = namespace(&process)? != self.host?;
        (is_first && has_left).then(|| id.clone())
    }
}

/// Whether a process is the first one in a process namespace below ours, by its `status`.
fn is_first(status: &str) -> bool {
    let line = status.lines().find_map(|it| it.strip_prefix("NSpid:"));
    let numbers = line.unwrap_or_default().split_ascii_whitespace();
    numbers.skip(1).last() == Some("1")
}

/// The network namespace of a process.
fn namespace(process: &Path) -> Option<u64> {
    let found = std::fs::metadata(process.join("ns/net"));
    found.ok().map(|it| it.ino())
}

fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(file).ok()?;
    file.take(SIZE).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests;
