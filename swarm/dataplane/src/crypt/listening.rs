//! The tasks that take what comes in for a host's encrypted networks, and the moment at which one of
//! several daemons that share a host takes the port over from one that is gone. Loses no packet over
//! that.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::task::JoinHandle;

use super::inlet::Inlet;
use super::{Shared, pump};

/// An inlet that is read, for as long as there is this.
pub(super) struct Listening {
    inlet: Arc<Inlet>,
    task: JoinHandle<()>,
    /// The one before. What came in by it is taken too; what comes by both counts once.
    before: Option<Box<Self>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listening {
    /// Reads what is sent to this address.
    pub(super) fn begin(shared: &Weak<Shared>, at: SocketAddr) -> io::Result<Self> {
        Ok(Self::reading(shared, Inlet::open(at)?))
    }

    fn reading(shared: &Weak<Shared>, inlet: Inlet) -> Self {
        let inlet = Arc::new(inlet);
        let task = tokio::spawn(pump::inward(shared.clone(), inlet.clone()));
        Self {
            inlet,
            task,
            before: None,
        }
    }

    /// Where others send to.
    pub(super) fn at(&self) -> SocketAddr {
        self.inlet.at()
    }

    /// Takes packets of these networks, and no others.
    pub(super) fn admit(&self, networks: &[u32]) {
        self.inlet.admit(networks);
    }

    /// Takes the port over if it is another daemon's no longer. To be asked now and then.
    pub(super) fn take_over(&mut self, shared: &Weak<Shared>, networks: &[u32]) {
        if self.inlet.is_own() {
            self.before = None;
        } else if let Ok(inlet) = Inlet::own(self.at()) {
            inlet.admit(networks);
            let before = std::mem::replace(self, Self::reading(shared, inlet));
            self.before = Some(Box::new(before));
        }
    }
}
