//! Network namespaces, each held by a thread: it is gone when the thread and all that were started
//! in it are.

use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Work = Box<dyn FnOnce() + Send>;

/// A namespace.
pub struct Namespace {
    /// The thread that holds it; to a data plane, a container's first process.
    pub pid: i32,
    path: String,
    work: mpsc::Sender<Work>,
}

impl Namespace {
    /// `None` where that is not allowed.
    pub fn new() -> Option<Self> {
        let (work, inbox) = mpsc::channel::<Work>();
        let (made, answer) = mpsc::channel();
        std::thread::spawn(move || {
            let done = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            made.send(done).unwrap();
            inbox.into_iter().for_each(|work| work());
        });
        let tid = answer.recv().unwrap().ok()?;
        let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id());
        let pid = tid.as_raw();
        let made = Self { pid, path, work };
        made.sh("ip link set lo up");
        Some(made)
    }

    /// Starts work on a thread of its own in here.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let (begun, handle) = mpsc::channel();
        let start = move || begun.send(std::thread::spawn(work)).unwrap();
        self.work.send(Box::new(start)).unwrap();
        handle.recv().unwrap()
    }

    /// Does work in here.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(work).join().unwrap()
    }

    /// What a program says that may fail, and whether it does not.
    pub fn attempt(&self, script: &str) -> (bool, String) {
        let script = script.to_owned();
        self.within(move || {
            let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            (
                output.status.success(),
                String::from_utf8_lossy(&said).into_owned(),
            )
        })
    }

    /// What programs say that must not fail.
    pub fn sh(&self, script: &str) -> String {
        let (done, said) = self.attempt(script);
        assert!(done, "{script}: {said}");
        said
    }

    /// A cable to another one. Both ends are up.
    pub fn link(&self, name: &str, other: &Self, there: &str) {
        let path = &other.path;
        self.sh(&format!(
            "ip link add {name} type veth peer name {there} netns {path}
            ip link set {name} up"
        ));
        other.sh(&format!("ip link set {there} up"));
    }
}

/// Runs to the end on this thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

/// Waits until something is so; what is looked at then is the answer.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if begun.elapsed() > Duration::from_secs(15) => panic!("{what}: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
