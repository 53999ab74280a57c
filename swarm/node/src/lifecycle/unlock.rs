//! `swarm unlock`, and what keeps a manager's keys wrapped with the swarm's present unlock key.
//! Never decides what that key is, and never lets it go back to an older one.

use std::time::Duration;

use skep_api::{Error, Secret};
use tokio::time::timeout;
use tracing::{info, warn};

use super::to_the_end;
use crate::disk::{DataDir, UnlockError};
use crate::manager::Manager;
use crate::node::{Node, Phase};
use crate::texts;

/// How long `unlock` waits for the manager to be back; it comes back without that, too, and while
/// most managers are locked it cannot.
const READY: Duration = Duration::from_secs(5);
/// Pauses before the keys are wrapped again after a failure: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Node {
    /// `docker swarm unlock`: opens the keys of a locked manager and resumes its membership.
    ///
    /// # Errors
    /// dockerd's texts: not locked, a key that is malformed or does not fit, in no swarm, a worker.
    pub async fn unlock(&self, key: Secret) -> Result<(), Error> {
        let node = self.clone();
        to_the_end(async move { node.unlock_now(&key).await }).await
    }

    async fn unlock_now(&self, key: &Secret) -> Result<(), Error> {
        let moving = self.0.moving.lock().await;
        if !self.is_locked() {
            self.manager()?;
            return Err(texts::not_locked());
        }
        self.0.disk.unlock(key).map_err(|error| match error {
            UnlockError::Malformed => Error::invalid(error.to_string()),
            UnlockError::Wrong => texts::wrong_key(),
            UnlockError::Disk(error) => texts::not_started(&error.to_string()),
        })?;
        info!("the keys are unlocked");
        self.resume().await;
        let phase = self.0.phase.borrow().clone();
        drop(moving);
        match phase {
            // What was asked for is done; what a backup needs next is in the status.
            Phase::Broken(_) if self.is_restored() => Ok(()),
            Phase::Broken(why) => Err(texts::not_started(&why)),
            Phase::Member(membership) => {
                let _ = timeout(READY, membership.wait_joined()).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether what is on the disk came out of a backup and may only be forced.
    fn is_restored(&self) -> bool {
        let state = self.0.disk.load().ok().flatten();
        state.is_some_and(|state| state.restored)
    }

    fn is_locked(&self) -> bool {
        matches!(&*self.0.phase.borrow(), Phase::Locked)
    }
}

/// Wraps the keys anew whenever the swarm's unlock key changes, as long as the manager runs.
pub(crate) async fn follow_unlock_key(manager: &Manager, disk: &DataDir) {
    let mut steps = manager.raft.subscribe();
    let mut settled = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let known = key_in_state(manager);
        if known.is_some() && known != settled {
            match wrap_with_newest(manager, disk).await {
                Ok(key) => {
                    settled = Some(key);
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    warn!(error, "the keys are not yet wrapped as the swarm wants it");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            continue;
        }
        // After a lag the state is looked at again, which is all that a step would bring about.
        if let Err(tokio::sync::broadcast::error::RecvError::Closed) = steps.recv().await {
            return;
        }
    }
}

/// Wraps the keys as the swarm wants it now. A manager that has just started replays a log in which
/// older keys occur, or none: it asks the others first.
pub(crate) async fn wrap_with_newest(
    manager: &Manager,
    disk: &DataDir,
) -> Result<Option<Secret>, String> {
    let read = manager.raft.read_barrier().await;
    read.map_err(|error| error.to_string())?;
    let key = key_in_state(manager).ok_or("there is no cluster in the state")?;
    let (disk, wanted) = (disk.clone(), key.clone());
    let wrapped = tokio::task::spawn_blocking(move || disk.lock_with(wanted.as_ref())).await;
    let wrapped = wrapped.map_err(|error| error.to_string())?;
    if wrapped.map_err(|error| error.to_string())? {
        info!(autolock = key.is_some(), "wrapped the keys anew");
    }
    Ok(key)
}

/// The unlock key as applied here; `None` before there is a cluster at all.
fn key_in_state(manager: &Manager) -> Option<Option<Secret>> {
    let state = manager.raft.state();
    state.cluster().map(|cluster| cluster.unlock_key.clone())
}
